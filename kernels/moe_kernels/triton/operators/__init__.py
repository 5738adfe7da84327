"""The layer as PyTorch operators: they trace under ``torch.compile`` and have gradients.

A registered operator (``torch.ops.moe_kernels``) takes plain tensors, numbers and lists of numbers alone;
``packing.py`` turns tiles and quantised weights into these and back. The functions to call are
:func:`moe_kernels.triton.fused_moe`, :func:`moe_kernels.triton.experts` and :func:`moe_kernels.triton.grouped_mm`.
"""
