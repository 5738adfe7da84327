"""Fit the rules of serving stacks to measured runs and write what ships (``make serving-rules RUNS=FILE``)."""

import argparse
import dataclasses
import sys
from pathlib import Path

from moe_codesign.calibrations.serving import FittedRules, ServingFile, write_rules
from moe_codesign.fitting.serving import TimedRuns, errors_by_family, fit_rules, time_runs, usable_runs
from moe_codesign.formats.serving_runs import read_runs


def fitted(timed: TimedRuns) -> FittedRules:
    rules = fit_rules(timed)
    return FittedRules(rules=dataclasses.asdict(rules), families=errors_by_family(timed, rules))


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
        for family, errors in one.families.items():
            print(
                f"{stack} {family}, {errors.runs} runs: {errors.mape:.1f} mean, {errors.median:.1f} median; not seen "
                f"{errors.elsewhere_mape:.1f}, {errors.elsewhere_median:.1f}; first token {errors.ttft_median:.1f}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
