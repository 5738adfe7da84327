"""Folders and files: results are written in one step, and what others wrote is read up to a sane size."""

import json
import os
import secrets
import shutil
import stat
import tomllib
from pathlib import Path
from typing import Any

from moe_codesign.errors import MachineError, UserError, first_line

LARGEST_BYTES = 64 * 2**20
"""Of a file that is read whole. The largest configs, tuned files and load dumps that are published have a few."""
_DEEP = "it is nested too deeply"


def check_folder(folder: Path) -> None:
    """Make the folder, or raise UserError, before any work is done for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"folder {folder} cannot be made ({error.strerror})", fix="give another --out") from None
    if not os.access(folder, os.W_OK):
        raise UserError("folder", value=str(folder), fix="it cannot be written; give another --out")


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in one step: whoever reads it at any time finds the old content or the new one, whole.

    It is on the disk, not only on its way there, when this returns. A device or pipe, as ``/dev/stdout``, is written to
    and not replaced; a link's target is what is replaced.

    Raises:
        MachineError: it cannot be written; what was there before is unchanged.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        _replace(path.resolve(), content)
    except OSError as error:
        raise MachineError(f"{path} cannot be written ({error.strerror}); what was there before is unchanged") from None


def put_in_place(made: Path, path: Path) -> None:
    """Put a file that is complete in the place of another, in one step; a device, a pipe or a link as in
    :func:`replace_file`.

    Raises:
        MachineError: it cannot be put there; ``made`` is kept.
    """
    try:
        if path.exists() and not path.is_file():
            with made.open("rb") as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
            made.unlink()
        else:
            os.replace(made, path.resolve())
    except OSError as error:
        raise MachineError(f"{path} cannot be written ({error.strerror}); its content is in {made}") from None


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.tmp")
    # Not tempfile's: its files are for their owner alone, and a folder of results or a cache may be shared.
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_file(path: Path, *, largest: int = LARGEST_BYTES) -> bytes:
    """The content of a regular file.

    Raises:
        UserError: it is larger than ``largest`` bytes, or a device or pipe, which may have no end.
        OSError: it cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(f"{path} is a folder")
        if not stat.S_ISREG(mode):
            raise UserError(f"{path} is a device or a pipe", fix="give a file")
        content = file.read(largest + 1)
    if len(content) > largest:
        raise UserError(f"{path} has more than {largest:,} bytes", fix="files of its kind are far smaller")
    return content


def read_json(path: Path, *, largest: int = LARGEST_BYTES) -> Any:
    """What a JSON file holds.

    Raises:
        UserError: as :func:`read_file`; or it cannot be read, or is no JSON.
    """
    return parse_json(_bytes(path, largest), str(path))


def read_toml(path: Path, *, largest: int = LARGEST_BYTES) -> dict[str, Any]:
    """What a TOML file holds; a byte order mark before it, as some editors write, does no harm.

    Raises:
        UserError: as :func:`read_file`; or it cannot be read, or is no TOML.
    """
    return parse_toml(_bytes(path, largest), str(path))


def _bytes(path: Path, largest: int) -> bytes:
    try:
        return read_file(path, largest=largest)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or first_line(error)})") from None


def parse_json(content: bytes | str, source: str) -> Any:
    """The value of a JSON text. Raises UserError, which begins with ``source``, where it is none."""
    try:
        return json.loads(content.decode("utf-8-sig") if isinstance(content, bytes) else content)
    except RecursionError:
        raise UserError(f"{source} is not JSON ({_DEEP})") from None
    except ValueError as error:
        raise UserError(f"{source} is not JSON ({first_line(error)})") from None


def parse_toml(content: bytes, source: str) -> dict[str, Any]:
    """The table of a TOML text. Raises UserError, which begins with ``source``, where it is none."""
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise UserError(f"{source} is not TOML ({_DEEP})") from None
    except ValueError as error:  # also of an integer with more digits than Python reads
        raise UserError(f"{source} is not TOML ({first_line(error)})") from None
