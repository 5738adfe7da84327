"""Sizes of what mixes tokens, from a config's fields: each kind of :mod:`moe_codesign.models.mixer_kinds` built."""

from collections.abc import Callable
from dataclasses import dataclass, field

from moe_codesign.domain.attention import GroupedQueryAttention, SparseIndex
from moe_codesign.domain.latent_attention import CompressedAttention, LatentAttention
from moe_codesign.domain.model_shape import Attention
from moe_codesign.domain.recurrence import (
    GatedDeltaNet,
    KimiDeltaAttention,
    LightningAttention,
    Mamba1,
    Mamba2,
    ShortConvolution,
)
from moe_codesign.errors import UserError
from moe_codesign.models.config_fields import Fields
from moe_codesign.models.mixer_kinds import Kind

_HEADS = ("num_attention_heads", "n_heads", "n_head", "num_heads")
_KV_HEADS = ("num_key_value_heads", "n_kv_heads", "num_kv_heads", "kv_n_heads", "num_attention_groups")
_HEAD_DIM = ("head_dim", "attention_head_dim", "kv_channels")
_INDEX = ("index_n_heads", "index_head_dim", "index_topk")
_CLASS_HEAD_DIM = ("gpt_oss", "qwen3_next", "qwen3_5", "gemma", "step3p", "mimo", "afmoe", "nemotron_h", "minimax_m")
"""Beginnings of families whose class has a width of its own where the file names none: there it must be named."""
_CLASS_KV_HEADS = ("mixtral", "mistral", "phimoe", "jamba", "gpt_oss", "qwen3_moe", "qwen3_next", "qwen3_5", "glm4_moe")
"""Likewise of key and value heads."""
_WINDOW_HEADS = ("swa_num_attention_heads", "num_sliding_attention_heads")
_STEP_GATE = ("gating", "use_head_wise_attn_gate")
_ALWAYS_GATED = ("qwen3_next", "qwen3_5", "afmoe")
"""Beginnings of families whose attention has a gate for each value of its output, without a field for it."""


@dataclass
class MixerReader:
    """Builds the attention of each kind of layer and keeps which key each size came from.

    Args:
        fields: the text model's table.
        family: its name, as :func:`moe_codesign.models.families.family_name` gives it.
        hidden_size: width of a token.
        sources: key of each size, filled while reading.
        read: names of fields that were read.
    """

    fields: Fields
    family: str
    hidden_size: int
    sources: dict[str, str] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)

    def build(self, kind: Kind) -> Attention | None:
        """What mixes tokens in layers of a kind; None where nothing does.

        Raises:
            UserError: a size is missing or cannot be read, or the kind is not known for this family.
        """
        builders: dict[str, Callable[[Kind], Attention]] = {
            "full": self._softmax,
            "sliding": self._softmax,
            "chunked": self._softmax,
            "sparse": self._softmax,
            "linear": self._linear,
            "mamba": self._mamba,
            "convolution": self._convolution,
            "compressed": self._compressed,
        }
        return None if kind.word == "none" else builders[kind.word](kind)

    def _need(self, what: str, *names: str, table: Fields | None = None, least: int = 1) -> int:
        table = self.fields if table is None else table
        found = table.need(names, least=least)
        self._keep(what, found.key, names)
        return found.value

    def _may(self, what: str, *names: str, table: Fields | None = None, least: int = 1) -> int | None:
        table = self.fields if table is None else table
        found = table.one_of(names, least=least)
        self.read.update(names)
        if found is None:
            return None
        self._keep(what, found.key, names)
        return found.value

    def _flag(self, name: str) -> bool:
        self.read.add(name)
        return bool(self.fields.flag(name))

    def _keep(self, what: str, key: str, names: tuple[str, ...]) -> None:
        self.read.update(names)
        self.sources[f"attention.{what}"] = key

    def _table(self, name: str) -> Fields | None:
        self.read.add(name)
        return self.fields.inner(name)

    def _softmax(self, kind: Kind) -> Attention:
        if self.fields.has("kv_lora_rank"):
            if kind.word != "full":
                raise UserError(f"{self.fields.source}: latent attention with a window is not known here")
            return self._latent(kind)
        return self._grouped(kind)

    def _latent(self, kind: Kind) -> LatentAttention:
        heads = self._need("num_heads", *_HEADS)
        value = self._need("v_head_dim", "v_head_dim")
        self.read.update(("qk_head_dim", "head_dim", *_KV_HEADS))
        return LatentAttention(
            num_heads=heads,
            q_lora_rank=self._may("q_lora_rank", "q_lora_rank"),
            kv_lora_rank=self._need("kv_lora_rank", "kv_lora_rank"),
            qk_nope_head_dim=self._need("qk_nope_head_dim", "qk_nope_head_dim"),
            qk_rope_head_dim=self._need("qk_rope_head_dim", "qk_rope_head_dim", least=0),
            v_head_dim=value,
            gate_width=heads * value if self._flag("mla_use_output_gate") else 0,
            index=self._index(kind),
        )

    def _index(self, kind: Kind) -> SparseIndex | None:
        """The index of DeepSeek Sparse Attention, where the config has its fields."""
        if not any(self.fields.has(name) for name in _INDEX):
            return None
        self.read.update(("indexer_types", "index_topk_freq", "index_topk_pattern", "index_skip_topk_offset"))
        pool = self._may("index.block_size", "index_kpool") or 1
        self.read.update(("index_kpool_always_select_tail", "index_kpool_compress"))
        return SparseIndex(
            num_heads=self._need("index.num_heads", "index_n_heads"),
            head_dim=self._need("index.head_dim", "index_head_dim"),
            topk=self._need("index.topk", "index_topk"),
            block_size=pool,
            pooled=pool > 1,
            shared=kind.shared_index,
        )

    def _grouped(self, kind: Kind) -> GroupedQueryAttention:
        self.read.update((*_WINDOW_HEADS, "attention_other_setting"))  # of windows, where there are any
        inner = self._table("attn_config")  # DBRX keeps the key and value heads apart
        heads = self._need("num_heads", *_HEADS)
        kv_heads = self._may("num_kv_heads", *_KV_HEADS)
        if kv_heads is None and inner is not None:
            kv_heads = self._may("num_kv_heads", *_KV_HEADS, table=inner)
        head_dim = self._may("head_dim", *_HEAD_DIM)
        value = self._may("v_head_dim", "v_head_dim")
        if kind.word == "sliding":
            heads, kv_heads, head_dim, value = self._of_windows(heads, kv_heads, head_dim, value)
        if kind.word == "full" and self.family.startswith("gemma4"):
            kv_heads = self._may("num_kv_heads (full)", "num_global_key_value_heads") or kv_heads
            head_dim = self._may("head_dim (full)", "global_head_dim") or head_dim
        if kv_heads is None:
            self._refuse_class_default("num_key_value_heads", _CLASS_KV_HEADS)
            kv_heads = heads
            self.sources["attention.num_kv_heads"] = f"no field: {self.sources['attention.num_heads']}"
        if head_dim is None:
            self._refuse_class_default("head_dim", _CLASS_HEAD_DIM)
            if self.hidden_size % heads:
                raise UserError(f"{self.fields.source} lacks a field", fix="it needs head_dim: heads do not divide H")
            head_dim = self.hidden_size // heads
            self.sources["attention.head_dim"] = "no field: hidden_size / num_attention_heads"
        equal = kind.word == "full" and self.family.startswith("gemma4") and self._flag("attention_k_eq_v")
        self.read.add("attention_k_eq_v")
        return GroupedQueryAttention(
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            v_head_dim=None if value == head_dim else value,
            window=self._window(kind),
            chunked=kind.word == "chunked",
            gate_width=self._gate(heads, value or head_dim),
            values_are_keys=equal,
            sinks=self._sinks(kind),
            index=self._blocks() if kind.word == "sparse" else None,
        )

    def _refuse_class_default(self, name: str, families: tuple[str, ...]) -> None:
        if self.family.startswith(families):
            raise UserError(f"{self.fields.source} lacks a field", fix=f"{self.family} needs {self.fields.key(name)}")

    def _of_windows(
        self, heads: int, kv_heads: int | None, head_dim: int | None, value: int | None
    ) -> tuple[int, int | None, int | None, int | None]:
        """Heads of layers with a window, where they have their own: MiMo's and Step's."""
        other = self._table("attention_other_setting")
        if other is not None:
            if other.table.get("attention_type") != "sliding_attention":
                raise other.error("attention_type", "only sliding_attention is known here")
            heads = self._may("num_heads (window)", "num_attention_heads", table=other) or heads
            kv_heads = self._may("num_kv_heads (window)", "num_attention_groups", table=other) or kv_heads
            head_dim = self._may("head_dim (window)", "head_dim", table=other) or head_dim
        heads = self._may("num_heads (window)", *_WINDOW_HEADS) or heads
        if self.family.startswith("mimo") and not self.fields.has("swa_num_key_value_heads"):
            raise UserError(f"{self.fields.source} lacks a field", fix=f"{self.family} needs swa_num_key_value_heads")
        kv_heads = self._may("num_kv_heads (window)", "swa_num_key_value_heads") or kv_heads
        head_dim = self._may("head_dim (window)", "swa_head_dim") or head_dim
        value = self._may("v_head_dim (window)", "swa_v_head_dim") or value
        return heads, kv_heads, head_dim, value

    def _window(self, kind: Kind) -> int | None:
        self.read.update(("sliding_window", "sliding_window_size", "use_sliding_window", "attention_chunk_size"))
        if kind.word == "sliding":
            return self._need("window", "sliding_window", "sliding_window_size")
        return self._need("window", "attention_chunk_size") if kind.word == "chunked" else None

    def _gate(self, heads: int, value: int) -> int:
        """Outputs of the gate on attention's output, by the family or by its field."""
        if self.family.startswith("step3p"):
            named = next((one for one in _STEP_GATE if self.fields.has(one)), None)
            gating = True if named is None else self.fields.table[named]
            self._keep("gate_width", self.fields.key(named) if named else "the architecture", _STEP_GATE)
            return heads if gating is True or gating == "per-head" else 0 if gating is False else heads * value
        always = self.family.startswith(_ALWAYS_GATED)
        said = self._flag("attn_output_gate") or self._flag("attention_output_gate")
        if always and self.fields.flag("attn_output_gate") is False:
            raise self.fields.error("attn_output_gate", f"{self.family} is known with a gate alone")
        if always or said:
            self.sources["attention.gate_width"] = (
                self.fields.key("attn_output_gate") if self.fields.has("attn_output_gate") else "the architecture"
            )
        return heads * value if always or said else 0

    def _sinks(self, kind: Kind) -> bool:
        name = "add_swa_attention_sink_bias" if kind.word == "sliding" else "add_full_attention_sink_bias"
        return self.family == "gpt_oss" or self._flag(name)

    def _blocks(self) -> SparseIndex:
        """MiniMax-M3's index, which chooses blocks of tokens."""
        table = self._table("sparse_attention_config") or self.fields
        self.read.add("index_local_blocks")
        size = self._need("index.block_size", "sparse_block_size", "index_block_size", table=table)
        blocks = self._need("index.blocks", "sparse_topk_blocks", "index_topk_blocks", table=table)
        return SparseIndex(
            num_heads=self._need("index.num_heads", "sparse_num_index_heads", "index_n_heads", table=table),
            head_dim=self._need("index.head_dim", "sparse_index_dim", "index_head_dim", table=table),
            topk=blocks * size,
            block_size=size,
        )

    def _linear(self, kind: Kind) -> Attention:
        if (table := self._table("linear_attn_config")) is not None:
            self.read.update(("linear_head_dim", "linear_num_heads", "linear_conv_kernel_dim"))
            return KimiDeltaAttention(
                num_heads=self._need("linear.num_heads", "num_heads", table=table),
                head_dim=self._need("linear.head_dim", "head_dim", table=table),
                conv_kernel=self._need("linear.conv_kernel", "short_conv_kernel_size", table=table),
                full_rank_gate=bool(table.flag("use_full_rank_gate")),
            )
        if self.family.startswith(("kimi_linear", "glm5_next")):
            return KimiDeltaAttention(
                num_heads=self._need("linear.num_heads", "linear_num_heads"),
                head_dim=self._need("linear.head_dim", "linear_head_dim"),
                conv_kernel=self._need("linear.conv_kernel", "linear_conv_kernel_dim"),
            )
        if self.fields.has("linear_num_value_heads"):
            return GatedDeltaNet(
                num_k_heads=self._need("linear.num_k_heads", "linear_num_key_heads"),
                num_v_heads=self._need("linear.num_v_heads", "linear_num_value_heads"),
                k_head_dim=self._need("linear.k_head_dim", "linear_key_head_dim"),
                v_head_dim=self._need("linear.v_head_dim", "linear_value_head_dim"),
                conv_kernel=self._need("linear.conv_kernel", "linear_conv_kernel_dim"),
            )
        if self.family in ("minimax", "minimax_text_01", "minimax_m1"):
            heads = self._need("num_heads", *_HEADS)
            width = self._may("head_dim", *_HEAD_DIM) or self.hidden_size // heads
            return LightningAttention(num_heads=heads, head_dim=width)
        who = self.family or "this model"
        raise UserError(
            f"{self.fields.source}: {who} has linear attention of a form that is not known here",
            fix="the whole model is read where linear_num_value_heads or linear_attn_config gives its sizes",
        )

    def _mamba(self, kind: Kind) -> Mamba1 | Mamba2:
        if self.fields.has("mamba_dt_rank"):
            expand = self._need("mamba.expand", "mamba_expand")
            return Mamba1(
                inner=expand * self.hidden_size,
                state_size=self._need("mamba.state_size", "mamba_d_state"),
                dt_rank=self._need("mamba.dt_rank", "mamba_dt_rank"),
                conv_kernel=self._need("mamba.conv_kernel", "mamba_d_conv"),
            )
        self.read.update(("mamba_expand", "expand"))
        return Mamba2(
            num_heads=self._need("mamba.num_heads", "mamba_num_heads", "mamba_n_heads"),
            head_dim=self._need("mamba.head_dim", "mamba_head_dim", "mamba_d_head"),
            state_size=self._need("mamba.state_size", "ssm_state_size", "mamba_d_state"),
            n_groups=self._need("mamba.n_groups", "n_groups", "mamba_n_groups"),
            conv_kernel=self._need("mamba.conv_kernel", "conv_kernel", "mamba_d_conv"),
        )

    def _convolution(self, kind: Kind) -> ShortConvolution:
        kernel = self._need("convolution.kernel", "conv_L_cache")
        return ShortConvolution(channels=self.hidden_size, kernel=kernel)

    def _compressed(self, kind: Kind) -> CompressedAttention:
        index = None
        self.read.update(("compress_ratios", "compress_rates", *_KV_HEADS))
        csa = 0 < kind.ratio < 128  # the code builds an index for entries of few tokens alone
        if csa:
            index = SparseIndex(
                num_heads=self._need("index.num_heads", "index_n_heads"),
                head_dim=self._need("index.head_dim", "index_head_dim"),
                topk=self._need("index.topk", "index_topk"),
            )
        return CompressedAttention(
            num_heads=self._need("num_heads", *_HEADS),
            head_dim=self._need("head_dim", "head_dim"),
            q_lora_rank=self._need("q_lora_rank", "q_lora_rank"),
            o_groups=self._need("o_groups", "o_groups"),
            o_lora_rank=self._need("o_lora_rank", "o_lora_rank"),
            window=self._need("window", "sliding_window"),
            ratio=kind.ratio,
            index=index,
        )
