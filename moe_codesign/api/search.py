"""Run or resume a search."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moe_codesign.api.report import write_report
from moe_codesign.compiler.build import Progress
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.errors import UserError
from moe_codesign.files import check_folder
from moe_codesign.storage import DEFAULT_STORAGE
from moe_codesign.storage.studies import Store
from moe_codesign.study.runner import Report, SearchResult, run_search
from moe_codesign.study.space import Space, load_space
from moe_codesign.versions import provenance


def search(
    space: str | Path | Space,
    *,
    chips: Sequence[str] | None = None,
    trials: int | None = None,
    jobs: int = 1,
    storage: str = DEFAULT_STORAGE,
    study: str | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    compiling: Progress | None = None,
    running: Report | None = None,
) -> SearchResult:
    """Search the pair of shape and tiles; the same study goes on where it stopped.

    Args:
        space: a space file, the name of one that comes with the project, or a Space.
        chips: instead of the space's.
        trials: instead of the space's budget; over all chips and modes.
        jobs: compiler processes.
        storage: database URL.
        study: name; default the space's.
        seed: instead of the space's.
        out: folder for report.html and pairs.json; none written if None.
        compiling, running: progress callbacks.

    Raises:
        UserError: wrong space, chip, storage or study.
    """
    loaded = space if isinstance(space, Space) else load_space(space, chips=list(chips) if chips else None)
    updates: dict[str, Any] = {}
    if isinstance(space, Space) and chips:
        updates["chips"] = list(chips)
    if seed is not None:
        updates["seed"] = seed
    if updates:
        loaded = Space.model_validate({**loaded.model_dump(), **updates})
    asked = trials if trials is not None else loaded.budget.trials
    if asked < 1:
        raise UserError("trials", value=asked, fix="give at least 1")
    if out is not None:
        check_folder(Path(out))
    name = study or loaded.name
    store = Store(storage)
    # The number of trials may grow from run to run; everything else makes another study.
    identity = loaded.model_dump(mode="json")
    identity["budget"].pop("trials")
    store.open_study(name, json.dumps(identity, sort_keys=True), provenance())
    tables = Tables(jobs=jobs, progress=compiling)
    result = run_search(loaded, store, tables, study=name, trials=asked, report=running)
    if out is not None:
        write_report(result, Path(out), store.study(name)["provenance"])
    return result
