"""Routing, alignment and activation quantisation: what happens before and between the GEMMs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_kernels import reference
from moe_kernels.triton import Expert, experts
from moe_kernels.triton.alignment import align, align_groups
from moe_kernels.triton.quantize import QuantizedWeights, dequantize_weights, quantize_rows, quantize_weights
from moe_kernels.triton.router import Router, route


def expected_route(logits: np.ndarray, router: Router, bias: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The same in float64 NumPy, one token at a time."""
    ids, weights = [], []
    for row in logits:
        power = np.exp(row - row.max())
        score = 1 / (1 + np.exp(-row)) if router.scoring == "sigmoid" else power / power.sum()
        choice = score + (bias if bias is not None else 0)
        by_group = np.sort(choice.reshape(router.groups, -1), axis=1)[:, ::-1]
        group = by_group[:, 0] + (by_group[:, 1] if router.group_score == "top2" and by_group.shape[1] > 1 else 0)
        kept = np.argsort(-group, kind="stable")[: router.top_groups]
        allowed = np.repeat(np.isin(np.arange(router.groups), kept), by_group.shape[1])
        chosen = np.argsort(-np.where(allowed, choice, -np.inf), kind="stable")[: router.top_k]
        weight = score[chosen]
        weights.append((weight / weight.sum() if router.renormalize else weight) * router.scaling)
        ids.append(chosen)
    return np.array(weights), np.array(ids)


ROUTERS = {
    "Mixtral": (8, Router(top_k=2)),
    "Qwen3": (128, Router(top_k=8)),
    "no renormalisation": (64, Router(top_k=6, renormalize=False, scaling=16.0)),
    "DeepSeek-V3": (256, Router(top_k=8, scoring="sigmoid", groups=8, top_groups=4, scaling=2.5)),
    "DeepSeek-V2": (160, Router(top_k=6, renormalize=False, groups=8, top_groups=3, group_score="max")),
    "top-1 of an odd number": (13, Router(top_k=1, scoring="sigmoid")),
    "top-22": (512, Router(top_k=22)),
    "groups of one": (6, Router(top_k=2, groups=6, top_groups=3, group_score="max")),
}


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("name", ROUTERS)
def test_route(name: str, with_bias: bool, device: torch.device) -> None:
    experts, router = ROUTERS[name]
    rng = np.random.default_rng(0)
    logits = torch.tensor(rng.standard_normal((7, experts)), dtype=torch.float32, device=device)
    bias = torch.tensor(rng.standard_normal(experts) * 0.3, dtype=torch.float32, device=device) if with_bias else None
    weights, ids = route(logits, router, bias)
    wanted, wanted_ids = expected_route(
        logits.double().cpu().numpy(), router, None if bias is None else bias.double().cpu().numpy()
    )
    assert (ids.cpu().numpy() == wanted_ids).all()
    # float32's exp and sums: 2**-24 a step, some hundred steps.
    assert np.allclose(weights.cpu().numpy(), wanted, rtol=1e-5, atol=0)


def test_a_tie_goes_to_the_lower_expert(device: torch.device) -> None:
    weights, ids = route(torch.zeros(2, 8, device=device), Router(top_k=3))
    assert ids.tolist() == [[0, 1, 2]] * 2
    assert torch.allclose(weights, torch.full((2, 3), 1 / 3, device=device))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 0}, "top_k = 0"),
        ({"top_k": 2, "groups": 4, "top_groups": 5}, "top_groups = 5"),
        ({"top_k": 2, "scoring": "relu"}, "softmax or sigmoid"),
    ],
)
def test_a_wrong_router_is_reported(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Router(**arguments)  # type: ignore[arg-type]


def test_a_router_that_does_not_fit_the_experts_is_reported() -> None:
    with pytest.raises(ValueError, match="10 experts do not split into 4"):
        Router(top_k=2, groups=4, top_groups=2).check(10)
    with pytest.raises(ValueError, match="top_k = 9 exceeds the 8"):
        Router(top_k=9, groups=4, top_groups=2).check(16)
    with pytest.raises(ValueError, match="no two best"):
        Router(top_k=2, groups=4, top_groups=2).check(4)


def check_alignment(ids: np.ndarray, experts: int, first: int, block_ms: tuple[int, int], device: torch.device) -> None:
    rows = align(torch.tensor(ids, dtype=torch.int32, device=device), experts, block_ms, first_expert=first)
    local = ids.ravel() - first
    order = [i for e in range(experts) for i in np.flatnonzero(local == e)]
    sizes = np.bincount(local[(local >= 0) & (local < experts)], minlength=experts)
    assert rows.start.tolist() == [0, *np.cumsum(sizes)]
    assert rows.slot[: len(order)].tolist() == order
    assert rows.token[: len(order)].tolist() == [i // ids.shape[1] for i in order]
    for block_m in block_ms:
        tiles = rows.tiles[block_m]
        wanted = [
            (e, first_row, end)
            for e, end in enumerate(np.cumsum(sizes))
            for first_row in range(end - sizes[e], end, block_m)
        ]
        count = int(tiles.count)
        assert count == len(wanted) <= tiles.bound
        got = zip(tiles.expert[:count].tolist(), tiles.row[:count].tolist(), tiles.end[:count].tolist(), strict=True)
        assert list(got) == wanted


@settings(deadline=None, max_examples=25)
@given(
    tokens=st.integers(1, 40),
    top_k=st.integers(1, 4),
    experts=st.integers(4, 20),
    ranks=st.sampled_from([1, 2]),
    block_m=st.sampled_from([1, 8, 16, 64]),
    seed=st.integers(0, 9),
)
def test_alignment_is_a_stable_sort_cut_into_tiles(
    tokens: int, top_k: int, experts: int, ranks: int, block_m: int, seed: int, device: torch.device
) -> None:
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.permutation(experts)[:top_k] for _ in range(tokens)])
    local = experts // ranks
    check_alignment(ids, local, local * (ranks - 1), (block_m, 16), device)


def test_alignment_of_more_pairs_than_one_block(device: torch.device) -> None:
    rng = np.random.default_rng(1)
    check_alignment(rng.integers(0, 5, (700, 2)), 5, 0, (64, 32), device)
    check_alignment(np.full((1100, 1), 3), 5, 0, (64, 64), device)


NAN_ROUTERS = {
    "softmax": Router(top_k=2),
    "not renormalised": Router(top_k=2, renormalize=False),
    "sigmoid": Router(top_k=2, scoring="sigmoid"),
    "sigmoid, not renormalised": Router(top_k=2, scoring="sigmoid", renormalize=False),
    "DeepSeek-V3": Router(top_k=2, scoring="sigmoid", groups=3, top_groups=2),
}


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("name", NAN_ROUTERS)
def test_a_nan_makes_its_row_nan_and_no_other(name: str, with_bias: bool, device: torch.device) -> None:
    """Wherever it stands: GPUs' maximum passes over NaN, and a sigmoid's NaN belongs to one expert alone."""
    rng = np.random.default_rng(0)
    plain = torch.tensor(rng.standard_normal((6, 6)), dtype=torch.float32, device=device)
    bias = torch.linspace(0, 0.2, 6, device=device) if with_bias else None
    wanted, wanted_ids = expected_route(
        plain.double().cpu().numpy(), NAN_ROUTERS[name], None if bias is None else bias.double().cpu().numpy()
    )
    for expert in (0, 3, 5):
        logits = plain.clone()
        logits[2, expert] = float("nan")
        weights, ids = route(logits, NAN_ROUTERS[name], bias)
        assert bool(weights[2].isnan().all())
        # Two different experts of those that there are: a row of NaN takes no more room than any other.
        assert sorted(set(ids[2].tolist()) & set(range(6))) == sorted(ids[2].tolist())
        rest = [0, 1, 3, 4, 5]
        assert (ids.cpu().numpy()[rest] == wanted_ids[rest]).all()
        assert np.allclose(weights.cpu().numpy()[rest], wanted[rest], rtol=1e-5, atol=0)


@pytest.mark.filterwarnings("ignore:overflow")  # the interpreter's exp
def test_sigmoids_that_all_underflow_give_no_nan(device: torch.device) -> None:
    weights, _ = route(torch.full((1, 4), -120.0, device=device), Router(top_k=2, scoring="sigmoid"))
    assert bool(weights.isfinite().all())


def test_a_bias_is_read_as_it_is(device: torch.device) -> None:
    bias = torch.tensor([[0.0, 9.0], [0.0, 9.0], [5.0, 9.0], [0.0, 9.0]], device=device)[:, 0]
    assert route(torch.zeros(1, 4, device=device), Router(top_k=1), bias)[1].tolist() == [[2]]
    with pytest.raises(ValueError, match=r"bias \(2,\) should be \(4,\)"):
        route(torch.zeros(1, 4, device=device), Router(top_k=1), bias[:2])


def test_no_tokens_at_all(device: torch.device) -> None:
    rows = align(torch.zeros((0, 2), dtype=torch.int32, device=device), 4, (16, 32))
    assert rows.start.tolist() == [0] * 5
    assert {m: int(t.count) for m, t in rows.tiles.items()} == {16: 0, 32: 0}


@settings(deadline=None, max_examples=20)
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=9), block_m=st.sampled_from([8, 16, 64]))
def test_groups_give_the_tiles_that_alignment_gives(sizes: list[int], block_m: int, device: torch.device) -> None:
    ids = torch.tensor([e for e, size in enumerate(sizes) for _ in range(size)], dtype=torch.int32, device=device)
    token = torch.arange(len(ids), dtype=torch.int32, device=device)
    given_groups = align_groups(torch.tensor(sizes, device=device), token, (block_m, block_m))
    sorted_here = align(ids[:, None], len(sizes), (block_m, block_m))
    assert given_groups.start.tolist() == sorted_here.start.tolist()
    one, two = given_groups.tiles[block_m], sorted_here.tiles[block_m]
    count = int(one.count)
    assert count == int(two.count)
    for name in ("expert", "row", "end"):
        assert getattr(one, name)[:count].tolist() == getattr(two, name)[:count].tolist()


@settings(deadline=None, max_examples=50)
@given(sizes=st.lists(st.integers(-5, 40), min_size=1, max_size=9), rows=st.integers(1, 60))
def test_groups_are_cut_to_the_rows_that_there_are(sizes: list[int], rows: int, device: torch.device) -> None:
    token = torch.arange(rows, dtype=torch.int32, device=device)
    aligned = align_groups(torch.tensor(sizes, device=device), token, (16, 16))
    ends = np.minimum(np.cumsum(np.maximum(sizes, 0)), rows)
    assert aligned.start.tolist() == [0, *ends]
    tiles = aligned.tiles[16]
    starts = [0, *ends[:-1]]
    wanted = [(g, row, ends[g]) for g, start in enumerate(starts) for row in range(start, ends[g], 16)]
    count = int(tiles.count)
    assert count == len(wanted) <= tiles.bound
    got = zip(tiles.expert[:count].tolist(), tiles.row[:count].tolist(), tiles.end[:count].tolist(), strict=True)
    assert list(got) == wanted


@pytest.mark.parametrize(("dtype", "step"), [("fp8", 2**-4), ("fp8_block", 2**-4), ("int8", None)])
def test_activations_round_to_the_nearest(dtype: str, step: float | None, device: torch.device) -> None:
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.standard_normal((5, 300)) * np.logspace(-2, 2, 5)[:, None], dtype=torch.bfloat16)
    x = x.to(device)
    weights = quantize_weights(torch.ones(1, 128, 300, device=device), dtype, matrices=1)
    values, scale = quantize_rows(x, weights)
    assert scale is not None
    wide = scale.repeat_interleave(128, 1)[:, :300] if dtype == "fp8_block" else scale.reshape(-1, 1)
    back = values.double() * wide.double()
    error = (back - x.double()).abs()
    if step is None:
        assert bool((error <= 0.5001 * wide).all())
    else:
        # Below e4m3's smallest normal number (2**-6) the step is fixed: 2**-9.
        assert bool((error <= torch.maximum(x.double().abs() * step, 2**-10 * wide * 1.001)).all())


@pytest.mark.parametrize("dtype", ["fp8", "fp8_block", "int8"])
def test_rows_that_nobody_wrote_change_nothing(dtype: str, device: torch.device) -> None:
    """As those of other ranks' experts are: whatever lies there must not set a scale."""
    x = torch.linspace(-1, 1, 6 * 256, device=device).reshape(6, 256).to(torch.bfloat16)
    weights = quantize_weights(torch.ones(1, 128, 256, device=device), dtype, matrices=1)
    wanted, wanted_scale = quantize_rows(x[:4].contiguous(), weights)
    x[4:] = 1e6
    values, scale = quantize_rows(x, weights, torch.tensor([4], dtype=torch.int32, device=device))
    assert scale is not None
    assert wanted_scale is not None
    assert torch.equal(values[:4].double(), wanted.double())
    assert torch.equal(scale[: len(wanted_scale)], wanted_scale)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", ["fp8", "fp8_block", "int8"])
def test_what_is_not_finite_makes_its_row_nan_and_no_other(dtype: str, bad: float, device: torch.device) -> None:
    x = torch.tensor(np.random.default_rng(0).standard_normal((3, 1300)), dtype=torch.bfloat16, device=device)
    weights = quantize_weights(torch.ones(1, 128, 1300, device=device), dtype, matrices=1)
    kept = x.double()
    for column in (0, 700, 1299):
        rows = x.clone()
        rows[1, column] = bad
        values, scale = quantize_rows(rows, weights)
        assert scale is not None
        wide = scale.repeat_interleave(128, 1)[:, :1300] if dtype == "fp8_block" else scale.reshape(-1, 1)
        back = values.double() * wide.double()
        assert bool(back[1, column].isnan())
        assert bool(back.sum(1)[1].isnan())
        others = (back - kept)[[0, 2]].abs()
        assert bool((others <= kept[[0, 2]].abs() * 2**-4 + 0.51 * kept.abs().amax() / 127).all())


@pytest.mark.parametrize("dtype", ["fp8", "fp8_block", "int8"])
def test_a_row_of_zeros_stays_one(dtype: str, device: torch.device) -> None:
    x = torch.zeros(2, 256, dtype=torch.bfloat16, device=device)
    weights = quantize_weights(torch.ones(1, 128, 256, device=device), dtype, matrices=1)
    values, scale = quantize_rows(x, weights)
    assert scale is not None
    assert bool((scale > 0).all())
    assert not values.double().any()


def test_a_scale_known_beforehand_is_the_one_used(device: torch.device) -> None:
    x = torch.linspace(-30, 30, 2 * 256, device=device).reshape(2, 256).to(torch.bfloat16)
    known = torch.tensor([0.125], device=device)
    weights = replace(
        quantize_weights(torch.ones(1, 128, 256, device=device), "fp8", matrices=1), activation_scale=known
    )
    values, scale = quantize_rows(x, weights)
    assert scale is not None
    assert torch.equal(scale, known)
    assert bool(((values.double() * 0.125 - x.double()).abs() <= x.double().abs() * 2**-4).all())
    # Below what the scale reaches, values saturate.
    narrow, _ = quantize_rows(x, replace(weights, activation_scale=known / 8))
    assert float(narrow.double().max()) == torch.finfo(narrow.dtype).max


@pytest.mark.parametrize("dtype", ["fp8", "fp8_block", "int8", "mxfp4", "int4"])
def test_quantised_weights_are_near_what_they_were(dtype: str) -> None:
    rng = np.random.default_rng(0)
    plain = torch.tensor(rng.standard_normal((3, 2 * 96, 256)), dtype=torch.bfloat16)
    error = (dequantize_weights(quantize_weights(plain, dtype, matrices=2)) - plain.double()).square().mean().sqrt()
    # Root mean square rounding error of each type for normal numbers, measured and widened by a third.
    assert float(error) <= {"fp8": 0.036, "fp8_block": 0.036, "int8": 0.012, "mxfp4": 0.18, "int4": 0.17}[dtype]


def mxfp4(code: int, values: int = 0xF1) -> QuantizedWeights:
    """Two experts whose weights are 0.5 and -6 (or what a byte says), all under one e8m0 code."""
    bytes_, scale = torch.full((2, 64, 32), values, dtype=torch.uint8), torch.full((2, 64, 2), code, dtype=torch.uint8)
    return QuantizedWeights(bytes_, scale, "mxfp4")


@pytest.mark.parametrize("rows", [torch.bfloat16, torch.float16])
def test_mxfp4_is_exact_or_refused_under_every_scale(rows: torch.dtype) -> None:
    """By the specification: 2**(code - 127), and NaN for 255; refused is what the rows' type cannot hold."""
    for code in range(256):
        weights = mxfp4(code)
        exact = dequantize_weights(weights)
        held = (
            bool((exact.to(rows).double() == exact).all())
            and float(exact.abs().min()) >= torch.finfo(rows).smallest_normal
        )
        if rows == torch.float16:  # its subnormal numbers are multiplied as they are
            held = bool((exact.to(rows).double() == exact).all())
        assert (weights.inexact(rows) is None) == held, code
        assert (mxfp4(code, 0x08).inexact(rows) is None) == (code < 255), "groups of zeros, of either sign"
    assert dequantize_weights(mxfp4(0))[0, 0, 0] == 0.5 * 2.0**-127
    assert bool(dequantize_weights(mxfp4(255, 0)).isnan().all())


@pytest.mark.parametrize(
    ("rows", "code", "says"),
    [
        (
            torch.float16,
            103,
            "codes from 103 to 103 .*float16 rows are multiplied exactly with 104 to 140; use bfloat16",
        ),
        (torch.float16, 141, "104 to 140"),
        (torch.bfloat16, 0, "codes from 0 to 0 .*bfloat16 rows are multiplied exactly with 2 to 252"),
        (torch.bfloat16, 255, "255, which stands for NaN"),
    ],
)
def test_a_layer_refuses_scales_that_its_rows_cannot_be_multiplied_by(rows: torch.dtype, code: int, says: str) -> None:
    x, weights = torch.ones(3, 64, dtype=rows), mxfp4(code)
    with pytest.raises(ValueError, match=says):
        experts(
            x, weights, mxfp4(127), torch.ones(3, 1), torch.zeros(3, 1, dtype=torch.int32),
            expert=Expert(activation="none"),
        )  # fmt: skip


@pytest.mark.parametrize("rows", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("end", [0, 1])
def test_a_layer_is_right_under_the_smallest_and_the_largest_scale(
    rows: torch.dtype, end: int, device: torch.device
) -> None:
    code = {torch.bfloat16: (2, 252), torch.float16: (104, 140)}[rows][end]
    up, down = mxfp4(code), mxfp4(127)
    # Rows that bring the products back to the middle of the type.
    x = torch.full((3, 64), 2.0 ** {2: 100, 252: -100, 104: 12, 140: -14}[code], dtype=rows)
    out = experts(
        x.to(device), _on(up, device), _on(down, device), torch.ones(3, 1, device=device),
        torch.ones(3, 1, dtype=torch.int32, device=device), expert=Expert(activation="none"),
    )  # fmt: skip
    hidden = (x.double() @ dequantize_weights(up)[1].T).to(rows).double()
    expected = hidden @ dequantize_weights(down)[1].T
    assert reference.row_error(out.double().cpu().numpy(), expected.numpy()) <= 2**-8


def _on(weights: QuantizedWeights, device: torch.device) -> QuantizedWeights:
    return replace(weights, values=weights.values.to(device), scale=weights.scale.to(device))


def test_tiny_weights_are_quantised_to_scales_that_their_type_can_be_multiplied_by() -> None:
    for dtype, least in ((torch.float16, 2.0**-24), (torch.bfloat16, 2.0**-130), (torch.float32, 2.0**-140)):
        plain = torch.zeros(1, 8, 64, dtype=dtype)
        plain[0, :, :32] = least
        packed = quantize_weights(plain, "mxfp4", matrices=1)
        assert packed.inexact(torch.float16 if dtype == torch.float16 else torch.bfloat16) is None
        if dtype == torch.float16:
            assert torch.equal(dequantize_weights(packed), plain.double())
    for lost in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="NaN or infinity, which mxfp4 has not"):
            quantize_weights(torch.full((1, 8, 64), lost), "mxfp4", matrices=1)


def test_weights_that_do_not_fit_their_type_are_reported() -> None:
    with pytest.raises(ValueError, match="multiple"):
        quantize_weights(torch.ones(1, 8, 100), "mxfp4", matrices=1)
    with pytest.raises(ValueError, match="use fp8"):
        quantize_weights(torch.ones(1, 8, 128), "fp3", matrices=1)
    packed = quantize_weights(torch.ones(1, 8, 128), "mxfp4", matrices=1)
    with pytest.raises(ValueError, match=r"stored as torch\.uint8"):
        QuantizedWeights(packed.values.view(torch.int8), packed.scale, "mxfp4")
    with pytest.raises(ValueError, match="should be"):
        QuantizedWeights(packed.values, packed.scale[:, :4].contiguous(), "mxfp4")


@pytest.mark.parametrize(("group", "k"), [(48, 384), (0, 384), (-32, 384), (100, 400), (192, 400)])
def test_a_group_that_no_step_of_k_divides_is_refused(group: int, k: int) -> None:
    values, groups = torch.zeros(1, 8, k // 2, dtype=torch.uint8), k // group if group > 0 else 1
    with pytest.raises(ValueError, match=f"group = {group} of int4 with K = {k}: use a power of two or a multiple of"):
        QuantizedWeights(values, torch.ones(1, 8, groups, dtype=torch.bfloat16), "int4", group=group)


def test_a_static_scale_is_one_number() -> None:
    weights = quantize_weights(torch.ones(8, 128, 128), "fp8", matrices=1)
    with pytest.raises(ValueError, match=r"activation_scale \(8,\).*\.max\(\)\.float\(\)\.reshape\(1\)"):
        replace(weights, activation_scale=torch.ones(8))
    with pytest.raises(ValueError, match=r"activation_scale \(1,\) torch\.bfloat16 should be one float32"):
        replace(weights, activation_scale=torch.ones(1, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="for fp8 alone; int8 weights take none"):
        replace(quantize_weights(torch.ones(1, 8, 128), "int8", matrices=1), activation_scale=torch.ones(1))
    assert replace(weights, activation_scale=torch.ones(8).max().float().reshape(1)).activation_scale is not None


def test_quantised_parameters_keep_no_graph() -> None:
    weights = quantize_weights(torch.nn.Parameter(torch.ones(1, 8, 128)), "fp8_block", matrices=1)
    assert not weights.values.requires_grad
    assert not weights.scale.requires_grad
