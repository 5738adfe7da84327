"""Pallas kernels for TPUs (and, through interpret mode, the host)."""
