"""Candidates that do not do the work of a small layer of experts, for `regress --against`; as texts of their module.

Without a GPU a side stream is a thread that finishes after the call has returned.
"""

CASE = """
import numpy as np
from work import TOLERANCE, layer, reference

def {head}:
    rng = np.random.default_rng({seed})
    x = rng.standard_normal((48, 64)).astype(np.float32)
    w = rng.standard_normal((8, 64, 64)).astype(np.float32) / 8
    routings = np.arange(48) % 8, np.full(48, 5), 2 * (np.arange(48) % 4), 2 * (np.arange(48) % 4) + 1
    expert = routings[rng.integers(4)]
    expected = lambda: reference(*(a.astype(np.float64) for a in (x, w)), expert)
    return (lambda: layer(x, w, expert)), {expected}, TOLERANCE
"""
"""The four routings come by lot: uniform, one expert, and the even and odd ones alone."""

HONEST = """
import sys, threading, time
import numpy as np

TOLERANCE = 1e-4
kept = {}

def reference(x, w, expert):
    return np.stack([row @ w[e] for row, e in zip(x, expert)])

def work(x, w, expert):
    out = np.zeros((len(x), w.shape[2]), x.dtype)
    for e in range(len(w)):
        rows = expert == e
        out[rows] = x[rows] @ w[e]
    return out

def layer(x, w, expert):
    return work(x, w, expert)
"""

WRONG = {
    "zeros": "return np.zeros_like(x)",
    "stale output": """
        found = kept.get("out", work(x, w, expert))
        kept["out"] = work(x, w, expert)
        return found""",
    "input mutation": """
        x[:] = 0
        return np.zeros_like(x)""",
    "cached result": """
        if "out" not in kept:
            kept["out"] = work(x, w, expert)
        return kept["out"]""",
    "cached result by routing": """
        key = expert.tobytes()
        if key not in kept:
            kept[key] = work(x, w, expert)
        return kept[key]""",
    "side stream": """
        out = np.full_like(x, np.nan)
        def later():
            time.sleep(0.005)
            out[:] = work(x, w, expert)
        threading.Thread(target=later).start()
        return out""",
    "skips the last tile": """
        out = work(x, w, expert)
        out[:, -16:] = 0
        return out""",
    "skips the last row": """
        out = work(x, w, expert)
        out[-1] = 0
        return out""",
    "drops an expert": "return np.where(expert[:, None] == 5, 0, work(x, w, expert))",
    "right for uniform routing only": "return work(x, w, np.arange(len(x)) % len(w))",
    "low-precision accumulation": """
        out = np.zeros_like(x, dtype=np.float16)
        for k in range(0, 64, 8):
            out += work(x[:, k:k + 8], w[:, k:k + 8], expert).astype(np.float16)
        return out""",
    "right on its first run only": """
        kept["runs"] = kept.get("runs", 0) + 1
        return work(x, w, expert) if kept["runs"] == 1 else np.zeros_like(x)""",
    "right until it is timed": """
        kept["runs"] = kept.get("runs", 0) + 1
        return work(x, w, expert) if kept["runs"] <= 4 else np.zeros_like(x)""",
    "NaN": "return work(x, w, expert) * np.float32('nan')",
    "another shape": "return work(x, w, expert)[:1]",
    "no result": "work(x, w, expert)",
    "a denormal number": """
        out = work(x, w, expert)
        out[3, np.argmin(np.abs(out[3]))] = 1e-41
        return out""",
}
"""A result that is not right, or not there."""

UNCHANGED = {
    "a tolerance of its own": ("TOLERANCE = 1e-4", "TOLERANCE = 1e9", "return np.zeros_like(x)"),
    "a reference of its own": (
        "return np.stack([row @ w[e] for row, e in zip(x, expert)])",
        "return np.zeros((len(x), w.shape[2]))",
        "return np.zeros_like(x)",
    ),
}
"""What the candidate would be judged by: (text, what it becomes, what the layer does)."""

SLOW = {
    "patched timer": """
        time.sleep(0.002)
        time.perf_counter = time.perf_counter_ns = time.monotonic = time.time = lambda: 0
        return work(x, w, expert)""",
    "patched clock of the harness": """
        from moe_codesign.measure import verification
        time.sleep(0.002)
        verification.clock = lambda: 0.0
        return work(x, w, expert)""",
    "lazy tensor": """
        class Lazy:
            def __array__(self, dtype=None, copy=None):
                time.sleep(0.002)
                return work(x, w, expert).astype(dtype)
        return Lazy()""",
    "lazy numbers": """
        out = work(x, w, expert)
        top = float(out.max())
        class Number:
            def __init__(self, value): self.value = value
            def __float__(self):
                if self.value == top:
                    time.sleep(0.002)
                return float(self.value)
        return np.frompyfunc(Number, 1, 1)(out)""",
    "lazy array": """
        class Lazy(np.ndarray):
            def __array__(self, dtype=None, copy=None):
                time.sleep(0.002)
                return work(x, w, expert).astype(dtype)
        return np.zeros_like(x).view(Lazy)""",
    "returns the reference": """
        frame = sys._getframe()
        while frame is not None:
            for one in frame.f_locals.values():
                if type(one) is np.ndarray and one.dtype == np.float64 and one.shape == x.shape:
                    return one
            frame = frame.f_back
        time.sleep(0.002)
        return work(x, w, expert)""",
    "remembers by identity": """
        key = id(x), id(w)
        if key not in kept:
            time.sleep(0.002)
            kept[key] = x, w, work(x, w, expert)
        return kept[key][-1]""",
}
"""Works at least two milliseconds, and would hide it."""


def candidate(body: str) -> str:
    """The module whose layer has this body."""
    lines = [line.removeprefix("    ") for line in body.strip("\n").split("\n")]
    lines[0] = f"    {lines[0].strip()}"
    return HONEST.replace("    return work(x, w, expert)\n", "\n".join(lines) + "\n")


def case(*, seeded: bool = True, eager: bool = False) -> str:
    """The case file: with or without a seed, the reference as a function or as an array."""
    head, seed = ("case(seed)", "seed") if seeded else ("case()", "0")
    return CASE.format(head=head, seed=seed, expected="expected()" if eager else "expected")
