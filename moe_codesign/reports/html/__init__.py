"""Reports as HTML pages that work without a network."""
