"""Our grouped matmul on TPUs beside jax's megablox ``gmm`` and tokamax's gmm_v2: writes results/tpu_megablox.md.

All are compiled for the chip by libtpu; nothing runs on a TPU. A visit (rows of one group, one column tile) takes
the longer of its cycles by the compiler's static profile and of what its bytes take from HBM; group sizes say how many
visits there are. The two profiles differ: ours is of the kernel without its copies, to which the bundles that start
and await them are added; megablox' is of its own kernel, copies as the compiler sees them, with the number of its
visits and the places of their blocks fixed: every visit of one group, so that weights are fetched again only where
megablox fetches them again (more than one tile of K). megablox has the compiler's default share of VMEM, since its
function takes no other; ours asks for all of it. The compiler's profile for tpu7x aborts on many of its tiles that cut
K ("Cannot schedule FIFO push"): they have no count.

gmm_v2 was counted by benchmarks/gmm_v2.py: its inner kernel with whole K, and the bundles of its loop around it;
weights stay while their group's rows pass. Ours has a grid's loop, and filling and draining its buffers is counted in
every visit. No count says how slow programs are that are larger than the largest known to run at full
speed (moe_kernels.pallas.tile_limits): ours are held to that; of gmm_v2 both are given, the best tile is marked * where
it is larger.

Rows past the groups are not cleared. Each is at its best tile of the search below; megablox and gmm_v2 also at their
default tiles. One core of each chip.

    python benchmarks/megablox.py [--chips tpu_v6e,tpu7x]     about 40 minutes a chip on two cores
"""

import argparse
import dataclasses
import importlib
import itertools
import json
import math
import multiprocessing
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pebble import ProcessExpired, ProcessPool

from moe_codesign.chips import Chip, load_chip
from moe_codesign.compiler.artifact import compiler_version
from moe_codesign.compiler.cache import default_folder
from moe_codesign.compiler.tpu import analyse, prepare_process
from moe_codesign.compiler.worker import silence
from moe_codesign.cost.problem import GroupedGemm
from moe_codesign.cost.ragged_dot_tpu import visit_bytes
from moe_codesign.cost.table import Tables, kernel_for
from moe_codesign.cost.tpu import tile_times
from moe_codesign.models import find_model
from moe_kernels import kernel as kernels
from moe_kernels.pallas.tile_limits import most_bundles, program_bundles
from moe_kernels.tile import WHOLE_DEPTH, PallasTile

MODELS = ("DeepSeek-V3", "Qwen3-30B-A3B", "Qwen3-235B-A22B", "gpt-oss-120b", "Mixtral-8x7B")
ROWS = (512, 8192, 131072)
OUT = Path(__file__).parents[1] / "results" / "tpu_megablox.md"
GMM_V2 = Path(__file__).parents[1] / "results" / "tpu_gmm_v2.json"
DEFAULT = (128, 128, 128)
TIME_LIMIT_S = 180.0
LARGEST = 2**32
"""Products tm x tk x tn beyond this fill programs of over 40,000 bundles, minutes of compiling each."""
_folder: Path | None = None


@dataclass(frozen=True)
class Problem:
    model: str
    projection: str
    m: int
    k: int
    n: int
    groups: int

    @property
    def sizes(self) -> np.ndarray:
        """Rows of each group: every row to a group at random."""
        return np.bincount(np.random.default_rng(0).integers(self.groups, size=self.m), minlength=self.groups)


@dataclass(frozen=True)
class Form:
    """One compiled form of megablox: tile, tiles of K (at most 4 of them), what is left of K in the last one."""

    tm: int
    tk: int
    tn: int
    depth: int
    rest: int


def problems() -> Iterator[Problem]:
    for name in MODELS:
        shape = find_model(name)
        h, i, g = shape.hidden_size, shape.moe_intermediate_size, shape.num_experts
        for m in ROWS:
            yield Problem(name, "up", m, h, i, g)
            yield Problem(name, "down", m, i, h, g)


def tiles(problem: Problem) -> list[tuple[int, int, int]]:
    """megablox' search: tiles up to the whole K and N; its rows are cut evenly."""
    tm = [t for t in (64, 128, 256, 512, 1024) if problem.m % t == 0]
    tk = sorted({min(t, problem.k) for t in (512, 1024, 2048, problem.k)})
    tn = sorted({min(t, problem.n) for t in (256, 512, 1024, 2048)})
    every = itertools.product(tm, tk, tn)
    return [*(tile for tile in every if math.prod(tile) <= LARGEST), DEFAULT]


def form_of(tile: tuple[int, int, int], k: int, depth: int) -> Form:
    tm, tk, tn = tile
    return Form(tm, tk, tn, depth, k % tk)


def depths(tile: tuple[int, int, int], k: int) -> tuple[int, ...]:
    """Tiles of K to compile: all there are, or two numbers that give the straight line."""
    count = math.ceil(k / tile[1])
    return (count,) if count <= 4 else (2, 4)


def start_worker() -> None:
    global _folder
    silence()
    _folder = prepare_process()


def visit_cycles(target: str, form: Form, vmem_bytes: int | None = None) -> float:
    """What one more visit of a group adds."""
    assert _folder is not None
    counts = [
        analyse(target, *megablox(form, visits, vmem_bytes=vmem_bytes), "megablox", _folder)[0] for visits in (8, 16)
    ]
    return (counts[1] - counts[0]) / 8


def megablox(
    form: Form, visits: int, *, per_group: int | None = None, columns: int = 1, vmem_bytes: int | None = None
) -> tuple[Any, list[Any]]:
    """Its kernel on so many visits of one group (or ``per_group`` of each) and so many column tiles.

    ``vmem_bytes``: that it may use; default the compiler's own limit, as its function has it.
    """
    per_group = per_group or visits
    import jax
    import jax.numpy as jnp
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    module = importlib.import_module("jax.experimental.pallas.ops.tpu.megablox.gmm")
    k = (form.depth - 1) * form.tk + (form.rest or form.tk)
    original, metadata = pl.pallas_call, module.make_group_metadata

    def fixed_call(kernel: Any, *, grid_spec: Any, **options: Any) -> Any:
        if vmem_bytes is not None:
            parameters = options["compiler_params"]
            options["compiler_params"] = dataclasses.replace(parameters, vmem_limit_bytes=vmem_bytes)
        lhs, rhs, existing = grid_spec.in_specs
        fixed = pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=grid_spec.num_scalar_prefetch,
            grid=(grid_spec.grid[0], visits, grid_spec.grid[2]),
            in_specs=[
                pl.BlockSpec(lhs.block_shape, lambda n, v, k, *_: (v, k)),
                pl.BlockSpec(rhs.block_shape, lambda n, v, k, *_: (v // per_group, k, n)),
                existing,
            ],
            out_specs=pl.BlockSpec(grid_spec.out_specs.block_shape, lambda n, v, k, *_: (v, n)),
            scratch_shapes=grid_spec.scratch_shapes,
        )
        return original(kernel, grid_spec=fixed, name="megablox", **options)

    def run(lhs: Any, rhs: Any, sizes: Any, offsets: Any, visit: Any) -> Any:
        # Metadata come from outside: the copies of what XLA computes inside the compiler cannot count on a v5e.
        pl.pallas_call = fixed_call
        module.make_group_metadata = lambda **_: ((offsets, visit, visit), visits)
        try:
            return module.gmm.__wrapped__(lhs, rhs, sizes, jnp.bfloat16, (form.tm, form.tk, form.tn))
        finally:
            pl.pallas_call, module.make_group_metadata = original, metadata

    groups, n = visits // per_group, columns * form.tn
    shapes = [((form.tm * visits, k), jnp.bfloat16), ((groups, k, n), jnp.bfloat16)]
    shapes += [((size,), jnp.int32) for size in (groups, groups + 1, visits)]
    return run, [jax.ShapeDtypeStruct(*shape) for shape in shapes]


def compile_forms(chip: Chip, forms: list[Form]) -> dict[Form, float | str]:
    """Cycles of a visit of each form, or why there are none; kept from run to run in the user's cache folder."""
    path = default_folder() / f"megablox {chip.name} {compiler_version('pallas')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(path.read_text()) if path.exists() else {}
    found = {form: kept[repr(form)] for form in forms if repr(form) in kept}
    context = multiprocessing.get_context("spawn")
    with ProcessPool(max_workers=2, context=context, initializer=start_worker) as pool:
        missing = [form for form in forms if form not in found]
        futures = {f: pool.schedule(visit_cycles, args=[chip.target, f], timeout=TIME_LIMIT_S) for f in missing}
        for done, (form, future) in enumerate(futures.items()):
            try:
                found[form] = future.result()
            except FutureTimeout:
                found[form] = "timeout"
            except ProcessExpired:
                found[form] = "aborted"
            except Exception as error:
                found[form] = "VMEM" if "vmem" in str(error).lower() else type(error).__name__
            if found[form] not in ("timeout", "aborted"):  # a busy machine's, perhaps
                kept[repr(form)] = found[form]
                path.write_text(json.dumps(kept, indent=0))
            if done % 50 == 0:
                print(f"{chip.name}: {done} of {len(missing)} forms", flush=True)
    return found


def megablox_us(
    chip: Chip, problem: Problem, tile: tuple[int, int, int], cycles: float, *, sizes: np.ndarray | None = None
) -> float:
    """Time of the problem: ``cycles`` of a visit, or the bytes that its visit moves."""
    tm, tk, tn = tile
    sizes = problem.sizes if sizes is None else sizes
    depth, columns = math.ceil(problem.k / tk), math.ceil(problem.n / tn)
    gemm = GroupedGemm("down", sizes, problem.k, problem.n, problem.m, "bfloat16", accumulates=False)
    moved = visit_bytes(gemm, tile)
    clock = (chip.core.profile_cycles_per_ns or 1.0) * 1e3
    memory_us = 1e6 * moved / chip.memory.hbm_bytes_per_s
    # The count of a few visits of a very large block is off where its first copy hides them. One under what the matrix
    # units need, that take a row a cycle, of 256 two, is no count.
    side = float(chip.core.mxu_dim or 128)
    per_cycle = (chip.core.mxu_count or 1) * side**2 * (2 if side == 256 else 1)
    work = tm * depth * math.ceil(tk / side) * side * math.ceil(tn / side) * side
    if cycles < work / per_cycle:
        return math.inf
    # Nothing hides the first blocks.
    first_us = 1e6 * 2.0 * min(tk, problem.k) * (tn + tm) / chip.memory.hbm_bytes_per_s
    return first_us + columns * float(np.maximum(cycles / clock, memory_us).sum())


class GmmV2:
    """Its times on one chip, from what benchmarks/gmm_v2.py counted."""

    BASE = 128
    BLOCK = 16
    """Rows of a bucket, and rows that its blocks are cut by."""

    def __init__(self, chip: Chip) -> None:
        found = json.loads(GMM_V2.read_text())[chip.name]
        self.chip = chip
        self.issue = float(found["issue_bundles"])
        self.defaults: dict[str, dict[str, int]] = found["default_tiles"]
        self.counts: dict[tuple[int, ...], float] = {
            tuple(map(int, point.split("x"))): value
            for point, value in found["cycles by tile_n x K x buckets"].items()
            if not isinstance(value, str)
        }

    def cycles(self, tile_n: int, k: int, buckets: np.ndarray) -> np.ndarray:
        """Of one visit, by its buckets; not a number where a count is missing."""
        depths = sorted(
            {depth for width, depth, _ in self.counts if width == tile_n and (depth == k or not depth % 128)}
        )
        depths = [k] if k in depths and k % 128 else depths[:2]
        few, many = ([self.counts.get((tile_n, depth, b), math.nan) for depth in depths] for b in (1, 4))
        if not depths:
            return np.full(len(buckets), math.nan)
        if len(depths) == 2:
            along = (k - depths[0]) / (depths[1] - depths[0])
            few, many = ([a[0] + (a[1] - a[0]) * along] for a in (few, many))
        return few[0] + (many[0] - few[0]) / 3 * (buckets - 1) + self.issue

    def us(self, problem: Problem, tile_m: int, tile_n: int) -> float:
        some = np.flatnonzero(problem.sizes)
        starts = (np.cumsum(problem.sizes) - problem.sizes)[some]
        ends = starts % self.BLOCK + problem.sizes[some]
        counts = -(-ends // tile_m)
        group = np.repeat(np.arange(len(some)), counts)
        place = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.minimum(ends[group] - place * tile_m, tile_m)
        buckets = np.minimum(rows // self.BASE + 1, tile_m // self.BASE)
        columns = math.ceil(problem.n / tile_n)
        clock = (self.chip.core.profile_cycles_per_ns or 1.0) * 1e3
        compute = self.cycles(tile_n, problem.k, buckets) / clock
        blocks = np.ceil(rows / self.BLOCK) * self.BLOCK
        first = np.flatnonzero(place == 0)
        width = problem.n / columns
        moved = 2.0 * (np.add.reduceat(blocks, first) * (problem.k + width) + problem.k * width)
        per_us = 1e-6 * self.chip.memory.hbm_bytes_per_s
        start = 2.0 * problem.k * (width + blocks[0]) / per_us
        return start + columns * float(np.maximum(np.add.reduceat(compute, first), moved / per_us).sum())

    def default(self, problem: Problem) -> float:
        tile = self.defaults[f"{problem.k}x{problem.n}"]
        return self.us(problem, tile["tile_m"], tile["tile_n"])

    def best(self, problem: Problem, *, held: bool = False) -> tuple[float, str]:
        """Of visits of 128 to 512 rows and the widths that its blocks have VMEM for, its default's among them.

        ``held``: of those whose program is known to run at full speed.
        """
        tile = self.defaults[f"{problem.k}x{problem.n}"]
        room = 0.9 * (self.chip.core.vmem_bytes or 0)
        found: list[tuple[float, bool, int, int]] = []
        for tile_m, tile_n in itertools.product((128, 256, 384, 512), {256, 512, 1024, 2048, tile["tile_n"]}):
            k = -(-problem.k // 128) * 128
            needs = 2 * (2 * tile_m * k + 3 * k * tile_n + 2 * tile_m * tile_n) + 4 * tile_m * tile_n
            fits = needs <= room and (tile_n <= problem.n or tile_n == tile["tile_n"])
            if fits or (tile_m, tile_n) == (tile["tile_m"], tile["tile_n"]):
                us = round(self.us(problem, tile_m, tile_n), 3)
                found.append((us, self.is_large(problem, tile_m, tile_n), tile_m, tile_n))
        known = [one for one in found if math.isfinite(one[0]) and not (held and one[1])]
        us, large, tile_m, tile_n = min(known)
        return us, f"{tile_m}x{tile_n}" + "*" * large

    def is_large(self, problem: Problem, tile_m: int, tile_n: int) -> bool:
        """Its program, which has code for every number of buckets, is over the largest known to run at full speed."""
        buckets = tile_m // self.BASE
        rows = self.BASE * buckets * (buckets + 1) // 2
        code = PallasTile(tile_m=rows, tile_k=WHOLE_DEPTH, tile_n=tile_n, bucket_m=rows)
        whole = kernels.Problem(op="down", dtype="bfloat16", k=problem.k, n=-(-problem.n // 128) * 128)
        target = str(self.chip.target)
        return program_bundles(whole, code, target) > most_bundles(target)


def bound_us(chip: Chip, problem: Problem) -> float:
    """Below which no count can be: the matrix units full all the time, or every byte moved once."""
    side = float(chip.core.mxu_dim or 128)
    per_cycle = (chip.core.mxu_count or 1) * side**2 * (2 if side == 256 else 1)
    cycles = float(problem.m) * problem.k * problem.n / per_cycle
    moved = 2.0 * (problem.m * (problem.k + problem.n) + int((problem.sizes > 0).sum()) * problem.k * problem.n)
    clock = (chip.core.profile_cycles_per_ns or 1.0) * 1e3
    return max(cycles / clock, 1e6 * moved / chip.memory.hbm_bytes_per_s)


def one_core(chip: Chip) -> Chip:
    cores = chip.core.count
    return chip.model_copy(
        update={
            "core": chip.core.model_copy(update={"count": 1, "devices_per_chip": 1}),
            "memory": chip.memory.model_copy(update={"hbm_bytes_per_s": chip.memory.hbm_bytes_per_s / cores}),
            "peak_flops_per_s": {dtype: peak / cores for dtype, peak in chip.peak_flops_per_s.items()},
        }
    )


def our_us(tables: Tables, whole: Chip, chip: Chip, problem: Problem) -> tuple[float, str]:
    """Our best tile's time and label."""
    kernel = kernel_for(whole)
    table = tables.get(whole, kernel, "down")
    gemm = GroupedGemm("down", problem.sizes, problem.k, problem.n, problem.m, "bfloat16", accumulates=False)
    times = tile_times(dataclasses.replace(table, chip=chip), gemm).total_us
    times[list(table.unsupported(gemm.problem))] = np.inf
    best = int(np.argmin(times))
    return float(times[best]), table.tiles[best].label()


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def compare(name: str) -> list[str]:
    whole = load_chip(name)
    chip = one_core(whole)
    every = list(problems())
    forms = {form_of(t, p.k, d) for p in every for t in tiles(p) for d in depths(t, p.k)}
    ordered = sorted(forms, key=lambda f: f.tm * f.tk * f.tn * f.depth)
    found = compile_forms(whole, ordered)
    refused = dict(Counter(value for value in found.values() if isinstance(value, str)))
    tables = Tables(jobs=2)
    gmm_v2 = GmmV2(chip)
    lines = []
    ratios: dict[str, list[float]] = defaultdict(list)
    for p in every:
        best: tuple[float, tuple[int, int, int]] = (math.inf, DEFAULT)
        default = math.nan
        for tile in tiles(p):
            parts = [found[form_of(tile, p.k, d)] for d in depths(tile, p.k)]
            if any(isinstance(part, str) for part in parts):
                continue
            few, many = float(parts[0]), float(parts[-1])
            depth = math.ceil(p.k / tile[1])
            cycles = few if len(parts) == 1 else few + (many - few) / 2 * (depth - 2)
            us = megablox_us(chip, p, tile, cycles)
            best = min(best, (us, tile))
            default = us if tile == DEFAULT else default
        ours, label = our_us(tables, whole, chip, p)
        theirs, their_tile = gmm_v2.best(p)
        bound = bound_us(chip, p)
        for which, us in (
            ("megablox", best[0]),
            ("megablox by default", default),
            ("gmm_v2", theirs),
            ("gmm_v2 of programs held to that size", gmm_v2.best(p, held=True)[0]),
            ("gmm_v2 by default", gmm_v2.default(p)),
            ("the bound", bound),
        ):
            ratios[which].append(us / ours)
        lines.append(
            f"| {p.model} | {p.projection} | {p.m} | {label} | {ours:.1f} | {'x'.join(map(str, best[1]))} "
            f"| {best[0]:.1f} | {best[0] / ours:.2f} | {default / ours:.2f} | {their_tile} | {theirs:.1f} "
            f"| {theirs / ours:.2f} | {ratios['gmm_v2 by default'][-1]:.2f} | {bound / ours:.0%} |"
        )

    def summary(which: str) -> str:
        values = ratios[which]
        means = [geometric_mean([r for r, p in zip(values, every, strict=True) if p.m == m]) for m in ROWS]
        return "| " + " | ".join([which, *(f"{x:.2f}" for x in (geometric_mean(values), *means, min(values)))]) + " |"

    return [
        f"## {name}, one core",
        "",
        f"Their time over ours, geometric means over {len(every)} problems. Forms of megablox compiled: {len(found)}, "
        f"without a count: {refused or 'none'}.",
        "",
        "| | all | " + " | ".join(f"{m} rows" for m in ROWS) + " | least |",
        "|---|---|---|---|---|---|",
        *map(summary, ratios),
        "",
        "| model | projection | rows | our tile | ours us | megablox' tile | megablox us | over ours | its default "
        "| gmm_v2's tile | gmm_v2 us | over ours | its default | the bound over ours |",
        "|" + "---|" * 14,
        *lines,
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chips", default="tpu_v6e,tpu7x")
    chips = parser.parse_args().chips.split(",")
    lines = ["\n".join(compare(name)) for name in chips]
    made_with = ", ".join(f"{name} {number}" for name, number in json.loads(GMM_V2.read_text())["made_with"].items())
    OUT.write_text(
        "# Grouped matmuls on TPUs: ours beside megablox and gmm_v2\n\n"
        f"Made by `python benchmarks/megablox.py` with {compiler_version('pallas')}; compiled cycles, nothing was run "
        "on a TPU. bfloat16 forward, one matrix, rows given to groups at random. How each number is made stands at the "
        f"head of the script; gmm_v2 with {made_with}. The bound: matrix units full at the compiler's cycles per "
        "nanosecond, or every byte moved once; no kernel can be faster in these counts.\n\n" + "\n".join(lines)
    )
    print(OUT.read_text())


if __name__ == "__main__":
    main()
