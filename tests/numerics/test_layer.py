"""Every data type, activation and path of the forward kernels; odd sizes; planted faults."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from moe_kernels import reference
from moe_kernels.kernel import Problem
from moe_kernels.reference import LAYER_TOLERANCE, OUTPUT_TOLERANCE
from moe_kernels.triton.formats import FORMATS, SERVED, missing_on
from moe_kernels.triton.launch import target_of
from moe_kernels.triton.layer import experts_of_pairs
from moe_kernels.triton.support import refusal
from tests.numerics.cases import LARGE, PATHS, WIDE, Case, f64, layer_error, make_layer, numbers, stage_errors, tile_of

ACTIVATIONS = ("swiglu", "geglu", "geglu_tanh", "swiglu_oai", "relu2", "silu", "gelu")
SITUATIONS: dict[str, dict[str, object]] = {
    "random": {},
    "skewed": {"routing": "skewed", "top_k": 1},
    "empty experts": {"routing": "empty"},
    "one token": {"tokens": 1},
    "top-22": {"top_k": 22, "experts": 24, "tokens": 3},
    "more rows than a tile": {"tokens": 45, "experts": 3},
    "width below a tile": {"width": 32, "hidden_size": 96},
}


def tolerance(dtype: str) -> float:
    return OUTPUT_TOLERANCE["float16" if dtype == "float16" else "bfloat16"]


def check(case: Case, device: torch.device) -> None:
    if reason := missing_on(case.dtype, target_of(device)):
        pytest.skip(reason)
    for tile in case.tiles:
        reason = refusal(Problem(op="down", dtype=case.dtype, group=case.group), tile, target_of(device))
        if reason and "accelerator" in reason:
            pytest.skip(reason)
    first, second = stage_errors(case, make_layer(case, device))
    assert first <= tolerance(case.dtype)
    assert second <= tolerance(case.dtype)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", SERVED)
def test_every_type_activation_and_path(dtype: str, activation: str, path: str, device: torch.device) -> None:
    tile = tile_of(path)
    bias = activation in ("swiglu_oai", "gelu")
    check(Case(dtype=dtype, activation=activation, tiles=(tile, tile), bias=bias), device)


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("dtype", SERVED)
def test_every_type_in_every_situation(dtype: str, situation: str, device: torch.device) -> None:
    tiles = (tile_of("swapped"), tile_of("plain"))
    check(Case(dtype=dtype, tiles=tiles, **SITUATIONS[situation]), device)  # type: ignore[arg-type]


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("path", PATHS)
def test_every_path_in_every_situation(path: str, situation: str, device: torch.device) -> None:
    # A width below a tile is one step of GEMM 2's K, which cannot be split.
    down = replace(tile_of(path), split_k=1) if situation == "width below a tile" else tile_of(path)
    check(Case(tiles=(tile_of(path), down), **SITUATIONS[situation]), device)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{}, {"split_k": 2}, {"persistent": True}, {"swap_ab": True}], ids=str)
@pytest.mark.parametrize(("activation", "deterministic"), [("swiglu", True), ("swiglu_oai", False), ("gelu", True)])
def test_large_tiles(activation: str, deterministic: bool, change: dict[str, bool | int], device: torch.device) -> None:
    tile = replace(LARGE, **change)  # type: ignore[arg-type]
    check(
        Case(
            activation=activation, deterministic=deterministic, bias=True, tiles=(tile, tile),
            hidden_size=280, width=136, tokens=150, experts=2,
        ),
        device,
    )  # fmt: skip


@pytest.mark.parametrize(("hidden_size", "width"), [(2880, 704), (256, 1408)], ids=str)
@pytest.mark.parametrize("dtype", SERVED)
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


@pytest.mark.parametrize("path", ["plain", "persistent", "split-k", "swapped"])
@pytest.mark.parametrize(("hidden_size", "width"), [(100, 52), (33, 7), (181, 130)], ids=str)
def test_sizes_that_no_tile_divides(hidden_size: int, width: int, path: str, device: torch.device) -> None:
    """Rows that are no multiple of 16 bytes: slow, and right."""
    tiles = (replace(tile_of(path), block_k=16), replace(tile_of(path), block_k=16, split_k=1))
    check(Case(hidden_size=hidden_size, width=width, tiles=tiles), device)


@pytest.mark.parametrize("dtype", SERVED)
def test_the_whole_layer_also_by_atomic_adds(dtype: str, device: torch.device) -> None:
    if reason := missing_on(dtype, target_of(device)):
        pytest.skip(reason)
    for deterministic in (True, False):
        tiles = (tile_of("plain"), tile_of("split-k"))
        case = Case(dtype=dtype, deterministic=deterministic, tokens=20, tiles=tiles)
        assert layer_error(case, make_layer(case, device)) <= LAYER_TOLERANCE[dtype]


@pytest.mark.parametrize("fault", ["scale", "tail", "expert"])
@pytest.mark.parametrize("dtype", SERVED)
def test_the_tolerance_catches_a_planted_fault(dtype: str, fault: str, device: torch.device) -> None:
    if reason := missing_on(dtype, target_of(device)):
        pytest.skip(reason)
    case = Case(dtype=dtype, tokens=12, tiles=(tile_of("plain"),) * 2)
    first, second = stage_errors(case, make_layer(case, device), fault)
    assert not first <= tolerance(dtype)
    assert not second <= tolerance(dtype)


def test_the_deterministic_sum_is_the_same_bit_for_bit(device: torch.device) -> None:
    from moe_kernels.triton.layer import experts_forward

    case = Case(tokens=40, top_k=4, tiles=(tile_of("split-k"), tile_of("split-k")))
    layer = make_layer(case, device)
    outs = [
        experts_forward(layer.x, layer.w_up, layer.w_down, layer.topk_weights, layer.topk_ids, layer.expert, case.tiles)
        for _ in range(3)
    ]
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


def test_ranks_of_expert_parallelism_sum_to_the_whole(device: torch.device) -> None:
    from moe_kernels.triton.layer import experts_forward

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


def test_formats_are_all_tested() -> None:
    assert set(SERVED) == {f for f, form in FORMATS.items() if form.weight_bits <= 16}
