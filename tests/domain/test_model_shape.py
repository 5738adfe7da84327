"""The shape of a whole model: what it holds, what it caches, and what cannot be built."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_codesign.domain.attention import GroupedQueryAttention, SparseIndex
from moe_codesign.domain.latent_attention import CompressedAttention, LatentAttention
from moe_codesign.domain.model_shape import Attention, DenseMlp, LayerGroup, ModelShape, PartTypes
from moe_codesign.domain.recurrence import (
    GatedDeltaNet,
    KimiDeltaAttention,
    LightningAttention,
    Mamba1,
    Mamba2,
    ShortConvolution,
)
from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError

GQA = GroupedQueryAttention(num_heads=32, num_kv_heads=4, head_dim=128)
MLA = LatentAttention(
    num_heads=128, q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128
)
INDEX = SparseIndex(num_heads=64, head_dim=128, topk=2048)
CSA = CompressedAttention(
    num_heads=64, head_dim=512, q_lora_rank=1024, o_groups=8, o_lora_rank=1024, window=128, ratio=4, index=INDEX
)
GDN = GatedDeltaNet(num_k_heads=16, num_v_heads=64, k_head_dim=128, v_head_dim=128, conv_kernel=4)
MAMBA = Mamba2(num_heads=64, head_dim=64, state_size=128, n_groups=8, conv_kernel=4)
ALL: tuple[Attention, ...] = (
    GQA,
    dataclasses.replace(GQA, window=128, sinks=True),
    dataclasses.replace(GQA, index=SparseIndex(num_heads=4, head_dim=128, topk=2048, block_size=128)),
    MLA,
    dataclasses.replace(MLA, index=INDEX),
    dataclasses.replace(MLA, index=dataclasses.replace(INDEX, shared=True)),
    CSA,
    dataclasses.replace(CSA, ratio=128, index=None),
    dataclasses.replace(CSA, ratio=0, index=None),
    GDN,
    KimiDeltaAttention(num_heads=32, head_dim=128, conv_kernel=4),
    LightningAttention(num_heads=64, head_dim=128),
    dataclasses.replace(MLA, index=dataclasses.replace(INDEX, block_size=4, pooled=True)),
    ShortConvolution(channels=4096, kernel=3),
    MAMBA,
    Mamba1(inner=8192, state_size=16, dt_rank=256, conv_kernel=4),
)
EXPERTS = MoEShape(
    hidden_size=7168, moe_intermediate_size=2048, num_experts=256, num_experts_per_tok=8, n_shared_experts=1,
    num_layers=58,
)  # fmt: skip


def deepseek_v3(**changes: Any) -> ModelShape:
    """DeepSeek-V3 by hand."""
    fields: dict[str, Any] = {
        "name": "DeepSeek-V3",
        "hidden_size": 7168,
        "vocab_size": 129280,
        "groups": (
            LayerGroup(count=3, attention=MLA, dense=DenseMlp(intermediate_size=18432)),
            LayerGroup(count=58, attention=MLA, experts=True),
        ),
        "moe": EXPERTS,
        "types": PartTypes(experts="fp8_block", shared="fp8_block", dense="fp8_block", attention="fp8_block"),
    }
    return ModelShape(**{**fields, **changes})


def dense(attention: Attention, **changes: Any) -> ModelShape:
    """A dense model of one layer."""
    group = LayerGroup(count=1, attention=attention, dense=DenseMlp(intermediate_size=8))
    fields: dict[str, Any] = {"name": "one", "hidden_size": 4096, "vocab_size": 10, "groups": (group,)}
    return ModelShape(**{**fields, **changes})


def test_parameters_are_those_that_its_report_states() -> None:
    """671 billion of which a token uses 37 (DeepSeek-V3's report, section 1)."""
    shape = deepseek_v3()
    assert shape.parameters().total == pytest.approx(671.0e9, rel=1e-3)
    assert shape.active_parameters().total == pytest.approx(37e9, rel=0.015)
    assert shape.parameters().embedding == shape.parameters().head == 129280 * 7168
    assert shape.active_parameters().embedding == 0
    assert shape.num_layers == 61


def test_bytes_follow_the_type_of_each_part() -> None:
    shape, held = deepseek_v3(), deepseek_v3().weight_bytes()
    counts = shape.parameters()
    assert held["experts"] == counts.experts
    assert held["head"] == 2 * counts.head
    assert held["router"] == 2 * counts.router
    assert sum(held.values()) == pytest.approx(counts.total + counts.head + counts.embedding + counts.router)


def test_latent_attention_caches_576_values_a_token_and_layer() -> None:
    """Section 2.1.2 of DeepSeek-V2's report: kv_lora_rank + qk_rope_head_dim."""
    shape = deepseek_v3()
    assert shape.kv_bytes_per_token() == 61 * 576 * 2
    assert shape.kv_bytes(1000) == 1000 * 61 * 576 * 2
    eight = deepseek_v3(types=PartTypes(kv_cache="fp8"))
    assert eight.kv_bytes_per_token() == 61 * 576


def test_an_index_keeps_keys_of_its_own_unless_its_choice_is_shared() -> None:
    indexed = dense(dataclasses.replace(MLA, index=INDEX))
    assert indexed.kv_bytes_per_token() == 576 * 2 + 128 + 4  # 132 bytes an index key: fp8 and a float32 scale
    shared = dense(dataclasses.replace(MLA, index=dataclasses.replace(INDEX, shared=True)))
    assert shared.kv_bytes_per_token() == 576 * 2
    assert shared.parameters() == dense(MLA).parameters()


def test_pooled_keys_of_an_index_are_one_a_block() -> None:
    pooled = dataclasses.replace(INDEX, block_size=4, pooled=True)
    assert pooled.cached_values(9) == 3 * 128
    plain, own = dense(dataclasses.replace(MLA, index=INDEX)), dense(dataclasses.replace(MLA, index=pooled))
    assert own.kv_bytes_per_token() - 576 * 2 == (plain.kv_bytes_per_token() - 576 * 2) / 4
    assert own.parameters().attention - plain.parameters().attention == 4096 * 128


def test_a_window_holds_at_most_its_tokens() -> None:
    shape = dense(dataclasses.replace(GQA, window=128))
    assert shape.kv_bytes(100) == 100 * 4 * 256 * 2
    assert shape.kv_bytes(128) == shape.kv_bytes(100_000) == 128 * 4 * 256 * 2
    assert shape.kv_bytes_per_token() == 0


def test_compressed_attention_keeps_a_window_and_entries() -> None:
    assert CSA.cached_values(4096) == 512 * (128 + 1024)
    assert CSA.index_values(4096) == 128 * 1024
    assert CSA.attended_tokens(100_000) == 128 + 2048
    assert dataclasses.replace(CSA, index=None, ratio=0).attended_tokens(100_000) == 128


def test_states_are_kept_whatever_the_length() -> None:
    shape = dense(MAMBA)
    assert shape.kv_bytes(0) == shape.kv_bytes(100_000) == 0
    assert shape.state_bytes() == 64 * 64 * 128 * 4 + (64 * 64 + 2 * 8 * 128) * 3 * 2


def test_four_bit_integers_have_the_group_of_their_checkpoint() -> None:
    shape = deepseek_v3(types=PartTypes(experts="int4", int4_group=32))
    assert shape.weight_bytes()["experts"] == shape.parameters().experts * (0.5 + 2 / 32)


def test_a_tied_head_is_held_once_and_multiplied() -> None:
    shape = dense(GQA, tied_embeddings=True)
    assert shape.parameters().head == 0
    assert shape.active_parameters().head == shape.parameters().embedding == 40960


@pytest.mark.parametrize("attention", ALL, ids=lambda one: one.label)
@given(context=st.integers(0, 1_000_000), more=st.integers(0, 100_000))
def test_longer_sequences_never_keep_less(attention: Attention, context: int, more: int) -> None:
    shape = dense(attention)
    assert 0 <= shape.kv_bytes(context) <= shape.kv_bytes(context + more)
    assert attention.attended_tokens(context) <= attention.attended_tokens(context + more)
    far = 1_280_000  # beyond each window, and a whole number of entries
    grown = shape.kv_bytes(far + 128 * 1000) - shape.kv_bytes(far)
    assert grown == pytest.approx(shape.kv_bytes_per_token() * 128 * 1000)


@pytest.mark.parametrize("attention", ALL, ids=lambda one: one.label)
def test_each_kind_says_what_it_multiplies(attention: Attention) -> None:
    names = [one.name for one in attention.projections(4096)]
    assert len(set(names)) == len(names)
    assert attention.projections(4096)[0].inputs == 4096
    assert any(one.outputs == 4096 for one in attention.projections(4096))
    assert dense(attention).to_dict()["groups"][0]["attention"]["kind"] == attention.kind


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: dataclasses.replace(GQA, num_kv_heads=5), "divisor of the 32 query heads"),
        (lambda: dataclasses.replace(GQA, head_dim=0), "head_dim of GroupedQueryAttention"),
        (lambda: dataclasses.replace(GQA, head_dim=True), "head_dim of GroupedQueryAttention"),
        (lambda: dataclasses.replace(GQA, chunked=True), "chunked"),
        (lambda: dataclasses.replace(GQA, gate_width=7), "gate_width"),
        (lambda: dataclasses.replace(GQA, values_are_keys=True, v_head_dim=64), "v_head_dim"),
        (lambda: dataclasses.replace(MLA, q_lora_rank=None, index=INDEX), "q_lora_rank"),
        (lambda: dataclasses.replace(MLA, kv_lora_rank=-1), "kv_lora_rank"),
        (lambda: dataclasses.replace(INDEX, block_size=100), "topk"),
        (lambda: dataclasses.replace(CSA, ratio=0), "ratio"),
        (lambda: dataclasses.replace(CSA, o_groups=7), "o_groups"),
        (lambda: dataclasses.replace(GDN, num_k_heads=5), "num_k_heads"),
        (lambda: dataclasses.replace(MAMBA, n_groups=7), "n_groups"),
        (lambda: DenseMlp(intermediate_size=0), "intermediate_size"),
        (lambda: LayerGroup(count=1, attention=None), "no part"),
        (lambda: LayerGroup(count=0, attention=GQA), "count"),
        (lambda: PartTypes(experts="nonsense"), "type of experts"),
        (lambda: PartTypes(int4_group=0), "int4_group"),
        (lambda: deepseek_v3(moe=None), "58 layers of DeepSeek-V3 have experts"),
        (lambda: deepseek_v3(moe=EXPERTS.replaced(num_layers=57)), "is of 57"),
        (lambda: deepseek_v3(hidden_size=4096), "hidden_size"),
        (lambda: deepseek_v3(vocab_size=0), "vocab_size"),
        (lambda: deepseek_v3(groups=()), "groups"),
        (lambda: deepseek_v3().kv_bytes(-1), "context"),
    ],
)
def test_nothing_meaningless_can_be_built(build: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        build()
