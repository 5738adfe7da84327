"""Folders and files that results are written to."""

import os
import tempfile
from pathlib import Path

from moe_codesign.errors import UserError


def check_folder(folder: Path) -> None:
    """Make the folder, or raise UserError, before any work is done for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"folder {folder} cannot be made ({error.strerror})", fix="give another --out") from None
    if not os.access(folder, os.W_OK):
        raise UserError("folder", value=str(folder), fix="it cannot be written; give another --out")


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in one step: whoever reads it at any time finds the old content or the new one, whole."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(temporary).chmod(0o644)
    os.replace(temporary, path)
