"""NVIDIA's measured times of a model's operations (the data of the package aisimulate): where its tables lie, and which
version and kernel of a stack to take.

The package pins an old JAX, so that it is never installed beside this one: its wheel is unpacked somewhere, and that
folder is given.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from moe_codesign.errors import UserError
from moe_codesign.extras import require

_FOLDERS = {"b200": "b200_sxm", "b300": "b300_sxm", "rtx_pro_6000": "rtx_pro_6000_server", "arc_pro_b60": "b60"}
"""The package's names of chips where they are not ours."""


@dataclass(frozen=True, eq=False)
class VersionTable:
    """A table as it lies in the package: columns [rows] of one version of one stack."""

    version: str
    columns: dict[str, npt.NDArray[np.generic]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def data_folder(unpacked: Path) -> Path:
    """Where the tables lie in an unpacked wheel.

    Raises:
        UserError: they do not.
    """
    folder = unpacked / "aisimulate_core" / "systems" / "data"
    if not folder.is_dir():
        raise UserError(f"{unpacked} holds no aisimulate_core/systems/data", fix="give the folder of an unpacked wheel")
    return folder


def version_of(folder: Path) -> str:
    """The package's version, of the folder of :func:`data_folder`."""
    found = next(folder.parents[2].glob("aisimulate-*.dist-info"), None)
    return found.name.removeprefix("aisimulate-").removesuffix(".dist-info") if found else "unknown"


def tables(folder: Path, chip: str, family: str, stack: str, name: str) -> list[VersionTable]:
    """Every version's table of that name, the newest first; none where the chip was not measured so.

    Args:
        folder: of :func:`data_folder`.
        chip: our name of it.
        family: the package's folder of operations, as ``gemm``.
        stack: whose software, or ``nccl``.
        name: of the table, as ``gemm_perf``.
    """
    require("pyarrow", "reading measured tables")
    from pyarrow import parquet

    found = []
    for path in (folder / _FOLDERS.get(chip, chip) / family / stack).glob(f"*/{name}.parquet"):
        version = path.parent.name
        if not version[0].isdigit():
            continue
        table = parquet.read_table(path)
        columns = {column: table[column].to_numpy(zero_copy_only=False) for column in table.column_names}
        found.append(VersionTable(version, columns))
    return sorted(found, key=lambda one: version_order(one.version), reverse=True)


def version_order(version: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A key by which releases sort: 1.3.0rc9 < 1.3.0rc20 < 1.3.0 < 1.3.0.post1."""
    plain = re.match(r"\d+(\.\d+)*", version)
    head = plain.group() if plain else "0"
    numbers = tuple(int(part) for part in head.split("."))
    rest = version[len(head) :]
    after = [int(part) for part in re.findall(r"\d+", rest)]
    return numbers, ((-1, *after) if rest.startswith(("rc", "dev", ".dev")) else (0, *after))
