"""What is done to a tile's sums: the activation, the router's weights, and the store into the result."""

import triton
import triton.language as tl

from moe_kernels.triton.activation import activate


@triton.jit
def halves(values, ROWS: tl.constexpr, COLS: tl.constexpr):
    """The left and the right half of the columns."""
    return tl.split(tl.permute(tl.reshape(values, (ROWS, 2, COLS // 2)), (0, 2, 1)))


@triton.jit
def write(
    values,
    out_ptr,
    place,
    row_ok,
    first_col,
    N,
    weight,
    alpha,
    limit,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    MATRICES: tl.constexpr,
    EPILOGUE: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """Finish some columns of a tile and store them.

    Args:
        values: [ROWS, MATRICES COLS], sums; gate and up columns alternate.
        place: [ROWS], where each row of the result begins.
        first_col: the first of these columns in the result.
        weight: [ROWS] the router's weights, or None.
    """
    cols = first_col + tl.arange(0, COLS)
    ok = row_ok[:, None] & (cols < N)[None, :]
    to = out_ptr + place[:, None] + cols[None, :]
    if MATRICES == 2:
        gate, up = tl.split(tl.reshape(values, (ROWS, COLS, 2)))
    else:
        gate = values
        up = values
    if EPILOGUE == "partial":
        tl.store(to, gate.to(out_ptr.dtype.element_ty), mask=ok)
        if MATRICES == 2:
            tl.store(to + N, up.to(out_ptr.dtype.element_ty), mask=ok)
    elif EPILOGUE == "hidden":
        tl.store(to, activate(gate, up, alpha, limit, ACTIVATION).to(out_ptr.dtype.element_ty), mask=ok)
    else:
        if weight is not None:
            gate *= weight[:, None]
        if EPILOGUE == "rows":
            tl.store(to, gate.to(out_ptr.dtype.element_ty), mask=ok)
        else:
            # Each of a token's k experts adds to the same row; relaxed order is enough for a sum.
            tl.atomic_add(to, gate, mask=ok, sem="relaxed")
