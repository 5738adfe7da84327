"""Everything fitted that ships, with its readers."""
