"""How long 200 tiles of one TPU problem take to compile and analyse, cold and warm, and what became of each.

python benchmarks/speed/compile_speed.py --chip tpu_v6e      about 7 minutes on two cores
"""

import argparse
import itertools
import tempfile
import time
from collections import Counter
from pathlib import Path

from moe_codesign.chips import load_chip
from moe_codesign.compiler import ArtifactCache, Compiled, compile_all, requests_for
from moe_codesign.compiler.kernels import kernel_for
from moe_kernels.tile import WHOLE_DEPTH, PallasTile

TILES = [
    PallasTile(tile_m=rows, tile_k=depth, tile_n=columns)
    for rows, depth, columns in itertools.product(
        (16, 32, 48, 64, 96, 128, 192, 256, 320, 384, 448, 512, 576, 640, 768, 896, 1024, 1152, 1280, 1536),
        (512, WHOLE_DEPTH),
        (128, 256, 512, 1024, 2048),
    )
]
"""Each a program of its own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chip", default="tpu_v6e")
    chip = load_chip(parser.parse_args().chip)
    requests = requests_for(kernel_for(chip), chip, ("down",), "bfloat16", TILES)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("cold", "warm"):
            start = time.perf_counter()
            found = compile_all(requests.values(), ArtifactCache(Path(folder)), jobs=2, recompile=True)
            counts = Counter(outcome.status for outcome in found.values())
            seconds = time.perf_counter() - start
            print(f"{chip.name} {name}: {len(found)} tiles in {seconds:.1f} s: {dict(counts)}", flush=True)
    for reason, count in Counter(
        a.reason.split(";")[0][:100] for a in found.values() if not isinstance(a, Compiled)
    ).most_common():
        print(f"{count:4} {reason}")


if __name__ == "__main__":
    main()
