"""How long `moe-codesign predict` takes for a long table of a stack's layers, and how much memory.

python benchmarks/speed/long_table.py                     a million rows: about a minute on two cores
python benchmarks/speed/long_table.py --rows 100000

Shapes, types, splits and batches are mixed at random; nearly every row is a problem of its own. One row in a thousand
is malformed. Seconds are printed beside the processors' own time, which other work on the machine does not change, and
the most memory that any of the processes held.
"""

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COLUMNS = "chip,stack,dtype,hidden_size,moe_intermediate_size,num_experts,num_experts_per_tok,num_tokens,tp,ep,routing"


def write_table(path: Path, rows: int) -> None:
    """Problems of vLLM on an H100, one malformed in a thousand."""
    rng = random.Random(0)  # noqa: S311
    with path.open("w", encoding="utf-8") as file:
        file.write(COLUMNS + "\n")
        for number in range(rows):
            tokens = rng.randint(1, 65536) if number % 1000 else "many"
            cells = (
                *("h100_sxm", "vllm", rng.choice(("bfloat16", "fp8_block"))),
                *(rng.choice((2048, 4096, 5120, 7168)), rng.choice((1024, 1536, 2048, 4096))),
                *(rng.choice((64, 128, 160, 256)), rng.choice((2, 4, 6, 8)), tokens),
                *(rng.choice((1, 2, 4, 8)), rng.choice((1, 2, 4, 8)), "uniform"),
            )
            file.write(",".join(map(str, cells)) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        problems, out = Path(folder) / "problems.csv", Path(folder) / "times.csv"
        write_table(problems, options.rows)
        command = [str(Path(sys.executable).with_name("moe-codesign")), "predict", str(problems), "--out", str(out)]
        start = time.perf_counter()
        subprocess.run([*command, "--jobs", str(options.jobs)], check=True, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processors = used.ru_utime + used.ru_stime
    print(
        f"{options.rows:,} rows in {seconds:.1f} s with {options.jobs} jobs; processors {processors:.1f} s, "
        f"{1e6 * processors / options.rows:.0f} us a row; most memory of a process {used.ru_maxrss / 1e3:.0f} MB"
    )


if __name__ == "__main__":
    main()
