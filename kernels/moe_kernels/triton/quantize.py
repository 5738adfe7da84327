"""Weights and activations in 8 and 4 bits: how they are stored, how they are rounded, and the numbers they stand for.

Weights are quantised once, in plain torch; activations at every call, by a kernel.
"""

import functools
import math
from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl

from moe_kernels.triton.device import launching_on, target_of
from moe_kernels.triton.formats import BLOCK, FORMATS, INT4_GROUPS, MX_GROUP
from moe_kernels.triton.support import wrong_e4m3

_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Magnitudes of e2m1 by code (OCP Microscaling Formats 1.0, table 5)."""

_MX_CODES = {torch.bfloat16: (2, 252), torch.float16: (104, 140)}
"""The e8m0 codes, exponents plus 127, whose groups rows of each type multiply exactly: from the lowest to the highest
every e2m1 magnitude, 0.5 to 6, times the scale is a number of that type. For bfloat16 it is a normal one: with code 0
(2**-127), which the kernel reads as zero, or with 1 it would be smaller."""
_MX_NAN = 255
"""The e8m0 code that makes a group NaN (OCP Microscaling Formats 1.0, 5.4.1)."""


_E4M3 = (torch.float8_e4m3fn, torch.float8_e4m3fnuz)
_STORED = {
    "fp8": (_E4M3, (torch.float32,)),
    "fp8_block": (_E4M3, (torch.float32,)),
    "int8": ((torch.int8,), (torch.float32,)),
    "mxfp4": ((torch.uint8,), (torch.uint8,)),
    "int4": ((torch.uint8,), (torch.bfloat16, torch.float16)),
}
"""The torch types that values may have, and those that scales may have, by data type."""


@dataclass(frozen=True)
class QuantizedWeights:
    """One projection of all experts, quantised.

    Args:
        values: e4m3 or int8 [experts, matrices * N, K]; 4-bit: uint8 [experts, matrices * N, K / 2], even K in the
            low nibble. ``matrices`` is 2 for gate and up (gate rows first), else 1.
        scale: float32 ``fp8`` [experts, matrices], ``fp8_block`` [experts, matrices, ceil(N / 128), ceil(K / 128)],
            ``int8`` [experts, matrices * N]; ``mxfp4`` uint8 (e8m0) [experts, matrices * N, K / 32]; ``int4``
            bfloat16 or float16 [experts, matrices * N, K / group]. :meth:`inexact` says which scales of ``mxfp4`` rows
            of a type cannot be multiplied by.
        dtype: a name of :mod:`moe_kernels.triton.formats`.
        activation_scale: float32 [1], the scale of ``fp8``'s activations if it is known beforehand; without it the
            scale is computed at every call. All experts share it: of a checkpoint that has one per expert, the largest.
        group: weights along K that share a scale in ``int4``: a power of two, a multiple of 32, or the whole of K.

    Raises:
        ValueError: shapes or types do not fit ``dtype``.
    """

    values: torch.Tensor
    scale: torch.Tensor
    dtype: str
    activation_scale: torch.Tensor | None = None
    group: int = 128

    def __post_init__(self) -> None:
        if self.dtype not in FORMATS or FORMATS[self.dtype].weight_bits > 8:
            raise ValueError(f"dtype {self.dtype!r} is not quantised; use fp8, fp8_block, int8, mxfp4 or int4")
        if self.values.dim() != 3:
            raise ValueError(f"values {tuple(self.values.shape)} should be [experts, rows, K]; flatten blocks of K")
        if not self.values.is_contiguous() or not self.scale.is_contiguous():
            raise ValueError("values and scale must be contiguous; call .contiguous() on them once")
        experts, rows, k = self.values.shape[0], self.values.shape[1], self.k
        if self.dtype == "int4":
            self._check_group()
        if self.activation_scale is not None:
            self._check_activation_scale(self.activation_scale)
        shapes: dict[str, list[tuple[int, ...]]] = {
            "int8": [(experts, rows)],
            "mxfp4": [(experts, rows, k // MX_GROUP)],
            "int4": [(experts, rows, k // self.group)],
            "fp8": [(experts, m) for m in (1, 2)],
            "fp8_block": [(experts, m, -(-rows // m // BLOCK), -(-k // BLOCK)) for m in (1, 2)],
        }
        wanted = shapes[self.dtype]
        stored, scales = _STORED[self.dtype]
        if self.values.dtype not in stored or self.scale.dtype not in scales:
            raise ValueError(
                f"{self.dtype} is stored as {stored[0]} with scales of {scales[0]}, not {self.values.dtype} with "
                f"{self.scale.dtype}; convert or view them"
            )
        if tuple(self.scale.shape) not in wanted:
            shapes_said = str(wanted[0])
            if len(wanted) > 1:
                shapes_said = f"{wanted[1]} for gate and up, {wanted[0]} for one matrix"
                if any(self.scale.numel() == math.prod(shape) for shape in wanted):
                    shapes_said += "; view it so"
            raise ValueError(f"scale {tuple(self.scale.shape)} of {self.dtype} should be {shapes_said}")

    def _check_group(self) -> None:
        group, k = self.group, self.k
        if group < 1 or k % group or (group != k and group % min(INT4_GROUPS) and group & (group - 1)):
            raise ValueError(
                f"group = {group} of int4 with K = {k}: use a power of two or a multiple of {min(INT4_GROUPS)} that "
                "divides K, or K itself"
            )

    def _check_activation_scale(self, scale: torch.Tensor) -> None:
        if self.dtype != "fp8":
            raise ValueError(f"activation_scale is for fp8 alone; {self.dtype} weights take none")
        if scale.numel() != 1 or scale.dtype != torch.float32:
            raise ValueError(
                f"activation_scale {tuple(scale.shape)} {scale.dtype} should be one float32, which all experts share; "
                "of one per expert use .max().float().reshape(1)"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(experts, matrices * N, K): the shape that these weights would have if they were not quantised."""
        return self.values.shape[0], self.values.shape[1], self.k

    @property
    def k(self) -> int:
        """The depth K, in weights."""
        return int(self.values.shape[2]) * FORMATS[self.dtype].packed

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.values.device

    @functools.cached_property
    def _mx_codes(self) -> tuple[int, int]:
        """The lowest and the highest e8m0 code of groups that are not all zero. Read once, as it waits for a GPU."""
        ends = []
        for values, scale in zip(self.values, self.scale, strict=True):  # a mask of all would double the memory
            zero = (values & 0x77).unflatten(-1, (-1, MX_GROUP // 2)).amax(-1) == 0
            codes = torch.where(zero & (scale != _MX_NAN), 127, scale)
            ends.append(torch.stack((codes.amin(), codes.amax())))
        low, high = torch.stack(ends).unbind(-1)
        return int(low.amin()), int(high.amax())

    def inexact(self, rows: torch.dtype) -> str | None:
        """The reason why rows of a type cannot be multiplied by these weights exactly as they are stored, or None.

        The kernel makes 16-bit numbers of ``mxfp4``. Scales that put a weight outside of what the rows' type holds
        would become zero or infinity without a word, and so would code 255, which stands for NaN.
        """
        if self.dtype != "mxfp4" or rows not in _MX_CODES or not self.scale.numel():
            return None
        low, high = self._mx_codes
        if high == _MX_NAN:
            return "scales of mxfp4 have the code 255, which stands for NaN; those weights are lost, load them again"
        least, most = _MX_CODES[rows]
        if least <= low and high <= most:
            return None
        fix = "use bfloat16 rows" if rows == torch.float16 else "scale the weights"
        return (
            f"scales of mxfp4 have codes from {low} to {high} (exponents plus 127); {rows} rows are multiplied exactly "
            f"with {least} to {most}; {fix}"
        )

    def to_e4m3fnuz(self) -> "QuantizedWeights":
        """The same fp8 weights as CDNA 3 multiplies them: e4m3fnuz, under doubled scales. Exact.

        A code stands for half the number there. The code of minus zero is NaN there, and the code of NaN a number.

        Raises:
            ValueError: the values are not stored as ``torch.float8_e4m3fn``.
        """
        if self.values.dtype != torch.float8_e4m3fn:
            raise ValueError(f"values are {self.values.dtype}; only torch.float8_e4m3fn becomes torch.float8_e4m3fnuz")
        codes = self.values.view(torch.uint8)
        codes = torch.where(codes == 0x80, 0, torch.where(codes & 0x7F == 0x7F, 0x80, codes)).to(torch.uint8)
        activation_scale = None if self.activation_scale is None else self.activation_scale * 2
        return replace(
            self, values=codes.view(torch.float8_e4m3fnuz), scale=self.scale * 2, activation_scale=activation_scale
        )


@torch.no_grad()
def quantize_weights(
    weights: torch.Tensor, dtype: str, *, matrices: int, group: int = 128, fp8: torch.dtype = torch.float8_e4m3fn
) -> QuantizedWeights:
    """Round weights to the nearest values of ``dtype``, under scales that map the largest magnitude to the largest
    value.

    Args:
        weights: [experts, matrices * N, K].
        dtype: ``fp8``, ``fp8_block``, ``int8``, ``mxfp4`` or ``int4``.
        matrices: 2 if they are gate and up, else 1.
        group: weights along K that share a scale in ``int4``.
        fp8: the e4m3 type; CDNA 3 takes ``torch.float8_e4m3fnuz``.

    Raises:
        ValueError: the type is unknown, K is not a multiple of the weights that share a scale, or weights that become
            ``mxfp4`` are not finite.
    """
    # One expert at a time: rounding needs many times the memory of its result.
    parts = [_quantize(one[None], dtype, matrices, group, fp8) for one in weights]
    values, scale = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return QuantizedWeights(values, scale, dtype, group=MX_GROUP if dtype == "mxfp4" else group)


def _quantize(
    weights: torch.Tensor, dtype: str, matrices: int, group: int, fp8: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    experts, rows, k = weights.shape
    w = weights.float()
    if dtype in FORMATS and FORMATS[dtype].weight_bits == 4:
        along = MX_GROUP if dtype == "mxfp4" else group
        if k % along or (dtype == "int4" and group not in INT4_GROUPS):
            raise ValueError(f"K = {k} with groups of {along}: use a multiple, and one of {INT4_GROUPS} for int4")
        grouped = w.reshape(experts, rows, k // along, along)
        peak = grouped.abs().amax(-1)
        if dtype == "mxfp4":
            # The exponent of the group's largest value, minus the largest exponent of e2m1 (MX 1.0, 6.3).
            if not bool(peak.isfinite().all()):
                raise ValueError("weights have NaN or infinity, which mxfp4 has not; load them again")
            exponent = torch.floor(torch.log2(peak.clamp(min=2.0**-120))) - 2
            least, most = _MX_CODES.get(weights.dtype, _MX_CODES[torch.bfloat16])
            exponent = exponent.clamp(least - 127, most - 127)
            codes = _nearest_e2m1(grouped / torch.exp2(exponent)[..., None])
            scale = (exponent + 127).to(torch.uint8)
        else:
            scale = (peak / 7).clamp(min=1e-8).to(weights.dtype)
            codes = (torch.round(grouped / scale.float()[..., None]).clamp(-8, 7) + 8).to(torch.uint8)
        codes = codes.reshape(experts, rows, k)
        packed = codes[..., 0::2] | (codes[..., 1::2] << 4)
        return packed, scale
    if dtype == "int8":
        scale = (w.abs().amax(-1) / 127).clamp(min=1e-12)
        return torch.round(w / scale[..., None]).to(torch.int8), scale
    top = torch.finfo(fp8).max
    if dtype == "fp8":
        by_matrix = w.reshape(experts, matrices, -1)
        scale = (by_matrix.abs().amax(-1) / top).clamp(min=1e-12)
        return (by_matrix / scale[..., None]).to(fp8).reshape(experts, rows, k), scale
    if dtype == "fp8_block":
        n = rows // matrices
        padded = torch.nn.functional.pad(w.reshape(experts, matrices, n, k), (0, -k % BLOCK, 0, -n % BLOCK))
        blocks = padded.unflatten(3, (-1, BLOCK)).unflatten(2, (-1, BLOCK))
        scale = (blocks.abs().amax((3, 5)) / top).clamp(min=1e-12)
        each = _per_element(scale, n, k)
        values = (w.reshape(experts, matrices, n, k) / each).to(fp8).reshape(experts, rows, k)
        return values, scale
    raise ValueError(f"dtype {dtype!r}: use fp8, fp8_block, int8, mxfp4 or int4")


def dequantize_weights(weights: QuantizedWeights) -> torch.Tensor:
    """The numbers that quantised weights stand for: float64 [experts, matrices * N, K]."""
    experts, rows, k = weights.shape
    scale = weights.scale.double()
    match weights.dtype:
        case "fp8":
            matrices = scale.shape[1]
            return (weights.values.double().reshape(experts, matrices, -1) * scale[..., None]).reshape(experts, rows, k)
        case "fp8_block":
            matrices = scale.shape[1]
            n = rows // matrices
            values = weights.values.double().reshape(experts, matrices, n, k)
            return (values * _per_element(scale, n, k)).reshape(experts, rows, k)
        case "int8":
            return weights.values.double() * scale[..., None]
    packed = weights.values
    codes = torch.stack((packed & 15, packed >> 4), -1).reshape(experts, rows, k)
    if weights.dtype == "int4":
        return (codes.double() - 8) * scale.repeat_interleave(weights.group, -1)
    table = torch.tensor(_E2M1 + tuple(-v for v in _E2M1), dtype=torch.float64, device=packed.device)
    factor = torch.where(weights.scale == _MX_NAN, torch.nan, torch.exp2(scale - 127))
    return table[codes.long()] * factor.repeat_interleave(MX_GROUP, -1)


def expert_matrix(weights: "torch.Tensor | QuantizedWeights", expert: int, dtype: torch.dtype) -> torch.Tensor:
    """One expert's matrices [rows, K] as the kernel multiplies them, converted to ``dtype``."""
    if isinstance(weights, QuantizedWeights):
        one = replace(weights, values=weights.values[[expert]], scale=weights.scale[[expert]])
        return dequantize_weights(one)[0].to(dtype)
    return weights[expert].to(dtype)


def _nearest_e2m1(values: torch.Tensor) -> torch.Tensor:
    table = torch.tensor(_E2M1, device=values.device)
    magnitude = values.abs().clamp(max=6.0)
    middle = (table[1:] + table[:-1]) / 2
    code = torch.bucketize(magnitude.contiguous(), middle).to(torch.uint8)
    return code | ((values < 0).to(torch.uint8) << 3)


def _per_element(scale: torch.Tensor, n: int, k: int) -> torch.Tensor:
    return scale.repeat_interleave(BLOCK, -2)[..., :n, :].repeat_interleave(BLOCK, -1)[..., :k]


_PART = 1024
"""How many values of a row one program rounds."""


@triton.jit
def quantize_kernel(
    x_ptr,
    out_ptr,
    scale_ptr,
    num_valid_ptr,
    K,
    top,
    BLOCK: tl.constexpr,
    FORMAT: tl.constexpr,
):
    """Round rows [rows, K] and write their scales.

    For ``int8`` a program rounds a whole row, which has one scale. For ``fp8_block`` (one scale per 128 values) and
    ``fp8`` (the scale is given) it rounds BLOCK values of a row: in decoding there are few rows, whose parts then run
    side by side. Rows from ``num_valid_ptr`` on are left alone.

    NaN and infinity become NaN, in ``int8``, which has none, by the row's scale. They are looked for: GPUs' maximum and
    minimum pass over NaN.
    """
    row = tl.program_id(0).to(tl.int64)
    valid = True
    if num_valid_ptr is not None:
        valid = row < tl.load(num_valid_ptr)
    if valid:
        at = tl.arange(0, BLOCK)
        if FORMAT == "int8":
            peak = tl.zeros((BLOCK,), dtype=tl.float32)
            lost = tl.zeros((BLOCK,), dtype=tl.int32)
            for start in range(0, K, BLOCK):
                x = tl.load(x_ptr + row * K + start + at, mask=start + at < K, other=0.0).to(tl.float32)
                finite = tl.abs(x) < float("inf")
                peak = tl.maximum(peak, tl.where(finite, tl.abs(x), 0.0))
                lost += tl.where(finite, 0, 1)
            scale = tl.maximum(tl.max(peak, 0) / top, 1e-12)
            tl.store(scale_ptr + row, tl.where(tl.sum(lost, 0) > 0, float("nan"), scale))
            for start in range(0, K, BLOCK):
                ok = start + at < K
                x = tl.load(x_ptr + row * K + start + at, mask=ok, other=0.0).to(tl.float32)
                x = tl.where(tl.abs(x) < float("inf"), x, 0.0) / scale
                # Rounds to the nearest: the conversion truncates, so half is added first, away from zero.
                rounded = (x + tl.where(x < 0, -0.5, 0.5)).to(tl.int8)
                tl.store(out_ptr + row * K + start + at, rounded, mask=ok)
        else:
            at += tl.program_id(1) * BLOCK
            x = tl.load(x_ptr + row * K + at, mask=at < K, other=0.0).to(tl.float32)
            finite = tl.abs(x) < float("inf")
            x = tl.where(finite, x, 0.0)
            if FORMAT == "fp8_block":
                parts = tl.reshape(x, (BLOCK // 128, 128))
                scale = tl.maximum(tl.max(tl.abs(parts), 1) / top, 1e-12)
                which = tl.program_id(1) * (BLOCK // 128) + tl.arange(0, BLOCK // 128)
                tl.store(scale_ptr + row * tl.cdiv(K, 128) + which, scale, mask=which < tl.cdiv(K, 128))
                y = tl.reshape(parts / scale[:, None], (BLOCK,))
            else:
                y = x / tl.load(scale_ptr)
            y = tl.where(finite, tl.minimum(tl.maximum(y, -top), top), float("nan"))
            tl.store(out_ptr + row * K + at, y.to(out_ptr.dtype.element_ty), mask=at < K)


def quantize_rows(
    x: torch.Tensor, weights: QuantizedWeights, num_valid: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Activations in the type that these weights need, and their scales.

    Args:
        x: [rows, K].
        weights: what they will be multiplied by. 4-bit weights take activations as they are.
        num_valid: int32 [1]; rows from there on are neither read nor written.

    A row with NaN or infinity gets NaN in its values (in ``int8`` in its scale), and changes no other row.

    Raises:
        ValueError: the device multiplies another e4m3 type than that of the weights.
    """
    if not FORMATS[weights.dtype].scales_activations:
        return x, None
    if weights.dtype != "int8" and (
        reason := wrong_e4m3(str(weights.values.dtype).removeprefix("torch."), target_of(x.device))
    ):
        raise ValueError(f"weights of {weights.dtype}: {reason}")
    rows, k = x.shape
    values = torch.empty((rows, k), dtype=weights.values.dtype, device=x.device)
    top = 127.0 if weights.dtype == "int8" else float(torch.finfo(weights.values.dtype).max)
    if weights.dtype == "fp8":
        scale = weights.activation_scale
        if scale is None:
            valid = x
            if num_valid is not None:
                # Rows that were never written must not decide the scale.
                index = torch.arange(rows, device=x.device)
                valid = torch.where((index < num_valid)[:, None], x, 0.0)
            peak = torch.where(valid.isfinite(), valid, 0.0).abs().amax() if rows else valid.new_zeros(())
            scale = (peak.float() / top).clamp(min=1e-12).reshape(1)
    elif weights.dtype == "int8":
        scale = torch.empty(rows, dtype=torch.float32, device=x.device)
    else:
        scale = torch.empty((rows, -(-k // BLOCK)), dtype=torch.float32, device=x.device)
    if rows:
        parts = 1 if weights.dtype == "int8" else triton.cdiv(k, _PART)
        with launching_on(x.device):
            quantize_kernel[(rows, parts)](x, values, scale, num_valid, k, top, BLOCK=_PART, FORMAT=weights.dtype)
    return values, scale
