"""Stored studies, and their reports."""

import json
from pathlib import Path

from moe_codesign.answers.frontier_rows import report_rows
from moe_codesign.files import check_folder, replace_file
from moe_codesign.reports.html.page import write_html
from moe_codesign.storage import DEFAULT_STORAGE
from moe_codesign.storage.database import Database
from moe_codesign.storage.studies import Studies, check_study
from moe_codesign.study.runner import SearchResult, read_search
from moe_codesign.study.space import stored_space


def write_report(result: SearchResult, folder: Path) -> Path:
    """Write report.html and pairs.json; returns the report's path."""
    path = folder / "report.html"
    write_html(path, result)
    replace_file(folder / "pairs.json", json.dumps([row.to_dict() for row in report_rows(result)], indent=1).encode())
    return path


def load_study(name: str, *, storage: str = DEFAULT_STORAGE) -> SearchResult:
    """A stored study.

    Raises:
        UserError: no such study, or another version of moe-codesign wrote it.
    """
    check_study(name)
    with Database(storage, must_exist=True) as database:
        studies = Studies(database)
        return read_search(stored_space(name, studies.get(name).identity), studies, name)


def report(study: str | SearchResult, *, storage: str = DEFAULT_STORAGE, out: str | Path = "report.html") -> Path:
    """Write the HTML report of a study; returns its path.

    Args:
        study: the name of a stored study, or one that is at hand.
        storage: URL of the database that holds it.
        out: the HTML file.

    Raises:
        UserError: no study has that name, or the file cannot be written there.
    """
    check_folder(Path(out).parent)
    write_html(Path(out), load_study(study, storage=storage) if isinstance(study, str) else study)
    return Path(out)
