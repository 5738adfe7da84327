"""The data types of weights and activations, and which targets have them.

This module imports nothing, so that all others may use it.

=============  =========================  =====================================================================
name           weights x activations      scales
=============  =========================  =====================================================================
``bfloat16``   16 x 16 bit                none (``float16`` and, for training checks, ``float32``/``float64`` too)
``fp8``        e4m3 x e4m3                one per expert and matrix, one for all activations
``fp8_block``  e4m3 x e4m3                128 x 128 of the weights, 1 x 128 of the activations (DeepSeek-V3)
``int8``       int8 x int8                one per output channel, one per activation row
``mxfp4``      e2m1 x 16 bit              e8m0 per 32 along K (OCP microscaling; gpt-oss)
``int4``       4 bit x 16 bit             one per ``group`` along K; values are code - 8
=============  =========================  =====================================================================
"""

from dataclasses import dataclass

BLOCK = 128
"""``fp8_block``: the side of a block of weights that share a scale, and the length of such a group of activations."""
MX_GROUP = 32
"""``mxfp4``: weights along K that share a scale."""
INT4_GROUPS = (32, 64, 128)
"""``int4``: the same, as checkpoints have it."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """One data type.

    Args:
        name: its name.
        weight_bits, activation_bits: bits of a weight, and of an activation.
        k_multiple: K must be a multiple of this.
    """

    name: str
    weight_bits: int
    activation_bits: int
    k_multiple: int = 1

    @property
    def packed(self) -> int:
        """How many weights one stored element holds."""
        return 2 if self.weight_bits == 4 else 1

    @property
    def scales_activations(self) -> bool:
        """Whether activations are quantised too, and have scales."""
        return self.activation_bits == 8


FORMATS = {
    f.name: f
    for f in (
        Format(name="bfloat16", weight_bits=16, activation_bits=16),
        Format(name="float16", weight_bits=16, activation_bits=16),
        Format(name="float32", weight_bits=32, activation_bits=32),
        Format(name="float64", weight_bits=64, activation_bits=64),
        Format(name="fp8", weight_bits=8, activation_bits=8),
        Format(name="fp8_block", weight_bits=8, activation_bits=8),
        Format(name="int8", weight_bits=8, activation_bits=8),
        Format(name="mxfp4", weight_bits=4, activation_bits=16, k_multiple=MX_GROUP),
        Format(name="int4", weight_bits=4, activation_bits=16, k_multiple=min(INT4_GROUPS)),
    )
}
SERVED = ("bfloat16", "float16", "fp8", "fp8_block", "int8", "mxfp4", "int4")
"""The types that the tool searches over; the others exist to check gradients."""

_FP8_TYPES = {"hip:gfx942": "fp8e4b8"}
"""CDNA 3's matrix cores take e4m3 with another bias and no negative zero (torch.float8_e4m3fnuz); all others take
OCP's."""


def fp8_type(target: str | None) -> str:
    """Triton's name of the e4m3 type that the target's matrix units take."""
    return _FP8_TYPES.get(target or "", "fp8e4nv")


def capability(target: str | None) -> int | None:
    """The compute capability of an NVIDIA target: 90 for ``cuda:90``. None for any other target."""
    return int(target.removeprefix("cuda:")) if target and target.startswith("cuda:") else None


def missing_on(dtype: str, target: str | None) -> str | None:
    """The reason why the target cannot compute in ``dtype``, or None if it can."""
    if dtype not in FORMATS:
        return f"dtype {dtype} is unknown; use one of {', '.join(SERVED)}"
    sm = capability(target)
    if sm is not None and sm < 80:
        return f"{target} is older than Ampere (compute capability 8.0), which the kernels need"
    if not dtype.startswith("fp8") or target is None:
        return None
    if sm is not None and sm < 89:
        return f"{dtype} needs compute capability 8.9 (Ada, Hopper, later), {target} has none; use int8 or int4"
    if sm is None and target not in ("hip:gfx942", "hip:gfx950"):
        return f"{dtype} needs CDNA 3 or later, {target} is older; use int8 or int4"
    return None
