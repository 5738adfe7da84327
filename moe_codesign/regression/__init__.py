"""Regression tests of kernels: compiled facts on any machine, times where the device is."""
