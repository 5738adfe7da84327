"""Mixture-of-experts kernels, usable without the tool that tunes them.

``moe_kernels.triton`` and ``moe_kernels.pallas`` hold one file per kernel; importing this package loads
neither torch, triton nor jax.
"""
