"""Published times of grouped matrix products: the autotuning caches of PyPI tokamax (Apache-2.0), as one table."""

import csv
import gzip
import json
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moe_codesign.domain.token_counts import Counts
from moe_codesign.errors import UserError

OPS = ("pallas_triton_ragged_dot", "triton_ragged_dot", "pallas_mosaic_tpu_ragged_dot")
"""Its kernels that the models stand for."""
DEVICES = {
    "nvidia_h100_80gb_hbm3": "h100_sxm",
    "nvidia_b200": "b200",
    "tpu_v5_lite": "tpu_v5e",
    "tpu_v5": "tpu_v5p",
    "tpu_v6_lite": "tpu_v6e",
    "tpu7x": "tpu7x",
}
"""Our name of the chip by tokamax' name of the device."""


@dataclass(frozen=True)
class RaggedDotTime:
    """One measured problem and tile, forward, in bfloat16.

    Args:
        chip: our name of the chip.
        op: tokamax' kernel, one of OPS.
        m: rows of all groups.
        k: depth.
        n: columns.
        groups: number of groups.
        spread: how the rows were spread over the groups: ``single``, ``equal`` or drawn.
        config: JSON of the kernel's configuration.
        us: median of the times that are listed for it.
    """

    chip: str
    op: str
    m: int
    k: int
    n: int
    groups: int
    spread: str
    config: str
    us: float

    @property
    def rows(self) -> Counts:
        """Rows of each group, as the measurement drew them; explicit sizes are not published and taken as drawn."""
        if self.spread == "single":
            return np.array([self.m] + [0] * (self.groups - 1))
        if self.spread == "equal":
            return np.full(self.groups, self.m // self.groups)
        return np.bincount(np.random.default_rng(0).choice(self.groups, (self.m,)), minlength=self.groups)

    @property
    def tile(self) -> str:
        """JSON of the part of the configuration that the models read."""
        read = {name: value for name, value in json.loads(self.config).items() if value is not None}
        return json.dumps({name: read[name] for name in sorted(read) if name.startswith(("block", "tile", "num"))})


def read_times(path: Path) -> list[RaggedDotTime]:
    """Times of a .csv.gz table of the caches: forward, bfloat16, one of OPS, on one of DEVICES.

    The same problem and configuration listed several times is one time, the median.

    Raises:
        UserError: the table cannot be read.
    """
    times: dict[tuple[str, str, int, int, int, int, str, str], list[float]] = defaultdict(list)
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                types = row["lhs"].startswith("bf") and row["rhs"].startswith("bf")
                if row["device"] in DEVICES and row["op"] in OPS and row["kind"] == "fwd" and types and row["config"]:
                    m, k, n, groups = (int(row[name]) for name in "MKNG")
                    chip = DEVICES[row["device"]]
                    key = (chip, row["op"], m, k, n, groups, row["group_dist"], row["config"])
                    times[key].append(1e3 * float(row["median_ms"]))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error, KeyError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error})", fix="give the table of tokamax' times, .csv.gz") from None
    return [RaggedDotTime(*key, us=float(np.median(us))) for key, us in times.items()]
