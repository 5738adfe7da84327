"""What a finished search says: frontiers and comparisons, as values that reports print."""
