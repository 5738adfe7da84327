"""Results in SQL databases."""

DEFAULT_STORAGE = "sqlite:///results/runs/moe-codesign.db"
"""Where commands keep results unless ``--storage`` names another database."""
