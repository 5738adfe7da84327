"""The families of operations by name."""

from collections.abc import Mapping

from moe_codesign.cost.operations.all_to_all import AllToAll
from moe_codesign.cost.operations.attention import DecodeAttention, PrefillAttention
from moe_codesign.cost.operations.collective import Collective
from moe_codesign.cost.operations.dense_gemm import DenseGemm
from moe_codesign.cost.operations.fused_moe import FusedMoe
from moe_codesign.cost.operations.gated_delta import GatedDelta
from moe_codesign.cost.operations.latent_attention import LatentDecode, LatentPrefill
from moe_codesign.cost.operations.operation import Operation

_EVERY: tuple[Operation, ...] = (
    DenseGemm(), DecodeAttention(), PrefillAttention(), LatentDecode(), LatentPrefill(), GatedDelta(), FusedMoe(),
    Collective(), AllToAll(),
)  # fmt: skip
OPERATIONS: Mapping[str, Operation] = {operation.name: operation for operation in _EVERY}
