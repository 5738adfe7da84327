"""Compilers hang, crash and leave corrupt files; each ends as a result, and the rest goes on."""

import dataclasses
import errno
import logging
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import NoReturn

import pytest

from moe_codesign.chips import load_chip
from moe_codesign.compiler import (
    ArtifactCache,
    Compiled,
    CompileResult,
    Refused,
    Request,
    Unanswered,
    build,
    compile_all,
    worker,
)
from moe_codesign.compiler import cache as cache_module
from moe_codesign.compiler.artifact import GpuFacts
from moe_codesign.compiler.exceptions import named_line, of_gpu_error, of_tpu_error
from moe_codesign.compiler.function import function_request
from moe_codesign.compiler.request import request
from moe_codesign.compiler.settings import settings
from moe_kernels.kernel import Problem
from moe_kernels.registry import kernels
from moe_kernels.tile import TritonTile
from tests.execution import jobs

FAULTS = ("hang", "crash", "raise", "good", "no memory", "exit", "leave", "abort", "no disk")
"""Each by its tile, which has as many stages as its place here."""
FACTS = GpuFacts(
    registers=168,
    spill_bytes=0,
    stack_bytes=0,
    shared_bytes=1024,
    code_bytes=4096,
    instructions={"HGMMA.64x128x16.F32.BF16": 4},
    loop_instructions=20,
    loop_matrix=4,
)


def requests() -> dict[str, Request]:
    kernel = kernels()[0]["triton.grouped_gemm"]
    return {
        name: request(
            kernel,
            "down",
            TritonTile(block_m=16, block_n=64, block_k=64, num_warps=4, num_stages=stages),
            "bfloat16",
            "cuda:90",
        )
        for stages, name in enumerate(FAULTS, 1)
    }


def many_requests(count: int) -> list[Request]:
    """Compiles that differ in their tile alone."""
    kernel = kernels()[0]["triton.grouped_gemm"]
    tiles = [
        TritonTile(block_m=m, block_n=n, block_k=k, num_warps=4, num_stages=3)
        for m in (16, 32, 64, 128) for n in (32, 64, 128, 256) for k in (32, 64, 128)
    ]  # fmt: skip
    return [request(kernel, "down", tile, "bfloat16", "cuda:90") for tile in tiles[:count]]


def stubborn_compile(one: Request) -> NoReturn:
    jobs.start_a_child_and_hang(os.environ["MOE_CODESIGN_TEST_MARKER"])


FACTS_OF_ONE = Compiled(facts=FACTS, compiler="", compile_s=0.5)


def good(one: Request) -> CompileResult:
    return Compiled(facts=FACTS, compiler=one.compiler, compile_s=0.5)


def faulty_compile(one: Request) -> CompileResult:
    kind = FAULTS[one.tile.as_dict()["num_stages"] - 1]
    tempfile.mkdtemp(prefix="dump-")
    if kind == "hang":
        time.sleep(600)
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "abort":
        os.abort()
    if kind == "raise":
        raise RuntimeError("no")
    if kind == "exit":
        raise SystemExit(1)
    if kind == "leave":
        os._exit(0)
    if kind == "no memory":
        raise MemoryError
    if kind == "no disk":
        raise OSError(errno.ENOSPC, "No space left on device")
    return good(one)


def test_hang_crash_and_error_are_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "compile_one", faulty_compile)
    # By the environment, which the spawned processes inherit.
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "temporary").mkdir()
    cache = ArtifactCache(tmp_path)
    wanted = requests()
    start = time.monotonic()
    found = compile_all(wanted.values(), cache, jobs=2, time_limit_s=8, recompile=True)
    assert time.monotonic() - start < 60, "a hang is killed at its limit"
    assert {name: found[one].status for name, one in wanted.items()} == {
        "hang": "timeout", "crash": "crashed", "raise": "failed", "good": "ok", "no memory": "crashed",
        "exit": "failed", "leave": "crashed", "abort": "failed", "no disk": "crashed",
    }  # fmt: skip
    assert found[wanted["hang"]] == Unanswered(kind="timeout", reason="no result within 8 s")
    assert all(cache.get(one) == found[one] for one in wanted.values()), "one command waits for a time limit once"
    again = ArtifactCache(tmp_path)
    kept = {name for name, one in wanted.items() if again.get(one) == found[one]}
    assert kept == {"raise", "good", "exit", "abort"}, "what the compiler said is kept, what chance did is not"
    assert list((tmp_path / "temporary").iterdir()) == [], "what the killed ones dumped is gone"


def slow_once(one: Request) -> CompileResult:
    marker = Path(os.environ["MOE_CODESIGN_TEST_MARKER"])
    if not marker.exists():
        marker.touch()
        time.sleep(600)
    return good(one)


def test_a_compile_that_was_too_slow_once_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "compile_one", slow_once)
    monkeypatch.setenv("MOE_CODESIGN_TEST_MARKER", str(tmp_path / "marker"))
    one = requests()["good"]
    (first,) = compile_all([one], ArtifactCache(tmp_path), time_limit_s=5, recompile=True).values()
    assert isinstance(first, Unanswered)
    (second,) = compile_all([one], ArtifactCache(tmp_path), time_limit_s=60, recompile=True).values()
    assert second == good(one)


def aborts(one: Request) -> NoReturn:
    os.abort()


def test_an_abort_for_want_of_disk_is_no_verdict_on_the_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "bytes", lambda _: fail(errno.ENOSPC), raising=False)
    assert worker.lacks_room() == f"{Path(tempfile.gettempdir()).parent} has no room for its files ({no_space()})"
    monkeypatch.undo()
    assert worker.lacks_room() is None
    monkeypatch.setattr(build, "compile_one", aborts)
    monkeypatch.setattr(build, "lacks_room", no_space)
    one = requests()["good"]
    (found,) = compile_all([one], ArtifactCache(tmp_path), recompile=True).values()
    assert isinstance(found, Unanswered)
    assert found.reason == f"the compiler aborts, and {no_space()}"
    assert ArtifactCache(tmp_path).get(one) is None


def no_space() -> str:
    return os.strerror(errno.ENOSPC)


def fail(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))


@pytest.mark.slow
@pytest.mark.compile
@pytest.mark.parametrize(("name", "chip"), [("triton.grouped_gemm", "h100_sxm"), ("pallas.grouped_matmul", "tpu_v6e")])
def test_a_real_compile_on_a_full_disk_is_tried_again_with_room(
    name: str, chip: str, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = kernels()[0][name]
    target = load_chip(chip).target
    assert target is not None
    tile = kernel.default_tile(Problem(op="down", dtype="bfloat16"), 64.0, target)
    one = request(kernel, "down", tile, "bfloat16", target)
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    cache = ArtifactCache(tmp_path)
    (full,) = compile_all([one], cache, recompile=True).values()
    assert isinstance(full, Unanswered), full
    assert "No space left" in full.reason
    monkeypatch.undo()
    (found,) = compile_all([one], ArtifactCache(tmp_path), recompile=True).values()
    assert isinstance(found, Compiled)


def reports_its_settings(one: Request) -> CompileResult:
    return Refused(kind="failed", reason=repr(settings()), compiler=one.compiler)


def test_what_the_environment_says_to_compilers_is_in_no_artifact_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "compile_one", reports_its_settings)
    for name in ("DISABLE_PTXAS_OPT", "TRITON_INTERPRET", "XLA_FLAGS"):
        monkeypatch.setenv(name, "1")
    (found,) = compile_all(many_requests(1), ArtifactCache(tmp_path), recompile=True).values()
    assert isinstance(found, Refused)
    assert found.reason == "{}"


def test_what_the_environment_says_to_compilers_is_in_the_key_of_a_users_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def key() -> str:
        return function_request("jax.numpy:dot", "v6e:2x2", arguments="f32[8] f32[8]").key

    before = key()
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    assert key() == before
    monkeypatch.setenv("XLA_FLAGS", "--xla_x")
    assert key() != before


class TestDamagedFiles:
    """Whatever stands in an artifact's file, it is the artifact that was stored there, or a miss with one warning."""

    @pytest.fixture
    def stored(self, tmp_path: Path) -> tuple[Request, Path, bytes]:
        one, cache = requests()["good"], ArtifactCache(tmp_path)
        cache.put(one, good(one))
        return one, cache.path(one), cache.path(one).read_bytes()

    def is_a_miss(self, tmp_path: Path, one: Request, caplog: pytest.LogCaptureFixture) -> None:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert ArtifactCache(tmp_path).get(one) is None
        assert len(caplog.records) == 1
        assert str(ArtifactCache(tmp_path).path(one)) in caplog.text

    def test_every_cut_is_a_miss(
        self, tmp_path: Path, stored: tuple[Request, Path, bytes], caplog: pytest.LogCaptureFixture
    ) -> None:
        one, path, content = stored
        for length in random.Random(0).sample(range(len(content)), 100):
            path.write_bytes(content[:length])
            self.is_a_miss(tmp_path, one, caplog)
            assert not path.exists()

    def test_every_flipped_bit_is_a_miss(
        self, tmp_path: Path, stored: tuple[Request, Path, bytes], caplog: pytest.LogCaptureFixture
    ) -> None:
        one, path, content = stored
        for bit in random.Random(0).sample(range(8 * (len(content) - 1)), 1000):
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            self.is_a_miss(tmp_path, one, caplog)

    @pytest.mark.parametrize(
        "damage", [b"", b"{", b'{"key": 1}', b"\x00\x01", b"[" * 10**6, b'{"facts": {}, "compiler": "x"}', b"\n\n"]
    )
    def test_what_is_no_artifact_is_a_miss(
        self, damage: bytes, tmp_path: Path, stored: tuple[Request, Path, bytes], caplog: pytest.LogCaptureFixture
    ) -> None:
        one, path, _ = stored
        path.write_bytes(damage)
        self.is_a_miss(tmp_path, one, caplog)

    def test_an_artifact_of_another_tile_or_compiler_is_a_miss(
        self, tmp_path: Path, stored: tuple[Request, Path, bytes], caplog: pytest.LogCaptureFixture
    ) -> None:
        one, path, _ = stored
        cache, other = ArtifactCache(tmp_path), requests()["raise"]
        cache.put(other, good(other))
        path.write_bytes(cache.path(other).read_bytes())
        self.is_a_miss(tmp_path, one, caplog)
        ArtifactCache(tmp_path).put(one, dataclasses.replace(FACTS_OF_ONE, compiler="triton 0.0.1"))
        self.is_a_miss(tmp_path, one, caplog)

    def test_a_folder_in_its_place_is_a_miss_and_stays(
        self, tmp_path: Path, stored: tuple[Request, Path, bytes], caplog: pytest.LogCaptureFixture
    ) -> None:
        one, path, _ = stored
        path.unlink()
        path.mkdir()
        self.is_a_miss(tmp_path, one, caplog)
        caplog.clear()
        cache = ArtifactCache(tmp_path)
        for _ in range(2):
            cache.put(one, good(one))
        assert cache.get(one) == good(one), "this command has it"
        assert len(caplog.records) == 1
        assert "artifacts are not kept" in caplog.text

    def test_a_file_of_another_user_is_a_miss_and_stays(
        self,
        tmp_path: Path,
        stored: tuple[Request, Path, bytes],
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        one, path, _ = stored
        monkeypatch.setattr(cache_module, "read_file", lambda _: fail(errno.EACCES))  # root may read everything
        self.is_a_miss(tmp_path, one, caplog)
        assert path.exists()

    def test_a_shared_cache_has_the_modes_that_the_user_asks_for(self, tmp_path: Path) -> None:
        one = requests()["good"]
        before = os.umask(0o007)
        try:
            cache = ArtifactCache(tmp_path / "shared")
            cache.put(one, good(one))
        finally:
            os.umask(before)
        assert cache.path(one).stat().st_mode & 0o777 == 0o660
        assert cache.path(one).parent.stat().st_mode & 0o777 == 0o770

    def test_no_target_leads_out_of_the_folder(self, tmp_path: Path) -> None:
        for target in ("../../../../x", "/etc/x", "..", "v6e:2x2/../../y", "a\\..\\b"):
            one = dataclasses.replace(requests()["good"], target=target)
            path = ArtifactCache(tmp_path).path(one)
            assert path.resolve().parent.parent == (tmp_path / f"artifacts-{cache_module.FORMAT}").resolve()


def test_a_file_of_another_format_is_left_alone(tmp_path: Path) -> None:
    one = requests()["good"]
    for folder, content in (("artifacts", '{"key": "x", "status": "timeout"}'), ("artifacts-2", '{"facts": {}}')):
        old = tmp_path / folder / "cuda_90" / f"{one.key}.json"
        old.parent.mkdir(parents=True)
        old.write_text(content)
        assert ArtifactCache(tmp_path).get(one) is None
        assert old.exists()


@pytest.mark.parametrize(
    ("error", "chance"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (RuntimeError("`ptxas` failed with error code -9"), True),
        (RuntimeError("`ptxas` failed with error code 255"), False),
        (FileNotFoundError("no static profile of kernel"), False),
        (ValueError("wrong"), False),
    ],
)
def test_what_the_machine_lacked_is_no_verdict_on_the_tile(error: Exception, chance: bool) -> None:
    expected = Unanswered if chance else Refused
    assert isinstance(of_gpu_error(error, named_line(error), compiler="c", compile_s=1.0), expected)
    assert isinstance(of_tpu_error(error, compiler="c", compile_s=1.0), expected)


def test_the_key_knows_everything_the_binary_depends_on() -> None:
    one = requests()["good"]
    changed = [
        dataclasses.replace(one, **{field: "other"})  # type: ignore[arg-type]
        for field in ("kernel", "op", "dtype", "target", "compiler", "source_hash")
    ]
    assert len({one.key, *(c.key for c in changed)}) == 7
    assert requests()["good"].key == one.key
    kernel = kernels()[0]["triton.grouped_gemm"]
    assert isinstance(one.tile, TritonTile)
    launch = dataclasses.replace(one.tile, group_m=64)
    assert request(kernel, "down", launch, "bfloat16", "cuda:90").key == one.key, "launch fields change no binary"
