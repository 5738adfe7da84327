import json
from pathlib import Path
from typing import Any

import pytest

import moe_codesign as mc
import moe_codesign.models
from moe_codesign.errors import UserError
from moe_codesign.models import find_model, models
from moe_codesign.models.catalogue import read_catalogue

QWEN: dict[str, Any] = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
    "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48, "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}  # fmt: skip


def test_catalogue_and_names() -> None:
    assert all(shape.name == name for name, shape in models().items())
    assert find_model("deepseek_v3").moe_intermediate_size == 2048
    with pytest.raises(UserError, match="Qwen3-30B-A3B"):
        find_model("Qwen3-30B")


def test_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    assert find_model(str(tmp_path / "config.json")).num_experts == 128
    assert find_model(str(tmp_path)).num_experts == 128
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="JSON"):
        find_model(str(tmp_path / "broken.json"))


def test_a_new_model_is_one_row_or_one_config_and_is_audited(tmp_path: Path) -> None:
    catalogue = Path(moe_codesign.models.__file__).with_name("catalogue.csv").read_text()
    (tmp_path / "catalogue.csv").write_text(f"{catalogue.rstrip()}\nMine-8x1B,1024,512,8,2,0,12,1,,,bfloat16,made up\n")
    found = read_catalogue(tmp_path / "catalogue.csv")
    assert set(found) == {*models(), "Mine-8x1B"}
    config = {"hidden_size": 1024, "intermediate_size": 512, "num_experts": 8, "num_experts_per_tok": 2}
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 12, "model_type": "mixtral"}))
    by_row = mc.audit(found["Mine-8x1B"], ["trainium2"], tokens=[64])[0].estimate
    by_config = mc.audit(str(tmp_path / "config.json"), ["trainium2"], tokens=[64])[0].estimate
    assert by_row is not None
    assert by_row == by_config
