"""The baselines that the GPU benchmark times compute the same layer; and it ends well where there is no GPU."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from moe_kernels.reference import LAYER_TOLERANCE
from tests.numerics.cases import benchmark_script

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    return benchmark_script("gpu")


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_baselines_and_every_path_agree_with_float64(gpu: ModuleType, ranks: int, device: torch.device) -> None:
    layer = gpu.make_layer((64, 128, 4, 2, ranks), 12, "bfloat16", device)
    expected = gpu.by_loop(layer, torch.float64)()
    runs = {
        "grouped_mm": gpu.by_grouped_mm(layer),
        "loop": gpu.by_loop(layer),
        **{name: run for name, run in gpu.our_paths(layer, ranks).items() if name != "split-k"},
    }
    for name, run in runs.items():
        assert gpu.row_error(run(), expected) <= LAYER_TOLERANCE["bfloat16"], name


def test_quantised_layers_too(gpu: ModuleType, device: torch.device) -> None:
    layer = gpu.make_layer((128, 128, 4, 2, 1), 6, "int8", device)
    expected = gpu.by_loop(layer, torch.float64)()
    assert gpu.row_error(gpu.our_paths(layer, 1)["plain"](), expected) <= LAYER_TOLERANCE["int8"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_ends_well() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("skipped: PyTorch sees no GPU here")
