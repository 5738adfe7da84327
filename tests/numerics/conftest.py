"""Triton kernels against float64: in the interpreter (TRITON_INTERPRET=1), or on a GPU where there is one."""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if item.path.parent.name == "numerics"]
    for item in here:
        item.add_marker(pytest.mark.gpu)
        if not INTERPRETED and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no GPU that PyTorch can use, and TRITON_INTERPRET is not 1"))


@pytest.fixture(scope="session")
def device() -> torch.device:
    if INTERPRETED:
        from moe_kernels.triton.interpreter import correct_narrow_floats

        correct_narrow_floats()
        return torch.device("cpu")
    return torch.device("cuda")
