"""Triton kernels against float64, on what the environment says.

With ``TRITON_INTERPRET=1`` every test here runs in Triton's interpreter and needs no device. Without it, the same tests
run on the GPU that PyTorch sees: they then carry the mark ``gpu``, so that ``pytest tests -m gpu`` verifies every path
there, and are skipped where there is no GPU.
"""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if INTERPRETED:
        return
    for item in items:
        if item.path.parent.name == "numerics":
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="no GPU that PyTorch can use, and TRITON_INTERPRET is not 1"))


@pytest.fixture(scope="session")
def device() -> torch.device:
    if INTERPRETED:
        return torch.device("cpu")
    return torch.device("cuda")
