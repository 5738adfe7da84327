"""The catalogue of published MoE shapes (``catalogue.csv``, one row a model)."""

import csv
import difflib
import functools
import re
from pathlib import Path

from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError
from moe_codesign.models.hf_config import read_config


@functools.cache
def models() -> dict[str, MoEShape]:
    """Every catalogue model by name."""
    return read_models(Path(__file__).parent / "catalogue.csv")


def read_models(path: Path) -> dict[str, MoEShape]:
    """The models of a CSV file with one row per model, by name."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for row in rows:
        name = row["model"]
        found[name] = MoEShape(
            name=name,
            hidden_size=int(row["hidden_size"]),
            moe_intermediate_size=int(row["moe_intermediate_size"]),
            num_experts=int(row["num_experts"]),
            num_experts_per_tok=int(row["num_experts_per_tok"]),
            n_shared_experts=int(row["n_shared_experts"]),
            num_layers=int(row["num_layers"]),
            gated=row["gated"] == "1",
        )
    return found


def find_model(name: str) -> MoEShape:
    """A catalogue model by name (case, ``-`` and ``_`` do not matter), or the shape in a ``config.json``.

    Raises:
        UserError: neither; names the nearest.
    """
    if name.endswith(".json") or Path(name).is_file() or (Path(name) / "config.json").is_file():
        return read_config(Path(name))
    by_key = {_key(known): known for known in models()}
    if _key(name) in by_key:
        return models()[by_key[_key(name)]]
    near = difflib.get_close_matches(_key(name), by_key, n=3, cutoff=0.4)
    hint = "did you mean " + ", ".join(by_key[n] for n in near) + "?" if near else "see `moe-codesign list models`"
    raise UserError("model", value=name, fix=hint + " (or give a path to a config.json)")


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())
