"""Whole models that ship: one file each in ``whole/``, the fields of its config that are read, and where they are from.

A model that is not there is read from its ``config.json``. Models without experts are in ``whole/`` alone, and in no
list of mixtures.
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from moe_codesign.domain.model_shape import ModelShape
from moe_codesign.errors import UserError
from moe_codesign.files import read_json
from moe_codesign.models.catalogue import WHOLE, catalogue, is_there, known_name, unknown_name, whole_names
from moe_codesign.models.hf_config import load_config
from moe_codesign.models.whole_model import read_whole_model


@functools.cache
def shipped_whole(name: str) -> ModelShape:
    """A whole model that ships.

    Args:
        name: one of :func:`moe_codesign.models.catalogue.whole_names`.
    """
    file = f"whole/{name}.json"
    held = read_json(WHOLE / f"{name}.json")
    found = read_whole_model(held["config"], source=file)
    moe = found.moe and dataclasses.replace(found.moe, name=name)
    notes = (*found.notes, f"read from {held['source']}")
    return dataclasses.replace(found, name=name, moe=moe, notes=notes)


def model_shape(name: str) -> ModelShape:
    """The whole model of a catalogue name, or of a ``config.json`` or ``params.json``.

    Names are taken as :func:`moe_codesign.models.read_model_named` takes them: without regard to case and organisation,
    and to words that change nothing of the shape.

    Raises:
        UserError: no such name or file; a catalogue model whose attention no file that ships holds; or a config that
            cannot be read as a whole model. It says what is missing.
    """
    if name.endswith(".json") or is_there(Path(name)):
        config, source = load_config(Path(name))
        return read_whole_model(config, source=source)
    if (known := known_name(name, whole_names())) is not None:
        return shipped_whole(known)
    if (known := known_name(name, catalogue())) is not None:
        raise UserError(
            f"only the experts of {known} are in the catalogue, not the whole model", fix="give its config.json"
        )
    raise unknown_name(name, (*catalogue(), *whole_names()))


def write_whole(config: dict[str, Any], *, name: str, source: str, folder: Path = WHOLE) -> Path:
    """Write the file of a whole model that ships: the fields without which its config reads otherwise.

    Args:
        config: as published.
        name: of the model.
        source: the public copy that the config was read from.
        folder: to write to.

    Raises:
        UserError: the config cannot be read as a whole model.
    """
    needed = needed_fields(config)
    lines = [f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(needed.items())]
    text = f'{{\n  "source": {json.dumps(source)},\n  "config": {{\n' + ",\n".join(lines) + "\n  }\n}\n"
    path = folder / f"{name}.json"
    path.write_text(text, encoding="utf-8")
    return path


def needed_fields(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of a config without which it reads otherwise, or not at all; tables inside it likewise.

    Raises:
        UserError: the config cannot be read as a whole model.
    """
    whole = _reading(config)
    assert whole is not None

    def slim(table: dict[str, Any], put: "list[str]") -> dict[str, Any]:
        kept = dict(table)
        for key in table:
            less = {one: value for one, value in kept.items() if one != key}
            if _reading(_put(config_now[0], put, less)) == whole:
                kept = less
                config_now[0] = _put(config_now[0], put, kept)
            elif isinstance(kept[key], dict):
                kept[key] = slim(kept[key], [*put, key])
                config_now[0] = _put(config_now[0], put, kept)
        return kept

    config_now = [config]
    return slim(config, [])


def _put(config: dict[str, Any], path: "list[str]", table: dict[str, Any]) -> dict[str, Any]:
    """The config with another table at a path."""
    if not path:
        return table
    return {**config, path[0]: _put(config[path[0]], path[1:], table)}


def _reading(config: dict[str, Any]) -> dict[str, Any] | None:
    """All that is read of a config, to compare."""
    try:
        found = read_whole_model(config)
    except UserError:
        return None
    return {**found.to_dict(), "moe": found.moe}
