"""What git knows of a folder: its revision, and its files at another one."""

import io
import subprocess
import tarfile
from pathlib import Path

from moe_codesign.errors import UserError


def at_revision(folder: Path, revision: str, scratch: Path) -> Path:
    """The folder as it was at a git revision. Raises UserError."""
    root = git(folder, "rev-parse", "--show-toplevel")
    if root is None:
        raise UserError(f"{folder} is not in a git repository", fix="--against compares with another revision of it")
    inside = folder.relative_to(root).as_posix()
    commit = git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if commit is None:
        raise UserError("against", value=revision, fix="give a commit, branch or tag of this repository")
    tree = f"{commit}:{inside}" if inside != "." else commit
    done = subprocess.run(["git", "-C", root, "archive", "--format=tar", tree], capture_output=True)
    if done.returncode:
        said = (done.stderr.decode().strip().splitlines() or ["git archive failed"])[0]
        raise UserError(f"revision {revision!r} of {inside} ({said})", fix="give a commit, branch or tag that has it")
    scratch.mkdir(parents=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(scratch, filter="data")
    except tarfile.TarError as error:
        raise UserError(
            f"revision {revision!r} of {inside} ({error})", fix="name a folder without such links"
        ) from None
    return scratch


def git(folder: Path, *arguments: str) -> str | None:
    """What git says, in one line, or None if it says no."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def revision(folder: Path) -> str:
    """The commit that is checked out, ``+`` with changes; ``none`` outside of git."""
    commit = git(folder.resolve(), "rev-parse", "--short", "HEAD")
    if commit is None:
        return "none"
    return commit + ("+" if git(folder.resolve(), "status", "--porcelain", "--untracked-files=no") else "")
