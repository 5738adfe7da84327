"""Times of this project's own kernels."""
