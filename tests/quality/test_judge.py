"""Shapes beside a reference: the law that was asked for, where it has no say, and the other laws."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError
from moe_codesign.models import find_model
from moe_codesign.quality import LAWS, Ablation, Ablations, Judge, law_named
from moe_codesign.quality.features import features_of, forward_flops_per_token

QWEN = find_model("Qwen3-30B-A3B")
TOKENS = 36e12


def shape(**changes: Any) -> MoEShape:
    return QWEN.replaced(**changes)


def grid(**changes: Any) -> list[MoEShape]:
    """Widths, experts and top-k around the reference."""
    product = itertools.product(range(384, 1537, 128), range(64, 257, 32), range(4, 17, 2))
    return [shape(moe_intermediate_size=i, num_experts=e, num_experts_per_tok=k, **changes) for i, e, k in product]


@pytest.mark.parametrize("name", ["efficiency_leverage", "abnar", "zhao"])
def test_where_a_law_has_a_say_more_experts_never_make_a_worse_model(name: str) -> None:
    judge, shapes = Judge(law_named(name), QWEN, TOKENS), grid()
    found = judge.qualities(shapes)
    assert found.usable.any()
    more = judge.qualities([dataclasses.replace(s, num_experts=s.num_experts + 1) for s in shapes])
    active = judge.qualities([dataclasses.replace(s, num_experts_per_tok=s.num_experts_per_tok + 1) for s in shapes])
    assert (more.ratio[found.usable] >= found.ratio[found.usable] * (1 - 1e-9)).all()
    assert (active.ratio[found.usable] >= found.ratio[found.usable] * (1 - 1e-9)).all()


def test_two_experts_of_64_no_longer_beat_all_of_them() -> None:
    """At 36e12 tokens the law once said 0.551 for top-2, 0.432 for top-8 and 0.478 for all 64 experts of 384."""
    judge = Judge(law_named("efficiency_leverage"), QWEN, TOKENS)
    shapes = [shape(moe_intermediate_size=384, num_experts=64, num_experts_per_tok=k) for k in range(1, 65)]
    found = judge.qualities(shapes)
    assert "one more expert would make a worse model" in judge.why_unusable(shapes[1])
    assert (np.diff(found.ratio[found.usable]) > 0).all()
    assert found.usable[-1]
    assert found.ratio[-1] > found.ratio[found.usable][0] * 1.5


def test_a_law_for_other_designs_has_no_say() -> None:
    with pytest.raises(UserError, match=r"'krajewski' has no say on Qwen3-30B-A3B.*active experts over G 0\.75"):
        Judge(law_named("krajewski"), QWEN, TOKENS)
    with pytest.raises(UserError, match=r"'clark' has no say.*active experts 8 is 8 times above"):
        Judge(law_named("clark"), QWEN, TOKENS)
    fits = shape(moe_intermediate_size=1024, num_experts_per_tok=8, num_experts=512)
    assert Judge(law_named("krajewski"), fits, TOKENS).qualities([fits]).usable[0]


def test_other_laws_are_asked_too() -> None:
    judge = Judge(law_named("efficiency_leverage"), QWEN, TOKENS)
    assert judge.qualities([QWEN]).of(0).by_law == pytest.approx({"abnar": 1.0, "zhao": 1.0}, abs=1e-4)
    too_sparse = shape(num_experts=512)
    assert set(judge.qualities([too_sparse]).of(0).by_law) == {"zhao"}, "abnar's experiments end at sparsity 0.98"
    assert judge.notes() == (
        "Quality by the law efficiency_leverage (Tian et al., arXiv 2507.17702): size that the reference would need "
        "for the same loss, at equal training tokens; it is carried on far beyond its experiments: Qwen3-30B-A3B's "
        "training compute C 1.89e+23 is 631 times above the 3e+20 of its experiments.",
        "Other laws that apply to Qwen3-30B-A3B: abnar, zhao.",
    )


def test_what_is_unlike_the_experiments_is_said_of_a_shape() -> None:
    judge = Judge(law_named("efficiency_leverage"), QWEN, TOKENS)
    assert judge.outside(QWEN) == ()
    assert judge.outside(shape(moe_intermediate_size=4096)) == (
        "granularity G = 2 H / I 1 is 2 times below the 2 of its experiments",
    )
    assert "latent" in judge.outside(shape(moe_latent_size=1024))[0]
    assert "zero experts" in judge.outside(shape(zero_expert_num=64))[0]


def test_equal_compute_takes_from_tokens_what_active_experts_cost() -> None:
    """Twice the FLOPs a token are half the tokens: the gain over equal tokens falls by that factor."""
    more = shape(num_experts_per_tok=16)
    tokens = Judge(law_named("efficiency_leverage"), QWEN, TOKENS).qualities([more]).ratio[0]
    compute = Judge(law_named("efficiency_leverage"), QWEN, TOKENS, "training_compute").qualities([more]).ratio[0]
    assert tokens > 1 > compute
    assert compute == pytest.approx(tokens * forward_flops_per_token(QWEN) / forward_flops_per_token(more), rel=1e-3)


def planted(best: float, rows: int, noise: float = 0.0) -> list[Ablation]:
    """Runs whose loss is least at an expert width of ``best``."""
    rng = np.random.default_rng(0)
    return [
        Ablation(shape(moe_intermediate_size=int(i)), 1e12, 2 + 0.05 * np.log(i / best) ** 2 + noise * rng.normal())
        for i in np.linspace(256, 2048, rows)
    ]


def test_own_runs_find_their_optimum() -> None:
    law = Ablations(planted(700.0, 12))
    shapes = [shape(moe_intermediate_size=i) for i in range(256, 2049, 16)]
    ratios = Judge(law, QWEN, 1e12).qualities(shapes).ratio
    assert shapes[int(np.argmax(ratios))].moe_intermediate_size == pytest.approx(700, abs=24)
    assert law.error < 1e-3
    assert "12 runs of the user's own, leave-one-out error 0.0" in law.paper


def test_the_leave_one_out_error_is_that_of_fitting_without_the_row() -> None:
    """Noise of 0.5 % of the loss: the error is not flattered by how the surface was chosen."""
    runs = planted(700.0, 12, noise=0.01)
    errors = []
    for index, run in enumerate(runs):
        rest = Ablations([*runs[:index], *runs[index + 1 :]])
        errors.append(np.log(run.loss / rest.loss(features_of([run.shape], run.training_tokens))[0]))
    shown = Ablations(runs).error
    assert shown == pytest.approx(float(np.sqrt(np.mean(np.square(errors)))), rel=0.1)
    assert 0.004 < shown < 0.02


def test_own_runs_correct_a_published_law() -> None:
    """Losses that follow the published law but for a taste for few wide experts: the correction learns both."""
    law = law_named("abnar")
    judge = Judge(law, QWEN, 1e12)
    shapes = grid()[::9]
    features = judge._features_of(shapes)
    widths = np.array([s.moe_intermediate_size for s in shapes])
    losses = np.exp(0.3 * law.loss(features) - 0.01 * np.log(widths / 768))
    runs = [Ablation(s, 1e12, float(loss)) for s, loss in zip(shapes, losses, strict=True)]
    corrected = Ablations(runs, corrects=law)
    assert corrected.error < 1e-4
    others = grid()[1::9]
    true = np.exp(0.3 * law.loss(judge._features_of(others)))
    true *= np.exp(-0.01 * np.log(np.array([s.moe_intermediate_size for s in others]) / 768))
    assert corrected.loss(judge._features_of(others)) == pytest.approx(true, rel=2e-3)
    assert "over the law abnar" in corrected.paper


@pytest.mark.parametrize(
    ("runs", "text"),
    [
        (planted(700, 5), "rows of ablations: got 5"),
        ([Ablation(QWEN, 1e12, 2.0)] * 8, "no field varies"),
        ([*planted(700, 8), Ablation(QWEN, 1e12, float("nan"))], "loss of an ablation"),
    ],
)
def test_runs_that_make_no_law(runs: list[Ablation], text: str) -> None:
    with pytest.raises(UserError, match=text):
        Ablations(runs)


def test_every_law_is_listed_once() -> None:
    assert len(set(LAWS)) == len(LAWS)
    assert [law_named(name).name for name in LAWS] == list(LAWS)
