"""The reader of ``config.json`` against every mixture of experts of ``transformers``, without it.

``architectures.jsonl`` holds configs and what the modules show that ``transformers`` built from them; the script
``benchmarks/models/architectures.py`` writes it.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from moe_codesign.errors import UserError
from moe_codesign.models.hf_config import read_model

LINES = Path(__file__).with_name("architectures.jsonl").read_text(encoding="utf-8").splitlines()
BUILT: list[dict[str, Any]] = [json.loads(line) for line in LINES]
REFUSED = {
    "doge": "product keys",
    "vitpose": "chosen by data set",
    "vitpose_backbone": "chosen by data set",
    "ernie4_5_vl_moe": r"text_config\.moe_intermediate_size: got \[1344, 512\]",
    "ernie4_5_vl_moe_text": r"moe_intermediate_size: got \[1344, 512\]",
    "dots3_note_vision_encoder": r"per_layer_config\.25\.num_local_experts: got 4",
}
"""Types that have no one shape, and the words by which they are refused."""
DISAGREE = "mlp_layer_types names 8 layers with experts and .*first_k_dense_replace"
"""What is said of a list of layers that a rule in the same file contradicts."""


def test_the_table_is_of_every_type() -> None:
    assert len({one["type"] for one in BUILT}) == 107


@pytest.mark.parametrize("one", BUILT, ids=lambda one: f"{one['type']}-{one['variant'][:40]}")
def test_what_is_read_is_what_is_built(one: dict[str, Any]) -> None:
    try:
        found = read_model(one["config"])
    except UserError as error:
        wanted = REFUSED.get(one["type"]) or (DISAGREE if "mlp_layer_types" in one["variant"] else "n_shared_experts")
        with pytest.raises(UserError, match=wanted):
            raise error from None
        return
    assert one["type"] not in REFUSED
    truth = one["truth"]
    assert isinstance(truth, dict), f"read, where there is {truth}"
    assert {key: getattr(found.shape, key) for key in truth} == truth
    for key in truth:
        if key not in ("moe_latent_size", "zero_expert_num"):
            assert found.sources[key], key


def test_nearly_all_types_are_read() -> None:
    refused = set()
    for one in BUILT:
        if one["variant"] == "plain":
            try:
                read_model(one["config"])
            except UserError:
                refused.add(one["type"])
    assert refused == set(REFUSED)
