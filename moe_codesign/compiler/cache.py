"""Artifacts on disk: one small file each, written whole or not at all."""

import contextlib
import hashlib
import logging
import os
import re
from pathlib import Path

import platformdirs

from moe_codesign.compiler.artifact import Artifact, CompileResult, Unanswered, from_json, to_json
from moe_codesign.compiler.request import CompileRequest
from moe_codesign.errors import MachineError, UserError, first_line
from moe_codesign.files import read_file, replace_file

_LOG = logging.getLogger(__name__)

FORMAT = 3
"""Version of the files. It is in the folder's name, so that files of another version are neither read nor removed."""


def default_folder() -> Path:
    """``$MOE_CODESIGN_CACHE``, or the user's cache folder."""
    named = os.environ.get("MOE_CODESIGN_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("moe-codesign"))


class ArtifactCache:
    """Artifacts by request. Safe for many processes: files appear by rename.

    A file begins with a line of its request's key and a checksum, and what does not fit them is no artifact: a file
    that was cut or changed, moved, or made by another compiler is a miss, with one warning, and never a wrong fact.

    What chance did (:class:`Unanswered`) is remembered as long as this object lives, so that one command does not wait
    for the same time limit twice, and is never written.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or default_folder()) / f"artifacts-{FORMAT}"
        self._seen: dict[str, CompileResult] = {}
        self._read_only = False

    def path(self, request: CompileRequest) -> Path:
        """The file of a request. A target is of a chip file, so that no part of it may lead out of the folder."""
        return self.folder / re.sub(r"\W", "_", request.target) / f"{request.key}.json"

    def get(self, request: CompileRequest) -> CompileResult | None:
        """The stored outcome, or None. A corrupt file is removed, with one message, and made again."""
        key = request.key
        if key in self._seen:
            return self._seen[key]
        path = self.path(request)
        try:
            artifact = _unsealed(read_file(path), request)
        except FileNotFoundError:
            return None
        except PermissionError:
            _LOG.warning("artifact %s may not be read; compiling it again", path)
            return None
        except (ValueError, OSError, UserError) as error:
            _LOG.warning("artifact %s is corrupt (%s); compiling it again", path, type(error).__name__)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        if any(file_hash(Path(file)) != known for file, known in artifact.sources.items()):
            return None  # a file that the function imported has changed
        self._seen[key] = artifact
        return artifact

    def put(self, request: CompileRequest, outcome: CompileResult) -> None:
        """Keep an artifact. A function that is missing may be there a moment later: that is not even remembered.

        A folder that cannot be written to costs the next command its time, and this one a warning.
        """
        if isinstance(outcome, Unanswered):
            if outcome.kind != "missing":
                self._seen[request.key] = outcome
            return
        self._seen[request.key] = outcome
        path = self.path(request)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, _sealed(outcome, request.key))
        except (OSError, MachineError) as error:
            if not self._read_only:
                self._read_only = True
                _LOG.warning("artifacts are not kept: %s", first_line(error))


def _sealed(artifact: Artifact, key: str) -> bytes:
    """The content of an artifact's file."""
    body = to_json(artifact)
    return f"{key} {_checksum(key, body)}\n".encode() + body + b"\n"


def _unsealed(content: bytes, request: CompileRequest) -> Artifact:
    """The artifact in a file's content.

    Raises:
        ValueError: it was changed, or is another request's.
    """
    key = request.key
    head, _, rest = content.partition(b"\n")
    body = rest.removesuffix(b"\n")
    if rest == body or head != f"{key} {_checksum(key, body)}".encode():
        raise ValueError("checksum")
    artifact = from_json(body)
    if artifact.compiler != request.compiler:
        raise ValueError("compiler")
    return artifact


def _checksum(key: str, body: bytes) -> str:
    return hashlib.sha256(key.encode() + b"\n" + body).hexdigest()


def file_hash(path: Path) -> str:
    """Hash of a file's bytes; ``gone`` where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return "gone"
