"""Stored studies, and their reports."""

import json
from pathlib import Path

from moe_codesign.answers.frontier_rows import report_rows
from moe_codesign.errors import UserError
from moe_codesign.files import check_folder
from moe_codesign.reports.html.page import write_html
from moe_codesign.storage import DEFAULT_STORAGE
from moe_codesign.storage.studies import Store
from moe_codesign.study.runner import SearchResult, read_search
from moe_codesign.study.space import Space


def write_report(result: SearchResult, folder: Path, versions: dict[str, str]) -> Path:
    """Write report.html and pairs.json; returns the report's path."""
    path = folder / "report.html"
    write_html(path, result, versions)
    (folder / "pairs.json").write_text(json.dumps([row.to_dict() for row in report_rows(result)], indent=1))
    return path


def load_study(name: str, *, storage: str = DEFAULT_STORAGE) -> tuple[SearchResult, dict[str, str]]:
    """A stored study and the versions it was made with.

    Raises:
        UserError: no such study.
    """
    if storage.startswith("sqlite:///") and not Path(storage.removeprefix("sqlite:///")).exists():
        raise UserError("storage", value=storage, fix="there is no such file; run `moe-codesign search` first")
    store = Store(storage)
    stored = store.study(name)
    space = Space.model_validate(json.loads(stored["space"]))
    return read_search(space, store, name), stored["provenance"]


def report(study: str, *, storage: str = DEFAULT_STORAGE, out: str | Path = "report.html") -> Path:
    """Write the HTML report of a stored study; returns its path. Raises UserError if there is none."""
    check_folder(Path(out).parent)
    result, versions = load_study(study, storage=storage)
    write_html(Path(out), result, versions)
    return Path(out)
