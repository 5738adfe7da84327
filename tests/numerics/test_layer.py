"""Every data type, activation and path of the forward kernels; odd sizes; planted faults."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from moe_kernels import reference
from moe_kernels.kernel import Problem
from moe_kernels.reference import LAYER_TOLERANCE, OUTPUT_TOLERANCE
from moe_kernels.triton.device import target_of
from moe_kernels.triton.formats import SERVED, missing_on
from moe_kernels.triton.layer import Expert, experts_forward, experts_of_pairs
from moe_kernels.triton.quantize import QuantizedWeights
from moe_kernels.triton.support import refusal
from moe_kernels.triton.tiles import default_tile
from tests.numerics.cases import (
    LARGE,
    PATHS,
    SMALL,
    WIDE,
    Case,
    f64,
    layer_error,
    make_layer,
    numbers,
    run_stages,
    stage_errors,
    tile_of,
)  # fmt: skip
from tests.pairs import covering

ACTIVATIONS = ("swiglu", "geglu", "geglu_tanh", "swiglu_oai", "relu2", "silu", "gelu")
SITUATIONS: dict[str, dict[str, object]] = {
    "random": {},
    "skewed": {"routing": "skewed", "top_k": 1},
    "empty experts": {"routing": "empty"},
    "one token": {"tokens": 1},
    "top-11": {"top_k": 11, "experts": 12, "tokens": 2},
    "more rows than a tile": {"tokens": 45, "experts": 3},
    "width below a tile": {"width": 32, "hidden_size": 96},
}


def tolerance(dtype: torch.dtype) -> float:
    return OUTPUT_TOLERANCE[str(dtype).removeprefix("torch.")]


def skip_missing(dtype: str, device: torch.device) -> None:
    if reason := missing_on(dtype, target_of(device)):
        pytest.skip(reason)


def check(case: Case, device: torch.device) -> None:
    skip_missing(case.dtype, device)
    for tile in case.tiles:
        reason = refusal(Problem(op="down", dtype=case.dtype, group=case.group), tile, target_of(device))
        if reason and "accelerator" in reason:
            pytest.skip(reason)
    layer = make_layer(case, device)
    first, second = stage_errors(case, layer, run_stages(case, layer))
    assert first <= tolerance(layer.x.dtype)
    assert second <= tolerance(layer.x.dtype)


@pytest.mark.parametrize(("dtype", "activation", "path"), covering(SERVED, ACTIVATIONS, tuple(PATHS)))
def test_every_type_activation_and_path(dtype: str, activation: str, path: str, device: torch.device) -> None:
    tile = tile_of(path)
    bias = activation in ("swiglu_oai", "gelu")
    check(Case(dtype=dtype, activation=activation, tiles=(tile, tile), bias=bias), device)


@pytest.mark.parametrize("path", ["plain", "swapped", "descriptors"])
@pytest.mark.parametrize("dtype", ["mxfp4", "int4", "int8"])
def test_rows_in_float16(dtype: str, path: str, device: torch.device) -> None:
    """4-bit weights are unpacked to the type of the rows; others only give their result in it."""
    check(Case(dtype=dtype, rows="float16", tiles=(tile_of(path),) * 2, bias=True), device)


@pytest.mark.parametrize(("dtype", "situation", "path"), covering(SERVED, tuple(SITUATIONS), tuple(PATHS)))
def test_every_type_and_path_in_every_situation(dtype: str, situation: str, path: str, device: torch.device) -> None:
    # A width below a tile is one step of GEMM 2's K, which cannot be split.
    down = replace(tile_of(path), split_k=1) if situation == "width below a tile" else tile_of(path)
    check(Case(dtype=dtype, tiles=(tile_of(path), down), **SITUATIONS[situation]), device)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "activation", "deterministic"),
    [
        ({}, "swiglu", True),
        ({}, "gelu", False),
        ({"split_k": 2}, "swiglu_oai", False),
        ({"split_k": 2}, "gelu", True),
        ({"persistent": True}, "swiglu_oai", True),
        ({"swap_ab": True}, "swiglu", False),
    ],
    ids=str,
)
def test_large_tiles(change: dict[str, bool | int], activation: str, deterministic: bool, device: torch.device) -> None:
    tile = replace(LARGE, **change)  # type: ignore[arg-type]
    check(
        Case(
            activation=activation, deterministic=deterministic, bias=True, tiles=(tile, tile),
            hidden_size=280, width=136, tokens=133, experts=2,
        ),
        device,
    )  # fmt: skip


def remainders(hidden_size: int, width: int) -> tuple[int, ...]:
    """What of K, and of N, is left for the last tile of each GEMM."""
    return (hidden_size % WIDE.block_k, width % WIDE.block_n, width % WIDE.block_k, hidden_size % WIDE.block_n)


REAL, SMALLER = (2880, 704), (320, 192)


def test_smaller_sizes_leave_the_remainders_of_real_ones() -> None:
    assert remainders(*REAL) == remainders(*SMALLER)


@pytest.mark.parametrize(
    ("dtype", "hidden_size", "width"),
    [
        *(pytest.param(dtype, *REAL, marks=pytest.mark.slow) for dtype in ("bfloat16", "fp8_block", "mxfp4")),
        *((dtype, *SMALLER) for dtype in SERVED),
        *((dtype, 256, 1408) for dtype in ("fp8_block", "int4")),
    ],
    ids=str,
)
def test_odd_sizes(dtype: str, hidden_size: int, width: int, device: torch.device) -> None:
    case = Case(
        dtype=dtype, hidden_size=hidden_size, width=width, tokens=2, experts=2, top_k=1, group=64, tiles=(WIDE, WIDE)
    )
    check(case, device)


@pytest.mark.parametrize(("group", "block_k"), [(32, 128), (64, 32), (128, 64), (128, 128)])
@pytest.mark.parametrize("path", ["plain", "swapped"])
def test_groups_of_int4_and_steps_of_k(group: int, block_k: int, path: str, device: torch.device) -> None:
    tiles = (replace(tile_of(path), block_k=block_k),) * 2
    check(Case(dtype="int4", group=group, hidden_size=256, width=128, tiles=tiles), device)


@pytest.mark.parametrize(("group", "block_k"), [(16, 64), (96, 32), (192, 128)])
def test_other_groups_of_int4(group: int, block_k: int, device: torch.device) -> None:
    """As checkpoints may have them: 16, no power of two, and the whole of K, which need not be a multiple of a step."""
    case = Case(dtype="int4", group=64, hidden_size=192, width=192, tiles=(replace(SMALL, block_k=block_k),) * 2)
    layer = make_layer(case, device)
    rng = np.random.default_rng(1)
    regrouped = []
    for weights in (layer.w_up, layer.w_down):
        assert isinstance(weights, QuantizedWeights)
        scale = torch.tensor(rng.random((*weights.shape[:2], 192 // group)) * 0.02 + 0.01).to(torch.bfloat16)
        regrouped.append(replace(weights, scale=scale.to(device), group=group))
    layer = replace(layer, w_up=regrouped[0], w_down=regrouped[1])
    first, second = stage_errors(case, layer, run_stages(case, layer))
    assert first <= tolerance(layer.x.dtype)
    assert second <= tolerance(layer.x.dtype)


def test_a_step_of_k_that_cuts_a_group_of_int4_is_refused() -> None:
    problem = Problem(op="down", dtype="int4", k=192, n=64, group=96)
    told = refusal(problem, replace(SMALL, block_k=64), "cuda:90")
    assert told == "block_k = 64 is neither a multiple nor a part of the group of 96; use 32"
    assert refusal(problem, replace(SMALL, block_k=32), "cuda:90") is None
    assert refusal(replace(problem, k=96), replace(SMALL, block_k=64), "cuda:90") is None
    assert default_tile(problem, 4, "cuda:90").block_k == 32


@pytest.mark.parametrize(
    ("dtype", "bad"),
    [*((dtype, float("nan")) for dtype in ("bfloat16", "fp8", "fp8_block", "int8")), ("int8", float("inf"))],
)
def test_a_token_that_is_not_finite_spoils_its_own_row_alone(dtype: str, bad: float, device: torch.device) -> None:
    skip_missing(dtype, device)
    case = Case(dtype=dtype, tokens=5)
    layer = make_layer(case, device)
    args = (layer.w_up, layer.w_down, layer.topk_weights, layer.topk_ids, layer.expert, case.tiles)
    wanted = experts_forward(layer.x, *args)
    assert layer_error(case, layer) <= LAYER_TOLERANCE[dtype]
    x = layer.x.clone()
    x[2, 77] = bad
    out = experts_forward(x, *args)
    assert bool(out[2].isnan().all())
    rest = [0, 1, 3, 4]
    # fp8's one scale is of all rows: another largest one may round them otherwise.
    assert reference.row_error(f64(out[rest]), f64(wanted[rest])) <= (LAYER_TOLERANCE[dtype] if dtype == "fp8" else 0.0)


@pytest.mark.parametrize("path", ["plain", "persistent", "split-k", "swapped"])
@pytest.mark.parametrize(("hidden_size", "width"), [(100, 52), (33, 7), (181, 130)], ids=str)
def test_sizes_that_no_tile_divides(hidden_size: int, width: int, path: str, device: torch.device) -> None:
    """Rows that are no multiple of 16 bytes: slow, and right."""
    tiles = (replace(tile_of(path), block_k=16), replace(tile_of(path), block_k=16, split_k=1))
    check(Case(hidden_size=hidden_size, width=width, tiles=tiles), device)


@pytest.mark.parametrize(
    ("dtype", "deterministic"),
    [("bfloat16", True), ("int4", True), *((dtype, False) for dtype in SERVED)],
)
def test_the_whole_layer_also_by_atomic_adds(dtype: str, deterministic: bool, device: torch.device) -> None:
    skip_missing(dtype, device)
    case = Case(dtype=dtype, deterministic=deterministic, tokens=9, tiles=(tile_of("plain"), tile_of("split-k")))
    assert layer_error(case, make_layer(case, device)) <= LAYER_TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", SERVED)
def test_the_tolerance_catches_a_planted_fault(dtype: str, device: torch.device) -> None:
    skip_missing(dtype, device)
    case = Case(dtype=dtype, tokens=7, tiles=(tile_of("plain"),) * 2)
    layer = make_layer(case, device)
    stages = run_stages(case, layer)
    for fault in ("scale", "tail", "expert"):
        first, second = stage_errors(case, layer, stages, fault)
        assert not first <= tolerance(layer.x.dtype), fault
        assert not second <= tolerance(layer.x.dtype), fault


def test_the_deterministic_sum_is_in_the_order_of_the_choices(device: torch.device) -> None:
    """To the bit: a sum by atomic adds, or in the order of experts, rounds otherwise."""
    rng = np.random.default_rng(0)
    tokens, experts, hidden_size, width = 4, 5, 64, 64

    def draw(*shape: int) -> torch.Tensor:
        return torch.tensor(rng.standard_normal(shape), dtype=torch.float32, device=device)

    x, w_up, w_down = draw(tokens, hidden_size), draw(experts, width, hidden_size), draw(experts, hidden_size, width)
    ids = torch.arange(experts - 1, -1, -1, dtype=torch.int32, device=device).repeat(tokens, 1)
    weights, expert, tiles = draw(tokens, experts), Expert(activation="none"), (tile_of("plain"),) * 2
    out = experts_forward(x, w_up, w_down, weights, ids, expert, tiles)
    parts = [
        experts_forward(x, w_up, w_down, weights[:, [i]].contiguous(), ids[:, [i]].contiguous(), expert, tiles)
        for i in range(experts)
    ]
    assert torch.equal(out, sum(parts, torch.zeros_like(out)))
    assert not torch.equal(out, sum(reversed(parts), torch.zeros_like(out)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="the interpreter runs one program after another")
def test_the_deterministic_sum_is_the_same_bit_for_bit(device: torch.device) -> None:
    case = Case(tokens=40, top_k=3, tiles=(tile_of("split-k"), tile_of("split-k")))
    layer = make_layer(case, device)
    outs = [
        experts_forward(layer.x, layer.w_up, layer.w_down, layer.topk_weights, layer.topk_ids, layer.expert, case.tiles)
        for _ in range(3)
    ]
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


def test_ranks_of_expert_parallelism_sum_to_the_whole(device: torch.device) -> None:
    case = Case(experts=6, tokens=12, top_k=3)
    layer = make_layer(case, device)
    assert isinstance(layer.w_up, torch.Tensor)
    assert isinstance(layer.w_down, torch.Tensor)
    args = (layer.topk_weights, layer.topk_ids)
    whole = experts_forward(layer.x, layer.w_up, layer.w_down, *args, layer.expert, case.tiles)
    parts = torch.zeros_like(whole, dtype=torch.float32)
    for first in (0, 2, 4):
        mine = slice(first, first + 2)
        rank = replace(layer.expert, first_expert=first)
        parts += experts_forward(layer.x, layer.w_up[mine], layer.w_down[mine], *args, rank, case.tiles).float()
    assert torch.allclose(parts, whole.float(), atol=0.05 * float(whole.float().std()), rtol=0.02)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_pairs_of_any_number_a_token(dtype: str, device: torch.device) -> None:
    """As one rank with shared experts has them; what the tool times."""
    case = Case(dtype=dtype, experts=4, activation="relu2")
    layer = make_layer(case, device)
    expert = np.array([0, 0, 0, 2, 2, 3, 3, 3, 3])
    token = np.array([0, 2, 5, 1, 2, 0, 1, 2, 3])
    weight = np.linspace(0.5, 1.5, 9).astype(np.float32)
    order = np.random.default_rng(0).permutation(9)
    out = experts_of_pairs(
        layer.x,
        layer.w_up,
        layer.w_down,
        torch.tensor(expert[order], dtype=torch.int32, device=device),
        torch.tensor(token[order], dtype=torch.int32, device=device),
        torch.tensor(weight[order], device=device),
        layer.expert,
        case.tiles,
    )
    w_up, w_down = (numbers(w).transpose(0, 2, 1) for w in (layer.w_up, layer.w_down))
    expected = reference.moe_experts(
        f64(layer.x), w_up, None, w_down, token, weight.astype(float), np.bincount(expert, minlength=4)
    )
    assert reference.row_error(f64(out), expected) <= LAYER_TOLERANCE[dtype]
