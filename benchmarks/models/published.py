"""Hold the reader of ``config.json`` against published files whose architecture ``transformers`` has.

    python -m pip install torch transformers
    python benchmarks/models/published.py FOLDER/*.json [--fixtures FILE]

builds each file's model on the meta device and compares what its modules show with what is read. Prints a line a file;
with ``--fixtures`` writes the fields that matter and the truth, a line a file, for ``tests/models/published.jsonl``.
Exits 1 if a reading is wrong.
"""

import argparse
import json
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import transformers
from architectures import slim
from built import Truth, build, truth_of
from transformers import AutoConfig

from moe_codesign.errors import UserError
from moe_codesign.models.hf_config import read_config


def main() -> int:
    """Compare every file; exit 1 if one is read wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fixtures", type=Path)
    parser.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    wrong, lines = 0, []
    for file in options.files:
        config = json.loads(file.read_text(encoding="utf-8"))
        verdict, truth, dtype = _judged(file, config)
        wrong += verdict.startswith("WRONG")
        print(f"{file.stem}: {verdict}")
        if isinstance(truth, Truth):
            name = file.stem.removesuffix("_config").replace("--", "/")
            source = f"its config.json, built with transformers {transformers.__version__}"
            fixture = {"model": name, "source": source, "file": file.name, "shape": asdict(truth), "dtype": dtype}
            if '"auto_map"' in json.dumps(config):  # its modelling code lies beside it
                fixture["code"] = "hub"
            lines.append(json.dumps({**fixture, "config": _kept(config)}, sort_keys=True))
    if options.fixtures:
        options.fixtures.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 1 if wrong else 0


def _judged(file: Path, config: dict[str, Any]) -> tuple[str, Truth | str | None, str | None]:
    try:
        found = read_config(file)
    except UserError as error:
        return f"refused: {error}", None, None
    try:
        plain = {key: value for key, value in config.items() if key not in ("auto_map", "quantization_config")}
        truth = truth_of(build(AutoConfig.for_model(**plain)))
    except Exception as error:
        return f"not built: {type(error).__name__}: {str(error)[:100]}", None, found.dtype
    if isinstance(truth, str):
        return f"WRONG: {truth}", truth, found.dtype
    off = {key: (getattr(found.shape, key), value) for key, value in asdict(truth).items()}
    bad = {key: pair for key, pair in off.items() if pair[0] != pair[1]}
    return (f"WRONG: {bad}" if bad else f"right {found.shape.label()} {found.dtype}"), truth, found.dtype


def _kept(config: dict[str, Any]) -> dict[str, Any]:
    """The fields that matter to a shape, and a short form of what says the data type."""
    kept: dict[str, Any] = slim(config)
    for name in ("quantization_config", "compression_config"):
        for around, into in ((config, kept), (config.get("text_config"), kept.get("text_config"))):
            if isinstance(around, dict) and isinstance(into, dict) and isinstance(table := around.get(name), dict):
                into[name] = {
                    key: value for key, value in table.items()
                    if isinstance(value, str | int) or key in ("weight_block_size", "config_groups", "quantized_layers")
                }  # fmt: skip
    return kept


if __name__ == "__main__":
    sys.exit(main())
