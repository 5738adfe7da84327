"""Hold the reader of whole models against what ``transformers`` builds of the same config.

Each type with experts, and each dense type that is read, is built on the meta device. Its matrices, those of attention
apart, are counted and compared with the parameters that the reader makes of the config as it would be saved.

    python -m pip install torch transformers
    python benchmarks/models/whole_models.py --fixtures tests/models/whole_built.jsonl

prints a line for each type that is refused or read wrongly, and with ``--fixtures`` writes the configs and counts of
those that are read for the tests. Exits 1 if a reading is wrong.
"""

import argparse
import json
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from architectures import types_with_experts, variants
from built import build
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from moe_codesign.errors import UserError
from moe_codesign.models.whole_model import DENSE_FAMILIES, read_whole_model

_SIDE = re.compile(
    r"vision|visual|audio|talker|image|mtp|multi_modal|speech|lm_head|sound|projector|perception|encoder|code2wav"
    r"|code_predictor|view_seperator"
)
_ATTENTION = re.compile(r"attn\.|attention\.|\.mamba\.|\.conv\.|\.mixer\.(in_proj|out_proj|conv1d|[qkvo]_proj)")
_NEEDS_HEAD_DIM = re.compile(r"glm4|qwen3_omni")
"""Types whose default heads do not divide their default width."""
KEPT_EXACTLY = ("longcat_flash",)
"""Types that ``transformers`` builds with more weights than their checkpoints hold: a matrix for each zero expert."""
_NOISE = re.compile(
    r"token_id|initializer|_eps$|dropout|max_position|transformers_version|^rope_|router|loss|act$|beta$"
)


def configs() -> Iterator[tuple[str, Any]]:
    """A type and a config of it, whose sizes differ from one another."""
    for name in types_with_experts():
        _, arguments = next(variants(name))
        inner = arguments
        for key in ("thinker_config", "text_config"):
            inner = inner[key] if isinstance(inner.get(key), dict) else inner
        if _NEEDS_HEAD_DIM.match(name):
            inner["head_dim"] = 128
        yield name, CONFIG_MAPPING[name](**arguments)
    for name in DENSE_FAMILIES:
        blocks = {"layers_block_type": ["mamba", "mlp", "attention", "mlp"] * 3} if name == "nemotron_h" else {}
        yield f"{name} (dense)", CONFIG_MAPPING[name](**blocks)


def counts(model: Any) -> dict[str, int]:
    """Weights of a built text model without its head: all, and those of attention and what stands in its place."""
    found = {"total": 0, "attention": 0}
    for path, weight in model.named_parameters():
        if weight.dim() < 2 or _SIDE.search(path):
            continue
        found["total"] += weight.numel()
        found["attention"] += weight.numel() if _ATTENTION.search(path) else 0
    return found


def _slim(table: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _slim(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if value is not None and not _NOISE.search(key) and not (isinstance(value, dict) and _SIDE.search(key))
    }


def main() -> int:
    """Compare every type; exit 1 if one is read wrongly."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fixtures", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    wrong, lines = 0, []
    for name, config in configs():
        saved = {**json.loads(config.to_json_string(use_diff=True)), "dtype": "bfloat16"}
        try:
            read = read_whole_model(saved).parameters()
        except UserError as error:
            print(f"{name}: refused: {error}")
            continue
        truth = counts(build(config))
        off = abs((read.total - read.head) / truth["total"] - 1), abs(read.attention / truth["attention"] - 1)
        if name not in KEPT_EXACTLY and max(off) > 0.002:
            wrong += 1
            print(f"{name}: WRONG: {read} for {truth}")
        lines.append(json.dumps({"type": name, "truth": truth, "config": _slim(saved)}, sort_keys=True))
    print(f"transformers {transformers.__version__}: {len(lines)} read, {wrong} wrongly")
    if options.fixtures:
        options.fixtures.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
