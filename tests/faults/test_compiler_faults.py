"""Compilers hang, crash and leave corrupt files; each ends as a result, and the rest goes on."""

import logging
import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from moe_codesign.compiler import ArtifactCache, Request, build, compile_all
from moe_codesign.compiler.artifact import Artifact
from moe_codesign.compiler.request import request
from moe_kernels.registry import kernels
from moe_kernels.tile import TritonTile

TILES = {"hang": 16, "crash": 32, "raise": 64, "good": 128, "exit": 256, "leave": 512}


def requests() -> dict[str, Request]:
    kernel = kernels()[0]["triton.grouped_gemm"]
    return {
        name: request(
            kernel,
            "down",
            TritonTile(block_m=m, block_n=64, block_k=64, num_warps=4, num_stages=2),
            "bfloat16",
            "cuda:90",
        )
        for name, m in TILES.items()
    }


def faulty_compile(one: Request) -> Artifact:
    kind = {m: name for name, m in TILES.items()}[one.tile.as_dict()["block_m"]]
    tempfile.mkdtemp(prefix="dump-")
    if kind == "hang":
        time.sleep(600)
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGABRT)
    if kind == "raise":
        raise RuntimeError("no")
    if kind == "exit":
        raise SystemExit(1)
    if kind == "leave":
        os._exit(0)
    return one.outcome("ok")


def test_hang_crash_and_error_are_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "compile_one", faulty_compile)
    # By the environment, which the spawned processes inherit.
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "temporary").mkdir()
    cache = ArtifactCache(tmp_path)
    wanted = requests()
    start = time.monotonic()
    found = compile_all(wanted.values(), cache, jobs=2, time_limit_s=8)
    assert time.monotonic() - start < 60, "a hang is killed at its limit"
    status = {name: found[one].status for name, one in wanted.items()}
    assert status == {
        "hang": "timeout",
        "crash": "crashed",
        "raise": "failed",
        "good": "ok",
        "exit": "failed",
        "leave": "crashed",
    }
    assert "8 s" in found[wanted["hang"]].reason
    again = ArtifactCache(tmp_path)
    assert all(again.get(one) == found[one] for one in wanted.values()), "failures are kept, not tried again"
    assert list((tmp_path / "temporary").iterdir()) == [], "what the killed ones dumped is gone"


@pytest.mark.parametrize("damage", ["{", "", '{"key": 1}', "\x00\x01"])
def test_a_corrupt_artifact_is_made_again_with_one_message(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = requests()["good"]
    ArtifactCache(tmp_path).put(one, one.outcome("ok"))
    cache = ArtifactCache(tmp_path)
    cache.path(one).write_text(damage)
    with caplog.at_level(logging.WARNING):
        assert cache.get(one) is None
    assert len(caplog.records) == 1
    assert not cache.path(one).exists()


def test_the_key_knows_everything_the_binary_depends_on() -> None:
    import dataclasses

    one = requests()["good"]
    changed = [
        dataclasses.replace(one, **{field: "other"})  # type: ignore[arg-type]
        for field in ("kernel", "op", "dtype", "target", "compiler", "source_hash")
    ]
    assert len({one.key, *(c.key for c in changed)}) == 7
    assert requests()["good"].key == one.key
    kernel = kernels()[0]["triton.grouped_gemm"]
    launch = dataclasses.replace(one.tile, group_m=64)  # type: ignore[type-var]
    assert request(kernel, "down", launch, "bfloat16", "cuda:90").key == one.key, "launch fields change no binary"
