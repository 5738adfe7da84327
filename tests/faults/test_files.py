"""Files that are hostile, broken or too large are refused in one line at once; old results outlive a full disk."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import moe_codesign as mc
from moe_codesign.chips import load_chip
from moe_codesign.domain.routing import parse_routing
from moe_codesign.domain.token_counts import token_counts
from moe_codesign.errors import MachineError, UserError
from moe_codesign.files import read_file, read_json, read_toml, replace_file
from moe_codesign.models import find_model
from moe_codesign.regression.baseline import read_baseline
from moe_codesign.regression.suite import load_suite
from moe_codesign.study.space import load_space, parse_space
from tests.command import invoke
from tests.conftest import make_space, space_text
from tests.study.test_space import chip_file

LIMIT_S = 1.0
"""CPU seconds in which anything is refused."""
DEEP = 10**6

LINES: dict[str, Callable[[Path], object]] = {
    "space": load_space,
    "chip": lambda path: load_chip(str(path)),
    "suite": load_suite,
}
"""How each kind of TOML file is read."""
JSON_LINES: dict[str, Callable[[Path], object]] = {
    "config": lambda path: find_model(str(path)),
    "histogram": lambda path: parse_routing(f"histogram:{path}"),
    "baseline": read_baseline,
    "json": read_json,
}


def refused(read: Callable[[Any], object], value: Any, says: str | None = None) -> str:
    """The line in which it is refused."""
    start = time.process_time()
    with pytest.raises(UserError, match=says) as error:
        read(value)
    assert time.process_time() - start < LIMIT_S
    line = str(error.value)
    assert line.isprintable()
    assert len(line) < 3000
    return line


@pytest.mark.parametrize("kind", LINES)
@pytest.mark.parametrize(
    "content",
    [
        b"a = " + b"[" * DEEP, b"a = " + b"9" * 100_000, b"a = 0x" + b"f" * 100_000, b"\xff\xfe\x00", b"a = \x00", b"",
        b"name = !!python/object/apply:os.system [id]", b'name = "x"\nname = "y"', b'backend = "__import__(\'os\')"',
        b'name = "\\u001b[2J"', b'reference = "' + b"x" * 100_000 + b'"',
    ],
)  # fmt: skip
def test_broken_toml_is_one_line(kind: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file.toml"
    file.write_bytes(content)
    refused(LINES[kind], file)


@pytest.mark.parametrize("kind", JSON_LINES)
@pytest.mark.parametrize(
    "content",
    [
        b"[" * DEEP, b'{"a":' * DEEP, b"[" + b"9" * 100_000 + b"]", b"\xff\xfe\x00", b"\x00", b"", b"{",
        b'{"num_experts": !!python/name:os.system}', b"cos\nsystem\n(S'id'\ntR.",
    ],
)  # fmt: skip
def test_broken_json_is_one_line(kind: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    refused(JSON_LINES[kind], file)


@pytest.mark.skipif(sys.platform == "win32", reason="devices")
@pytest.mark.parametrize("kind", [*LINES, *JSON_LINES])
def test_a_device_a_pipe_and_a_huge_file_are_not_read(kind: str, tmp_path: Path) -> None:
    read, name = {**LINES, **JSON_LINES}[kind], "x.toml" if kind in LINES else "config.json"
    link, pipe, huge = (tmp_path / folder / name for folder in ("link", "pipe", "huge"))
    for file in (link, pipe, huge):
        file.parent.mkdir()
    link.symlink_to("/dev/zero")
    os.mkfifo(pipe)
    with huge.open("wb") as holes:
        holes.truncate(10**12)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in (link, pipe, huge):
        refused(read, path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "kB"


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_bytes(b"\xef\xbb\xbf" + space_text().encode())
    assert load_space(tmp_path / "space.toml").name == "test"
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}


SPAN = {"low": 1, "high": 10**12}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shape": {"num_experts": SPAN}}, "shape.num_experts.high"),
        ({"shape": {"num_experts": {**SPAN, "step": 7}}}, "shape.num_experts.high"),
        ({"shape": {"num_experts": list(range(1, 10**6))}}, "at most 1000 items"),
        ({"shape": {"hidden_size": 10**400}}, "shape.hidden_size"),
        ({"shape": {"hidden_size": int("9" * 4000) ** 3}}, "shape.hidden_size"),
        ({"training_tokens": float("inf")}, "training_tokens"),
        ({"training_tokens": float("nan")}, "training_tokens"),
        ({"training_tokens": 1e308}, "training_tokens"),
        ({"workload": {"num_tokens": 10**10}}, "num_tokens"),
        ({"workload": {"num_tokens": 10**30}}, "num_tokens"),
        ({"workload": {"ep": 10**30}}, "ep"),
        ({"workload": {"name": "a\x1b]0;title\x07"}}, "printable"),
        ({"budget": {"trials": 10**12}}, "trials"),
        ({"constraints": {"min_quality_ratio": float("inf")}}, "min_quality_ratio"),
        ({"objectives": ["quality"] * 20_000}, "objectives"),
        ({"tiles": {"triton": {"block_m": [64] * 10**6}}}, "block_m"),
        ({"name": "../../../escaped"}, "name"),
        ({"name": "/abs"}, "name"),
        ({"name": ".."}, "name"),
        ({"name": "a\nb"}, "printable"),
        ({"name": "x" * 1000}, "printable"),
        ({"reference": "x" * 100_000}, "printable"),
        ({"__import__": "os"}, "__import__ is unknown"),
    ],
)
def test_an_absurd_space_is_one_line_at_once(changes: dict[str, Any], says: str) -> None:
    refused(lambda changed: make_space(**changed), changes, says)


def test_twenty_thousand_workloads_are_one_line() -> None:
    text = space_text() + "".join(f'[[workloads]]\nname = "w{n}"\nnum_tokens = 1\n' for n in range(2000))
    refused(parse_space, text, "at most 200 items")


def test_a_wide_range_is_searched_without_being_listed(tmp_path: Path) -> None:
    space = make_space(shape={"hidden_size": {"low": 1, "high": 10**6}}, constraints={})
    start = time.process_time()
    assert len(mc.search(space, trials=2, storage=f"sqlite:///{tmp_path / 's.db'}").trials) == 2
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("routing", "tokens", "experts"),
    [
        ("uniform", 10**10, 128), ("zipf:1", 10**8, 128), ("balanced", 10**12, 10**9), ("uniform", 64, 10**9),
        ("balanced/8/4", 10**9, 128), ("uniform", 10**400, 8),
    ],
)  # fmt: skip
def test_tokens_that_cannot_be_counted_are_one_line(routing: str, tokens: int, experts: int) -> None:
    refused(lambda kind: token_counts(kind, tokens, experts, 8), parse_routing(routing))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            '{"num_experts": 1000000000000, "hidden_size": 8, "moe_intermediate_size": 8, "num_experts_per_tok": 1, '
            '"num_hidden_layers": 2}',
            "at most",
        ),
        ('{"num_experts": [[1], [1]], "hidden_size": 8, "intermediate_size": 8, "num_experts_per_tok": 1}', None),
    ],
)
def test_an_absurd_config_is_one_line(config: str, says: str | None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    refused(lambda path: find_model(str(path)), tmp_path / "config.json", says)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "mine"', 'name = "../mine"', "name"),
        ('product = "', 'product = "\\u001b[2J', "product"),
        ("hbm_bytes_per_s = ", "hbm_bytes_per_s = inf #", "hbm_bytes_per_s"),
        ("hbm_bytes_per_s = ", "hbm_bytes_per_s = nan #", "hbm_bytes_per_s"),
    ],
)
def test_a_hostile_chip_is_one_line(old: str, new: str, says: str, tmp_path: Path) -> None:
    file = chip_file(tmp_path / "mine.toml", "mine")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    refused(lambda path: load_chip(str(path)), file, says)


def test_a_target_is_a_topology(tmp_path: Path) -> None:
    own = Path(mc.__file__).parent / "chips" / "tpu_v6e.toml"
    (tmp_path / "x.toml").write_text(own.read_text().replace('"v6e:2x2"', '"../../../../x"'))
    refused(lambda path: load_chip(str(path)), tmp_path / "x.toml", "target")


@pytest.mark.parametrize("name", ["../../../escaped", "/abs", "..", "a\x1b[2J", "x" * 200, "a\x00b"])
def test_a_study_whose_name_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "space.toml").write_text(space_text())
    for command in (("search", "space.toml", "--trials", "2", "--study", name), ("report", name)):
        done = invoke(*command, cwd=tmp_path / "in")
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert "\x1b" not in done.stderr + done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["space.toml"]


def test_escape_sequences_of_a_stored_name_are_written_out(tmp_path: Path) -> None:
    from moe_codesign.storage.database import Database
    from moe_codesign.storage.studies import Studies

    url = f"sqlite:///{tmp_path / 's.db'}"
    with Database(url) as database:
        Studies(database).begin("a\x1b[2J\x1b]0;title\x07b", "{}", {})
    done = invoke("list", "studies", "--storage", url)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "\\x1b" in done.stdout
    done = invoke("report", "other", "--storage", url)
    assert "\x1b" not in done.stdout + done.stderr


class TestWriting:
    def test_a_full_disk_leaves_what_was_there(self, small_disk: Path) -> None:
        file = small_disk / "report.html"
        replace_file(file, b"old" * 30_000)
        with pytest.raises(MachineError, match=r"report\.html cannot be written \(No space left on device\); what was"):
            replace_file(file, b"new" * 100_000)
        assert file.read_bytes() == b"old" * 30_000
        assert [path.name for path in small_disk.iterdir()] == ["report.html"]

    def test_a_limit_on_sizes_leaves_what_was_there(self, tmp_path: Path) -> None:
        script = (
            "import resource, sys\n"
            "from pathlib import Path\n"
            "from moe_codesign.errors import MachineError\n"
            "from moe_codesign.files import replace_file\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "try:\n"
            "    replace_file(Path(sys.argv[1]), b'x' * 5000)\n"
            "except MachineError as error:\n"
            "    sys.exit(str(error))\n"
        )
        file = tmp_path / "table.csv"
        file.write_text("old")
        done = subprocess.run([sys.executable, "-c", script, file], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr == f"{file} cannot be written (File too large); what was there before is unchanged\n"
        assert file.read_text() == "old"
        assert list(tmp_path.iterdir()) == [file]

    def test_a_report_on_a_full_disk_is_one_line_and_keeps_the_old_one(self, small_disk: Path, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 's.db'}"
        mc.search(make_space(), trials=3, storage=url)
        (small_disk / "report.html").write_text("old report")
        done = invoke("report", "test", "--storage", url, "--out", str(small_disk / "report.html"))
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert "No space left on device" in done.stderr
        assert (small_disk / "report.html").read_text() == "old report"

    def test_a_link_stays_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "real").write_bytes(b"old")
        (tmp_path / "link").symlink_to("real")
        replace_file(tmp_path / "link", b"new")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real").read_bytes() == b"new"

    def test_a_device_is_written_to_and_not_replaced(self) -> None:
        replace_file(Path("/dev/null"), b"gone")
        assert Path("/dev/null").is_char_device()


def test_what_is_read_has_a_limit(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(b"a = 1")
    assert read_toml(file) == {"a": 1}
    with pytest.raises(UserError, match="more than 4 bytes"):
        read_file(file, largest=4)
