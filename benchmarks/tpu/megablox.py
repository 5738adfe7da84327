"""jax's megablox kernels compiled with the number of their visits fixed, and their time from what one visit takes.

Their grid is only known on the device, which the compiler's profile cannot count. So its kernel is compiled as it is,
with the number of visits and the places of their blocks fixed. The profile takes every condition to hold half the time,
so what the gradient to the weights does at a group's start and end alone is compiled in every visit, or in none.
"""

import dataclasses
import importlib
import json
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from problems import Problem, bytes_per_us, cycles_per_us

from moe_codesign.chips import TpuChip
from moe_codesign.compiler.cache import default_folder
from moe_codesign.compiler.tpu import analyse, prepare_process
from moe_codesign.compiler.worker import start
from moe_codesign.cost.ragged_dot.tpu import visit_bytes, visits_of
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.execution import Done, Pool, Raised, TimedOut
from moe_codesign.versions import compiler_version

TIME_LIMIT_S = 180.0
Tile = tuple[int, int, int]
Kind = Literal["forward", "rows", "weights"]
"""The product (``gmm``), its gradient to the rows (``gmm``, weights transposed) and to the weights (``tgmm``)."""
_folder: Path | None = None


@dataclass(frozen=True)
class Form:
    """One compiled form: tile, tiles of K (at most 4 where they are steps of a visit), what is left in the last one.

    ``whole``: every visit starts and ends its group (of the gradient to the weights alone).
    """

    tm: int
    tk: int
    tn: int
    depth: int
    rest: int
    kind: Kind = "forward"
    whole: bool = True

    @property
    def k(self) -> int:
        return (self.depth - 1) * self.tk + (self.rest or self.tk)


def form_of(tile: Tile, k: int, depth: int | None = None, kind: Kind = "forward") -> Form:
    """``depth``: tiles of K; default all."""
    tm, tk, tn = tile
    return Form(tm, tk, tn, depth or math.ceil(k / tk), k % tk, kind)


def depths(tile: Tile, k: int) -> tuple[int, ...]:
    """Tiles of K to compile: all there are, or two numbers that give the straight line."""
    count = math.ceil(k / tile[1])
    return (count,) if count <= 4 else (2, 4)


def at_depth(cycles: list[float], tile: Tile, k: int) -> float:
    """Cycles at the whole K from those of :func:`depths`."""
    few, many = cycles[0], cycles[-1]
    return few if len(cycles) == 1 else few + (many - few) / 2 * (math.ceil(k / tile[1]) - 2)


def start_worker() -> None:
    global _folder
    start(plain=True)
    _folder = prepare_process()


def visit_cycles(target: str, form: Form, vmem_bytes: int | None = None) -> float:
    """What one more visit of a group adds."""
    assert _folder is not None
    counts = [
        analyse(target, *megablox(form, visits, vmem_bytes=vmem_bytes), "megablox", _folder)[0] for visits in (8, 16)
    ]
    return (counts[1] - counts[0]) / 8


def group_cycles(target: str, form: Form, n: int, per_group: int, vmem_bytes: int | None = None) -> float:
    """What one more group of so many visits adds, over all its columns."""
    assert _folder is not None
    counts = [
        analyse(
            target,
            *megablox(form, groups * per_group, per_group=per_group, n=n, vmem_bytes=vmem_bytes),
            "megablox",
            _folder,
        )[0]
        for groups in (2, 4)
    ]
    return (counts[1] - counts[0]) / 2


def megablox(
    form: Form, visits: int, *, per_group: int | None = None, n: int | None = None, vmem_bytes: int | None = None
) -> tuple[Any, list[Any]]:
    """Its kernel on so many visits of one group (or ``per_group`` of each) and ``n`` columns (or those of one tile).

    ``vmem_bytes``: that it may use; default the compiler's own limit, as its function has it.
    """
    import jax
    import jax.numpy as jnp
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    per_group, n, k = per_group or visits, n or form.tn, form.k
    groups, rows = visits // per_group, form.tm * visits
    module: Any = importlib.import_module("jax.experimental.pallas.ops.tpu.megablox.gmm")
    original, metadata = pl.pallas_call, module.make_group_metadata
    of_weights = form.kind == "weights"

    def when(_: Any) -> Callable[[Callable[[], None]], None]:
        return lambda body: body() if form.whole or body.__name__ == "_do" else None

    def fixed(place: Callable[[Any, Any, Any], tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
        """A place by column, visit and depth, as the grid has them: visits innermost where weights are the result."""
        if of_weights:
            return lambda n, k, v, *_: place(n, v, k)
        return lambda n, v, k, *_: place(n, v, k)

    def fixed_call(kernel: Any, *, grid_spec: Any, **options: Any) -> Any:
        if vmem_bytes is not None:
            parameters = options["compiler_params"]
            options["compiler_params"] = dataclasses.replace(parameters, vmem_limit_bytes=vmem_bytes)
        lhs, rhs, existing = grid_spec.in_specs
        places: dict[Kind, Any] = {
            "forward": (lambda n, v, k: (v // per_group, k, n), lambda n, v, k: (v, n)),
            "rows": (lambda n, v, k: (v // per_group, n, k), lambda n, v, k: (v, n)),
            "weights": (lambda n, v, k: (v, n), lambda n, v, k: (v // per_group, k, n)),
        }
        of_rhs, of_out = places[form.kind]
        columns, *rest = grid_spec.grid
        spec = pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=grid_spec.num_scalar_prefetch,
            grid=(columns, rest[0], visits) if of_weights else (columns, visits, rest[1]),
            in_specs=[
                pl.BlockSpec(lhs.block_shape, fixed(lambda n, v, k: (v, k))),
                pl.BlockSpec(rhs.block_shape, fixed(of_rhs)),
                existing,
            ],
            out_specs=pl.BlockSpec(grid_spec.out_specs.block_shape, fixed(of_out)),
            scratch_shapes=grid_spec.scratch_shapes,
        )
        return original(kernel, grid_spec=spec, name="megablox", **options)

    def run(lhs: Any, rhs: Any, sizes: Any, offsets: Any, visit: Any) -> Any:
        # Metadata come from outside: the copies of what XLA computes inside the compiler cannot count on a v5e.
        pl.pallas_call = fixed_call
        module.make_group_metadata = lambda **_: ((offsets, visit, visit), visits)
        tile = form.tm, form.tk, form.tn
        try:
            if of_weights:
                module.pl = types.SimpleNamespace(**{**vars(pl), "when": when})
                return module.tgmm.__wrapped__(lhs.T, rhs, sizes, jnp.bfloat16, tile)
            return module.gmm.__wrapped__(lhs, rhs, sizes, jnp.bfloat16, tile, transpose_rhs=form.kind == "rows")
        finally:
            pl.pallas_call, module.make_group_metadata, module.pl = original, metadata, pl

    of_kind: dict[Kind, tuple[int, ...]] = {"forward": (groups, k, n), "rows": (groups, n, k), "weights": (rows, n)}
    shapes = [((rows, k), jnp.bfloat16), (of_kind[form.kind], jnp.bfloat16)]
    shapes += [((size,), jnp.int32) for size in (groups, groups + 1, visits)]
    return run, [jax.ShapeDtypeStruct(*shape) for shape in shapes]


Job = tuple[Callable[..., float], list[Any]]
_PROCESS_CALLS = 25
"""Compiles of a process before another takes its place: libtpu keeps memory of each."""


def run(item: tuple[str, Job]) -> float | str:
    """The job's cycles; or VMEM, where its blocks do not fit."""
    function, arguments = item[1]
    try:
        return function(*arguments)
    except Exception as error:
        if "vmem" in str(error).lower():
            return "VMEM"
        raise


def count(chip: TpuChip, jobs: Mapping[str, Job]) -> dict[str, float | str]:
    """Cycles of every job, or why it has no count; kept from run to run in the user's cache folder."""
    path = default_folder() / f"megablox {chip.name} {compiler_version('pallas')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found: dict[str, float | str] = {key: kept[key] for key in jobs if key in kept}
    missing = [key for key in jobs if key not in found]
    with (
        Pool(2, initializer=start_worker, calls_per_process=_PROCESS_CALLS, scratch=True) as pool,
    ):
        items = [(key, jobs[key]) for key in missing]
        for done, ((key, _), outcome) in enumerate(pool.map_unordered(run, items, time_limit_s=TIME_LIMIT_S)):
            if isinstance(outcome, Done):
                found[key] = kept[key] = outcome.value
                path.write_text(json.dumps(kept, indent=0), encoding="utf-8")
            elif isinstance(outcome, Raised):
                found[key] = outcome.kind
            else:
                found[key] = "timeout" if isinstance(outcome, TimedOut) else "aborted"
            if done % 50 == 0:
                print(f"{chip.name}: {done} of {len(missing)} forms", flush=True)
    return found


def megablox_us(chip: TpuChip, problem: Problem, tile: Tile, cycles: float) -> float:
    """Time of the problem: ``cycles`` of a visit, or the bytes that its visit moves."""
    tm, tk, tn = tile
    depth, columns = math.ceil(problem.k / tk), math.ceil(problem.n / tn)
    gemm = GroupedGemm("down", problem.sizes, problem.k, problem.n, problem.m, "bfloat16", accumulates=False)
    # The count of a few visits of a very large block is off where its first copy hides them. One under what the matrix
    # units need is no count.
    side = chip.core.matrix_side
    work = tm * depth * math.ceil(tk / side) * side * math.ceil(tn / side) * side
    if cycles < work / chip.core.products_per_cycle:
        return math.inf
    # Nothing hides the first blocks.
    first_us = 2.0 * min(tk, problem.k) * (tn + tm) / bytes_per_us(chip)
    memory_us = visit_bytes(gemm, tile) / bytes_per_us(chip)
    return first_us + columns * float(np.maximum(cycles / cycles_per_us(chip), memory_us).sum())


def weight_gradient_us(chip: TpuChip, problem: Problem, tile: Tile, middle: float, whole: float) -> float:
    """Time of the gradient to the weights: cycles of a visit in its group's middle, and of one that is its group alone.

    Every visit reads rows and their gradients; the last one of a group writes the weights'. What empty groups write is
    not counted.
    """
    tm, tk, tn = tile
    depth, columns = math.ceil(problem.k / tk), math.ceil(problem.n / tn)
    group, _ = visits_of(problem.sizes, tm)
    last = np.diff(group, append=-1) != 0
    deep, wide = problem.k / depth, problem.n / columns
    memory_us = 2.0 * (tm * (deep + wide) + deep * wide * last) / bytes_per_us(chip)
    compute_us = np.where(last, whole, middle) / cycles_per_us(chip)
    first_us = 2.0 * tm * (deep + wide) / bytes_per_us(chip)
    return first_us + depth * columns * float(np.maximum(compute_us, memory_us).sum())
