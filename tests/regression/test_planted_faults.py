"""Faults as an engineer makes them, each caught by the command with one line; and an edit that changes nothing."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.command import invoke, run

pytestmark = pytest.mark.compile

SUITE = """
[[kernels]]
name = "half"
function = "kernels.py:matmul"
chips = ["h100_sxm"]
signature = { a_ptr = "*bf16:16", b_ptr = "*bf16:16", c_ptr = "*bf16:16", M = "i32:16", N = "i32:16", K = "i32:16" }
tiles = [{ BLOCK_M = 128, BLOCK_N = 128, BLOCK_K = 64, num_warps = 4, num_stages = 3 }]

[[kernels]]
name = "single"
function = "kernels.py:matmul"
chips = ["a100_sxm"]
signature = { a_ptr = "*fp32:16", b_ptr = "*fp32:16", c_ptr = "*fp32:16", M = "i32:16", N = "i32:16", K = "i32:16" }
tiles = [{ BLOCK_M = 64, BLOCK_N = 64, BLOCK_K = 32, num_warps = 4, num_stages = 3 }]

[[kernels]]
name = "step"
function = "steps.py:step"
chips = ["tpu_v6e"]
arguments = "bf16[4096,2048] bf16[2048,1024]"
"""
ACC = "        acc = tl.dot(a, b, acc, input_precision=PRECISION)\n"
HELPER = "@triton.jit\ndef in_range(i, k, n):\n    return i < n - k\n\n\n"
FAULTS = {
    # name: (file, text, what it becomes, kernel and chip, fact)
    "a larger accumulator spills": (
        "kernels.py",
        ACC,
        ACC + "        acc = acc + tl.dot(a, (b * 2).to(b.dtype), acc * 0.5, input_precision=PRECISION)\n",
        "half | h100_sxm | BLOCK_K=64 BLOCK_M=128",
        "spill_bytes 0 -> ",
    ),
    "a lost alignment hint": (
        "suite.toml",
        'a_ptr = "*bf16:16", b_ptr = "*bf16:16"',
        'a_ptr = "*bf16", b_ptr = "*bf16"',
        "half | h100_sxm | BLOCK_K=64 BLOCK_M=128",
        "async_copies ",
    ),
    "a float32 dot without tf32": (
        "kernels.py",
        '"tf32"',
        '"ieee"',
        "single | a100_sxm | BLOCK_K=32 BLOCK_M=64",
        "matrix_instructions ",
    ),
    "an unaligned mask": (
        "kernels.py",
        "limit = K\n",
        "limit = K - 1\n",
        "half | h100_sxm | BLOCK_K=64 BLOCK_M=128",
        "narrow_loads ",
    ),
    "a longer step": (
        "steps.py",
        "y.astype(jnp.bfloat16)",
        "(y + jnp.dot(x_ref[:, :1024], w_ref[:1024], preferred_element_type=jnp.float32)).astype(jnp.bfloat16)",
        "step | tpu_v6e",
        "cycles ",
    ),
}


def regress(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return invoke("regress", "suite.toml", "--jobs", "2", *options, cwd=folder)


def edit(folder: Path, file: str, old: str, new: str) -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))


@pytest.fixture
def project(made: tuple[Path, dict[str, str]]) -> Path:
    """The project as it was made. It is always the same folder: what has not changed is not compiled again."""
    folder, files = made
    shutil.rmtree(folder)
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A project with its baseline, made once."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("kernels.py", "steps.py"):
        (folder / name).write_text((Path(__file__).parent / name).read_text())
    (folder / "suite.toml").write_text(SUITE)
    first = regress(folder)
    assert first.returncode == 2, "there is no baseline yet"
    assert "--update" in first.stderr
    done = regress(folder, "--update")
    assert done.returncode == 0, done.stderr
    assert regress(folder).returncode == 0
    return folder, {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def check_fault(fault: str, done: subprocess.CompletedProcess[str]) -> None:
    *_, place, fact = FAULTS[fault]
    assert done.returncode == 1, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(f"REGRESSION: {place}")]
    (line,) = (line for line in lines if f": {fact}" in line)
    assert "never" in line
    if fact == "cycles ":  # the planted step's are well over a fifth more, and the line has both numbers
        before, after = (float(number) for number in line.split(": cycles ")[1].split(" (")[0].split(" -> "))
        assert after > 1.2 * before


def test_a_fault_is_one_clear_line_and_exit_1(project: Path) -> None:
    """As a user meets it: in a process of its own."""
    edit(project, *FAULTS["an unaligned mask"][:3])
    check_fault("an unaligned mask", run("regress", "suite.toml", "--jobs", "2", cwd=project))


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_one_clear_line_and_exit_1(project: Path, fault: str) -> None:
    edit(project, *FAULTS[fault][:3])
    check_fault(fault, regress(project))


@pytest.mark.slow
def test_a_refactoring_passes(project: Path) -> None:
    """Other names, a comment, and a helper that the compiler inlines."""
    text = (project / "kernels.py").read_text()
    changes = {
        "rows": "lines",
        "cols": "places",
        "        ok = ks < limit - k\n": "        # in range\n        ok = in_range(ks, k, limit)\n",
        "@triton.jit\ndef matmul": HELPER + "@triton.jit\ndef matmul",
    }
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (project / "kernels.py").write_text(text)
    done = regress(project)
    assert done.returncode == 0, done.stdout
    assert "0 moved" in done.stdout


def test_update_says_what_moved_and_keeps_the_order(project: Path) -> None:
    before = (project / "suite.facts.json").read_text()
    file, old, new, *_ = FAULTS["an unaligned mask"]
    edit(project, file, old, new)
    done = regress(project, "--update")
    assert done.returncode == 0
    assert "REGRESSION: half" in done.stdout
    assert "baseline rewritten" in done.stdout
    after = (project / "suite.facts.json").read_text()
    old_lines, new_lines = before.splitlines(), after.splitlines()
    assert len(old_lines) == len(new_lines)
    assert sum(a != b for a, b in zip(old_lines, new_lines, strict=True)) < len(old_lines) / 3
    assert regress(project).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [("steps.py:step", "steps.py:stop", "'stop'"), ('M = "i32:16", N', 'Q = "i32:16", N', "no argument")],
)
def test_a_function_that_is_not_there_stops_no_other(project: Path, old: str, new: str, says: str) -> None:
    edit(project, "suite.toml", old, new)
    done = regress(project)
    assert done.returncode == 1
    assert "status ok -> missing" in done.stdout
    assert says in done.stdout
    again = regress(project, "--update")
    assert again.returncode == 2
    assert "baseline not written" in again.stderr


@pytest.mark.slow
def test_a_kernel_that_no_longer_compiles(project: Path) -> None:
    edit(project, "kernels.py", "acc = tl.dot(a, b, acc", "acc = tl.dot(a, a, acc")
    done = regress(project)
    assert done.returncode == 1
    assert "status ok -> failed" in done.stdout
    assert "note: half | h100_sxm" in done.stdout, "with the compiler's own word"


def test_history(project: Path) -> None:
    regress(project)
    edit(project, *FAULTS["a longer step"][:3])
    regress(project)
    done = regress(project, "--history", "--out", "history.html")
    assert done.returncode == 0, done.stderr
    assert "step" in done.stdout
    assert "tpu_v6e" in done.stdout
    page = (project / "history.html").read_text()
    assert 'id="plot-0"' in page
    assert "https://" not in page.split("<body")[1], "nothing is fetched"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('chips = ["tpu_v6e"]', 'chips = ["tpu_v6"]', "tpu_v6e"),
        ('chips = ["tpu_v6e"]', 'chips = ["h100_sxm"]', "JAX function"),
        ("arguments =", "argumente =", "did you mean arguments"),
        ('name = "step"', 'name = "half"', "two kernels"),
        ('function = "steps.py:step"', 'kernel = "triton.none"', "signature, constants and arguments"),
    ],
)  # fmt: skip
def test_wrong_suites_are_reported_in_one_line(project: Path, old: str, new: str, says: str) -> None:
    edit(project, "suite.toml", old, new)
    done = regress(project)
    assert done.returncode == 2, done.stdout
    reported = [line for line in done.stderr.splitlines() if not line.startswith("compile: ")]
    assert len(reported) == 1
    assert says in reported[0]


def test_a_corrupt_baseline_is_reported_and_made_again(project: Path) -> None:
    (project / "suite.facts.json").write_text("{")
    done = regress(project)
    assert done.returncode == 2
    assert "make it again with --update" in done.stderr
    assert regress(project, "--update").returncode == 0
    assert regress(project).returncode == 0


@pytest.mark.slow
def test_a_fault_in_an_imported_module_is_seen(project: Path) -> None:
    """What decides the binary need not stand in the kernel's own file."""
    (project / "lib").mkdir()
    (project / "lib" / "helper.py").write_text("LIMIT = 0\n")
    edit(project, "kernels.py", "import triton\n", "import triton\nfrom lib.helper import LIMIT\n")
    edit(project, "kernels.py", "PRECISION: tl.constexpr = ", "EXTRA: tl.constexpr = LIMIT, PRECISION: tl.constexpr = ")
    edit(project, "kernels.py", "limit = K\n", "limit = K - EXTRA\n")
    assert regress(project).returncode == 0
    (project / "lib" / "helper.py").write_text("LIMIT = 1\n")
    done = regress(project)
    assert done.returncode == 1, done.stdout
    assert "narrow_loads" in done.stdout
