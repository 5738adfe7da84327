"""Times of public grouped matrix products (ragged_dot), by kernels of others."""
