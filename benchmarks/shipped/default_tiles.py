"""Choose the default tiles of the Triton kernels and write kernels/moe_kernels/triton/default_tiles.json.

    python benchmarks/shipped/default_tiles.py [--jobs N] [--chips h100_sxm,b200]

Takes most of an hour on two cores for each chip whose tiles are not compiled yet.
"""

import argparse
from pathlib import Path

from moe_codesign.fitting.default_tiles import CHIPS, write_rule

OUT = Path(__file__).parents[2] / "kernels" / "moe_kernels" / "triton" / "default_tiles.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--chips", default=",".join(CHIPS), help="whose families to write; the others stay")
    options = parser.parse_args()
    write_rule(OUT, options.chips.split(","), jobs=options.jobs, said=print)


if __name__ == "__main__":
    main()
