"""Write results/accuracy/serving.md: operations and whole models beside measured times (``make accuracy-serving``).

The errors are those that the fits wrote down: of shapes in no fit, and of families of models that a fit had not seen.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from moe_codesign.calibrations.operations import FOLDER, HeldOut, OperationsFile
from moe_codesign.calibrations.serving import shipped_rules
from moe_codesign.files import read_json, replace_file
from moe_codesign.tables import read_table

PAGE = Path(__file__).parents[2] / "results" / "accuracy" / "serving.md"
GOALS = {
    "dense_gemm": 7.0, "decode_attention": 9.0, "prefill_attention": 8.0, "latent_decode": 9.0, "latent_prefill": 9.0,
    "collective": 8.0, "all_to_all": 12.0,
}  # fmt: skip


def main() -> int:
    held: defaultdict[str, dict[str, list[HeldOut]]] = defaultdict(lambda: defaultdict(list))
    sources, sets = set(), 0
    for path in sorted(FOLDER.glob("*.json")):
        file = read_table(OperationsFile, read_json(path), str(path))
        sources.add(file.source)
        sets += 1
        for name, operation in file.operations.items():
            held[name][file.chip] += operation.held_out.values()
    replace_file(PAGE, _page(held, sources, sets).encode())
    print(f"wrote {PAGE.name}: {sets} sets of a chip and a stack")
    return 0


def _page(held: dict[str, dict[str, list[HeldOut]]], sources: set[str], sets: int) -> str:
    lines = [
        "# Whole models: operations and serving runs",
        "",
        "Made by `make accuracy-serving` from what the fits wrote into `moe_codesign/calibrations/operations/` and "
        "`serving.json`. Absolute relative errors in percent.",
        "",
        "## Operations, on shapes in no fit",
        "",
        f"{sets} sets of a chip and a stack, from {', '.join(sorted(sources))}. One shape in five is in no fit, chosen "
        "by the hash of its key (a GEMM's n-k, attention's heads-kv-width, all-to-all's hidden-topk-experts, a "
        "collective's ranks-bytes, a fused layer's hidden-inter-experts-topk). Each chip is the mean of its stacks and "
        "data types, and each row the mean of its chips. Neighbour: the time of the nearest fitted problem, scaled by "
        "the ratio of the bounds.",
        "",
        "| operation | chips | mean | median | physics alone | roofline | neighbour | in the 90 % interval | goal |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, by_chip in sorted(held.items()):
        chips = {chip: found for chip, found in by_chip.items() if found}
        numbers = [
            np.mean([np.mean([getattr(one, field) for one in found if getattr(one, field) is not None])
                     for found in chips.values()])
            for field in ("mape", "median", "physics_mape", "roofline_mape", "neighbour_mape", "interval_coverage")
        ]  # fmt: skip
        goal = f"{GOALS[name]:.0f}" if name in GOALS else "-"
        cells = " | ".join(f"{number:.1f}" for number in numbers)
        lines.append(f"| {name} | {len(chips)} | {cells} | {goal} |")
    file = shipped_rules()
    lines += [
        "",
        "## Whole models, prefill and decode on the same chips",
        "",
        f"Runs of {file.source}. Rules of a stack, the same for every model and chip, are fitted to its runs; "
        "`not seen` is by rules that were fitted without the run's family of models. Runs of MiniMax, Kimi and GLM are "
        "in no fit and in no number here.",
        "",
        "TPOT: time for a token after the first; TTFT: time to the first.",
        "",
        "| stack | family | runs | TPOT mean | median | not seen: mean | median | TTFT median | not seen |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for stack, one in sorted(file.stacks.items()):
        for family, errors in one.families.items():
            found = (
                errors.mape, errors.median, errors.elsewhere_mape, errors.elsewhere_median, errors.ttft_median,
                errors.elsewhere_ttft_median,
            )  # fmt: skip
            cells = " | ".join(f"{number:.1f}" for number in found)
            lines.append(f"| {stack} | {family} | {errors.runs} | {cells} |")
    lines += ["", "What was left out, and why:", "", "| rows | reason |", "| ---: | --- |"]
    lines += [f"| {count} | {reason} |" for reason, count in sorted(file.left_out.items(), key=lambda one: -one[1])]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
