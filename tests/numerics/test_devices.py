"""Where kernels are launched, and what a device has to be able to do."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from moe_kernels import reference
from moe_kernels.reference import OUTPUT_TOLERANCE
from moe_kernels.triton import Expert, Router, experts, fused_moe, grouped_mm, quantize, quantize_weights
from moe_kernels.triton import device as places
from moe_kernels.triton.alignment import align
from moe_kernels.triton.quantize import dequantize_weights, quantize_rows
from moe_kernels.triton.support import wrong_e4m3
from tests.numerics.cases import PATHS, SMALL, Case, f64, make_layer, run_stages, stage_errors, tile_of
from tests.numerics.conftest import INTERPRETED

FN, FNUZ = torch.float8_e4m3fn, torch.float8_e4m3fnuz

only_interpreted = pytest.mark.skipif(not INTERPRETED, reason="a GPU runs what is launched on it")


class Launches:
    """Which device was current when each kernel was launched; None where the launch stood in no ``launching_on``."""

    def __init__(self) -> None:
        self.current: list[torch.device] = []
        self.of_launches: list[torch.device | None] = []

    @contextlib.contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        self.current.append(device)
        yield
        self.current.pop()


@only_interpreted
def test_every_kernel_is_launched_on_the_device_of_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches on the current device, which need not be the one that the tensors are on."""
    from triton.runtime.interpreter import InterpretedFunction

    seen = Launches()
    for name in ("alignment", "launch", "quantize", "router", "rows", "weight_gradient"):
        monkeypatch.setattr(f"moe_kernels.triton.{name}.launching_on", seen.on)
    run = InterpretedFunction.run

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.of_launches.append(seen.current[-1] if seen.current else None)
        return run(self, *args, **kwargs)

    monkeypatch.setattr(InterpretedFunction, "run", noted)
    x = torch.ones(4, 64, requires_grad=True)
    w_up, w_down = torch.ones(2, 64, 64, requires_grad=True), torch.ones(2, 64, 32, requires_grad=True)
    fused_moe(x, torch.ones(4, 2), w_up, w_down, router=Router(top_k=2), tiles=(SMALL, SMALL)).sum().backward()
    grouped_mm(x, w_up, torch.tensor([1, 3]), tile=SMALL).sum().backward()
    with torch.no_grad():
        up, down = (quantize_weights(w, "int8", matrices=m) for w, m in ((w_up, 2), (w_down, 1)))
        # More choices than one block of the alignment holds are counted first.
        monkeypatch.setattr("moe_kernels.triton.alignment._PAIRS_AT_ONCE", 4)
        ids = torch.zeros(4, 2, dtype=torch.int32)
        experts(x, up, down, torch.ones(4, 2), ids, tiles=(replace(SMALL, block_k=32, split_k=2), SMALL))
    # Route, place, GEMM 1, its activation, GEMM 2, sum; aligned again, two data gradients, the activation's, two weight
    # gradients, sum; three of the grouped matmul; count, place, two quantisations, two GEMMs, the activation, the sum.
    assert len(seen.of_launches) == 6 + 7 + 3 + 8
    assert set(seen.of_launches) == {torch.device("cpu")}


def test_the_tensors_device_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[Any] = []

    @contextlib.contextmanager
    def made_current(device: torch.device) -> Iterator[None]:
        entered.append(device)
        yield

    monkeypatch.setattr(torch.cuda, "device", made_current)
    monkeypatch.setattr(places, "target_of", lambda _: "cuda:90")
    with places.launching_on(torch.device("cuda", 1)):
        assert entered == [torch.device("cuda", 1)]


def test_a_cpu_without_the_interpreter_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "interpreting", lambda: False)
    places.target_of.cache_clear()
    x = torch.ones(4, 64, dtype=torch.bfloat16)
    w_up, w_down = torch.ones(2, 64, 64, dtype=torch.bfloat16), torch.ones(2, 64, 32, dtype=torch.bfloat16)
    ones, ids = torch.ones(4, 1), torch.zeros(4, 1, dtype=torch.int32)
    calls: dict[str, Callable[[], torch.Tensor]] = {
        "fused_moe": lambda: fused_moe(x, torch.ones(4, 2), w_up, w_down, router=Router(top_k=1)),
        "experts": lambda: experts(x, w_up, w_down, ones, ids),
        "grouped_mm": lambda: grouped_mm(x, w_up, torch.tensor([4, 0])),
    }
    for call in calls.values():
        with pytest.raises(ValueError, match="TRITON_INTERPRET=1 before importing triton"):
            call()
    places.target_of.cache_clear()


def test_tensors_of_several_devices_are_reported(device: torch.device) -> None:
    x = torch.ones(4, 64, device=device)
    w_up, w_down = torch.ones(2, 64, 64, device=device), torch.ones(2, 64, 32, device=device)
    ones, ids = torch.ones(4, 1, device=device), torch.zeros(4, 1, dtype=torch.int32, device=device)
    with pytest.raises(ValueError, match="w_down is on meta and x is on"):
        experts(x, w_up, w_down.to("meta"), ones, ids)
    with pytest.raises(ValueError, match="topk_ids is on meta and x is on"):
        experts(x, w_up, w_down, ones, ids.to("meta"))
    with pytest.raises(ValueError, match="group_sizes is on meta and rows are on"):
        grouped_mm(x, w_up, torch.tensor([4, 0], device="meta"))


@pytest.mark.parametrize("dtype", ["fp8", "fp8_block"])
@pytest.mark.parametrize(
    ("target", "right", "wrong"),
    [("hip:gfx942", FNUZ, FN), ("hip:gfx950", FN, FNUZ), ("cuda:90", FN, FNUZ), (None, FN, FNUZ)],
)
def test_another_e4m3_than_the_targets_is_refused(
    dtype: str, target: str | None, right: torch.dtype, wrong: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton compiles it too: to float16's instructions on CDNA 3, and to an error of its own on NVIDIA GPUs."""
    monkeypatch.setattr(quantize, "target_of", lambda _: target)
    plain = torch.ones(1, 128, 128, dtype=torch.bfloat16)
    weights = quantize_weights(plain, dtype, matrices=1, fp8=wrong)
    told = rf"stored as {str(wrong)[6:]}, and {target or 'the interpreter'} multiplies {str(right)[6:]}; use "
    with pytest.raises(ValueError, match=told):
        quantize_rows(plain[0], weights)
    assert wrong_e4m3(str(right)[6:], target) is None


@pytest.mark.parametrize("dtype", ["fp8", "fp8_block"])
def test_e4m3_becomes_cdna_3s_without_a_loss(dtype: str) -> None:
    codes = torch.arange(256, dtype=torch.uint8).repeat(128, 1)[None].contiguous()
    scale = torch.rand((1, 1) if dtype == "fp8" else (1, 1, 1, 2), generator=torch.Generator().manual_seed(0)) + 0.5
    weights = quantize.QuantizedWeights(codes.view(torch.float8_e4m3fn), scale, dtype)
    other = weights.to_e4m3fnuz()
    assert other.values.dtype == torch.float8_e4m3fnuz
    assert torch.equal(dequantize_weights(other).nan_to_num(nan=1e9), dequantize_weights(weights).nan_to_num(nan=1e9))
    assert int(dequantize_weights(weights).isnan().sum()) == 2 * 128
    with pytest.raises(ValueError, match=r"only torch\.float8_e4m3fn becomes"):
        other.to_e4m3fnuz()


@pytest.mark.parametrize("path", [name for name, fields in PATHS.items() if fields.get("tma")])
def test_weights_at_any_address(path: str, device: torch.device) -> None:
    """As views into one buffer have them. A descriptor begins at a multiple of 16 bytes; pointers begin anywhere."""
    case = Case(tiles=(tile_of(path),) * 2)
    layer = make_layer(case, device)
    assert isinstance(layer.w_up, torch.Tensor)
    assert isinstance(layer.w_down, torch.Tensor)
    flat = torch.cat([layer.w_up.new_zeros(1), layer.w_up.flatten(), layer.w_down.flatten()])
    size = layer.w_up.numel()
    w_up, w_down = flat[1 : 1 + size].view_as(layer.w_up), flat[1 + size :].view_as(layer.w_down)
    assert w_up.data_ptr() % 16
    assert w_up.is_contiguous()
    layer = replace(layer, w_up=w_up, w_down=w_down)
    first, second = stage_errors(case, layer, run_stages(case, layer))
    assert first <= OUTPUT_TOLERANCE["bfloat16"]
    assert second <= OUTPUT_TOLERANCE["bfloat16"]


def test_rows_at_any_address(device: torch.device) -> None:
    rng = np.random.default_rng(0)
    flat = torch.tensor(rng.standard_normal(1 + 40 * 64)).to(torch.bfloat16).to(device)
    weights = torch.tensor(rng.standard_normal((2, 64, 64)) / 8).to(torch.bfloat16).to(device)
    rows, sizes = flat[1:].view(40, 64), np.array([13, 27])
    out = grouped_mm(rows, weights, torch.tensor(sizes, device=device), tile=tile_of("descriptors"))
    expected = reference.grouped_gemm(f64(rows), f64(weights).transpose(0, 2, 1), sizes)
    assert reference.row_error(f64(out), expected) <= OUTPUT_TOLERANCE["bfloat16"]


def test_a_layer_in_parts(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is memory for what is computed at a time: for all choices, of which few are of a rank's experts."""
    case = Case(experts=6, tokens=11, top_k=3)
    layer = make_layer(case, device)
    pairs: list[int] = []

    def noted(ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        pairs.append(ids.numel())
        return align(ids, *args, **kwargs)

    monkeypatch.setattr("moe_kernels.triton.layer.align", noted)
    mine = slice(2, 4)
    assert isinstance(layer.w_up, torch.Tensor)
    assert isinstance(layer.w_down, torch.Tensor)
    w_up, w_down = layer.w_up[mine], layer.w_down[mine]
    args = (layer.x, w_up, w_down, layer.topk_weights, layer.topk_ids)
    rank = replace(layer.expert, first_expert=2, ranks=3)
    whole = experts(*args, expert=rank, tiles=case.tiles)
    parts = experts(*args, expert=replace(rank, choices_at_once=13), tiles=case.tiles)
    assert pairs == [33, 12, 12, 9]
    # A row's sums do not depend on the rows beside it.
    assert torch.equal(parts, whole)
    ids = layer.topk_ids.cpu().numpy()
    here = [(e, t, c) for e in (2, 3) for t in range(11) for c in range(3) if ids[t, c] == e]
    up = f64(w_up).transpose(0, 2, 1)
    expected = reference.moe_experts(
        f64(layer.x), up[:, :, : case.width], up[:, :, case.width :], f64(w_down).transpose(0, 2, 1),
        np.array([t for _, t, _ in here]), np.array([float(layer.topk_weights[t, c]) for _, t, c in here]),
        np.array([sum(e == one for e, _, _ in here) for one in (2, 3)]), activation="swiglu",
    )  # fmt: skip
    assert reference.row_error(f64(parts), expected) <= reference.BF16_TOLERANCE
    with pytest.raises(ValueError, match="choices_at_once = 0"):
        Expert(choices_at_once=0)
