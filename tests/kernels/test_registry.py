"""Which kernels there are: what the registry names, whatever else lies beside them, and without any compiler."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from moe_kernels import registry
from moe_kernels.kernel import Kernel
from moe_kernels.registry import DEFAULTS, HOST_DEFAULTS, KERNELS, default_kernel, kernel_named, kernels

PACKAGE = Path(registry.__file__).parent
COMPILERS = ("torch", "triton", "jax", "jaxlib", "libtpu", "numpy")
DESCRIBE = """
import json
from moe_kernels.kernel import Problem
from moe_kernels.registry import DEFAULTS, default_kernel, kernels

found, missing = kernels()
targets = {"triton": ("cuda:90", "hip:gfx942"), "pallas": ("v6e:2x2",)}
rows = {}
for name, kernel in found.items():
    tiles = list(kernel.tiles())
    problem = Problem(op="down", dtype=kernel.dtypes[0], k=4096, n=1024)
    rows[name] = {
        "tiles": [tile.as_dict() for tile in tiles],
        "refused": [[kernel.refuses(problem, tile, target) for tile in tiles] for target in targets[kernel.backend]],
        "default": [kernel.default_tile(problem, 64.0, target).label() for target in targets[kernel.backend]],
        "sources": [path.is_file() for path in kernel.sources],
        "dtypes": kernel.dtypes,
    }
missing = {name: [str(error), error.name] for name, error in missing.items()}
print(json.dumps({"kernels": rows, "missing": missing, "default": {b: default_kernel(b).name for b in DEFAULTS}}))
"""


def describe(package: Path = PACKAGE, *, without: tuple[str, ...] = ()) -> dict[str, dict[str, object]]:
    """What a fresh process sees of a copy of the package, with some modules not there to import."""
    block = f"import sys; sys.path.insert(0, {str(package.parent)!r}); sys.modules.update(dict.fromkeys({without!r}))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"{block}\n{DESCRIBE}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, object]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def usual() -> dict[str, dict[str, object]]:
    return describe()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__")))


def test_every_declaration_is_read_without_compilers(usual: dict[str, dict[str, object]]) -> None:
    assert describe(without=COMPILERS) == usual
    assert list(usual["kernels"]) == list(KERNELS)
    assert not usual["missing"]


def test_files_and_folders_beside_the_kernels_change_nothing(copied: Path, usual: dict[str, dict[str, object]]) -> None:
    shutil.copy(copied / "triton" / "grouped_matmul.py", copied / "triton" / "a_matmul.py")
    shutil.copytree(copied / "triton" / "grouped_gemm", copied / "triton" / "a_gemm")
    (copied / "triton" / "a_folder").mkdir()
    (copied / "pallas" / "a_broken_file.py").write_text("\nKERNEL = (\n")
    assert describe(copied) == usual


def add(copied: Path, name: str, text: str) -> None:
    """A kernel in one new file and one line."""
    (copied / (name.replace(".", "/") + ".py")).write_text(text)
    file = copied / "registry.py"
    last = '    "pallas.host_matmul":'
    file.write_text(file.read_text().replace(last, f'    "{name}": "moe_kernels.{name}",\n{last}', 1))


def test_a_kernel_is_one_file_and_one_line(copied: Path, usual: dict[str, dict[str, object]]) -> None:
    text = (copied / "triton" / "grouped_matmul.py").read_text()
    add(copied, "triton.mine", text.replace('"triton.grouped_matmul"', '"triton.mine"'))
    found = describe(copied)
    assert set(found["kernels"]) == {*KERNELS, "triton.mine"}
    assert found["kernels"]["triton.mine"] == usual["kernels"]["triton.grouped_matmul"]
    assert found["default"] == usual["default"], "a new kernel does not become the default"


def test_a_file_that_imports_its_compiler_is_missing_without_it(copied: Path) -> None:
    text = (copied / "triton" / "grouped_matmul.py").read_text()
    add(copied, "triton.mine", text.replace("import dataclasses\n", "import dataclasses\nimport triton\n"))
    found = describe(copied, without=COMPILERS)
    assert set(found["kernels"]) == set(KERNELS)
    assert list(found["missing"]) == ["triton.mine"]
    (missing,) = found["missing"].values()
    assert isinstance(missing, list)
    assert missing[0].endswith("which moe_kernels.triton.mine imports")
    assert missing[1] == "triton"


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    registry._declared.cache_clear()
    yield monkeypatch
    registry._declared.cache_clear()


def test_a_kernel_has_one_name(listed: pytest.MonkeyPatch) -> None:
    listed.setitem(KERNELS, "triton.other", "moe_kernels.triton.grouped_matmul")
    with pytest.raises(ValueError, match=r"declares 'triton.grouped_matmul'.*lists it as 'triton.other'"):
        kernels()


def test_a_module_that_is_not_there_is_named(listed: pytest.MonkeyPatch) -> None:
    listed.setitem(KERNELS, "triton.grouped_gemm", "moe_kernels.triton.nowhere")
    found, missing = kernels("triton")
    assert list(found) == ["triton.grouped_matmul"]
    assert "moe_kernels.triton.nowhere" in str(missing["triton.grouped_gemm"])
    assert kernel_named("triton.grouped_gemm") is None
    with pytest.raises(registry.MissingKernelError, match="nowhere"):
        default_kernel("triton")


def test_defaults_run_where_they_are_the_default() -> None:
    for defaults, on_host in ((DEFAULTS, False), (HOST_DEFAULTS, True)):
        for backend in defaults:
            kernel = default_kernel(backend, on_host=on_host)
            assert kernel.backend == backend
            assert kernel.on_host == on_host
    with pytest.raises(LookupError, match="'none' has no kernel"):
        default_kernel("none")


def imported(path: Path, *, functions: bool = False) -> set[Path]:
    """The package's own files that a file imports anywhere, or only those that it imports inside functions."""
    found = set()
    tree = ast.parse(path.read_text())
    bodies = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)] if functions else [tree]
    for node in (node for body in bodies for node in ast.walk(body)):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            file = (PACKAGE.parent / name.replace(".", "/")).with_suffix(".py")
            if name.startswith(f"{PACKAGE.name}.") and file.is_file():
                found.add(file)
    return found


@pytest.mark.parametrize("kernel", kernels()[0].values(), ids=lambda kernel: kernel.name)
def test_sources_hold_all_that_decides_the_binary(kernel: Kernel) -> None:
    declaration = Path(str(sys.modules[registry.KERNELS[kernel.name]].__file__))
    assert imported(declaration, functions=True) <= set(kernel.sources), "what builds the kernel"
    # The former has types alone, the latter what a tile may be: neither reaches the compiler.
    neutral = {PACKAGE / "kernel.py", *PACKAGE.rglob("declaration.py")}
    for path in kernel.sources:
        assert imported(path) <= {*kernel.sources, *neutral}, path
