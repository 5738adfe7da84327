"""A command loads what it needs: what audits, predicts or lists has neither an optimiser nor a database to load."""

import subprocess
import sys

import pytest

HEAVY = ("optuna", "sqlalchemy", "torch", "triton", "jax", "catboost", "plotly")


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit", "Qwen3-30B-A3B", "--chips", "trainium2", "--tokens", "1"],
        ["audit", "Qwen3-30B-A3B", "--chips", "trainium2", "--tokens", "1", "--json"],
        ["list", "chips"],
        ["sweet-spots", "Qwen3-30B-A3B", "--chips", "trainium2", "--low", "512", "--high", "640"],
        ["robust", "quickstart", "--chips", "trainium2"],
    ],
    ids=["audit", "audit --json", "list", "sweet-spots", "robust"],
)
def test_a_command_loads_no_more_than_it_needs(arguments: list[str]) -> None:
    script = (
        f"import sys; from moe_codesign import cli\ntry: cli.main({arguments!r})\n"
        f"except SystemExit as ended: assert ended.code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_predict_loads_neither_optuna_nor_sqlalchemy() -> None:
    script = (
        "import sys, moe_codesign as mc\n"
        "row = dict(chip='trainium2', hidden_size=2048, moe_intermediate_size=768, num_experts=128,"
        " num_experts_per_tok=8, num_tokens=4)\n"
        "assert mc.predict([row])[0]['error'] == ''\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
