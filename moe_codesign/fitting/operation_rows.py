"""Measured rows of a model's operations by kind of problem: which columns they are, which version is taken."""

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64, Mask
from moe_codesign.cost.operations.fused_moe import HEIGHTS
from moe_codesign.cost.operations.operation import Sizes
from moe_codesign.cost.stacks.columns import columns_and_failures
from moe_codesign.domain.routing import parse_routing
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_codesign.formats.aisimulate import VersionTable, tables

_SHARE = 0.5
"""Rows that a version must have, of those of the version with most, to be taken rather than an older one."""
_EAGER = 3.0
"""A version whose fastest problem takes so many times as long as another version's was not timed in a CUDA graph, in
which serving runs decode."""
MOST_MOE_ROWS = 8_000
"""Rows of a fused MoE mode that are fitted, drawn by chance: their loads are drawn one by one."""


MEASURED_CHIPS = ("a100_sxm", "h100_sxm", "h200_sxm", "b200", "b300", "gb200", "gb300", "l40s", "rtx_pro_6000")
MEASURED_STACKS = ("vllm", "sglang", "trtllm")
"""Chips and stacks that there are tables of."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Measured problems of one variant.

    Args:
        sizes: columns [rows]. latency_us: [rows]. keys: [rows], of each problem's shape.
        version, kernel: what was timed.
        left_out: rows that are not here, by reason.
    """

    sizes: Sizes
    latency_us: F64
    keys: npt.NDArray[np.str_]
    version: str
    kernel: str
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.latency_us)

    def take(self, index: Mask | npt.NDArray[np.int64]) -> "Rows":
        """These rows."""
        return Rows(
            {name: column[index] for name, column in self.sizes.items()},
            self.latency_us[index],
            self.keys[index],
            self.version,
            self.kernel,
            self.left_out,
        )


@dataclass(frozen=True, eq=False)
class Group:
    """Rows of one variant in one version's table.

    Args:
        variant: of the operation.
        latency_us: [rows], those that cannot be read among them.
        rows: reads sizes, latencies and kernels [rows], given how many at most are worth counting the loads of; asked
            only of the version that is taken.
    """

    variant: str
    latency_us: F64
    rows: Callable[[int], tuple[Sizes, F64, npt.NDArray[np.str_]]]

    @property
    def fastest_us(self) -> float:
        """The shortest time that is one; infinity where none is."""
        return float(np.min(self.latency_us[self.latency_us > 0], initial=np.inf))


@dataclass(frozen=True)
class Source:
    """Where rows of an operation come from: the package's folder and table, and how its columns are read."""

    operation: str
    family: str
    table: str
    read: Callable[[VersionTable], Iterator[Group]]
    stack: str | None = None
    """The package's folder of the stack, where it is not the stack's own name."""


def rows_of(
    folder: Path, chip: str, stack: str, source: Source, *, most_moe_rows: int = MOST_MOE_ROWS
) -> dict[str, tuple[list[str], Rows]]:
    """Rows of a source by variant, of the newest version that has enough of them, with the versions passed over.

    Args:
        folder: of the tables. chip: our name. stack: ours.
        source: what to read.
        most_moe_rows: rows of a fused MoE mode whose loads are counted, drawn by chance of all.
    """
    by_variant: dict[str, list[tuple[str, Group]]] = {}
    for table in tables(folder, chip, source.family, source.stack or stack, source.table):
        for group in source.read(table):
            if len(group.latency_us):
                by_variant.setdefault(group.variant, []).append((table.version, group))
    found = {}
    for variant, versions in by_variant.items():
        most = max(len(group.latency_us) for _, group in versions)
        fastest = min(group.fastest_us for _, group in versions)
        passed = []
        for version, group in versions:
            if len(group.latency_us) < _SHARE * most:
                passed.append(f"{version}: {len(group.latency_us)} rows of {most}")
            elif group.fastest_us > _EAGER * fastest:
                passed.append(f"{version}: not in a CUDA graph, {group.fastest_us:.0f} us at least")
            else:
                found[variant] = passed, _one_kernel(*group.rows(most_moe_rows), version)
                break
    return found


def _one_kernel(sizes: Sizes, times: F64, kernels: npt.NDArray[np.str_], version: str) -> Rows:
    """One row a problem: where several kernels ran it, the fastest, which a stack takes by default."""
    left_out: Counter[str] = Counter()
    good = np.isfinite(times) & (times > 0)
    left_out["no time"] = int((~good).sum())
    places = np.flatnonzero(good)
    problems = np.stack([np.asarray(sizes[name], dtype=float)[places] for name in sorted(sizes)], axis=1)
    order = np.lexsort((times[places],))
    _, first = np.unique(problems[order], axis=0, return_index=True)
    kept = places[np.sort(order[first])]
    left_out["another kernel was faster"] = len(places) - len(kept)
    names = Counter(kernels[kept].tolist())
    return Rows(
        {name: np.asarray(column, dtype=float)[kept] for name, column in sizes.items()},
        times[kept],
        np.array([], dtype=str),
        version,
        ", ".join(name for name, _ in names.most_common(3)),
        {reason: count for reason, count in left_out.items() if count},
    )


def _ms(table: VersionTable) -> F64:
    return 1e3 * table.columns["latency"].astype(float)


def _text(table: VersionTable, name: str) -> npt.NDArray[np.str_]:
    return table.columns[name].astype(str)


def _numbers(table: VersionTable, **names: str) -> dict[str, F64]:
    return {ours: table.columns[theirs].astype(float) for ours, theirs in names.items()}


def _grouped(
    variants: npt.NDArray[np.str_], sizes: Mapping[str, F64], times: F64, kernels: npt.NDArray[np.str_]
) -> Iterator[Group]:
    for variant in np.unique(variants):
        mine = variants == variant
        rows = {name: column[mine] for name, column in sizes.items()}, times[mine], kernels[mine]
        yield Group(str(variant), times[mine], functools.partial(_as_they_are, *rows))


def _as_they_are(
    sizes: Sizes, times: F64, kernels: npt.NDArray[np.str_], _most: int
) -> tuple[Sizes, F64, npt.NDArray[np.str_]]:
    return sizes, times, kernels


def _gemm(table: VersionTable) -> Iterator[Group]:
    sizes = _numbers(table, m="m", n="n", k="k")
    return _grouped(_text(table, "gemm_dtype"), sizes, _ms(table), _text(table, "kernel_source"))


def _attention(table: VersionTable, **columns: str) -> Iterator[Group]:
    sizes = _numbers(
        table, batch="batch_size", num_heads="num_heads", num_kv_heads="num_key_value_heads", head_dim="head_dim",
        **columns,
    )  # fmt: skip
    # The oldest tables know no windows.
    sizes["window"] = (
        _numbers(table, window="window_size")["window"] if "window_size" in table.columns else 0 * sizes["batch"]
    )
    sizes["num_kv_heads"] = np.where(sizes["num_kv_heads"] == 0, sizes["num_heads"], sizes["num_kv_heads"])
    types = zip(_text(table, "attn_dtype"), _text(table, "kv_cache_dtype"), strict=True)
    variants = np.array([f"{product}/{kept}" for product, kept in types])
    return _grouped(variants, sizes, _ms(table), _text(table, "kernel_source"))


_DEEPSEEK = {
    "hidden": 7168.0, "q_lora_rank": 1536.0, "kv_lora_rank": 512.0, "qk_nope": 128.0, "qk_rope": 64.0,
    "v_head_dim": 128.0,
}  # fmt: skip
"""Sizes of DeepSeek-V3's attention, of which every MLA module was timed; its config.json has them."""


def _latent(table: VersionTable, **columns: str) -> Iterator[Group]:
    sizes = _numbers(table, batch="batch_size", num_heads="num_heads", **columns)
    for name, value in _DEEPSEEK.items():
        sizes[name] = np.full(len(table), value)
    types = zip(
        _text(table, "gemm_type"), _text(table, "mla_dtype"), _text(table, "kv_cache_dtype"), strict=True
    )  # fmt: skip
    variants = np.array(["/".join(one) for one in types])
    return _grouped(variants, sizes, _ms(table), _text(table, "kernel_source"))


def _delta(table: VersionTable) -> Iterator[Group]:
    """The convolution and the rule were timed apart: their times are added."""
    sizes = _numbers(
        table, batch="batch_size", tokens="seq_len", num_k_heads="num_k_heads", num_v_heads="num_v_heads",
        k_head_dim="head_k_dim", v_head_dim="head_v_dim", conv="d_conv",
    )  # fmt: skip
    phase = np.where(_text(table, "phase") == "context", "prefill", "decode")
    sizes["tokens"] = np.where(phase == "decode", 1.0, sizes["tokens"])
    kernels = _text(table, "kernel_source")
    is_convolution = np.char.startswith(kernels, "causal_conv1d")
    times = _ms(table)
    convolution: dict[tuple[float, ...], float] = {}
    problems = [
        (float(one == "prefill"), *numbers) for one, *numbers in zip(phase.tolist(), *sizes.values(), strict=True)
    ]
    for place in np.flatnonzero(is_convolution):
        convolution[problems[place]] = float(times[place])
    both = np.array([place for place in np.flatnonzero(~is_convolution) if problems[place] in convolution], dtype=int)
    added = times[both] + np.array([convolution[problems[place]] for place in both])
    return _grouped(phase[both], {name: column[both] for name, column in sizes.items()}, added, kernels[both])


def _nccl(table: VersionTable) -> Iterator[Group]:
    item = np.where(_text(table, "nccl_dtype") == "half", 2.0, 1.0)
    sizes = {
        "ranks": table.columns["num_gpus"].astype(float),
        "bytes": item * table.columns["message_size"].astype(float),
    }
    names = np.where(_text(table, "op_name") == "alltoall", "all_to_all", _text(table, "op_name"))
    return _grouped(names, sizes, _ms(table), np.full(len(table), "NCCL"))


def _custom_all_reduce(table: VersionTable) -> Iterator[Group]:
    kernels = _text(table, "kernel_source")
    graph = ~np.char.endswith(kernels, "_eager")
    sizes = {
        "ranks": table.columns["num_gpus"].astype(float)[graph],
        "bytes": 2.0 * table.columns["message_size"].astype(float)[graph],
    }
    yield from _grouped(np.full(int(graph.sum()), "custom_all_reduce"), sizes, _ms(table)[graph], kernels[graph])


_ITEM = {"bfloat16": 2.0, "default": 2.0, "fp8": 1.0 + 4 / 128, "nvfp4": 0.5625, "fp4": 0.5625}


def _deepep_modes(table: VersionTable) -> Iterator[Group]:
    """TensorRT-LLM's and vLLM's, whose times are in microseconds."""
    sizes = _numbers(
        table, ranks="ep_size", tokens="num_tokens", hidden="hidden_size", top_k="topk", experts="num_experts"
    )  # fmt: skip
    sizes["item_bytes"] = np.array([_ITEM[one] for one in table.columns["comm_dtype"]])
    backend = _text(table, "comm_backend")
    mode = np.where(np.char.endswith(backend, "_ll"), "low_latency", "normal")
    variants = np.array([f"{phase}/{one}" for phase, one in zip(_text(table, "phase"), mode, strict=True)])
    return _grouped(variants, sizes, table.columns["latency"].astype(float), backend)


_USUAL_SMS = 20
"""Streaming multiprocessors that DeepEP's normal mode takes unless it is asked for others."""


def _deepep(table: VersionTable, mode: str, dispatch: tuple[str, ...], combine: tuple[str, ...]) -> Iterator[Group]:
    """SGLang's: dispatch in fp8 and combine in 16 bits; a node has 8 ranks."""
    columns = table.columns
    chosen = columns["dispatch_sms"] == _USUAL_SMS if "dispatch_sms" in columns else np.ones(len(table), dtype=bool)
    sizes = _numbers(table, tokens="num_token", hidden="hidden_size", top_k="num_topk", experts="num_experts")
    sizes["ranks"] = 8.0 * columns["node_num"].astype(float)
    for phase, names, item in (("dispatch", dispatch, _ITEM["fp8"]), ("combine", combine, 2.0)):
        mine = {name: column[chosen] for name, column in sizes.items()}
        mine["item_bytes"] = np.full(int(chosen.sum()), item)
        times = sum((columns[name].astype(float) for name in names), np.zeros(len(table)))
        rows = int(chosen.sum())
        yield from _grouped(np.full(rows, f"{phase}/{mode}"), mine, times[chosen], np.full(rows, "deepep"))


_NOT_GATED = "nongated"


def _moe(table: VersionTable) -> Iterator[Group]:
    modes = _text(table, "moe_dtype")
    for mode in np.unique(modes):
        places = np.flatnonzero(modes == mode)
        yield Group(str(mode), _ms(table)[places], functools.partial(_moe_rows, table, places))


def _moe_rows(table: VersionTable, places: npt.NDArray[np.int64], most: int) -> tuple[Sizes, F64, npt.NDArray[np.str_]]:
    """Fused MoE layers; loads are counted row by row, so that of many rows some are drawn by chance."""
    places = _fastest(table, places)
    if len(places) > most:
        places = np.sort(np.random.default_rng(0).choice(places, most, replace=False))
    problems, kept = [], []
    for place in places.tolist():
        try:
            problems.append(_layer(table, place))
            kept.append(place)
        except UserError:
            continue
    columns, failed = columns_and_failures(problems)
    counted = [number for number in range(len(problems)) if number not in failed]
    sizes = {
        "tokens": columns.num_tokens,
        "hidden": columns.hidden,
        "width": columns.width,
        "up_width": columns.up_width,
        "experts": columns.experts,
        "local_experts": columns.local_experts,
        "top_k": columns.top_k,
        "rows": columns.rows,
        "active": columns.active,
        "whole_width": np.array([float(problems[number][0].moe_intermediate_size) for number in counted]),
        **{f"tiles_{height}": tiles for height, tiles in zip(HEIGHTS, columns.row_tiles, strict=True)},
    }
    good = np.array([kept[number] for number in counted], dtype=int)
    return sizes, _ms(table)[good], _text(table, "kernel_source")[good]


_PROBLEM = (
    "num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size", "distribution",
)  # fmt: skip


def _fastest(table: VersionTable, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Of rows of one problem, which several kernels ran, the fastest: a stack takes it by default."""
    problems = [np.unique(table.columns[name][places], return_inverse=True)[1] for name in _PROBLEM]
    times = table.columns["latency"][places].astype(float)
    order = np.lexsort((times, *problems))
    sorted_problems = np.stack([column[order] for column in problems], axis=1)
    first = np.ones(len(places), dtype=bool)
    first[1:] = (sorted_problems[1:] != sorted_problems[:-1]).any(axis=1)
    return np.sort(places[order[first]])


def _layer(table: VersionTable, place: int) -> tuple[MoEShape, Workload]:
    def number(name: str) -> int:
        return int(table.columns[name][place])

    kernel = str(table.columns["kernel_source"][place])
    shape = MoEShape(
        name="measured",
        hidden_size=number("hidden_size"),
        moe_intermediate_size=number("inter_size"),
        num_experts=number("num_experts"),
        num_experts_per_tok=number("topk"),
        num_layers=1,
        gated=_NOT_GATED not in kernel,
    )
    routing = str(table.columns["distribution"][place]).replace("power_law_", "power_law:")
    work = Workload(
        name="measured",
        num_tokens=number("num_tokens"),
        routing=parse_routing(routing),
        tp=number("moe_tp_size"),
        ep=number("moe_ep_size"),
    )
    if reason := work.misfit(shape):
        raise UserError(reason)
    return shape, work


def _decode_attention(table: VersionTable) -> Iterator[Group]:
    return _attention(table, context="step")


def _prefill_attention(table: VersionTable) -> Iterator[Group]:
    return _attention(table, tokens="isl", past="step")


def _latent_decode(table: VersionTable) -> Iterator[Group]:
    return _latent(table, context="step")


def _latent_prefill(table: VersionTable) -> Iterator[Group]:
    return _latent(table, tokens="isl", past="step")


def _deepep_normal(table: VersionTable) -> Iterator[Group]:
    phases = (f"{phase}_{part}_us" for phase in ("dispatch", "combine") for part in ("transmit", "notify"))
    dispatch, notify, combine, notify_back = phases
    return _deepep(table, "normal", (dispatch, notify), (combine, notify_back))


def _deepep_low_latency(table: VersionTable) -> Iterator[Group]:
    return _deepep(table, "low_latency", ("dispatch_avg_t_us",), ("combine_avg_t_us",))


SOURCES = (
    Source("dense_gemm", "gemm", "gemm_perf", _gemm),
    Source("decode_attention", "attention", "generation_attention_perf", _decode_attention),
    Source("prefill_attention", "attention", "context_attention_perf", _prefill_attention),
    Source("latent_decode", "mla", "mla_generation_module_perf", _latent_decode),
    Source("latent_prefill", "mla", "mla_context_module_perf", _latent_prefill),
    Source("gated_delta", "linear_attention", "gdn_perf", _delta),
    Source("fused_moe", "moe", "moe_perf", _moe),
    Source("collective", "comm", "nccl_perf", _nccl, stack="nccl"),
    Source("collective", "comm", "custom_allreduce_perf", _custom_all_reduce),
    Source("all_to_all", "comm", "moe_a2a_perf", _deepep_modes),
    Source("all_to_all", "comm", "wideep_deepep_normal_perf", _deepep_normal),
    Source("all_to_all", "comm", "wideep_deepep_ll_perf", _deepep_low_latency),
)
"""What there is to read of a chip under a stack."""
