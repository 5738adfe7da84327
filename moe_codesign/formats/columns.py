"""The columns of a problem table, as ``predict`` reads and writes them."""

from dataclasses import dataclass

from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.domain.routing import DEFAULT_ROUTING_TEXT
from moe_codesign.stacks import STACKS

OPS = ("fused_moe", "grouped_gemm")
SOFTWARE = ("ours", *STACKS, "ragged_dot")
"""What the column ``stack`` may say."""


@dataclass(frozen=True)
class Column:
    """One column: its name, what it means, and what an empty cell stands for (empty text: it must be given)."""

    name: str
    meaning: str
    default: str = ""


_ASKED = (
    Column("chip", "a chip by catalogue name, or a .toml file"),
    Column("op", "what is timed: " + " or ".join(OPS), OPS[0]),
    Column("stack", "whose software runs it: " + ", ".join(SOFTWARE), SOFTWARE[0]),
    Column("dtype", "data type: " + ", ".join(DTYPE_BYTES), "bfloat16"),
    Column(
        "routing",
        "how tokens choose experts: uniform, balanced, zipf:ALPHA, power_law:ALPHA or histogram:FILE.json (recorded "
        "counts: a list, an object from expert to count, SGLang's logical_count, or lists for each layer, of which "
        "the slowest is taken or FILE.json#LAYER); with /GROUPS/KEPT after balanced and power_law, choices are limited "
        "to the KEPT best of GROUPS groups of experts",
        DEFAULT_ROUTING_TEXT,
    ),
    Column("seed", "seed of a random routing, where the time under one draw is asked for", "the mean over draws"),
    Column("kernel", "which of our kernels (`moe-codesign list kernels`)", "the chip's default kernel"),
    Column(
        "tile",
        "JSON of the tile's fields, or of both GEMMs as {up, down}; or default: the tile of an untuned call",
        "the best tile",
    ),
)
LAYER = (
    Column("hidden_size", "width of a token"),
    Column("moe_intermediate_size", "width of one expert"),
    Column("num_experts", "routed experts"),
    Column("num_experts_per_tok", "routed experts that a token visits"),
    Column("num_tokens", "tokens of the batch, over all ranks together"),
    Column("n_shared_experts", "experts of the same width that every token visits", "0"),
    Column("gated", "whether experts have a gate: true or false", "true"),
    Column("tp", "tensor-parallel ranks that share every expert", "1"),
    Column("ep", "expert-parallel ranks that share out the experts; the busiest rank is timed", "1"),
    Column("num_layers", "layers of the model that have experts; read where quality is asked for", "the reference's"),
)
GEMM = (
    Column("m", "rows over all groups"),
    Column("k", "depth of the product"),
    Column("n", "columns of each group's matrix"),
    Column("groups", "groups, each with a matrix of its own"),
)
ANSWER = (
    Column("latency_us", "time of one layer or product, in microseconds"),
    Column("low_us", "lower end of the interval"),
    Column("high_us", "upper end of the interval"),
    Column("grade", "how the time is known; see grades.md"),
    Column("bound_us", "the physical bound: no implementation is faster"),
    Column("limiter", "what takes most of the time"),
    Column("tile", "JSON of the tile, or of both GEMMs"),
    Column("warning", "why the time deserves less trust, if there is a reason"),
    Column("error", "why there is no time; else empty"),
)
QUALITY = (
    Column("quality_ratio", "quality over the reference's, by the law that was asked for; empty where it has no say"),
    Column("low_quality_ratio", "the least ratio of all laws that have a say"),
    Column("high_quality_ratio", "the largest ratio of all laws that have a say"),
    Column("quality_by_law", "JSON: the ratio by every law that has a say"),
    Column("quality_note", "why there is no ratio, or what of the shape is outside of the law's experiments"),
)
TABLES = {
    "every problem": _ASKED,
    "fused_moe": LAYER,
    "grouped_gemm": GEMM,
    "the answer": ANSWER,
    "the quality": QUALITY,
}
"""Columns by what they belong to, for the documentation."""
OF_OP = {"fused_moe": LAYER, "grouped_gemm": GEMM}
"""The columns that problems of one op alone have."""
INPUT = tuple(column.name for column in (*_ASKED, *LAYER, *GEMM))
"""Every column that a question is read from."""
OUTPUT = tuple(column.name for column in ANSWER)
"""Every column that an answer is written to."""
QUALITY_OUTPUT = tuple(column.name for column in QUALITY)
"""Every column that quality is written to, where it is asked for."""
