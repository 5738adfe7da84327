"""The command line as its users meet it; what a process decides is tested in one."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

import moe_codesign as mc
from moe_codesign.storage.studies import Studies
from moe_codesign.study.runner import SearchResult, read_search
from moe_codesign.study.space import Space
from tests.command import invoke, run
from tests.conftest import space_text

COMMANDS = (
    "search", "lock-in", "three-layers", "robust", "sweet-spots", "frontier", "audit", "model", "predict", "calibrate",
    "compile", "bench", "regress", "report", "list",
)  # fmt: skip


def test_help_is_light() -> None:
    script = (
        "import sys, moe_codesign; from moe_codesign import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'triton', 'jax', 'optuna', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    done = invoke(command, "--help")
    assert done.returncode == 0
    assert "Example: moe-codesign" in done.stdout


def test_every_option_has_help() -> None:
    from moe_codesign.cli import cli

    silent = [
        f"{name} {option.opts[0]}"
        for name, command in cli.commands.items()
        for option in command.params
        if isinstance(option, click.Option) and not (option.help or "").strip()
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["audit", "Qwen3-30B", "--chips", "h100_sxm"], "did you mean Qwen3-30B-A3B"),
        (["audit", "DeepSeek-V3", "--chips", "h100_pcie"], "h100_sxm"),
        (["audit", "DeepSeek-V3", "--chips", "trainium2", "--tokens", "1,x"], "1,x"),
        (["audit", "DeepSeek-V3", "--chips", "trainium2", "--routing", "zipf"], "zipf:ALPHA"),
        (["compile", "--kernel", "triton.nothing", "--chip", "h100_sxm"], "triton.grouped_gemm"),
        (["compile", "--kernel", "triton.grouped_gemm", "--chip", "tpu_v6e"], "pallas"),
        (["compile", "--kernel", "pallas.host_matmul", "--chip", "tpu_v6e"], "host alone"),
        (["compile", "--chip", "tpu_v6e"], "--function"),
        (["compile", "--kernel", "triton.grouped_gemm", "--chip", "trainium2"], "no compiler"),
        (["compile", "--kernel", "triton.grouped_gemm", "--chip", "h100_sxm", "--tile", "block_q=1"], "block_q"),
        (["search", "nowhere"], "list spaces"),
        (["search", "quickstart", "--trials", "0"], "0"),
        (["lock-in", "quickstart", "--chips", "trainium2", "--objective", "quality"], "use one of latency_us"),
        (["lock-in", "quickstart", "--chips", "trainium2", "--shares", "decode"], "NAME=NUMBER"),
        (["three-layers", "quickstart", "--from", "trainium2"], "--to"),
        (["robust", "quickstart", "--by", "mean"], "worst"),
        (["sweet-spots", "DeepSeek-V3", "--chips", "trainium2", "--low", "9", "--high", "8"], "fewer than two values"),
        (
            ["sweet-spots", "DeepSeek-V3", "--chips", "trainium2", "--low", "1", "--high", "99", "--field", "k"],
            "num_exp",
        ),
        (["report", "nothing", "--storage", "sqlite:///missing.db"], "missing.db"),
        (["predict", "missing.csv", "--out", "x.csv"], "missing.csv"),
        (["predict", "missing.csv"], "--out"),
        (["bench", "--device", "h100_sxm"], "NVIDIA H100"),
        (["list", "things"], "things"),
        (["serch"], "serch"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(arguments: list[str], says: str, tmp_path: Path) -> None:
    done = invoke(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_wrong_use_ends_a_process_without_a_traceback(tmp_path: Path) -> None:
    done = run("audit", "Qwen3-30B", "--chips", "h100_sxm", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("what", ["chips", "models", "kernels", "spaces", "studies"])
def test_lists(what: str, tmp_path: Path) -> None:
    done = invoke("list", what, "--json", cwd=tmp_path)
    assert done.returncode == 0
    rows = json.loads(done.stdout)
    assert bool(rows) == (what != "studies")
    assert invoke("list", what, cwd=tmp_path).returncode == 0


def test_search_report_and_list_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(space_text())
    done = run("search", "mine.toml", "--trials", "15", "--seed", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "datasheet" in done.stdout
    assert (tmp_path / "results/runs/test/report.html").exists()
    assert json.loads(invoke("list", "studies", "--json", cwd=tmp_path).stdout)[0]["trials"] == 15
    again = invoke("report", "test", "--out", "r.html", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["trials"] == 15
    resumed = json.loads(run("search", "mine.toml", "--trials", "15", "--seed", "3", "--json", cwd=tmp_path).stdout)
    stored = json.loads(again.stdout)
    assert 0 < len(resumed["pairs"]) < len(resumed["all_pairs"])
    assert all(row["on_frontier"] for row in resumed["pairs"])
    assert (resumed["pairs"], resumed["all_pairs"]) == (stored["pairs"], stored["all_pairs"]), "the same words in both"
    assert (tmp_path / "r.html").stat().st_size > 1e6, "plotly's script is inside"
    unknown = invoke("report", "other", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "test" in unknown.stderr


def test_a_report_reads_its_study_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moe_codesign.api import report as api

    (tmp_path / "mine.toml").write_text(space_text())
    assert invoke("search", "mine.toml", "--trials", "2", cwd=tmp_path).returncode == 0
    read: list[str] = []

    def counted(space: Space, studies: Studies, study: str) -> SearchResult:
        read.append(study)
        return read_search(space, studies, study)

    monkeypatch.setattr(api, "read_search", counted)
    done = invoke("report", "test", "--out", "r.html", "--json", cwd=tmp_path)
    assert (done.returncode, read) == (0, ["test"])
    assert (tmp_path / "r.html").exists()


def test_compile_shows_the_binary_and_exits_1_where_it_cannot_run() -> None:
    done = run("compile", "--kernel", "triton.grouped_gemm", "--chip", "h100_sxm")
    assert done.returncode == 0, done.stderr
    assert "HGMMA" in done.stdout
    assert "wgmma" in done.stdout
    assert "async copies" in done.stdout
    assert "LDGSTS" in done.stdout
    tile = "block_m=128,block_n=256,block_k=128,num_stages=4"
    refused = run("compile", "--kernel", "triton.grouped_gemm", "--chip", "h100_sxm", "--tile", tile, "--json")
    assert refused.returncode == 1
    assert "232448" in json.loads(refused.stdout)[1]["refused"]


def test_bench_measures_and_verifies() -> None:
    arguments = ["--ep", "64", "--tokens", "2", "--seconds", "0.05", "--tile", "tile_m=16,tile_k=1024,tile_n=1024"]
    done = run("bench", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)[0]
    assert row["timing"]["grade"] == "measured"
    assert 0 < row["error"] < 0.05
    assert row["checks"] >= 9
    assert len(row["timing"]["samples_us"]) >= 5


def test_bench_measures_a_model_in_its_own_type_where_the_device_runs_it(tmp_path: Path) -> None:
    config = {"hidden_size": 256, "moe_intermediate_size": 128, "n_routed_experts": 8, "num_experts_per_tok": 2}
    quantized = {"quant_method": "mxfp4"}
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "num_hidden_layers": 2, "first_k_dense_replace": 0, "quantization_config": quantized})
    )
    arguments = ("bench", "--model", "config.json", "--ep", "1", "--tokens", "4", "--seconds", "0.01")
    done = invoke(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "bfloat16 (pallas.host_matmul does not take the model's mxfp4), ep 1" in done.stdout
    refused = invoke(*arguments, "--dtype", "fp8", cwd=tmp_path)
    assert refused.returncode == 2
    assert "cpu has no fp8 matrix units" in refused.stderr


def test_audit_of_a_config_file(tmp_path: Path) -> None:
    config = {"hidden_size": 4096, "intermediate_size": 14336, "num_local_experts": 8, "num_experts_per_tok": 2}
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 32, "model_type": "mixtral"}))
    done = invoke("audit", "config.json", "--chips", "trainium2", "--json", cwd=tmp_path)
    rows = json.loads(done.stdout)
    assert [row["num_tokens"] for row in rows] == [1, 64, 4096]
    assert all(row["estimate"]["timing"]["grade"] == "datasheet" for row in rows)


FUNCTIONS: dict[str, tuple[str, ...]] = {
    "search": ("search",),
    "lock-in": ("lock_in",),
    "three-layers": ("three_layers",),
    "robust": ("robust",),
    "sweet-spots": ("sweet_spots",),
    "frontier": ("frontier",),
    "audit": ("audit",),
    "model": ("model",),
    "predict": ("predict",),
    "calibrate": ("calibrate", "calibrate_ours"),
    "compile": ("compile_kernel", "compile_function"),
    "bench": ("bench",),
    "regress": ("regress", "regress_against", "regress_versions", "regress_history"),
    "report": ("report", "load_study"),
    "list": (),
}
"""The functions that do each command's work; the catalogues that ``list`` prints are read by the readers."""
READERS = {
    "MoEShape", "ModelShape", "Space", "Workload", "find_model", "load_chip", "load_space", "model_shape",
    "parse_space",
}  # fmt: skip
SHELL_ALONE = {
    "as_json": "the functions return values",
    "history": "regress_history",
    "strict": "the caller sees what is unclear",
}
CALLBACKS = {"compiling", "running", "report"}
OTHER_NAMES = {
    ("regress", "against"): "revision",
    ("regress", "with_"): "versions",
    ("report", "study"): "name",
}
OTHER_DEFAULTS = {
    **{(command, "jobs"): "a function starts one process unless it is asked for more" for command in FUNCTIONS},
    ("search", "out"): "the shell writes a report, a function where it is asked to",
    ("report", "out"): "a report of the shell lies with those of searches",
    ("bench", "ep"): "one rank's share of the default model fits a laptop",
}


def test_every_command_has_its_functions_and_every_function_its_command() -> None:
    import moe_codesign as mc
    from moe_codesign.cli import cli

    assert set(FUNCTIONS) == set(cli.commands) == set(COMMANDS)
    assert {name for names in FUNCTIONS.values() for name in names} | READERS == set(mc.__all__)
    assert set(mc.__all__) == set(mc._HOME)
    for name in mc.__all__:
        assert getattr(mc, name).__name__ == name


@pytest.mark.parametrize("command", [name for name, functions in FUNCTIONS.items() if functions])
def test_flags_and_parameters_have_the_same_names_and_defaults(command: str) -> None:
    import moe_codesign as mc
    from moe_codesign.cli import cli

    signatures = [inspect.signature(getattr(mc, name)).parameters for name in FUNCTIONS[command]]
    parameters = {name: one for signature in signatures for name, one in signature.items()}
    flags = {option.name: option for option in cli.commands[command].params if option.name not in SHELL_ALONE}
    spelt = {OTHER_NAMES.get((command, str(name)), name) for name in flags}
    assert spelt - set(parameters) == set()
    assert set(parameters) - spelt - CALLBACKS - set(flags) == set()
    for name, option in flags.items():
        parameter = parameters.get(str(name))
        if parameter is None or parameter.default is parameter.empty or (command, name) in OTHER_DEFAULTS:
            continue
        given = option.to_info_dict()["default"]
        flag = option.type_cast_value(click.Context(cli.commands[command]), given) if given is not None else None
        assert plain(flag) == plain(parameter.default), name


def plain(value: object) -> object:
    """Nothing given and an empty list mean the same, and so do lists and tuples."""
    return list(value) or None if isinstance(value, list | tuple) else value


def test_names_that_are_loaded_when_used_are_listed() -> None:
    import moe_codesign as mc

    assert set(mc.__all__) <= set(dir(mc))
    with pytest.raises(AttributeError, match="'moe_codesign' has no attribute 'nothing'"):
        mc.nothing  # noqa: B018


def test_frontier_of_a_whole_model(tmp_path: Path) -> None:
    arguments = ("frontier", "Qwen3-30B-A3B", "--chips", "h200_sxm,h20", "--most-chips", "2", "--stack", "trtllm")
    done = invoke(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Qwen3-30B-A3B on h200_sxm under trtllm: 1,024 tokens in, 1,024 out" in done.stdout
    assert "operations are by h200_sxm's measurements, with the rates of h20" in done.stdout
    data = json.loads(invoke(*arguments, "--json", cwd=tmp_path).stdout)
    assert [one["chip"] for one in data] == ["h200_sxm", "h20"]
    assert data[0]["points"] == [
        point.to_dict() for point in mc.frontier("Qwen3-30B-A3B", ["h200_sxm"], most_chips=2, stack="trtllm")[0].points
    ]
    mixed = invoke("frontier", "DeepSeek-V3", "--chips", "h100_sxm,h200_sxm,tpu7x", cwd=tmp_path)
    assert mixed.returncode == 0
    assert "DeepSeek-V3 on h100_sxm: DeepSeek-V3 does not fit on 8 h100_sxm: weights" in mixed.stdout
    assert "DeepSeek-V3 on h200_sxm under sglang" in mixed.stdout
    assert "Grade: datasheet." in mixed.stdout
    assert "from the data sheet of tpu7x" in mixed.stdout
    refused = invoke("frontier", "DeepSeek-V3", "--chips", "h100_sxm", cwd=tmp_path)
    assert refused.returncode == 2
    assert "GB of 72.0 usable" in refused.stderr
