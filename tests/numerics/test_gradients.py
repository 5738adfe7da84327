"""The backward pass and the registered operators."""

import itertools
import re
import sys

import numpy as np
import pytest
import torch

from moe_kernels import reference
from moe_kernels.tile import TritonTile
from moe_kernels.triton import Expert, QuantizedWeights, Router, experts, fused_moe, grouped_mm, quantize_weights
from tests.numerics.cases import SMALL, f64
from tests.numerics.conftest import INTERPRETED

TILES = (SMALL, SMALL)
Operands = tuple[
    torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None
]
"""x, w_up, w_down, the router's weights, the experts' numbers, b_up, b_down."""
only_interpreted = pytest.mark.skipif(not INTERPRETED, reason="float64 matrix instructions are not on every GPU")


def reference_experts(
    x: torch.Tensor, w_up: torch.Tensor, w_down: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor,
    b_up: torch.Tensor | None, b_down: torch.Tensor | None, activation: str, alpha: float = 1.702, limit: float = 7.0,
) -> torch.Tensor:  # fmt: skip
    """Dense PyTorch: every token through its own experts; a choice that names none of them counts as zero."""
    out = torch.zeros_like(x)
    for expert in range(w_up.shape[0]):
        product = x @ w_up[expert].T + (0 if b_up is None else b_up[expert])
        gate, up = (
            product.chunk(2, -1) if activation in ("swiglu", "geglu", "geglu_tanh", "swiglu_oai") else (product,) * 2
        )
        if activation == "swiglu":
            hidden = torch.nn.functional.silu(gate) * up
        elif activation in ("geglu", "geglu_tanh"):
            form = "tanh" if activation == "geglu_tanh" else "none"
            hidden = torch.nn.functional.gelu(gate, approximate=form) * up
        elif activation == "swiglu_oai":
            g = gate.clamp(max=limit)
            hidden = g * torch.sigmoid(alpha * g) * (up.clamp(-limit, limit) + 1)
        elif activation == "relu2":
            hidden = torch.relu(gate) ** 2
        elif activation == "silu":
            hidden = torch.nn.functional.silu(gate)
        else:
            hidden = torch.nn.functional.gelu(gate) if activation == "gelu" else gate
        y = hidden @ w_down[expert].T + (0 if b_down is None else b_down[expert])
        out = out + (torch.where(ids == expert, weights, 0).sum(1, keepdim=True)) * y
    return out


def make(device: torch.device, activation: str, bias: bool, dtype: torch.dtype = torch.float64) -> Operands:
    rng = np.random.default_rng(3)
    tokens, hidden_size, width, num_experts, top_k = 4, 7, 5, 3, 2
    matrices = Expert(activation=activation).matrices

    def leaf(*shape: int) -> torch.Tensor:
        return torch.tensor(rng.standard_normal(shape), dtype=dtype, device=device).requires_grad_()

    # Expert 1 gets nothing: its weights' gradient is zero.
    ids = torch.tensor([[0, 2], [2, 0], [2, 0], [0, 2]], dtype=torch.int32, device=device)
    return (
        leaf(tokens, hidden_size),
        leaf(num_experts, matrices * width, hidden_size),
        leaf(num_experts, hidden_size, width),
        leaf(tokens, top_k),
        ids,
        leaf(num_experts, matrices * width) if bias else None,
        leaf(num_experts, hidden_size) if bias else None,
    )


@only_interpreted
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", ["swiglu", "geglu", "geglu_tanh", "swiglu_oai", "relu2", "silu", "gelu", "none"])
def test_gradients_are_the_references(activation: str, bias: bool, device: torch.device) -> None:
    x, w_up, w_down, weights, ids, b_up, b_down = make(device, activation, bias)
    leaves = [t for t in (x, w_up, w_down, weights, b_up, b_down) if t is not None]
    # Not gpt-oss's alpha and limit, which are the defaults; and a limit that many values meet.
    expert = Expert(activation=activation, alpha=1.3, limit=2.0)
    out = experts(x, w_up, w_down, weights, ids, b_gate_up=b_up, b_down=b_down, expert=expert, tiles=TILES)
    seed = torch.tensor(np.random.default_rng(5).standard_normal(out.shape), device=device)
    got = torch.autograd.grad(out, leaves, seed)
    wanted_out = reference_experts(x, w_up, w_down, weights, ids, b_up, b_down, activation, 1.3, 2.0)
    wanted = torch.autograd.grad(wanted_out, leaves, seed)
    # The activation's constants are float32 in the kernel.
    assert torch.allclose(out, wanted_out, rtol=1e-5, atol=1e-6)
    for one, other in zip(got, wanted, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)
    assert not got[1][1].any()


@only_interpreted
def test_alpha_and_limit_are_those_of_gpt_oss_by_default(device: torch.device) -> None:
    x, w_up, w_down, weights, ids, b_up, b_down = make(device, "swiglu_oai", True)
    with torch.no_grad():
        out = experts(
            3 * x, w_up, w_down, weights, ids, b_gate_up=b_up, b_down=b_down,
            expert=Expert(activation="swiglu_oai"), tiles=TILES,
        )  # fmt: skip
        wanted = reference_experts(3 * x, w_up, w_down, weights, ids, b_up, b_down, "swiglu_oai")
    assert torch.allclose(out, wanted, rtol=1e-5, atol=1e-6)


@only_interpreted
def test_gradients_of_one_rank(device: torch.device) -> None:
    """Experts 2, 3 and 4 are here: choices of others count as zero, forward and backward."""
    x, w_up, w_down, weights, _, b_up, b_down = make(device, "swiglu", bias=True)
    ids = torch.tensor([[0, 2], [2, 4], [4, 5], [1, 0]], dtype=torch.int32, device=device)
    leaves = [x, w_up, w_down, weights, b_up, b_down]
    out = experts(
        x, w_up, w_down, weights, ids, b_gate_up=b_up, b_down=b_down, expert=Expert(first_expert=2), tiles=TILES
    )
    wanted_out = reference_experts(x, w_up, w_down, weights, ids - 2, b_up, b_down, "swiglu")
    seed = torch.tensor(np.random.default_rng(5).standard_normal(out.shape), device=device)
    assert torch.allclose(out, wanted_out, rtol=1e-5, atol=1e-6)
    got, wanted = torch.autograd.grad(out, leaves, seed), torch.autograd.grad(wanted_out, leaves, seed)
    for one, other in zip(got, wanted, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


@only_interpreted
def test_gradcheck(device: torch.device) -> None:
    x, w_up, w_down, weights, ids, *_ = make(device, "swiglu", bias=False)
    expert = Expert()
    assert torch.autograd.gradcheck(
        lambda x, w_up, w_down, weights: experts(x, w_up, w_down, weights, ids, expert=expert, tiles=TILES),
        (x, w_up, w_down, weights),
        fast_mode=True,
        atol=1e-4,
    )


@only_interpreted
def test_gradcheck_of_the_grouped_gemm(device: torch.device) -> None:
    rng = np.random.default_rng(0)
    rows = torch.tensor(rng.standard_normal((9, 6)), device=device).requires_grad_()
    weights = torch.tensor(rng.standard_normal((4, 5, 6)), device=device).requires_grad_()
    sizes = torch.tensor([4, 0, 5, 0], device=device)
    assert torch.autograd.gradcheck(lambda a, b: grouped_mm(a, b, sizes, tile=SMALL), (rows, weights), fast_mode=True)
    short = grouped_mm(rows, weights, torch.tensor([2, 1, 0, 0], device=device), tile=SMALL)
    assert not short[3:].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_in_16_bits(dtype: torch.dtype, device: torch.device) -> None:
    rng = np.random.default_rng(1)
    tokens, hidden_size, width, num_experts = 24, 96, 64, 4
    x, w_up, w_down = (
        torch.tensor(rng.standard_normal(shape) * scale).to(dtype).to(device).requires_grad_()
        for shape, scale in (
            ((tokens, hidden_size), 1.0),
            ((num_experts, 2 * width, hidden_size), hidden_size**-0.5),
            ((num_experts, hidden_size, width), width**-0.5),
        )
    )
    weights = torch.tensor(rng.random((tokens, 2)), dtype=torch.float32, device=device).requires_grad_()
    ids = torch.tensor(np.stack([rng.permutation(num_experts)[:2] for _ in range(tokens)]), device=device)
    out = experts(x, w_up, w_down, weights, ids, tiles=TILES)
    seed = torch.tensor(rng.standard_normal(out.shape)).to(dtype).to(device)
    leaves = (x, w_up, w_down, weights)
    got = torch.autograd.grad(out, leaves, seed)
    wide = [t.detach().double().requires_grad_() for t in leaves]
    expected = reference_experts(wide[0], wide[1], wide[2], wide[3], ids, None, None, "swiglu")
    wanted = torch.autograd.grad(expected, wide, seed.double())
    for one, other in zip(got, wanted, strict=True):
        error = (one.double() - other).square().mean().sqrt() / other.square().mean().sqrt()
        # Every product in the chain rounds once: 2**-9.3 rms (bfloat16), 2**-12.3 (float16), four in a row.
        assert float(error) <= (0.01 if dtype == torch.bfloat16 else 0.0015)


def test_router_gradients(device: torch.device) -> None:
    logits = torch.tensor(np.random.default_rng(0).standard_normal((5, 12)), dtype=torch.float32, device=device)
    for scoring, renormalize in itertools.product(("softmax", "sigmoid"), (True, False)):
        router = Router(top_k=3, scoring=scoring, renormalize=renormalize, scaling=2.0)  # type: ignore[arg-type]
        one = logits.clone().requires_grad_()
        weights, ids = torch.ops.moe_kernels.route(
            one, None, 3, router.scoring, router.renormalize, router.scaling, 1, 1, "top2"
        )
        other = logits.double().requires_grad_()
        scores = other.sigmoid() if scoring == "sigmoid" else other.softmax(1)
        chosen = scores.gather(1, ids.long())
        wanted = 2.0 * (chosen / chosen.sum(1, keepdim=True) if renormalize else chosen)
        seed = torch.rand(5, 3, device=device, dtype=torch.float64)
        (got,) = torch.autograd.grad(weights, one, seed.float())
        (expected,) = torch.autograd.grad(wanted, other, seed)
        assert torch.allclose(got.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # torch.compile's own
def test_operators_keep_their_contracts(device: torch.device) -> None:
    x, w_up, w_down, weights, ids, b_up, b_down = make(device, "swiglu_oai", True, torch.float32)
    fields = TritonTile(block_m=16, block_n=16, block_k=16, num_warps=4, num_stages=2, group_m=1)
    tile = [int(value) for value in fields.as_dict().values()]
    numbers = ("swiglu_oai", 1.702, 7.0, 0)
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(
        torch.ops.moe_kernels.experts_train.default,
        (x, w_up, w_down, weights, ids, b_up, b_down, *numbers, 1, tile * 2),
        test_utils=tests,
    )
    torch.library.opcheck(
        torch.ops.moe_kernels.route.default,
        (torch.randn(4, 6, device=device, requires_grad=True), None, 2, "softmax", True, 1.0, 1, 1, "top2"),
        test_utils=tests,
    )
    sizes = torch.tensor([2, 0, 2], device=device)
    torch.library.opcheck(torch.ops.moe_kernels.grouped_gemm.default, (x, w_up, sizes, tile), test_utils=tests)


@pytest.mark.filterwarnings("ignore")
def test_the_layer_compiles_in_one_graph(device: torch.device) -> None:
    rng = np.random.default_rng(2)

    def draw(*shape: int) -> torch.Tensor:
        return torch.tensor(rng.standard_normal(shape) / shape[-1] ** 0.5).to(torch.bfloat16).to(device)

    x, w_up, w_down, gate = draw(12, 64), draw(4, 2 * 32, 64), draw(4, 64, 32), draw(4, 64)

    def layer(x: torch.Tensor, w_up: torch.Tensor) -> torch.Tensor:
        return fused_moe(x, x @ gate.T, w_up, w_down, router=Router(top_k=2), tiles=TILES)

    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x, w_up), layer(x, w_up))
    leaf = w_up.clone().requires_grad_()
    (got,) = torch.autograd.grad(compiled(x, leaf).float().square().sum(), leaf)
    other = w_up.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(layer(x, other).float().square().sum(), other)
    assert torch.equal(got, wanted)


def test_the_default_tiles_run(device: torch.device) -> None:
    rng = np.random.default_rng(4)

    def draw(*shape: int) -> torch.Tensor:
        return torch.tensor(rng.standard_normal(shape) / shape[-1] ** 0.5).to(torch.bfloat16).to(device)

    x, logits = draw(5, 64), draw(5, 4)
    for dtype in ("bfloat16", "int8", "mxfp4", "int4"):
        w_up, w_down = draw(4, 2 * 64, 64), draw(4, 64, 64)
        if dtype == "bfloat16":
            out = fused_moe(x, logits, w_up, w_down, router=Router(top_k=2))
        else:
            quantized = [quantize_weights(w, dtype, matrices=m, group=64) for w, m in ((w_up, 2), (w_down, 1))]
            out = fused_moe(x, logits, *quantized, router=Router(top_k=2))
        assert out.shape == x.shape
        assert bool(torch.isfinite(out.float()).all())


def test_wrong_use_is_reported(device: torch.device) -> None:
    x = torch.zeros(4, 64, dtype=torch.bfloat16, device=device)
    w_up = torch.zeros(2, 64, 64, dtype=torch.bfloat16, device=device)
    w_down = torch.zeros(2, 64, 32, dtype=torch.bfloat16, device=device)
    logits = torch.zeros(4, 2, device=device)
    router = Router(top_k=2)
    with pytest.raises(ValueError, match="do not fit x"):
        fused_moe(x, logits, w_down, w_down, router=router)
    with pytest.raises(ValueError, match="both biases"):
        fused_moe(x, logits, w_up, w_down, router=router, b_down=torch.zeros(2, 64, device=device))
    with pytest.raises(ValueError, match="convert one"):
        fused_moe(x.float(), logits, w_up, w_down, router=router)
    with pytest.raises(ValueError, match="activation = 'swish'"):
        Expert(activation="swish")
    ids = torch.zeros(4, 1, dtype=torch.int32, device=device)
    with pytest.raises(ValueError, match="should both be"):
        experts(x, w_up, w_down, torch.ones(3, 1, device=device), ids)
    with pytest.raises(ValueError, match="int32 or int64"):
        experts(x, w_up, w_down, torch.ones(4, 1, device=device), ids.float())
    with pytest.raises(ValueError, match="scales of 1 matrices"):
        experts(
            x, quantize_weights(w_up, "fp8", matrices=1), quantize_weights(w_down, "fp8", matrices=1),
            torch.ones(4, 1, device=device), ids,
        )  # fmt: skip
    with pytest.raises(ValueError, match="have no gradients"):
        experts(
            x.clone().requires_grad_(), quantize_weights(w_up, "int8", matrices=2),
            quantize_weights(w_down, "int8", matrices=1), torch.ones(4, 1, device=device), ids,
        )  # fmt: skip
    with pytest.raises(ValueError, match="do not fit"):
        grouped_mm(x[:, :16], w_up, torch.tensor([2, 2], device=device))
    with pytest.raises(ValueError, match=r"weights are torch\.int8"):
        grouped_mm(x.to(torch.int8), w_up.to(torch.int8), torch.tensor([2, 2], device=device), tile=SMALL)


def test_sizes_that_do_not_fit_are_reported(device: torch.device) -> None:
    x = torch.zeros(4, 64, dtype=torch.bfloat16, device=device)
    w_up = torch.zeros(2, 64, 64, dtype=torch.bfloat16, device=device)
    w_down = torch.zeros(2, 64, 32, dtype=torch.bfloat16, device=device)
    ones, ids = torch.ones(4, 1, device=device), torch.zeros(4, 1, dtype=torch.int32, device=device)
    router = Router(top_k=2)
    with pytest.raises(ValueError, match=r"logits \(4, 4\) should be \(4, 2\), for 2 experts on each of 1 ranks"):
        fused_moe(x, torch.zeros(4, 4, device=device), w_up, w_down, router=router)
    with pytest.raises(ValueError, match=r"router_logits \(3, 2\) should be \(4, 2\)"):
        fused_moe(x, torch.zeros(3, 2, device=device), w_up, w_down, router=router)
    fused_moe(x, torch.zeros(4, 4, device=device), w_up, w_down, router=router, expert=Expert(ranks=2), tiles=TILES)
    with pytest.raises(ValueError, match=r"x \(2, 2, 64\) should be \[tokens, hidden size\]; flatten"):
        experts(x.view(2, 2, 64), w_up, w_down, ones, ids)
    with pytest.raises(ValueError, match=r"w_down \(128, 32\) should have three dimensions"):
        experts(x, w_up, w_down.flatten(0, 1), ones, ids)
    for wrong in ({"first_expert": -1}, {"ranks": 0}):
        with pytest.raises(ValueError, match=r"first_expert = .*, ranks = "):
            Expert(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="should be whole numbers"):
        grouped_mm(x, w_up, torch.ones(2, device=device))


@only_interpreted
@pytest.mark.parametrize("sizes", [[1, 300000], [3, 2], [5, -1]])
def test_sizes_past_the_rows_are_refused_on_the_host(sizes: list[int], device: torch.device) -> None:
    rows, weights = torch.zeros(4, 64, device=device), torch.zeros(2, 64, 64, device=device)
    with pytest.raises(ValueError, match=f"sizes sum to {sum(sizes)}, the least is {min(sizes)}; give sizes of 0"):
        grouped_mm(rows, weights, torch.tensor(sizes, device=device))


@pytest.mark.parametrize("sizes", [[10, 0, 3000], [10, -7, 12], [0, 300, 300], [20, 1, 1]])
def test_sizes_past_the_rows_write_nothing_there(
    sizes: list[int], device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those on a GPU, which the host does not see: forward and backward use the rows that there are."""
    # By its file: the package has a function of this name.
    monkeypatch.setattr(sys.modules["moe_kernels.triton.operators.grouped_mm"], "_check_sizes", lambda *_: None)
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.tensor(rng.standard_normal(shape), dtype=torch.float32, device=device).requires_grad_()

    rows, weights, seed = draw(20, 32), draw(3, 16, 32), draw(20, 16).detach()
    out = grouped_mm(rows, weights, torch.tensor(sizes, device=device), tile=SMALL)
    ends = np.minimum(np.cumsum(np.maximum(sizes, 0)), 20)
    expert = np.searchsorted(ends, np.arange(20), side="right")
    one_hot = torch.tensor(np.eye(4)[expert][:, :3], device=device)
    wide = [t.detach().double().requires_grad_() for t in (rows, weights)]
    wanted = torch.einsum("re,rk,enk->rn", one_hot, *wide)
    assert torch.allclose(out.double(), wanted, rtol=1e-4, atol=1e-4)
    for got, right in zip(
        torch.autograd.grad(out, (rows, weights), seed), torch.autograd.grad(wanted, wide, seed.double()), strict=True
    ):
        assert torch.allclose(got.double(), right, rtol=1e-4, atol=1e-4)


@only_interpreted
def test_the_hint_about_a_checkpoints_scales_works(device: torch.device) -> None:
    """DeepSeek-V3's files have [rows / 128, K / 128] an expert, in the matrix of gate and up one below the other."""
    rng = np.random.default_rng(0)

    def blocks(rows: int, k: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        values = torch.tensor(rng.standard_normal((2, rows, k))).to(torch.float8_e4m3fn).to(device)
        scale = torch.tensor(rng.random((2, rows // 128, k // 128)) / 10 + 0.05, dtype=torch.float32, device=device)
        wide = np.repeat(np.repeat(f64(scale), 128, axis=1), 128, axis=2)
        return values, scale, f64(values) * wide

    (up, up_scale, up_wide), (down, down_scale, down_wide) = blocks(512, 256), blocks(256, 256)
    quantised = []
    for values, scale, name in ((up, up_scale, "gate and up"), (down, down_scale, "one matrix")):
        with pytest.raises(ValueError, match="view it so") as told:
            QuantizedWeights(values, scale, "fp8_block")
        (shape,) = re.findall(rf"\(([\d, ]+)\) for {name}", str(told.value))
        quantised.append(QuantizedWeights(values, scale.view([int(n) for n in shape.split(",")]), "fp8_block"))
    x = torch.tensor(rng.standard_normal((3, 256))).to(torch.bfloat16).to(device)
    ids = torch.tensor([[0], [1], [1]], dtype=torch.int32, device=device)
    out = experts(x, quantised[0], quantised[1], torch.ones(3, 1, device=device), ids, tiles=TILES)
    up_wide = up_wide.transpose(0, 2, 1)
    expected = reference.moe_experts(
        f64(x), up_wide[:, :, :256], up_wide[:, :, 256:], down_wide.transpose(0, 2, 1), np.arange(3), np.ones(3),
        np.array([1, 2]), activation="swiglu",
    )  # fmt: skip
    assert reference.row_error(f64(out), expected) <= reference.LAYER_TOLERANCE["fp8_block"]
    with pytest.raises(ValueError, match=r"values \(2, 4, 2, 16\) should be \[experts, rows, K\]; flatten blocks of K"):
        QuantizedWeights(torch.zeros(2, 4, 2, 16, dtype=torch.uint8), torch.zeros(2, 4, 2, dtype=torch.uint8), "mxfp4")


def test_what_is_frozen_gets_no_gradient(device: torch.device) -> None:
    x, w_up, w_down, weights, ids, b_up, b_down = make(device, "swiglu_oai", True, torch.float32)
    expert = Expert(activation="swiglu_oai")
    every = (x, w_up, w_down, weights, b_up, b_down)

    def run(*tensors: torch.Tensor) -> torch.Tensor:
        return experts(
            tensors[0], tensors[1], tensors[2], tensors[3], ids,
            b_gate_up=tensors[4], b_down=tensors[5], expert=expert, tiles=TILES,
        ).square().sum()  # fmt: skip

    wanted = torch.autograd.grad(run(*every), every)
    for kept in ((0,), (1,), (2, 3), (4,), (5,)):
        some = [t.detach().requires_grad_(i in kept) for i, t in enumerate(every)]
        run(*some).backward()
        for i, (one, gradient) in enumerate(zip(some, wanted, strict=True)):
            assert (one.grad is not None) == (i in kept)
            if one.grad is not None:
                assert torch.allclose(one.grad, gradient, rtol=1e-5, atol=1e-6)
