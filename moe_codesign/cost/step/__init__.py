"""Time of a forward pass of a whole model, as the sum of its operations, and of serving with such passes."""
