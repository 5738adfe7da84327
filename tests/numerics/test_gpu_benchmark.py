"""The baselines that the GPU benchmark times compute the same layer; and it ends well where there is no GPU."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from moe_kernels.reference import LAYER_TOLERANCE
from tests.numerics.cases import benchmark_script

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"


@pytest.fixture(scope="module")
def layers() -> ModuleType:
    return benchmark_script("gpu/layers")


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_baselines_and_every_path_agree_with_float64(layers: ModuleType, ranks: int, device: torch.device) -> None:
    layer = layers.make_layer((64, 128, 4, 2, ranks), 12, "bfloat16", device)
    expected = layers.by_loop(layer, torch.float64)()
    runs = {
        "grouped_mm": layers.by_grouped_mm(layer),
        "loop": layers.by_loop(layer),
        **{name: run for name, run in layers.our_paths(layer, ranks).items() if name != "split-k"},
    }
    for name, run in runs.items():
        assert layers.row_error(run(), expected) <= LAYER_TOLERANCE["bfloat16"], name


def test_quantised_layers_too(layers: ModuleType, device: torch.device) -> None:
    layer = layers.make_layer((128, 128, 4, 2, 1), 6, "int8", device)
    expected = layers.by_loop(layer, torch.float64)()
    assert layers.row_error(layers.our_paths(layer, 1)["plain"](), expected) <= LAYER_TOLERANCE["int8"]


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("script", ["layers", "tiles"])
def test_without_a_gpu_it_says_so_and_ends_well(script: str) -> None:
    done = subprocess.run([sys.executable, str(FOLDER / f"{script}.py")], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("skipped: PyTorch sees no GPU here")
