"""Fit the rules of serving stacks to measured runs and write what ships (``make serving-rules RUNS=FILE``)."""

import argparse
import dataclasses
import sys
from pathlib import Path

from moe_codesign.calibrations.serving import FittedRules, ServingFile, write_rules
from moe_codesign.fitting.serving import TimedRuns, fit_rules, log_errors, time_runs, usable_runs
from moe_codesign.formats.serving_runs import read_runs


def fitted(timed: TimedRuns) -> FittedRules:
    rules = fit_rules(timed)
    own, elsewhere = log_errors(timed, rules), log_errors(timed)
    return FittedRules(
        rules=dataclasses.asdict(rules),
        runs=len(timed.runs),
        families=tuple(sorted(set(timed.families.tolist()))),
        mape=own.tpot_mape,
        median=own.tpot_median,
        elsewhere_mape=elsewhere.tpot_mape,
        elsewhere_median=elsewhere.tpot_median,
        ttft_median=own.ttft_median,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="table of measured runs")
    parser.add_argument("--source", default="aisimulate 0.13.0, systems/silicon_sample.csv")
    options = parser.parse_args()
    runs, left_out = read_runs(options.runs)
    usable, kept_out = usable_runs(runs)
    by_stack, not_timed = time_runs(usable)
    stacks = {stack: fitted(timed) for stack, timed in sorted(by_stack.items())}
    write_rules(ServingFile(source=options.source, left_out=dict(left_out + kept_out + not_timed), stacks=stacks))
    for stack, one in stacks.items():
        print(
            f"{stack}: {one.runs} runs of {', '.join(one.families)}: {one.mape:.1f} mean, {one.median:.1f} median; "
            f"families not seen {one.elsewhere_mape:.1f}, {one.elsewhere_median:.1f}; "
            f"to the first token {one.ttft_median:.1f} median"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
