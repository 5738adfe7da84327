"""The list of planted faults is kept up to date, and some of it is run; ``python -m tests.planted`` runs all."""

import subprocess
import sys

import pytest

from tests.planted import ROOT, faults


def test_every_fault_has_its_place_in_the_kernels() -> None:
    listed = faults()
    assert {fault.folder for fault in listed} == {"triton", "pallas"}
    for fault in listed:
        fault.place(ROOT)
        assert fault.old != fault.new
        assert (ROOT / fault.tests).is_file()


@pytest.mark.slow
def test_some_faults_are_caught() -> None:
    names = ("int8 has no least scale", "persistent programs skip the last tile", "a group without rows has no visit")
    done = subprocess.run(
        [sys.executable, "-m", "tests.planted", "--only", *names], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.rstrip().endswith("3 caught"), done.stdout + done.stderr
    assert done.returncode == 0
