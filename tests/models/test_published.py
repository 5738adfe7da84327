"""The reader of ``config.json`` against the published fields of models, most of whose code is their own.

``published.jsonl`` holds for each the fields that matter, the shape that its modelling code makes of them, and its
``source``: where that was read. ``file`` names the public copy of the model's own file that the fields were read from;
lines without it were written down by hand. ``code`` is ``hub`` where that file names modelling code beside it
(``auto_map``), or a type that ``transformers`` 5.24 does not have. ``benchmarks/models/published.py`` writes the lines
of files whose architecture ``transformers`` has.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from moe_codesign.errors import UserError
from moe_codesign.models import catalogue, read_model_named
from moe_codesign.models.hf_config import read_model

LINES = Path(__file__).with_name("published.jsonl").read_text(encoding="utf-8").splitlines()
PUBLISHED: dict[str, dict[str, Any]] = {one["model"]: one for one in map(json.loads, LINES)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_fields(name: str) -> None:
    one = PUBLISHED[name]
    if "refused" in one:
        with pytest.raises(UserError, match=one["refused"]):
            read_model(one["config"])
        return
    found = read_model(one["config"])
    assert {key: getattr(found.shape, key) for key in one["shape"]} == one["shape"]
    assert found.dtype == one["dtype"]


def test_enough_files_of_models_whose_code_is_on_a_hub_were_read() -> None:
    assert sum("file" in one and one.get("code") == "hub" for one in PUBLISHED.values()) >= 40


def test_each_row_of_the_catalogue_is_what_its_published_fields_say() -> None:
    held = set()
    for model, one in PUBLISHED.items():
        row = _row_of(model)
        if row is None or "refused" in one:
            continue
        held.add(row)
        known = catalogue()[row]
        assert {key: getattr(known.shape, key) for key in one["shape"]} == one["shape"], row
        if not any(word in model for word in ("FP8", "NVFP4", "params.json")):  # those are other files of the model
            assert known.dtype == one["dtype"], row
    assert held == set(catalogue())


def _row_of(model: str) -> str | None:
    try:
        return read_model_named(re.sub(r"[- ](FP8|NVFP4|params\.json)$", "", model)).shape.name
    except UserError:
        return None
