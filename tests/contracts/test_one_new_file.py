"""A scaling law, or a serving stack, is one new file and one line, as CONTRIBUTING says.

The same of a chip is in tests/chips, of a model in tests/models, of a kernel in tests/kernels/test_registry.py.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, to which a test adds files."""
    shutil.copytree(ROOT / "moe_codesign", tmp_path / "moe_codesign", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "moe_codesign"


def run(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line of a copied package."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package.parent), str(ROOT / "kernels")])}
    command = [sys.executable, "-P", "-m", "moe_codesign.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=package.parent, env=environment)


def add_line(registry: Path, after: str, line: str) -> None:
    text = registry.read_text()
    assert text.count(after) == 1
    registry.write_text(text.replace(after, f"{after}\n    {line}"))


def test_a_scaling_law(package: Path) -> None:
    (package / "quality" / "active.py").write_text(
        '"""More active parameters are better."""\n'
        "import numpy as np\n"
        "class Active:\n"
        '    name, paper, evidence, measure = "active", "nobody", "paper", "active parameters"\n'
        "    def covered(self, features):\n"
        "        return []\n"
        "    def loss(self, features):\n"
        "        return -features.active * features.width\n"
        "    def ratio(self, features, reference):\n"
        "        return self.loss(features) / self.loss(reference)\n"
        "LAW = Active()\n"
    )
    add_line(package / "quality" / "laws.py", "LAWS = (", '"active",')
    (package.parent / "space.toml").write_text(
        'name = "s"\nreference = "Qwen3-30B-A3B"\ntraining_tokens = 1e12\nlaw = "active"\nchips = ["trainium2"]\n'
        'objectives = ["decode.latency_us", "quality"]\n[shape]\nmoe_intermediate_size = [768, 1536]\n'
        '[[workloads]]\nname = "decode"\nnum_tokens = 64\nep = 8\n'
    )
    done = run(package, "search", "space.toml", "--trials", "12", "--json")
    assert done.returncode == 0, done.stderr
    ratios = {
        pair["shape"]["moe_intermediate_size"]: pair["quality_ratio"] for pair in json.loads(done.stdout)["all_pairs"]
    }
    assert ratios == {768: 1.0, 1536: 2.0}
    assert "the law active (nobody): active parameters, at equal training tokens" in run(package, "report", "s").stdout


def test_a_serving_stack(package: Path) -> None:
    (package / "stacks" / "mine.py").write_text((package / "stacks" / "vllm.py").read_text())
    add_line(package / "stacks" / "__init__.py", "STACKS = {", '"mine": "moe_codesign.stacks.mine",')
    # Measured times of it would be fitted by `calibrate`; here another stack's are taken for its own.
    known = package / "calibrations" / "h100_sxm-vllm-bfloat16"
    text = known.with_suffix(".toml").read_text().replace('stack = "vllm"', 'stack = "mine"')
    (package / "calibrations" / "h100_sxm-mine-bfloat16.toml").write_text(text)
    shutil.copy(known.with_suffix(".trees.npz"), package / "calibrations" / "h100_sxm-mine-bfloat16.trees.npz")
    header = "chip,stack,hidden_size,moe_intermediate_size,num_experts,num_experts_per_tok,num_tokens\n"
    rows = "".join(f"h100_sxm,{stack},2048,768,128,8,64\n" for stack in ("vllm", "mine", "yours"))
    (package.parent / "in.csv").write_text(header + rows)
    done = run(package, "predict", "in.csv", "--out", "out.jsonl")
    assert done.returncode == 0, done.stderr
    vllm, mine, yours = map(json.loads, (package.parent / "out.jsonl").read_text().splitlines())
    assert mine["latency_us"] == vllm["latency_us"] > 0
    assert "mine" in yours["error"], "an unknown stack names those there are"
