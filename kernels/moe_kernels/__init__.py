"""Mixture-of-experts kernels, usable without the tool that tunes them.

``moe_kernels.triton`` is for NVIDIA and AMD GPUs, ``moe_kernels.pallas`` for TPUs and the host;
``moe_kernels.registry`` lists the kernels. Importing this package, or reading a kernel's declaration, loads neither
torch, triton nor jax.
"""
