"""Static cycles of tokamax's gmm_v2, for compare.py and validation.py: writes results/tpu_gmm_v2.json.

Needs Python 3.12 and a folder of its own for tokamax, whose jax is newer than this project's; libtpu is the same:

    python3.12 -m venv ENV
    ENV/bin/pip install tokamax libtpu==0.0.52 pebble platformdirs psutil pydantic
    PYTHONPATH=.:kernels ENV/bin/python benchmarks/tpu/gmm_v2_counts.py      half an hour on two cores

What results/tpu_gmm_v2.json has already of the same versions is kept.

Its grid is only known on the device, which the compiler's profile cannot count. So its inner kernel is compiled as it
is, with a number of visits, a bucket of its switch and one tile of K that are fixed, on blocks that lie in VMEM; a
visit's cycles are a straight line in its buckets and in K, read from two of each. The bundles that start and await its
copies are those of the loop around the matmul in its whole program.
"""

import argparse
import functools
import json
import math
import tempfile
import types
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from problems import PUBLISHED, PUBLISHED_GRADIENTS, projections

from moe_codesign.compiler.llo import read_program
from moe_codesign.compiler.tpu import analyse, compile_for, empty, prepare_process
from moe_codesign.execution import CallResult, Done, Pool, Raised

OUT = Path(__file__).parents[2] / "results" / "tpu_gmm_v2.json"
TARGETS = {"tpu_v6e": "v6e:2x2", "tpu7x": "tpu7x:2x2x1", "tpu_v5p": "v5p:2x2x1"}
COMPARED = ("tpu_v6e", "tpu7x")
"""Where compare.py needs it; elsewhere its published shapes alone are counted."""
BASE = {False: 128, True: 256}
"""Rows of its bucket in bfloat16, by whether weights are transposed (the gradient to the rows)."""
BUCKETS, SUBLANES = 4, 16
"""Most buckets of a visit, and rows that its blocks are cut by."""
WIDTHS = (256, 512, 1024, 2048)
TIME_LIMIT_S = 400.0
_folder: Path | None = None


def start_worker(profile: bool, scratch: str) -> None:
    global _folder
    tempfile.tempdir = scratch
    _folder = prepare_process(profile=profile)


def inner(k: int, tile_n: int, buckets: int, visits: int, transposed: bool) -> tuple[Any, list[Any]]:
    """The inner kernel on ``visits`` full visits of so many buckets."""
    import jax
    import jax.numpy as jnp
    from jax import lax
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu
    from tokamax._src.ops.gmm_v2 import gmm_v2 as module

    tile_k, rows = -(-k // 128) * 128, BASE[transposed] * BUCKETS
    inputs = module.InputConfigs(None, k, jnp.dtype(jnp.bfloat16))
    configs = module.GmmConfigs(
        tiles=module.TileSizes(rows, tile_k, tile_n, BASE[transposed]),
        dims=module.Dimensions(rows * visits, k, tile_n, visits, visits, SUBLANES),
        lhs_cfgs=inputs,
        rhs_cfgs=inputs,
        out_dtype=jnp.dtype(jnp.bfloat16),
        acc_dtype=jnp.dtype(jnp.float32),
        zero_init=False,
        fuse_act=None,
        transpose_rhs=transposed,
    )
    fixed = {"switch": lambda _, branches: branches[buckets - 1](), "cond": lambda _, yes, __: yes()}

    def body(group: Any, offset: Any, _: Any, lhs: Any, rhs: Any, out: Any, partial: Any, acc: Any) -> None:
        module.lax = types.SimpleNamespace(**{**vars(lax), **fixed})
        try:
            places = module.MetadataRef(group, offset)
            weights = module.WeightsRef(rhs, None, None)
            module.inner_kernel(module.LhsRef(lhs, None), weights, out, partial, acc, places, cfgs=configs)
        finally:
            module.lax = lax

    def run(group: Any, offset: Any) -> Any:
        weights = (tile_n, tile_k) if transposed else (tile_k, tile_n)
        wide = [(rows // SUBLANES, SUBLANES, tile_k), weights, (rows // SUBLANES, SUBLANES, tile_n)]
        scratch = [pltpu.VMEM(shape, jnp.bfloat16) for shape in (*wide, (SUBLANES, tile_n))]
        return pl.pallas_call(
            body,
            name="gmm_v2",
            grid_spec=pltpu.PrefetchScalarGridSpec(
                num_scalar_prefetch=2,
                grid=(1, visits, 1),
                in_specs=[],
                out_specs=pl.BlockSpec(memory_space=pl.ANY),
                scratch_shapes=[*scratch, pltpu.VMEM((rows, tile_n), jnp.float32)],
            ),
            out_shape=jax.ShapeDtypeStruct((8, 128), jnp.bfloat16),
            compiler_params=pltpu.CompilerParams(
                vmem_limit_bytes=int(pltpu.get_tpu_info().vmem_capacity_bytes * 0.98), disable_bounds_checks=True
            ),
        )(group, offset)

    return run, [jax.ShapeDtypeStruct((size,), jnp.int32) for size in (visits, visits + 1)]


def visit_cycles(target: str, transposed: bool, tile_n: int, k: int, buckets: int) -> float:
    """What one more visit adds."""
    assert _folder is not None
    few, many = (analyse(target, *inner(k, tile_n, buckets, v, transposed), "gmm_v2", _folder)[0] for v in (4, 8))
    return (many - few) / 4


def issue_bundles(target: str) -> int:
    """Bundles of the whole program's loop over visits that are not the matmul's."""
    import jax
    import jax.numpy as jnp
    from tokamax._src.ops.gmm_v2 import gmm_v2 as module

    assert _folder is not None

    def run(lhs: Any, rhs: Any, sizes: Any) -> Any:
        return module.gmm_v2(
            lhs, rhs, sizes, tile_info=module.TileSizes(256, 2048, 512, BASE[False]), zero_initialize=False
        )

    shapes = [((8192, 2048), jnp.bfloat16), ((64, 2048, 1024), jnp.bfloat16), ((64,), jnp.int32)]
    empty(_folder)
    compile_for(target, run, [jax.ShapeDtypeStruct(*shape) for shape in shapes])
    regions = read_program(_folder, "gmm_v2", target).regions
    return sum(r.bundles for r in regions if r.loops and "copies" in r.slots)


def default_tile(target: str, transposed: bool, k: int, n: int) -> dict[str, int]:
    """The tile that its own rule gives an untuned user for 1024 rows and more, whatever the groups."""
    import jax.numpy as jnp
    from jax.experimental import topologies
    from jax.experimental.pallas import tpu as pltpu
    from jax.sharding import AbstractDevice, AbstractMesh, AxisType, use_abstract_mesh
    from tokamax._src.ops.gmm_v2 import gmm_v2 as module

    kind = topologies.get_topology_desc(platform="tpu", topology_name=target).devices[0].device_kind
    device = AbstractDevice(device_kind=kind, num_cores=1, platform="tpu")
    with use_abstract_mesh(AbstractMesh((1,), ("x",), axis_types=(AxisType.Auto,), abstract_device=device)):
        inputs = module.InputConfigs(None, k, jnp.dtype(jnp.bfloat16))
        weights = module.InputConfigs(None, k, jnp.dtype(jnp.bfloat16), is_transposed=transposed)
        dims = module.Dimensions(1024, k, n, 1, 1, SUBLANES)
        vmem = int(pltpu.get_tpu_info().vmem_capacity_bytes * 0.9)
        return {name: int(size) for name, size in asdict(module.calculate_tiling(dims, inputs, weights, vmem)).items()}


def depths(k: int, tile_n: int) -> tuple[int, ...]:
    """K to compile: a last tile that is not whole is masked, and stands alone; of others two, for the straight line."""
    return (k,) if k % 128 else (1024, 2048) if tile_n <= 2048 else (512, 1024)


def cycles_at(target: str, transposed: bool, point: tuple[int, int, int]) -> float:
    return visit_cycles(target, transposed, *point)


def value(outcome: CallResult[Any]) -> Any:
    if not isinstance(outcome, Done):
        raise RuntimeError(str(outcome))
    return outcome.value


def count(chip: str, transposed: bool, known: dict[str, float | str]) -> dict[str, Any]:
    """Default tiles of every K and N, and cycles at them (and at ``WIDTHS``, where compare.py chooses)."""
    target = TARGETS[chip]
    compared = {(k, n) for _, _, k, n, _ in projections()} if chip in COMPARED and not transposed else set()
    pairs = sorted(compared | set(PUBLISHED_GRADIENTS if transposed else PUBLISHED))
    with (
        tempfile.TemporaryDirectory() as scratch,
        Pool(1, initializer=start_worker, initargs=(False, scratch)) as pool,
    ):
        issue = value(pool.call(issue_bundles, target, time_limit_s=TIME_LIMIT_S))
        tiles = {
            pair: value(pool.call(default_tile, target, transposed, *pair, time_limit_s=TIME_LIMIT_S)) for pair in pairs
        }
    widths = {(k, tile["tile_n"]) for (k, _), tile in tiles.items()}
    widths |= {(k, width) for k, n in compared for width in WIDTHS if width <= n}
    points = sorted(
        {(width, d, b) for k, width in widths for d in depths(k, width) for b in (1, BUCKETS)}, key=math.prod
    )
    names = {point: "x".join(map(str, point)) for point in points}
    counted: dict[str, float | str] = {}
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,
        Pool(2, initializer=start_worker, initargs=(True, scratch)) as pool,
    ):
        missing = [point for point in points if names[point] not in known]
        one = functools.partial(cycles_at, target, transposed)
        for point, outcome in pool.map_unordered(one, missing, time_limit_s=TIME_LIMIT_S):
            reason = outcome.kind if isinstance(outcome, Raised) else type(outcome).__name__
            counted[names[point]] = outcome.value if isinstance(outcome, Done) else reason
            print(chip, "transposed" if transposed else "", names[point], counted[names[point]], flush=True)
    cycles = {name: known[name] if name in known else counted[name] for name in names.values()}
    return {
        "issue_bundles": issue,
        "default_tiles": {"x".join(map(str, pair)): tile for pair, tile in tiles.items()},
        "cycles by tile_n x K x buckets": cycles,
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    made_with = {name: version(name) for name in ("tokamax", "jax", "libtpu")}
    found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    if found.get("made_with") != made_with:
        found = {"made_with": made_with}
    for chip in TARGETS:
        for name, transposed in ((chip, False), (f"{chip} transposed", True)):
            known = found.get(name, {}).get("cycles by tile_n x K x buckets", {})
            found[name] = count(chip, transposed, known)
            OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
