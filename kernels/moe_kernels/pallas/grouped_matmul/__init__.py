"""The grouped matmul over expert-sorted rows on a TPU.

``declaration.py`` says what the kernel can do and imports no compiler; ``matmul.py`` is the function to call,
``probes.py`` what is compiled to learn a tile's cost. The kernel itself is :mod:`moe_kernels.pallas.visit_matmul`.
"""
