"""The catalogue of published MoE shapes (``catalogue.csv``, one row a model), and models by name.

Whole models have a file each in ``whole/``; those without experts stand there alone.
"""

import csv
import dataclasses
import difflib
import functools
import re
from collections.abc import Iterable
from pathlib import Path

from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError
from moe_codesign.files import read_json
from moe_codesign.models.config_fields import NoExpertsError
from moe_codesign.models.hf_config import read_config, read_model
from moe_codesign.models.read_model import FIELDS, ReadModel, notes_on

WHOLE = Path(__file__).parent / "whole"
_VARIANTS = re.compile(r"instruct|base|chat|thinking|reasoning|hf|it|bf16|v\d+(\.\d+)?|a?\d+b|\d+e|\d{4}|original")
"""Words after a catalogue name that change nothing of the shape: training, date, parameters."""
_DTYPE = re.compile(r"[-_](FP8|NVFP4|FP4|INT4|MXFP4)$", re.IGNORECASE)


@functools.cache
def catalogue() -> dict[str, ReadModel]:
    """Every catalogue model by name, with its data type and source."""
    return read_catalogue(Path(__file__).parent / "catalogue.csv")


@functools.cache
def whole_names() -> tuple[str, ...]:
    """Names of the whole models that ship, in ``WHOLE``."""
    return tuple(sorted(path.stem for path in WHOLE.glob("*.json")))


def models() -> dict[str, MoEShape]:
    """The shape of every catalogue model by name."""
    return {name: one.shape for name, one in catalogue().items()}


def read_catalogue(path: Path) -> dict[str, ReadModel]:
    """The models of a CSV file with one row per model, by name."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {row["model"]: _read_row(row, path.name) for row in rows}


def _read_row(row: dict[str, str], file: str) -> ReadModel:
    latent = row["moe_latent_size"]
    shape = MoEShape(
        name=row["model"],
        hidden_size=int(row["hidden_size"]),
        moe_intermediate_size=int(row["moe_intermediate_size"]),
        num_experts=int(row["num_experts"]),
        num_experts_per_tok=int(row["num_experts_per_tok"]),
        n_shared_experts=int(row["n_shared_experts"]),
        num_layers=int(row["num_layers"]),
        gated=row["gated"] == "1",
        moe_latent_size=int(latent) if latent else None,
        zero_expert_num=int(row["zero_expert_num"] or 0),
    )
    named = f"{file}: {row['model']} ({row['source']})"
    return ReadModel(shape, row["dtype"], dict.fromkeys((*FIELDS, "dtype"), named), tuple(notes_on(shape)))


def find_model(name: str) -> MoEShape:
    """The shape of a model, by the names that :func:`read_model_named` takes.

    Raises:
        UserError: as there.
    """
    return read_model_named(name).shape


def read_model_named(name: str) -> ReadModel:
    """A catalogue model by name, or the model of a ``config.json`` or ``params.json``.

    Case, ``-`` and ``_`` do not matter, nor do an organisation before the name (``Qwen/Qwen3-30B-A3B``) and words
    after it that change nothing of the shape (``-Instruct-2507``).

    Raises:
        NoExpertsError: the model has no experts.
        UserError: neither; names the nearest. Or a file that cannot be read.
    """
    path = Path(name)
    if name.endswith(".json") or is_there(path):
        return read_config(path)
    if (known := known_name(name, catalogue())) is not None:
        return catalogue()[known]
    if (known := known_name(name, whole_names())) is not None:
        try:
            return read_whole_file(known)
        except NoExpertsError:
            pass
        raise NoExpertsError(
            f"{known} has no experts", fix="`moe-codesign model` shows it; name a mixture of experts here"
        )
    raise unknown_name(name, catalogue())


def read_whole_file(name: str) -> ReadModel:
    """The experts of a model that ships whole: one of another data type than its row of the catalogue.

    Args:
        name: one of :func:`whole_names`.

    Raises:
        NoExpertsError: it has none.
    """
    read = read_model(read_json(WHOLE / f"{name}.json")["config"], source=f"whole/{name}.json")
    return dataclasses.replace(read, shape=dataclasses.replace(read.shape, name=name))


def known_name(name: str, names: Iterable[str]) -> str | None:
    """The one of some names that a name stands for, or None.

    Case, ``-`` and ``_`` do not matter, nor do an organisation before the name and words after it that change nothing
    of the shape. A data type at the end (``-FP8``, ``-NVFP4``) is another checkpoint, which has a name of its own.
    """
    by_key = {_key(known): known for known in names}
    short = name.strip().rpartition("/")[2]
    if (found := by_key.get(_key(short)) or _without_variant(short, by_key)) is not None:
        return found
    dtype = _DTYPE.search(short)  # Llama-3.1-70B-Instruct-FP8 is Llama-3.1-70B-FP8
    base = _without_variant(short[: dtype.start()], by_key) if dtype else None
    return by_key.get(_key(f"{base}{dtype[0]}")) if dtype and base is not None else None


def unknown_name(name: str, names: Iterable[str]) -> UserError:
    """The error for a name that is none of some names; it names the nearest."""
    by_key = {_key(known): known for known in names}
    near = difflib.get_close_matches(_key(name.strip().rpartition("/")[2][:100]), by_key, n=3, cutoff=0.4)
    hint = "did you mean " + ", ".join(by_key[n] for n in near) + "?" if near else "see `moe-codesign list models`"
    return UserError("model", value=name, fix=hint + " (or give a path to a config.json)")


def is_there(path: Path) -> bool:
    """Whether a path leads to a file, or to a folder that holds a config."""
    try:
        return path.is_file() or any((path / file).is_file() for file in ("config.json", "params.json"))
    except (OSError, ValueError):  # a name that no file can have
        return False


def _without_variant(name: str, by_key: dict[str, str]) -> str | None:
    """The catalogue name that a longer name begins with, if what follows are words for variants."""
    words = re.split(r"[-_ ]", re.sub(r"^(nvidia|meta)[-_ ]", "", name, flags=re.IGNORECASE))
    for end in range(len(words), 0, -1):
        known = by_key.get(_key("-".join(words[:end])))
        if known is not None:
            return known if all(_VARIANTS.fullmatch(word.lower()) for word in words[end:]) else None
    return None


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())
