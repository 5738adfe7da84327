"""Hypothesis strategies of the values that results are made of."""

from hypothesis import strategies as st

from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.routing import parse_routing
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.timing import GRADES, Timing
from moe_codesign.domain.trial import MODES, Answered, Refused, Trial
from moe_codesign.domain.workload import Workload
from moe_kernels.tile import BlockedTile, PallasTile, TritonTile

WORDS = st.text("abc xyz-_.:é", min_size=1, max_size=8).filter(str.strip)
TIMES = st.floats(1e-3, 1e9)


@st.composite
def timings(draw: st.DrawFn) -> Timing:
    low, middle, high = sorted(draw(st.tuples(TIMES, TIMES, TIMES)))
    return Timing(
        grade=draw(st.sampled_from(GRADES)),
        latency_us=middle,
        low_us=low,
        high_us=high,
        bound_us=draw(st.floats(0, low)),
        limiter=draw(WORDS),
        parts_us=draw(st.dictionaries(WORDS, st.floats(0, 1e6), max_size=3)),
        samples_us=draw(st.lists(TIMES, max_size=3).map(tuple)),
    )


@st.composite
def shapes(draw: st.DrawFn) -> MoEShape:
    experts = draw(st.integers(1, 512))
    return MoEShape(
        hidden_size=draw(st.integers(1, 1 << 15)),
        moe_intermediate_size=draw(st.integers(1, 1 << 15)),
        num_experts=experts,
        num_experts_per_tok=draw(st.integers(1, experts)),
        n_shared_experts=draw(st.integers(0, 4)),
        num_layers=draw(st.integers(1, 100)),
        gated=draw(st.booleans()),
        name=draw(st.sampled_from(["", "a model"])),
    )


ROUTINGS = st.one_of(
    st.sampled_from(["balanced", "uniform", "balanced/8/4", "power_law:1.2/8/4", "histogram:[1, 2, 3.5]"]),
    st.floats(0.01, 99).map(lambda alpha: f"zipf:{alpha!r}"),
).map(parse_routing)


@st.composite
def workloads(draw: st.DrawFn, name: str) -> Workload:
    return Workload(
        name=name,
        num_tokens=draw(st.integers(1, 1 << 20)),
        dtype=draw(st.sampled_from(sorted(DTYPE_BYTES))),
        routing=draw(ROUTINGS),
        tp=draw(st.integers(1, 8)),
        ep=draw(st.integers(1, 8)),
        seed=draw(st.none() | st.integers(0, 1 << 31)),
    )


SIZES = st.integers(1, 512)
TILES_OF = {
    "triton.grouped_gemm": st.builds(
        TritonTile, block_m=SIZES, block_n=SIZES, block_k=SIZES, num_warps=SIZES, num_stages=SIZES, tma=st.booleans()
    ),
    "pallas.grouped_matmul": st.builds(PallasTile, tile_m=SIZES, tile_k=SIZES, tile_n=SIZES, rows_outer=st.booleans()),
    "pallas.host_matmul": st.builds(BlockedTile, tile_m=SIZES, tile_k=SIZES, tile_n=SIZES),
}


@st.composite
def pairs(draw: st.DrawFn, chip: str = "a chip", name: str = "decode") -> Pair:
    kernel = draw(st.sampled_from([None, *TILES_OF]))
    return Pair(
        chip=chip,
        shape=draw(shapes()),
        workload=draw(workloads(name)),
        kernel=kernel,
        tiles=TilePair(draw(TILES_OF[kernel]), draw(TILES_OF[kernel])) if kernel is not None else None,
        timing=draw(timings()),
        quality_ratio=draw(st.floats(1e-3, 1e3)),
        outside=draw(st.lists(WORDS, max_size=2).map(tuple)),
        notes=draw(st.lists(WORDS, max_size=2).map(tuple)),
    )


@st.composite
def trials(draw: st.DrawFn) -> Trial:
    names = draw(st.lists(WORDS, min_size=1, max_size=2, unique=True))
    failure = Failure(draw(st.sampled_from(FailureKind)), draw(WORDS), draw(st.floats(1e-9, 1e9)))
    answered = Answered(tuple(draw(pairs("a chip", name)) for name in names))
    return Trial(
        chip="a chip",
        mode=draw(st.sampled_from(MODES)),
        number=draw(st.integers(0, 1 << 20)),
        params=draw(st.dictionaries(WORDS, st.one_of(st.booleans(), st.integers(-99, 99), WORDS), max_size=3)),
        outcome=draw(st.one_of(st.just(Refused(failure)), st.just(answered))),
    )
