"""Write results/search/: lock-in of six chips, three layers between two, and how far published shapes are from best.

    python benchmarks/search/across.py [--out results/search]

Every number is an estimate from the compiled facts that ship with the package; nothing is drawn at random.
"""

import argparse
from pathlib import Path

import moe_codesign as mc
from moe_codesign.answers.own_budget import OwnBudget, own_budget_of
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.reports.sheet import Sheet, ratio_text, sheet_markdown
from moe_codesign.reports.terminal.lock_in import lock_in_sheets
from moe_codesign.reports.terminal.sweet_spots import sweet_spots_sheet
from moe_codesign.reports.terminal.three_layers import three_layers_sheets
from moe_codesign.study.space import Space
from moe_codesign.tables import read_table

HERE = Path(__file__).parent
SPACES = ("qwen3_30b", "deepseek_v3")
STEPS = {"h100_b200": ("h100_sxm", "b200"), "v6e_tpu7x": ("tpu_v6e", "tpu7x")}
OBJECTIVES = ("decode.latency_us", "prefill.latency_us")
CHIPS = ["h100_sxm", "b200", "mi355x", "tpu_v6e", "tpu7x"]
BUDGETS = {  # tokens of training, as published or, for gpt-oss and Qwen3.5, taken; chips that share the layer
    "DeepSeek-V3": (14.8e12, 64),
    "Qwen3-30B-A3B": (36e12, 4),
    "gpt-oss-120b": (20e12, 16),
    "Qwen3.5-397B": (36e12, 64),
    "Qwen3.5-35B": (36e12, 4),
}
WIDTHS = {
    "DeepSeek-V3": ("h100_sxm", 1024, 3072),
    "Qwen3.5-397B": ("tpu7x", 512, 1536),
    "Qwen3.5-35B": ("tpu7x", 256, 1024),
}


def budget_space(model: str) -> Space:
    """Every shape of the model's hidden size with its parameters, to 5 %, and at least its quality."""
    tokens, ep = BUDGETS[model]
    shape = mc.find_model(model)
    widths = {"low": 256, "high": 2 * shape.moe_intermediate_size, "step": 64}
    within = {"low": 0.95, "high": 1.05}
    step = max(ep, 16)
    table = {
        "name": f"the budget of {model}",
        "reference": model,
        "training_tokens": tokens,
        "chips": CHIPS,
        "sampler": "exact",
        "objectives": list(OBJECTIVES),
        "shape": {
            "moe_intermediate_size": widths,
            "num_experts": {"low": step, "high": 1024, "step": step},
            "num_experts_per_tok": {"low": 2, "high": 32},
        },
        "workloads": [
            {"name": name, "num_tokens": each * ep, "ep": ep, "dtype": "bfloat16"}
            for name, each in (("decode", 64), ("prefill", 4096))
        ],
        "constraints": {"min_quality_ratio": 1.0, "total_params_ratio": within, "active_params_ratio": within},
    }
    return read_table(Space, table, model)


def budget_sheet(model: str, found: list[OwnBudget]) -> Sheet:
    shape, (tokens, ep) = mc.find_model(model), BUDGETS[model]
    header = ["chip", "shapes timed", "on the frontier", "distance"]
    for name in ("decode", "prefill"):
        header += [f"best for {name}", f"gain in {name}", f"best of width {shape.moe_intermediate_size} over it"]
    rows = []
    for one in found:
        cells = [one.chip, str(one.feasible), str(one.frontier), f"{one.distance:.1%}"]
        for name, best in one.best.items():
            cells += [best.shape.label(), ratio_text(one.gains[name]), f"{one.at_own_width[name]:.3f}"]
        rows.append(cells)
    return Sheet(
        f"{model}: {shape.label()}, {tokens / 1e12:g} T training tokens, ep {ep}",
        header,
        rows,
        ["A gain is the model, with its best tiles, over the best shape; ~ marks what is within error of 1."],
    )


def page(title: str, intro: str, sheets: list[Sheet]) -> str:
    return f"# {title}\n\n{intro} Written by `python benchmarks/search/across.py`.\n\n" + "\n".join(
        map(sheet_markdown, sheets)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/search"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name in SPACES:
        file = HERE / f"{name}.toml"
        sheets = [sheet for goal in OBJECTIVES for sheet in lock_in_sheets(mc.lock_in(file, objective=goal))]
        intro = f"Space: [{file.name}](../../benchmarks/search/{file.name})."
        (out / f"lock_in_{name}.md").write_text(page("Lock-in of six chips", intro, sheets), encoding="utf-8")
    for name, (start, target) in STEPS.items():
        sheets = [
            sheet
            for space in SPACES
            for goal in OBJECTIVES
            for sheet in three_layers_sheets(
                mc.three_layers(HERE / f"{space}.toml", from_chip=start, to_chip=target, objective=goal)
            )
        ]
        intro = "Spaces: " + ", ".join(f"[{s}.toml](../../benchmarks/search/{s}.toml)" for s in SPACES) + "."
        (out / f"three_layers_{name}.md").write_text(
            page(f"Three layers, {start} to {target}", intro, sheets), encoding="utf-8"
        )
    tables = Tables()
    sheets = [budget_sheet(model, own_budget_of(budget_space(model), tables)) for model in BUDGETS]
    for model, (chip, low, high) in WIDTHS.items():
        ep = BUDGETS[model][1]
        (swept,) = mc.sweet_spots(model, [chip], low=low, high=high, step=64, tokens=4096 * ep, ep=ep, dtype="bfloat16")
        sheets.append(sweet_spots_sheet(swept))
    intro = (
        "Shapes of each model's hidden size with its total and active parameters, to 5 %, and at least its quality; "
        "64 tokens a chip in decode, 4096 in prefill, bfloat16. The distance is how much faster the model would have "
        "to be under both workloads to be on the frontier of their times."
    )
    (out / "rediscovery.md").write_text(page("Published shapes at their own budgets", intro, sheets), encoding="utf-8")


if __name__ == "__main__":
    main()
