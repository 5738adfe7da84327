"""The kernel of the TPU's grouped matmul, over planned visits.

Rows [M, K] lie in group order, and each group's rows are multiplied by its own weights. The kernel makes its copies
itself, which avoids what a plain grid of blocks loses:

- A **visit** starts where its group starts (on a whole block of eight rows). A group of 512 rows is therefore one visit
  of 512 rows, and not two halves of tiles that it shares with its neighbours. Rows that a block shares with earlier
  groups are carried in VMEM, and each block of the result is written once.
- **Weights are read once**: where columns are the outer loop they stay while their group's rows pass, and where rows
  are the outer loop a visit takes its whole group. Copies run several blocks ahead, across visits and groups, so that
  the latency of HBM hides behind the matrix units even where a step is short.
- **The whole depth in one step** needs no accumulator in VMEM; a shorter tile_k needs one.
- Rows are computed in **buckets**, so a visit of 40 rows costs what 40 rows cost. All buckets of a full visit are one
  product. Those of any other visit are a few products whose sizes are powers of two, so that the matrix units seldom
  fill and drain.

M, K and N need not be multiples of the tile; K and N must be multiples of eight.

``kernel.py`` is the entry point; ``form.py`` what a compiled form depends on, ``copies.py`` what moves between HBM and
VMEM, ``compute.py`` the arithmetic.
"""
