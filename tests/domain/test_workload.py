"""Which shapes can be split so in a data type: scale groups and blocks are whole on every rank."""

import pytest

import moe_codesign as mc
from moe_codesign.domain.dtype import DTYPE_BYTES, SCALE_BLOCK, SCALE_GROUP
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.workload import Workload
from moe_kernels.triton.formats import BLOCK, INT4_GROUPS, MX_GROUP

FIELDS = ("hidden_size", "moe_intermediate_size", "num_experts", "num_experts_per_tok")


def misfit(hidden: int, width: int, dtype: str, tp: int) -> str:
    shape = MoEShape(hidden_size=hidden, moe_intermediate_size=width, num_experts=128, num_experts_per_tok=8)
    return Workload(name="w", num_tokens=64, dtype=dtype, tp=tp).misfit(shape) or ""


def test_scales_are_the_kernels() -> None:
    assert SCALE_BLOCK == {"fp8_block": BLOCK}
    assert SCALE_GROUP["mxfp4"] == MX_GROUP
    assert SCALE_GROUP["int4"] in INT4_GROUPS
    assert SCALE_BLOCK.keys() | SCALE_GROUP.keys() <= DTYPE_BYTES.keys()


@pytest.mark.parametrize(
    ("hidden", "width", "dtype", "tp", "reason"),
    [
        # Widths on a rank that vLLM and SGLang refuse: "not divisible by weight quantization block_n = 128".
        (4096, 1536, "fp8_block", 8, "/ tp = 192 is not a multiple of fp8_block's scale block of 128"),
        (2048, 768, "fp8_block", 4, "192"),
        (4096, 1408, "fp8_block", 4, "352"),
        (2560, 640, "fp8_block", 8, "80"),
        (4096, 1536, "fp8_block", 4, ""),
        (4096, 1536, "fp8_block", 1, ""),
        (4096, 1856, "fp8_block", 1, ""),
        (4096, 1536, "bfloat16", 8, ""),
        (4096, 1536, "fp8", 8, ""),
        (4096, 768, "int4", 4, "192 is not a multiple of the 128 weights that share a scale in int4"),
        (4096, 768, "int4", 2, ""),
        (2880, 2880, "mxfp4", 8, "360 is not a multiple of the 32"),
        (2880, 2880, "mxfp4", 2, ""),
        (2888, 2880, "mxfp4", 1, "hidden_size 2888"),
        (4096, 1536, "fp4", 8, ""),
        (4096, 1544, "fp4", 1, "16"),
    ],
)  # fmt: skip
def test_a_rank_holds_whole_groups_and_blocks_of_scales(
    hidden: int, width: int, dtype: str, tp: int, reason: str
) -> None:
    found = misfit(hidden, width, dtype, tp)
    assert bool(found) == bool(reason)
    assert reason in found


def test_what_cannot_be_loaded_has_no_time_by_any_software() -> None:
    sizes = dict(zip(FIELDS, (4096, 1536, 128, 8), strict=True))
    row = {"chip": "h100_sxm", "dtype": "fp8_block", "num_tokens": 64, **sizes}
    stacks = ("vllm", "sglang", "ours")
    rows = mc.predict([row | {"stack": stack, "tp": tp} for tp in (8, 4) for stack in stacks])
    assert all("scale block" in one["error"] for one in rows[:3])
    assert all(one["error"] == "" for one in rows[3:5])
    cut = row | {"moe_intermediate_size": 1856}
    stack, ours = mc.predict([cut | {"stack": "vllm"}, cut | {"chip": "trainium2"}])
    assert "refuse to load" in stack["error"]
    assert ours["error"] == "", "our kernels cut the last block off"


def test_what_does_not_fit_is_a_warning_everywhere() -> None:
    big = {"hidden_size": 7168, "moe_intermediate_size": 18432, "num_experts": 256, "num_experts_per_tok": 8}
    row = {"chip": "h100_sxm", "num_tokens": 64, **big}
    rows = mc.predict([row, row | {"stack": "vllm"}, row | {"chip": "trainium2"}, row | {"stack": "vllm", "ep": 8}])
    # 3 x 7168 x 18432 x 256 x 2 bytes, and the router; in each of 64 tokens: 2 x 7168 in and out, and in each of its 8
    # experts as much beside 3 x 18432.
    said = "does not fit: the layer has 203 GB of weights + 0.0731 GB of activations = 203 GB on each"
    assert [said in one["warning"] for one in rows] == [True, True, True, False]
    one, split = (
        mc.audit("DeepSeek-V3", chips=["h100_sxm"], tokens=[64], dtype="bfloat16", ep=ep)[0] for ep in (1, 64)
    )
    assert one.estimate is not None
    assert split.estimate is not None
    # 58 layers of 257 experts of 3 x 7168 x 2048 and a router, in two bytes.
    sum_of = "1313 GB of weights + 0.0254 GB of activations = 1313 GB on each h100_sxm at 64 tokens, tp 1 and ep 1"
    assert f"does not fit: the 58 MoE layers have {sum_of}" in one.estimate.notes[0]
    assert not any("does not fit" in note for note in split.estimate.notes)


def test_a_batch_may_be_what_does_not_fit() -> None:
    """Weights of 58 GB fit a chip of 80; 8 x 2**20 rows of 2 x (2 x 2048 + 3 x 768) bytes do not beside them."""
    qwen = {"hidden_size": 2048, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8}
    row = {"chip": "h100_sxm", "stack": "vllm", **qwen}
    fits, not_so = mc.predict([row | {"num_tokens": n, "num_layers": 1} for n in (64, 2**20)])
    assert "does not fit" not in fits["warning"]
    assert "does not fit" in not_so["warning"]
    assert "+ 116 GB of activations" in not_so["warning"]
