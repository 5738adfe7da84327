"""How near samplers come to the exact frontier of a large space. Writes results/search/samplers.{csv,md}.

Every shape of the space is timed first. The samplers then propose as in a search, and take the times from that table,
which are those that a search computes; so one search of the most trials answers for the fewer ones, too.

    python benchmarks/search/samplers.py [--samplers tpe,nsga2,random,gp] [--trials 100,300,1000] [--seeds 5]
"""

import argparse
import csv
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
from optuna._hypervolume import compute_hypervolume

from moe_codesign.arrays import F64
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.domain.frontier import non_dominated
from moe_codesign.models import find_model
from moe_codesign.study.evaluate import Evaluator
from moe_codesign.study.exact import TimedPoints, time_all
from moe_codesign.study.open_points import OpenPoints
from moe_codesign.study.points import number_of, point_count
from moe_codesign.study.polish import Known, climb
from moe_codesign.study.samplers import Proposals, suggest_shape
from moe_codesign.study.space import Space, load_space

FIELDS = ("chip", "sampler", "polish", "seed", "trials", "shapes_timed", "share", "sampler_s")


def share_of(values: F64, exact: F64, maximise: list[bool]) -> float:
    """Hypervolume of a set over that of the exact frontier, both in logarithms scaled to the frontier's own range."""
    sign = np.where(maximise, -1.0, 1.0)
    logs, of_exact = np.log(values) * sign, np.log(exact) * sign
    low, high = of_exact.min(axis=0), of_exact.max(axis=0)
    # A little beyond the worst of the frontier, so that its ends count.
    corner = np.full(values.shape[1], 1.1)
    inside = ((logs - low) / (high - low))[((logs - low) / (high - low) <= corner).all(axis=1)]
    whole = compute_hypervolume((of_exact - low) / (high - low), corner)
    return float(compute_hypervolume(inside, corner) / whole) if len(inside) else 0.0


def sampled(space: Space, chip: str, table: dict[int, list[float]], trials: int, clock: list[float]) -> Iterator[int]:
    """The points that a search of a chip tries, one after another, as Optuna learns their values."""
    reference = find_model(space.reference)
    evaluator = Evaluator(space, next(one for one in space.chips if one.name == chip), reference, Tables(), None)
    open_points = OpenPoints(space, reference, lambda some: evaluator.judged(some).failures)
    proposals = Proposals(space, reference, chip, "nested", open_points, None)
    study = optuna.create_study(directions=["maximize" if up else "minimize" for up in space.maximised()])
    for number in range(trials):
        begun = time.process_time()
        study.sampler = proposals.sampler(number)
        trial = study.ask()
        suggest_shape(trial, space, reference)
        point = number_of(space, trial.params)
        assert point is not None
        values = table.get(point)
        trial.set_constraint("violation", 0.0 if values is not None else 1.0)
        study.tell(trial, values or [-np.inf if up else np.inf for up in space.maximised()])
        proposals.use(trial.params)
        clock.append(time.process_time() - begun)
        yield point


def rows_of(
    space: Space, chip: str, sampler: str, seed: int, table: dict[int, list[float]], exact: F64, checkpoints: list[int]
) -> Iterator[dict[str, object]]:
    """The share after each number of trials, without a polish and with it."""
    changed = load_space(space.model_copy(update={"sampler": sampler}), seed=seed)
    clock: list[float] = []
    tried: list[int] = []
    for point in sampled(changed, chip, table, max(checkpoints), clock):
        tried.append(point)
        if len(tried) not in checkpoints:
            continue
        answered = [one for one in tried if one in table]
        known = Known(answered, [table[one] for one in answered], set(tried))
        row = {"chip": chip, "sampler": sampler, "seed": seed, "trials": len(tried), "sampler_s": round(sum(clock), 2)}
        share = share_of(np.array(known.values), exact, space.maximised())
        yield {**row, "polish": False, "shapes_timed": len(tried), "share": round(share, 5)}
        more = sum(climb(space, known, lambda numbers: look_up(table, numbers)))
        share = share_of(np.array(known.values), exact, space.maximised())
        yield {**row, "polish": True, "shapes_timed": len(tried) + more, "share": round(share, 5)}


def look_up(table: dict[int, list[float]], numbers: list[int]) -> TimedPoints:
    """What timing these points gives."""
    known = [number for number in numbers if number in table]
    return TimedPoints(known, np.array([table[one] for one in known]), Counter())


def table_text(rows: list[dict[str, object]], facts: list[str]) -> str:
    """The page: median and worst seed for each chip, sampler and number of trials."""
    lines = [
        "# How near samplers come to the exact frontier",
        "",
        "Hypervolume share of the exact frontier, in logarithms of the objectives: median (worst) of the seeds.",
        "Written by `make study-search`; the space is benchmarks/search/large.toml. With polish is what a search",
        "gives, at the default limit of `budget.polish`; shapes is the median number of shapes that were judged.",
        "",
        *facts,
        "",
        "| chip | sampler | trials | seeds | without polish | with polish | shapes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    keys = list(dict.fromkeys((row["chip"], row["sampler"], row["trials"]) for row in rows))
    for key in keys:
        own = [row for row in rows if (row["chip"], row["sampler"], row["trials"]) == key]
        cells = []
        for polished in (False, True):
            shares = [float(str(row["share"])) for row in own if row["polish"] is polished]
            cells.append(f"{statistics.median(shares):.2%} ({min(shares):.2%})")
        judged = statistics.median(int(str(row["shapes_timed"])) for row in own if row["polish"])
        lines.append(f"| {key[0]} | {key[1]} | {key[2]} | {len(own) // 2} | {cells[0]} | {cells[1]} | {judged:,.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default=Path(__file__).with_name("large.toml"), type=Path)
    parser.add_argument("--samplers", default="tpe,nsga2,random,gp")
    parser.add_argument("--trials", default="100,300,1000")
    parser.add_argument("--gp-trials", default=100, type=int, help="more take minutes for each seed")
    parser.add_argument("--seeds", default=5, type=int)
    parser.add_argument("--jobs", default=2, type=int)
    parser.add_argument("--out", default=Path("results/search"), type=Path)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    options.out.mkdir(parents=True, exist_ok=True)
    space, rows, facts = load_space(options.space), [], []
    tables: dict[str, tuple[dict[int, list[float]], F64]] = {}
    for chip in space.chips:
        evaluator = Evaluator(space, chip, find_model(space.reference), Tables(jobs=options.jobs), None)
        every = time_all(evaluator)
        exact = every.values[non_dominated(every.values, space.maximised())]
        tables[chip.name] = dict(zip(every.numbers, every.values.tolist(), strict=True)), exact
        facts.append(
            f"- {chip.name}: {point_count(space):,} shapes, {len(every.numbers):,} meet the constraints, "
            f"{len(exact):,} are on the frontier"
        )
        print(facts[-1], flush=True)
    for sampler in options.samplers.split(","):
        most = options.gp_trials if sampler == "gp" else 10**9
        checkpoints = [count for count in map(int, options.trials.split(",")) if count <= most]
        for seed in range(options.seeds):
            for chip_name, (table, exact) in tables.items():
                for row in rows_of(space, chip_name, sampler, seed, table, exact, checkpoints):
                    rows.append(row)
                    print(*(row[field] for field in FIELDS), flush=True)
                with (options.out / "samplers.csv").open("w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(rows)
                (options.out / "samplers.md").write_text(table_text(rows, facts), encoding="utf-8")


if __name__ == "__main__":
    main()
