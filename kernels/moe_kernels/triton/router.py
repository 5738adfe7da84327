"""Routing: which experts each token visits, and with what weight.

Softmax or sigmoid scores, an optional limit to the best groups of experts, the top k, and renormalisation.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import triton
import triton.language as tl

from moe_kernels.triton.device import launching_on


@dataclass(frozen=True, kw_only=True)
class Router:
    """How router logits become choices.

    Args:
        top_k: experts per token.
        scoring: ``softmax`` over all experts, or ``sigmoid`` of each expert's logit (DeepSeek-V3).
        renormalize: divide the chosen weights by their sum. With softmax this equals a softmax over the chosen experts
            alone (gpt-oss).
        scaling: factor on the weights (``routed_scaling_factor``).
        groups, top_groups: experts come in ``groups`` equal groups, and only the best ``top_groups`` may be chosen
        from.
        group_score: a group's score is that of its best expert (``max``, DeepSeek-V2), or the sum of its two best
            (``top2``, DeepSeek-V3).

    Raises:
        ValueError: the numbers do not fit each other.
    """

    top_k: int
    scoring: Literal["softmax", "sigmoid"] = "softmax"
    renormalize: bool = True
    scaling: float = 1.0
    groups: int = 1
    top_groups: int = 1
    group_score: Literal["max", "top2"] = "top2"

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ValueError(f"top_k = {self.top_k}; give at least 1")
        if self.scoring not in ("softmax", "sigmoid"):
            raise ValueError(f"scoring = {self.scoring!r}; use softmax or sigmoid")
        if self.group_score not in ("max", "top2"):
            raise ValueError(f"group_score = {self.group_score!r}; use max or top2")
        if not 1 <= self.top_groups <= self.groups:
            raise ValueError(f"top_groups = {self.top_groups} of groups = {self.groups}; give 1 to {self.groups}")

    def check(self, num_experts: int) -> None:
        """Raise ValueError if this router cannot choose among ``num_experts`` experts."""
        if num_experts % self.groups:
            raise ValueError(f"{num_experts} experts do not split into {self.groups} equal groups")
        per_group = num_experts // self.groups
        if self.top_groups < self.groups and self.group_score == "top2" and per_group < 2:
            raise ValueError(f"groups of {per_group} expert have no two best; use group_score='max'")
        eligible = per_group * self.top_groups
        if self.top_k > eligible:
            raise ValueError(f"top_k = {self.top_k} exceeds the {eligible} experts that may be chosen")


_NO_ZERO = tl.constexpr(1e-20)
"""Added to the sum that weights are divided by, as in DeepSeek-V3's reference: all sigmoids may underflow."""


@triton.jit
def _group_scores(choice, TOP2: tl.constexpr):
    best = tl.max(choice, 1)
    if TOP2:
        column = tl.broadcast_to(tl.arange(0, choice.shape[1])[None, :], choice.shape)
        first = tl.min(tl.where(choice == best[:, None], column, choice.shape[1]), 1)
        best += tl.max(tl.where(column == first[:, None], float("-inf"), choice), 1)
    return best


@triton.jit
def route_kernel(
    logits_ptr,
    bias_ptr,
    weights_ptr,
    ids_ptr,
    per_group,
    scaling,
    NUM_GROUPS: tl.constexpr,
    GROUPS: tl.constexpr,
    PER_GROUP: tl.constexpr,
    TOP_GROUPS: tl.constexpr,
    TOP_K: tl.constexpr,
    K_PADDED: tl.constexpr,
    SIGMOID: tl.constexpr,
    RENORMALIZE: tl.constexpr,
    TOP2: tl.constexpr,
):
    """Choose the experts of one token per program.

    Experts are laid out as [GROUPS, PER_GROUP], both padded to powers of two. Where experts have equal scores, the
    one with the lowest number wins.
    """
    token = tl.program_id(0).to(tl.int64)
    num_experts = NUM_GROUPS * per_group
    group = tl.arange(0, GROUPS)
    member = tl.arange(0, PER_GROUP)
    expert = group[:, None] * per_group + member[None, :]
    there = (group < NUM_GROUPS)[:, None] & (member < per_group)[None, :]
    logit = tl.load(logits_ptr + token * num_experts + expert, mask=there, other=float("-inf")).to(tl.float32)
    if SIGMOID:
        score = tl.where(there, tl.sigmoid(logit), 0.0)
    else:
        peak = tl.max(tl.max(logit, 1), 0)
        power = tl.exp(logit - peak)
        score = power / tl.sum(tl.sum(power, 1), 0)
    choice = score
    if bias_ptr is not None:
        # DeepSeek-V3's load-balancing bias decides which experts are chosen, but not their weights.
        choice += tl.load(bias_ptr + expert, mask=there, other=0.0).to(tl.float32)
    # A maximum passes over NaN on GPUs, so that rows with one are found here: they get NaN weights, of some experts.
    lost = tl.sum(tl.sum((there & (choice != choice)).to(tl.int32), 1), 0) > 0
    choice = tl.where(there, tl.where(lost, 0.0, choice), float("-inf"))
    if TOP_GROUPS < NUM_GROUPS:
        group_score = _group_scores(choice, TOP2)
        kept = tl.zeros((GROUPS,), dtype=tl.int32)
        for _ in range(TOP_GROUPS):
            best = tl.min(tl.where(group_score == tl.max(group_score, 0), group, GROUPS), 0)
            kept = tl.where(group == best, 1, kept)
            group_score = tl.where(group == best, float("-inf"), group_score)
        choice = tl.where(kept[:, None] > 0, choice, float("-inf"))
    place = tl.arange(0, K_PADDED)
    weights = tl.zeros((K_PADDED,), dtype=tl.float32)
    ids = tl.zeros((K_PADDED,), dtype=tl.int32)
    for i in range(TOP_K):
        highest = tl.max(tl.max(choice, 1), 0)
        chosen = tl.min(tl.min(tl.where(choice == highest, expert, num_experts), 1), 0)
        # Where no expert is left (biases of -inf) this may be a place of the padding.
        chosen = tl.minimum(chosen, num_experts - 1)
        weight = tl.sum(tl.sum(tl.where((expert == chosen) & there, score, 0.0), 1), 0)
        weights = tl.where(place == i, weight, weights)
        ids = tl.where(place == i, chosen, ids)
        choice = tl.where((expert == chosen) & there, float("-inf"), choice)
    if RENORMALIZE:
        weights = weights / (tl.sum(weights, 0) + _NO_ZERO)
    weights = tl.where(lost, float("nan"), weights)
    tl.store(weights_ptr + token * TOP_K + place, weights * scaling, mask=place < TOP_K)
    tl.store(ids_ptr + token * TOP_K + place, ids, mask=place < TOP_K)


def route(logits: torch.Tensor, router: Router, bias: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose each token's experts: weights float32 [T, top_k] and experts int32 [T, top_k], the best first.

    Args:
        logits: [T, experts].
        router: how to choose.
        bias: [experts], finite; added to the scores when experts are chosen, but not to their weights.

    A token with a NaN among its logits gets NaN weights.

    Raises:
        ValueError: the router or the bias does not fit the number of experts.
    """
    num_tokens, num_experts = logits.shape
    router.check(num_experts)
    if bias is not None and tuple(bias.shape) != (num_experts,):
        raise ValueError(f"bias {tuple(bias.shape)} should be {(num_experts,)}")
    weights = torch.empty((num_tokens, router.top_k), dtype=torch.float32, device=logits.device)
    ids = torch.empty((num_tokens, router.top_k), dtype=torch.int32, device=logits.device)
    if num_tokens == 0:
        return weights, ids
    per_group = num_experts // router.groups
    with launching_on(logits.device):
        route_kernel[(num_tokens,)](
            logits.contiguous(),
            None if bias is None else bias.contiguous(),
            weights,
            ids,
            per_group,
            router.scaling,
            NUM_GROUPS=router.groups,
            GROUPS=triton.next_power_of_2(router.groups),
            PER_GROUP=triton.next_power_of_2(per_group),
            TOP_GROUPS=router.top_groups,
            TOP_K=router.top_k,
            K_PADDED=triton.next_power_of_2(router.top_k),
            SIGMOID=router.scoring == "sigmoid",
            RENORMALIZE=router.renormalize,
            TOP2=router.group_score == "top2",
        )
    return weights, ids
