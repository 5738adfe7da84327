"""Foreign formats, one file each: problem tables, tuned files of serving stacks, measured tables."""
