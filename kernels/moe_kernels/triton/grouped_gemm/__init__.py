"""The grouped GEMM over expert-sorted rows: both halves of a mixture-of-experts layer, forward and data gradient.

One kernel, whose compile-time switches choose what it is:

- **GEMM 1** gathers token rows, multiplies them by their expert's gate and up matrices and applies the activation
  before anything is written. **GEMM 2** reads hidden rows in expert order, multiplies by the down matrix and weights
  each row by the router.
- **Paths**: one tile per program, or persistent programs that walk the tiles; split along K (the second grid axis);
  weights (and hidden rows) through tensor descriptors, that is by TMA; operands swapped, so that weight rows are the
  wide side of the matrix instruction when an expert has few token rows.
- **Data types**: see :mod:`moe_kernels.triton.formats`. Accumulation is float32 (int32 for int8).

Gate and up rows alternate inside a tile: column 2 j of the product is gate j and column 2 j + 1 is up j. Both
then lie in one thread's registers, one matrix instruction covers both, and a 4-dimensional descriptor fetches them
together whichever way the checkpoint stores them.

``declaration.py`` says what the kernel can do and imports no compiler; ``kernel.py`` is its entry point,
``gemm_tile.py`` one tile of the result, ``epilogue.py`` what is done to the sums and where they are stored.
"""
