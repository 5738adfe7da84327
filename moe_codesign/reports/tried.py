"""What was tried on a chip, in words."""

from collections import Counter

from moe_codesign.study.runner import SearchResult


def tried_text(result: SearchResult, chip: str) -> str:
    """How many shapes or trials there were on a chip, and what became of them."""
    if (counts := result.enumerations.get(chip)) is not None:
        done = f"all {counts.points:,} shapes of the space, {counts.feasible:,} feasible; the frontier is exact"
        refused = Counter(counts.refused)
    else:
        trials = [t for t in result.asked_for if t.chip == chip]
        done = f"{len(trials)} trials, {sum(not t.failure for t in trials)} feasible"
        done += f"; {polished}" if (polished := result.polishes.get(chip)) is not None else ""
        refused = Counter(t.failure.kind for t in trials if t.failure)
    why = ", ".join(f"{n:,} {reason}" for reason, n in refused.most_common()) or "none"
    return f"{done}; ruled out: {why}"
