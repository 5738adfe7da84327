"""aiconfigurator's own estimates of fused MoE times, with the test split's shapes taken out of its tables."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moe_codesign.chips import GpuChip
from moe_codesign.fitting.splits import in_test_split
from moe_codesign.formats.aiconfigurator import aiconfigurator_folder, renamed, system_of

MODES = ("SOL", "EMPIRICAL")
"""Its roofline, and its empirical rule over what its tables still hold."""


def shape_keys(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """hidden-inter-experts-topk of rows in aiconfigurator's words."""
    return np.array([f"{r['hidden_size']}-{r['inter_size']}-{r['num_experts']}-{r['topk']}" for r in rows])


@contextlib.contextmanager
def _withheld(system: str) -> Iterator[Path]:
    """A copy of its systems folder with one system, without the test split's rows in any MoE table."""
    from pyarrow import array, parquet

    source = aiconfigurator_folder()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in source.iterdir():
            if path.is_file():
                shutil.copy(path, folder)
        shutil.copytree(source / "data" / system, folder / "data" / system)
        for path in (folder / "data" / system / "moe").rglob("moe_perf.parquet"):
            table = parquet.read_table(path)
            names = ("hidden_size", "inter_size", "topk", "num_experts")
            keys = shape_keys(table.select(names).to_pylist())
            parquet.write_table(table.filter(array(~in_test_split(keys))), path)
        yield folder


def estimates(
    chip: GpuChip, stack: str, version: str, dtype: str, rows: Sequence[dict[str, Any]]
) -> dict[str, np.ndarray]:
    """Microseconds of each row by mode; NaN where it has none."""
    from aiconfigurator_core.sdk import common, perf_database
    from aiconfigurator_core.sdk.engine import _evaluate_single_op
    from aiconfigurator_core.sdk.operations.moe import MoE

    found = {}
    with _withheld(system_of(chip)) as folder:
        database = perf_database.get_database(
            system_of(chip), stack, version, systems_paths=[str(folder)], allow_missing_data=True,
            database_mode="EMPIRICAL", shared_layer=False, allow_unlisted_version=True,
        )  # fmt: skip
        for mode in MODES:
            database.set_default_database_mode(common.DatabaseMode[mode])
            times = []
            for row in rows:
                op = MoE(
                    "moe", 1.0, row["hidden_size"], row["inter_size"], row["topk"], row["num_experts"],
                    row["moe_tp_size"], row["moe_ep_size"], common.MoEQuantMode[dtype], row["distribution"], 1,
                    is_gated=bool(renamed(row)["gated"]),
                )  # fmt: skip
                tokens = row["num_tokens"]
                try:
                    value = _evaluate_single_op(database, op, is_context=True, batch_size=1, s=tokens, x=tokens)
                    times.append(1e3 * float(value))
                except (ValueError, RuntimeError, KeyError):
                    times.append(float("nan"))
            found[mode] = np.array(times)
    return found
