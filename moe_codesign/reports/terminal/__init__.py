"""Reports for a terminal, one file for each command."""
