"""The command ``moe-codesign model``."""

import json
from pathlib import Path

import moe_codesign as mc
from tests.command import invoke

CONFIG = {
    "model_type": "deepseek_vl_v2",
    "language_config": {
        "model_type": "deepseek_v2", "hidden_size": 2560, "intermediate_size": 12288, "moe_intermediate_size": 1536,
        "n_routed_experts": 72, "num_experts_per_tok": 6, "n_shared_experts": 2, "first_k_dense_replace": 1,
        "moe_layer_freq": 1, "num_hidden_layers": 30, "torch_dtype": "bfloat16",
    },
}  # fmt: skip


def test_each_field_stands_at_the_top_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    done = invoke("model", "config.json", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert {name: shown[name] for name in shown if name not in ("sources", "notes", "name", "whole", "no_whole")} == {
        "hidden_size": 2560,
        "moe_intermediate_size": 1536,
        "num_experts": 72,
        "num_experts_per_tok": 6,
        "n_shared_experts": 2,
        "num_layers": 29,
        "gated": True,
        "moe_latent_size": None,
        "zero_expert_num": 0,
        "dtype": "bfloat16",
    }
    assert shown["sources"]["num_experts"] == "language_config.n_routed_experts"
    assert shown["sources"]["num_layers"] == "language_config.num_hidden_layers, language_config.first_k_dense_replace"
    assert shown["sources"]["dtype"] == "language_config.torch_dtype"
    assert shown["whole"] is None
    assert shown["no_whole"] == "config.json: language_config lacks a field; it needs one of vocab_size"
    same = mc.model(str(tmp_path / "config.json")).to_dict()
    assert shown == same | {"name": shown["name"], "no_whole": shown["no_whole"]}


def test_the_whole_model_stands_beside_its_experts() -> None:
    shown = json.loads(invoke("model", "DeepSeek-V3", "--json").stdout)
    assert shown["num_layers"] == 58
    whole = shown["whole"]
    assert whole["num_layers"] == 61
    assert [(group["count"], group["experts"]) for group in whole["groups"]] == [(3, False), (58, True)]
    assert whole["groups"][0]["attention"]["kind"] == "MLA"
    assert whole["groups"][0]["dense"] == {"intermediate_size": 18432, "gated": True}
    assert whole["kv_bytes_per_token"] == 70272
    assert whole["sources"]["attention.kv_lora_rank"] == "kv_lora_rank"
    assert whole["types"]["attention"] == "fp8_block"
    assert "no_whole" not in shown


def test_a_dense_model_has_the_same_keys() -> None:
    done = invoke("model", "Llama-3.1-70B", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert (shown["hidden_size"], shown["num_layers"], shown["num_experts"]) == (8192, 0, None)
    assert shown["whole"]["num_layers"] == 80
    assert set(shown) == set(json.loads(invoke("model", "DeepSeek-V3", "--json").stdout))


def test_an_attention_that_is_not_known_leaves_the_experts(tmp_path: Path) -> None:
    table = {**CONFIG["language_config"], "model_type": "brand_new"}  # type: ignore[dict-item]
    (tmp_path / "config.json").write_text(json.dumps(table))
    done = invoke("model", "config.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "moe_intermediate_size" in done.stdout
    assert "the whole model is not shown: config.json: attention of brand_new is of a form" in done.stdout


def test_only_a_whole_model_is_shown_of_what_has_no_experts(tmp_path: Path) -> None:
    done = invoke("audit", "Llama-3.1-70B", "--chips", "h100_sxm")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Llama-3.1-70B has no experts" in done.stderr


def test_people_read_it_too(tmp_path: Path) -> None:
    done = invoke("model", "meituan-longcat/LongCat-Flash", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for text in ("zero_expert_num", "256", "catalogue.csv: LongCat-Flash", "8 reach an expert"):
        assert text in done.stdout


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    broken = {**CONFIG, "language_config": {**CONFIG["language_config"], "moe_intermediate_size": [1536, 512]}}  # type: ignore[dict-item]
    (tmp_path / "config.json").write_text(json.dumps(broken))
    done = invoke("model", "config.json", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "language_config.moe_intermediate_size: got [1536, 512]" in done.stderr


def test_an_audit_says_its_type_and_the_notes(tmp_path: Path) -> None:
    done = invoke("audit", "openai/gpt-oss-20b", "--chips", "Trainium2", "--tokens", "64", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mxfp4 (the model's)" in done.stdout
    done = invoke("audit", "openai/gpt-oss-20b", "--chips", "trn2", "--tokens", "64", "--dtype", "BF16", "--json")
    assert {row["dtype"] for row in json.loads(done.stdout)} == {"bfloat16"}
