"""Artifacts on disk: one small JSON file each, written whole or not at all."""

import logging
import os
import tempfile
from pathlib import Path

import platformdirs
from pydantic import ValidationError

from moe_codesign.compiler.artifact import Artifact, Request

_LOG = logging.getLogger(__name__)


def default_folder() -> Path:
    """``$MOE_CODESIGN_CACHE``, or the user's cache folder."""
    named = os.environ.get("MOE_CODESIGN_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("moe-codesign"))


class ArtifactCache:
    """Artifacts by request. Safe for many processes: files appear by rename."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or default_folder()) / "artifacts"
        self._seen: dict[str, Artifact] = {}

    def path(self, request: Request) -> Path:
        return self.folder / request.target.replace(":", "_") / f"{request.key}.json"

    def get(self, request: Request) -> Artifact | None:
        """The stored artifact, or None. A corrupt file is removed, with one message, and made again."""
        key = request.key
        if key in self._seen:
            return self._seen[key]
        path = self.path(request)
        try:
            artifact = Artifact.from_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValidationError, OSError) as error:
            _LOG.warning("artifact %s is corrupt (%s); compiling it again", path, type(error).__name__)
            path.unlink(missing_ok=True)
            return None
        self._seen[key] = artifact
        return artifact

    def put(self, request: Request, artifact: Artifact) -> None:
        path = self.path(request)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w") as file:
            file.write(artifact.to_json())
        os.replace(temporary, path)
        self._seen[request.key] = artifact
