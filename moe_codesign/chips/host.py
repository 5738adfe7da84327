"""The host as a chip: peaks from the processor's own description, bandwidth from a short probe."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil

from moe_codesign.chips.schema import HostChip, HostCore, HostMemory

# FLOPs per core and cycle, the most that any core with the instruction issues (two full-width pipes).
# Sources: Intel 64 and IA-32 Optimization Reference Manual (AMX: 1,024 bf16 multiply-adds; AVX-512 and AVX2:
# two FMA pipes); Arm Neoverse V1/V2 software optimisation guides (BFMMLA, four 128-bit pipes).
_FLOPS_PER_CYCLE = (
    ("amx_bf16", 2048.0),
    ("avx512_bf16", 128.0),
    ("bf16", 128.0),
    ("avx512f", 64.0),
    ("avx2", 32.0),
)
_FALLBACK_FLOPS_PER_CYCLE = 32.0
_TURBO_MARGIN = 1.5
"""A guest often sees only the nominal clock; server parts boost by up to half over it."""
_BANDWIDTH_MARGIN = 1.25
"""Over the best probe: the probe is one reader, not the best there can be, and the bound must stay a bound."""


def detect() -> HostChip:
    """This host: cores, clock, instruction set, last-level cache, and read bandwidth (0.3 s of probing)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    model, flags, mhz = _cpuinfo()
    isa, per_cycle = next(
        ((flag, rate) for flag, rate in _FLOPS_PER_CYCLE if flag in flags), ("baseline", _FALLBACK_FLOPS_PER_CYCLE)
    )
    clock_hz = mhz * 1e6 * _TURBO_MARGIN
    peak = cores * clock_hz * per_cycle
    return HostChip(
        name="cpu",
        product=f"{model}, {cores} cores",
        vendor="host",
        peak_flops_per_s={"bfloat16": peak},
        memory=HostMemory(
            hbm_bytes_per_s=_read_bandwidth() * _BANDWIDTH_MARGIN,
            hbm_bytes=float(psutil.virtual_memory().total),
            cache_bytes=_last_level_cache_bytes(),
        ),
        core=HostCore(count=cores, clock_hz=clock_hz),
        sources={
            "peak_flops_per_s": f"upper bound: cores x {_TURBO_MARGIN} x clock x {per_cycle:g} FLOP/cycle ({isa})",
            "memory.hbm_bytes_per_s": f"probed on this host: best streaming read x {_BANDWIDTH_MARGIN}",
            "memory": "read from the operating system",
            "core": "read from the operating system",
            "link": "a host is one machine, and its links to others are not probed",
        },
    )


def _cpuinfo() -> tuple[str, set[str], float]:
    model, flags, mhz = "host CPU", set[str](), 0.0
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = (part.strip() for part in line.partition(":"))
            if key == "model name":
                model = value
            elif key in ("flags", "Features"):
                flags |= set(value.split())
            elif key == "cpu MHz":
                mhz = max(mhz, float(value))
    except OSError:
        pass
    if not mhz:
        reported = psutil.cpu_freq()
        mhz = reported.max or reported.current if reported else 4000.0
    return model, flags, mhz


def _last_level_cache_bytes() -> float:
    """Bytes of the largest cache of the first core; 0 where the operating system does not say."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text(encoding="utf-8").strip()
        sizes.append(float(text.rstrip("KM")) * {"K": 2**10, "M": 2**20}.get(text[-1:], 1))
    return max(sizes, default=0.0)


def _read_bandwidth() -> float:
    """Bytes/s of summing arrays far larger than the cache, one thread per core, best of five."""
    workers = min(os.cpu_count() or 1, 16)
    arrays = [np.ones(16 << 20, dtype=np.float32) for _ in range(workers)]
    best = 0.0
    with ThreadPoolExecutor(workers) as pool:
        for _ in range(5):
            start = time.perf_counter()
            list(pool.map(lambda a: float(a.max()), arrays))
            best = max(best, sum(a.nbytes for a in arrays) / (time.perf_counter() - start))
    return best
