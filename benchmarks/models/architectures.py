"""Hold the reader of ``config.json`` against every mixture of experts that ``transformers`` has.

Each architecture is built on the meta device from a config whose sizes differ from one another and from the defaults
of its class. What its modules show (layers with experts, shapes of the experts' weights, choices of the router, shared
experts, a gate or none) is compared with what the reader makes of the config as it would be saved.

    python -m pip install torch transformers
    python benchmarks/models/architectures.py --out results/models

writes ``architectures.csv`` (a row a type and variant: truth, reading, verdict) there, and with ``--fixtures`` the
configs and their truth for the tests. Exits 1 if a reading is wrong. ``transformers`` is needed by these scripts alone.
"""

import argparse
import csv
import inspect
import json
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import transformers
from built import Truth, build, truth_of
from huggingface_hub.errors import StrictDataclassError
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

from moe_codesign.errors import UserError
from moe_codesign.models.hf_config import read_model

LAYERS, EXPERTS, CHOSEN, SHARED = 11, 24, 5, 3
WIDTH, DENSE_WIDTH, HIDDEN_OF_LATENT = 1344, 5760, 640
FIELDS: dict[str, int] = {
    **dict.fromkeys(("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts"), EXPERTS),
    **dict.fromkeys(
        ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k", "moe_k"), CHOSEN
    ),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size"), WIDTH),
    **dict.fromkeys(("intermediate_size", "ffn_dim"), DENSE_WIDTH),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"), SHARED),
    "num_hidden_layers": LAYERS,
    "num_layers": LAYERS,
}
"""Values given to the fields that a config has by these names."""
_SHARED_WIDTHS = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_experts_intermediate_size",
    "shared_intermediate_size",
    "share_expert_dim",
)
_ROUTED_BY_INTERMEDIATE = 1728
"""Width of experts that have the field ``intermediate_size`` alone."""
_MIXED = ["dense", "dense", *["sparse"] * 4, "dense", *["sparse"] * 4]
EXTRA: dict[str, dict[str, Any]] = {
    "dbrx": {"attn_config": {"rope_theta": 10000.0}, "n_layers": LAYERS},
    "zaya": {"num_experts_per_tok": 1},
    "deepseek_v4": {"n_shared_experts": 1},
    "doge": {"is_moe": True},
    "gemma4_text": {"enable_moe_block": True},
    "hunyuan_v1_moe": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention"] * 3 + ["conv", "full_attention"]},
    "nemotron_h": {
        "layers_block_type": ["mamba", "moe", "attention", "mlp", "moe", "mamba", "moe", "moe", "mamba", "moe", "mlp"]
    },
    "granitemoehybrid": {"layer_types": ["linear_attention"] * 8 + ["full_attention"] * 3},
    "granitemoe_swa": {"shared_intermediate_size": 2 * _ROUTED_BY_INTERMEDIATE},
    "switch_transformers": {
        "d_ff": WIDTH, "num_layers": 12, "num_decoder_layers": 8, "num_sparse_encoder_layers": 4,
        "num_sparse_decoder_layers": 2,
    },
    "nllb-moe": {
        "encoder_layers": 12, "decoder_layers": 8, "encoder_sparse_step": 3, "decoder_sparse_step": 4,
        "encoder_ffn_dim": WIDTH, "decoder_ffn_dim": WIDTH,
    },
    "qwen4_exp_text": {
        "indexer_n_heads": 8, "indexer_kv_heads": 1, "indexer_head_dim": 256, "indexer_budget": 512,
        "indexer_compress_ratio": 4,
    },
    "deepseek_ocr2_text": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "mlp_layer_types": _MIXED,
    },
    "ernie4_5_vl_moe_text": {"moe_intermediate_size": [WIDTH, 512]},
    "qwen3_omni_moe_talker_text": {"shared_expert_intermediate_size": 2 * WIDTH},
    "qwen3_omni_moe": {
        "talker_config": {"text_config": {"shared_expert_intermediate_size": 768}, "spatial_merge_size": 2},
    },
    "dots3_note_vision_encoder": {"num_hidden_layers": 42},
    "vitpose_backbone": {"num_experts": 6, "part_features": 192, "model_type": "vitpose_backbone"},
}  # fmt: skip
"""What else a type's config needs to be built, or to have a layout worth reading."""
LAYOUTS: tuple[dict[str, Any], ...] = (
    {"first_k_dense_replace": 2},
    {"mlp_only_layers": [0, 5], "decoder_sparse_step": 2},
    {"mlp_only_layers": [2, 3, 9], "decoder_sparse_step": 1},
    {"mlp_layer_types": _MIXED},
    {"num_dense_layers": 4},
    {"moe_layers": [1, 4, 9]},
    {"interleave_moe_layer_step": 3},
    {"expert_layer_period": 3, "expert_layer_offset": 2},
    {"moe_layer_start_index": 2, "moe_layer_end_index": 8, "moe_layer_interval": 2},
    {"moe_layer_start_index": 1, "moe_layer_end_index": -1, "moe_layer_interval": 1},
    {"moe_latent_size": HIDDEN_OF_LATENT},
    {"moe_hidden_size": HIDDEN_OF_LATENT},
    {"zero_expert_num": 12},
    {"n_shared_experts": 2},
)
"""Layouts that are tried, one after another, on every type that has these fields."""


SINGLE = ("dots3_note_vision_encoder",)
"""Types whose layers differ from one another, so that they have one config that is worth reading."""


def types_with_experts() -> list[str]:
    """Model types whose default config has a field that speaks of experts."""
    found = []
    for name in sorted(CONFIG_MAPPING_NAMES):
        if (config := _default(name)) is not None and any(
            re.search(r"expert|moe", key) for key in _keys(config.to_dict())
        ):
            found.append(name)
    return found


def _default(name: str) -> Any:
    """A type's config as its class fills it, or None where the class' defaults do not fit each other."""
    try:
        return CONFIG_MAPPING[name]()
    except (ValueError, StrictDataclassError):
        return None


def _keys(table: dict[str, Any]) -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _keys(value)
        else:
            yield str(key)


def variants(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A name and the arguments of each config of a type: plain, as its class fills it, and each layout that it has."""
    cls = CONFIG_MAPPING[name]
    inner = _inner(cls())
    path, fields = inner if inner else ((), cls().to_dict())
    own = str(fields.get("model_type", name))
    plain = _values(own, fields)
    yield "plain", _nest(path, plain, name)
    yield "defaults", {}
    for layout in () if own in SINGLE else LAYOUTS:
        if all(key in fields or key in _parameters(own) for key in layout):
            label = ", ".join(f"{key}={value}" for key, value in layout.items())
            yield label, _nest(path, {**plain, **layout}, name)


def _parameters(name: str) -> set[str]:
    cls = CONFIG_MAPPING[name] if name in CONFIG_MAPPING_NAMES else None
    if cls is None:
        return set()
    source = inspect.getsource(cls)
    return set(re.findall(r"kwargs\.(?:pop|get)\(\s*\"(\w+)\"", source)) | set(re.findall(r"^    (\w+):", source, re.M))


def _inner(config: Any) -> tuple[tuple[str, ...], dict[str, Any]] | None:
    """The path to the text model's config inside a config of several, and its fields."""
    table = config.to_dict()
    for path in (("thinker_config", "text_config"), ("text_config",), ("ffn_config",), ("backbone_config",)):
        inside: Any = table
        for key in path:
            inside = inside.get(key) if isinstance(inside, dict) else None
        if isinstance(inside, dict):
            return path, inside
    return None


def _values(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    values = {key: value for key, value in FIELDS.items() if key in fields}
    if "moe_intermediate_size" not in fields and "intermediate_size" in fields:
        values["intermediate_size"] = _ROUTED_BY_INTERMEDIATE
    if "ffn_hidden_size" in fields:
        values["ffn_hidden_size"] = WIDTH
    width = values.get("moe_intermediate_size", values.get("intermediate_size"))
    values |= {key: 2 * width for key in _SHARED_WIDTHS if key in fields and width}
    return {**values, **EXTRA.get(name, {})}


def _nest(path: tuple[str, ...], values: dict[str, Any], name: str) -> dict[str, Any]:
    for key in reversed(path):
        values = {key: values}
    return {**values, **EXTRA.get(name, {})} if path else values


KEPT = re.compile(
    r"expert|moe|sparse|dense|latent|ffn|^d_model$|^d_ff$|^n_layers?$|^hidden_size$|intermediate_size|residual"
    r"|^num_(hidden_|decoder_)?layers$|^(en|de)coder_layers$|^mlp_(layer|only)|block_type|override_pattern|interleave"
    r"|^model_type$|^architectures$|^(torch_)?dtype$|hidden_act|^is_encoder"
)
"""Fields that could matter to the reader."""


def slim(table: dict[str, Any]) -> dict[str, Any]:
    """The fields of a config that could matter to its reader, and the tables inside it that have experts."""
    out: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            if re.search(r"config|per_layer|^\d+$", str(key)) and any("expert" in one for one in _keys(value)):
                out[str(key)] = slim(value)
        elif value is not None and KEPT.search(str(key)):
            out[str(key)] = value
    return out


def rows(names: list[str]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """A row of the table and a fixture, for every type, variant and way to write its config down."""
    for name in names:
        for label, arguments in variants(name):
            try:
                config = CONFIG_MAPPING[name](**arguments)
            except Exception as error:
                if label != "plain":
                    continue  # the type does not allow that layout
                yield {"type": name, "variant": label, "verdict": f"NOT BUILT {type(error).__name__}: {error}"}, {}
                continue
            try:
                truth: Truth | str = truth_of(build(config))
            except Exception as error:
                if label == "defaults":
                    continue  # the defaults of some classes do not make a model
                yield {"type": name, "variant": label, "verdict": f"NOT BUILT {type(error).__name__}: {error}"}, {}
                continue
            full = json.loads(json.dumps(config.to_dict(), default=str))
            saved = json.loads(config.to_json_string(use_diff=True))
            judged = {form: _judged(table, truth) for form, table in (("full", full), ("saved", saved))}
            for form, row in judged.items():
                wanted = asdict(truth) if isinstance(truth, Truth) else truth
                fixture = {"type": name, "variant": label, "truth": wanted, "config": slim(saved)}
                # One is enough for the tests where both forms are read alike.
                kept = label != "defaults" and (form == "saved" or judged["saved"] != row)
                yield {"type": name, "variant": label, "form": form, **row}, fixture if kept else {}


def _judged(table: dict[str, Any], truth: Truth | str) -> dict[str, Any]:
    shown = " ".join(f"{key}={value}" for key, value in asdict(truth).items()) if isinstance(truth, Truth) else truth
    try:
        found = read_model(table, source="config.json")
    except UserError as error:
        return {"truth": shown, "read": "", "verdict": "refused", "reason": str(error)}
    shape = found.shape
    if isinstance(truth, str):
        return {"truth": shown, "read": shape.label(), "verdict": "WRONG", "reason": "read where there is no one shape"}
    off = [f"{key}={getattr(shape, key)}" for key, value in asdict(truth).items() if getattr(shape, key) != value]
    note = "; ".join(found.notes)
    return {"truth": shown, "read": " ".join(off), "verdict": "WRONG" if off else "right", "reason": note}


def main() -> int:
    """Write the table; exit 1 if a reading is wrong or an architecture could not be built."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/models"))
    parser.add_argument("--fixtures", type=Path)
    parser.add_argument("types", nargs="*")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    found = list(rows(options.types or types_with_experts()))
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "architectures.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["type", "variant", "form", "truth", "read", "verdict", "reason"])
        writer.writeheader()
        writer.writerows(row for row, _ in found)
    if options.fixtures:
        lines = [json.dumps(fixture, sort_keys=True) for _, fixture in found if fixture]
        options.fixtures.write_text("\n".join(lines) + "\n", encoding="utf-8")
    verdicts: dict[str, int] = {}
    for row, _ in found:
        word = row["verdict"].split(" ")[0]
        verdicts[word] = verdicts.get(word, 0) + 1
        if word not in ("right", "refused"):
            print(row)
    print(f"transformers {transformers.__version__}: {verdicts}")
    return 0 if set(verdicts) <= {"right", "refused"} else 1


if __name__ == "__main__":
    sys.exit(main())
