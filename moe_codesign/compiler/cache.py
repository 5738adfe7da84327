"""Artifacts on disk: one small JSON file each, written whole or not at all."""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
from pydantic import ValidationError

from moe_codesign.compiler.artifact import Outcome
from moe_codesign.compiler.request import CompileRequest

_LOG = logging.getLogger(__name__)
_O = TypeVar("_O", bound=Outcome)


def default_folder() -> Path:
    """``$MOE_CODESIGN_CACHE``, or the user's cache folder."""
    named = os.environ.get("MOE_CODESIGN_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("moe-codesign"))


class ArtifactCache:
    """Artifacts by request. Safe for many processes: files appear by rename."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or default_folder()) / "artifacts"
        self._seen: dict[str, Any] = {}

    def path(self, request: CompileRequest[Outcome]) -> Path:
        return self.folder / request.target.replace(":", "_") / f"{request.key}.json"

    def get(self, request: CompileRequest[_O]) -> _O | None:
        """The stored artifact, or None. A corrupt file is removed, with one message, and made again."""
        key = request.key
        if key in self._seen:
            known: _O = self._seen[key]
            return known
        path = self.path(request)
        try:
            artifact = request.read(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValidationError, OSError) as error:
            _LOG.warning("artifact %s is corrupt (%s); compiling it again", path, type(error).__name__)
            path.unlink(missing_ok=True)
            return None
        if not request.is_current(artifact):
            return None
        self._seen[key] = artifact
        return artifact

    def put(self, request: CompileRequest[_O], artifact: _O) -> None:
        path = self.path(request)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w") as file:
            file.write(artifact.to_json())
        os.replace(temporary, path)
        self._seen[request.key] = artifact
