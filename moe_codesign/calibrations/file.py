"""Write a fitted file: TOML, and its trees beside it."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from moe_codesign.calibrations.trees import SymmetricTrees
from moe_codesign.files import replace_file


def write(path: Path, file: BaseModel, trees: SymmetricTrees | None) -> Path:
    """Whole or not at all, and the trees first: a file that names them is never without."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if trees is not None:
        replace_file(path.with_suffix(".trees.npz"), trees.to_bytes())
    replace_file(path, _toml(file.model_dump(exclude_none=True)).encode())
    return path


def _toml(table: dict[str, Any]) -> str:
    """Strings, numbers, lists and one level of tables; the standard library only reads TOML."""

    def value(item: Any) -> str:
        if isinstance(item, bool):
            return str(item).lower()
        if isinstance(item, str):
            return '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'
        if isinstance(item, list | tuple):
            return "[" + ", ".join(map(value, item)) + "]"
        return repr(float(f"{item:.7g}")) if isinstance(item, float) else str(item)

    lines = [f"{key} = {value(item)}" for key, item in table.items() if not isinstance(item, dict)]
    for key, item in table.items():
        if isinstance(item, dict):
            lines += ["", f"[{key}]", *(f"{value(str(k)) if ' ' in k else k} = {value(v)}" for k, v in item.items())]
    return "\n".join(lines) + "\n"
