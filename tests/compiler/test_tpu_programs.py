"""Every Pallas kernel, type and catalogue shape through the compiler of every TPU, and other people's functions."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import moe_codesign as mc
from moe_codesign.chips import TpuChip, chip_names, load_chip
from moe_codesign.compiler import ArtifactCache, Unanswered, compile_functions
from moe_codesign.compiler.function import function_request, parse_arguments
from moe_codesign.compiler.llo import parse_program
from moe_codesign.errors import UserError
from moe_codesign.models import models
from tests.compiler.tpu_programs import DEPTHS, KINDS, UNALIGNED, share_of

TPUS = [name for name in chip_names() if name != "cpu" and isinstance(load_chip(name), TpuChip)]
CASES = [
    pytest.param(chip, part, marks=[] if (chip, part) == ("tpu_v6e", "unaligned") else pytest.mark.slow)
    for part in ("catalogue", "unaligned")
    for chip in TPUS
]


@pytest.mark.compile
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("chip", "part"), CASES)
def test_every_kernel_compiles_for_every_tpu(chip: str, part: str) -> None:
    """In one process a chip and part: to start libtpu takes longer than to compile a program."""
    target, share = load_chip(chip).target, str(TPUS.index(chip))
    quiet = {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v6e-4", "TPU_WORKER_HOSTNAMES": "localhost"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.compiler.tpu_programs", str(target), part, share, str(len(TPUS))],
        capture_output=True, text=True, check=False, env={**os.environ, **quiet, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {one["name"]: one["error"] for one in found if "error" in one} == {}
    assert [one["name"] for one in found] == [one.name for one in share_of(part, str(target), int(share), len(TPUS))]


def test_the_shares_hold_every_pair_and_every_program() -> None:
    """Each kind of program is compiled for every chip, at each size and with K whole and cut for one; models' too."""
    kinds: set[tuple[str, str]] = set()
    programs: set[str] = set()
    for share, chip in enumerate(TPUS):
        found = share_of("unaligned", str(load_chip(chip).target), share, len(TPUS))
        kinds |= {(chip, one.kind) for one in found}
        programs |= {one.name for one in found}
    assert kinds == set(itertools.product(TPUS, KINDS))
    assert len(programs) == len(KINDS) * len(UNALIGNED) * len(DEPTHS)
    named = [
        name
        for share, chip in enumerate(TPUS)
        for one in share_of("catalogue", str(load_chip(chip).target), share, len(TPUS))
        for name in one.models
    ]
    assert sorted(set(named)) == sorted(models())
    assert all(named.count(name) >= 2 for name in models()), "both GEMMs of each"


LISTING = """
   0x1   : > { %1 = vst [vmem:[#allocation2_spill] sm:$0xff] %v6  ;;  %2 = vmatmul.mubr.bf16.gmra.mxu1 %v2 }
   0x2   : > { %9 = sbr.rel (%p1_p0) target = $region8 }
   0x3   :  {} /* End region 6 */
   0x4   : > { %3 = vld [vmem:[%s1] sm:$0xff]  ;;  %v4_v1 = vpop.f32.mrf.mxu0 } /* Start region 7 */
   0x5 PF: > { %5 = dma.hbm_to_vmem [thread:$0]  /*hbm=*/%s1, /*size_in_granules=*/64, /*vmem=*/%s2 } /* Start/End empty region 8 */
   0x6   :  { %6 = dma.vmem_to_hbm [thread:$0]  /*vmem=*/%s1, /*size_in_granules=*/%s3_s1, /*hbm=*/%s2 }
text that is no bundle
"""  # noqa: E501


def test_a_listing_is_read_by_region() -> None:
    program = parse_program(LISTING, 32)
    assert program.bundles == 6
    assert program.slots == {
        "vector store": 1, "matrix": 1, "scalar": 1, "vector load": 1, "matrix result": 1, "copies": 2
    }  # fmt: skip
    assert program.matrix_by_unit == {"mxu1": 1}
    assert (program.spills, program.dma_bytes, program.dynamic_dmas) == (1, 64 * 32, 1)
    assert [(r.start, r.bundles, r.loops, r.conditional) for r in program.regions] == [
        (0, 2, 1, False), (2, 2, 1, True), (4, 1, 1, False), (5, 1, 0, False)
    ]  # fmt: skip


def test_known_copies_have_their_bytes() -> None:
    """A copy in and one out of the whole array: the granules of the listing are as large as is assumed."""
    for chip in TPUS:
        found = mc.compile_function("tests.compiler.functions:double", "float32[256,1024]", chip)
        assert found.refused is None
        sizes = [kernel.program.dma_bytes for kernel in found.facts.kernels if "double" in kernel.name]
        assert sizes == [2 * 256 * 1024 * 4], chip


def test_another_librarys_kernel_is_read() -> None:
    found = mc.compile_function(
        "tests.compiler.functions:megablox", "bf16[1024,512] bf16[4,512,256] int32[4]", "tpu_v6e"
    )
    assert found.refused is None
    kernel = next(k for k in found.facts.kernels if k.name.startswith("gmm"))
    assert kernel.program.slots["matrix"] > 0
    assert kernel.cycles is None or kernel.cycles > 1000


def test_a_tile_that_does_not_fit_names_both_sizes() -> None:
    found = mc.compile_function("tests.compiler.functions:large", "float32[8,128]", "tpu_v6e")
    assert found.refused is not None
    assert "VMEM: needs 256.00M, the compiler allows 128.00M" in found.refused


def test_what_hangs_or_aborts_is_a_result(tmp_path: Path) -> None:
    target = str(load_chip("tpu_v6e").target)
    start = time.monotonic()
    wanted = {
        name: function_request(f"tests.compiler.functions:{name}", target, arguments="float32[8,128]")
        for name in ("hang", "abort")
    }
    found = compile_functions(wanted.values(), ArtifactCache(tmp_path), jobs=2, time_limit_s=15)
    hung, gone = found[wanted["hang"]], found[wanted["abort"]]
    assert hung == Unanswered(kind="timeout", reason="no result within 15 s")
    assert time.monotonic() - start < 120
    assert isinstance(gone, Unanswered)
    assert "took its process down" in gone.reason


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        ("jax.numpy.dot", "bf16[8,8]", "module:name"),
        ("no_such_module:f", "bf16[8,8]", "ModuleNotFoundError"),
        ("jax.numpy:no_such_function", "bf16[8,8]", "AttributeError"),
        ("jax.numpy:dot", "eight by eight", "types and shapes"),
    ],
)
def test_wrong_use_is_one_line(function: str, arguments: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        mc.compile_function(function, arguments, "tpu_v6e")


def test_arguments_are_read() -> None:
    assert parse_arguments("bf16[512, 2048], s32[8] float32[]") == [
        ("bfloat16", (512, 2048)), ("int32", (8,)), ("float32", ())
    ]  # fmt: skip


def test_a_gpu_takes_no_jax_function() -> None:
    with pytest.raises(UserError, match="is a GPU, not a TPU"):
        mc.compile_function("jax.numpy:dot", "bf16[8,8]", "h100_sxm")
