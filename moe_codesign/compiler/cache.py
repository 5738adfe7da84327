"""Artifacts on disk: one small JSON file each, written whole or not at all."""

import hashlib
import logging
import os
from pathlib import Path

import platformdirs
from pydantic import ValidationError

from moe_codesign.compiler.artifact import Artifact, CompileResult, Unanswered, from_json, to_json
from moe_codesign.compiler.request import CompileRequest
from moe_codesign.files import replace_file

_LOG = logging.getLogger(__name__)

FORMAT = 2
"""Version of the files. It is in the folder's name, so that files of another version are neither read nor removed."""


def default_folder() -> Path:
    """``$MOE_CODESIGN_CACHE``, or the user's cache folder."""
    named = os.environ.get("MOE_CODESIGN_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("moe-codesign"))


class ArtifactCache:
    """Artifacts by request. Safe for many processes: files appear by rename.

    What chance did (:class:`Unanswered`) is remembered as long as this object lives, so that one command does not wait
    for the same time limit twice, and is never written.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or default_folder()) / f"artifacts-{FORMAT}"
        self._seen: dict[str, CompileResult] = {}

    def path(self, request: CompileRequest) -> Path:
        return self.folder / request.target.replace(":", "_") / f"{request.key}.json"

    def get(self, request: CompileRequest) -> CompileResult | None:
        """The stored outcome, or None. A corrupt file is removed, with one message, and made again."""
        key = request.key
        if key in self._seen:
            return self._seen[key]
        path = self.path(request)
        try:
            artifact = from_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValidationError, OSError) as error:
            _LOG.warning("artifact %s is corrupt (%s); compiling it again", path, type(error).__name__)
            path.unlink(missing_ok=True)
            return None
        if any(file_hash(Path(file)) != known for file, known in artifact.sources.items()):
            return None  # a file that the function imported has changed
        self._seen[key] = artifact
        return artifact

    def put(self, request: CompileRequest, outcome: CompileResult) -> None:
        """Keep an artifact. A function that is missing may be there a moment later: that is not even remembered."""
        if isinstance(outcome, Unanswered):
            if outcome.kind != "missing":
                self._seen[request.key] = outcome
            return
        self._write(self.path(request), outcome)
        self._seen[request.key] = outcome

    @staticmethod
    def _write(path: Path, artifact: Artifact) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, to_json(artifact))


def file_hash(path: Path) -> str:
    """Hash of a file's bytes; ``gone`` where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return "gone"
