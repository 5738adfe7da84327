"""Tables for a terminal. Everything with a time shows its grade."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from moe_codesign.auditing import LOSSES, AuditRow
from moe_codesign.chips import load_chip
from moe_codesign.compiler.artifact import ProgramFacts
from moe_codesign.compiler.function import CompiledFunction
from moe_codesign.cost.tpu import Step, step_of
from moe_codesign.reports.rows import ReportRow, report_rows
from moe_codesign.study.runner import SearchResult
from moe_codesign.timing import Timing


def time_text(us: float) -> str:
    """``12.3 us``, ``4.56 ms``: three digits."""
    if us >= 1e6:
        return f"{us / 1e6:.3g} s"
    return f"{us / 1e3:.3g} ms" if us >= 1e3 else f"{us:.3g} us"


def interval_text(timing: Timing) -> str:
    """``low .. high``."""
    return f"{time_text(timing.low_us)} .. {time_text(timing.high_us)}"


def pair_cells(row: ReportRow) -> list[str]:
    """Shape to gain of one pair, as the terminal and the HTML report print them."""
    pair = row.pair
    split = f" ep{pair.workload.ep}" if pair.workload.ep > 1 else ""
    return [
        pair.shape.label(),
        f"{pair.workload.name} {pair.workload.num_tokens}{split}",
        f"{pair.mode} {pair.trial}",
        " | ".join(pair.tile_labels) or "-",
        time_text(pair.timing.latency_us),
        interval_text(pair.timing),
        pair.timing.grade,
        f"{row.share_of_peak:.0%}",
        pair.timing.limiter,
        f"{pair.quality_ratio - 1:+.1%}" + ("*" if pair.outside else ""),
        "-" if row.gain is None else f"{row.gain:.2f}x",
    ]


def print_search(console: Console, result: SearchResult, *, per_chip: int = 4) -> None:
    """The best pairs of each chip, then what was tried."""
    rows = [row for row in report_rows(result) if row.on_frontier]
    table = Table(title=f"{result.study}: pairs on each chip's frontier", title_justify="left", show_lines=False)
    for column in ("chip", "shape", "workload", "found by", "tiles: GEMM 1 | GEMM 2"):
        table.add_column(column, overflow="fold")
    for column in ("time", "interval", "grade", "of peak", "limiter", "quality", "gain"):
        table.add_column(column, justify="right", no_wrap=True)
    for chip in (load_chip(name).name for name in result.space.chips):
        of_chip = [row for row in rows if row.pair.chip == chip]
        trials = list(dict.fromkeys((row.pair.mode, row.pair.trial) for row in of_chip))
        for row in of_chip:
            pair = row.pair
            if (pair.mode, pair.trial) not in trials[:per_chip]:
                continue
            table.add_row(chip, *pair_cells(row))
        table.add_section()
    console.print(table)
    console.print(
        f"quality: dense-equivalent compute over {result.space.reference}'s (* the law is extrapolated); "
        f"gain: {result.space.reference} with its default tile over this pair. Times are one layer's."
    )
    for chip in (load_chip(name).name for name in result.space.chips):
        trials_of = [t for t in result.trials if t.chip == chip]
        refused = Counter(t.reason.split(":")[0] for t in trials_of if t.reason)
        why = ", ".join(f"{n} {reason}" for reason, n in refused.most_common()) or "none"
        console.print(
            f"{chip}: {len(trials_of)} trials, {sum(t.feasible for t in trials_of)} feasible; ruled out: {why}"
        )


def print_audit(console: Console, title: str, rows: Sequence[AuditRow]) -> None:
    """Losses per chip and token count, as shares of the time."""
    names = [n for n in LOSSES if any(row.estimate and row.estimate.losses_us.get(n) for row in rows)]
    table = Table(title=title, title_justify="left")
    for column in ("chip", "tokens", "time", "interval", "grade", "bound", "of bound"):
        table.add_column(column, justify="left" if column == "chip" else "right", no_wrap=True)
    for name in names:
        table.add_column(f"lost: {name}", justify="right")
    table.add_column("tiles: GEMM 1 | GEMM 2", overflow="fold")
    for row in rows:
        if row.estimate is None:
            table.add_row(row.chip, str(row.num_tokens), row.error)
            continue
        timing, losses = row.estimate.timing, row.estimate.losses_us
        table.add_row(
            row.chip,
            str(row.num_tokens),
            time_text(timing.latency_us),
            interval_text(timing),
            timing.grade,
            time_text(timing.bound_us),
            f"{timing.share_of_bound:.0%}",
            *(f"{losses[n] / timing.latency_us:.0%}" if n in losses else "-" for n in names),
            " | ".join(t.label() for t in row.estimate.tiles) or "-",
        )
    console.print(table)


def print_compiled(console: Console, chip: str, compiled: Sequence[Any]) -> None:
    """Facts of each op's binary."""
    for one in compiled:
        artifact = one.artifact
        tile = ", ".join(f"{k}={v}" for k, v in artifact.tile.items())
        console.print(f"{artifact.kernel} {artifact.op} on {chip} ({artifact.target}, {artifact.compiler})")
        console.print(f"  tile              {tile}", highlight=False)
        if one.refused:
            console.print(f"  {artifact.status if artifact.status != 'ok' else 'refused'}: {one.refused}")
        if (gpu := artifact.gpu) is not None:
            console.print(f"  registers         {gpu.registers} a thread, {gpu.spill_bytes} bytes spilled")
            console.print(f"  shared memory     {gpu.shared_bytes} bytes a block")
            console.print(f"  code              {gpu.code_bytes} bytes")
            per_matrix = gpu.loop_instructions / max(gpu.loop_matrix, 1)
            console.print(
                f"  main loop         {gpu.loop_instructions} instructions a warp, {gpu.loop_matrix} of them matrix "
                f"({per_matrix:.1f} issued per matrix instruction)"
            )
            _print_opcodes(console, gpu.instructions, _GPU_GROUPS)
        if (tpu := artifact.tpu) is not None:
            _print_step(console, step_of(artifact, load_chip(chip)))
            _print_program(console, tpu.program)


def print_function(console: Console, function: str, chip: str, found: CompiledFunction) -> None:
    """Every kernel of a compiled function, longest first."""
    console.print(f"{function} on {chip}", highlight=False)
    for text in (found.refused, found.note):
        if text:
            console.print(f"  {text}", highlight=False)
    for kernel in found.kernels:
        cycles = "not counted" if kernel.cycles is None else f"{kernel.cycles}"
        console.print(f"{kernel.name}\n  static cycles     {cycles}", highlight=False)
        _print_program(console, kernel.program)


def _print_step(console: Console, step: Step) -> None:
    console.print(f"  a step            {step.describe()}", highlight=False)
    for name, cycles in sorted(step.cycles.items(), key=lambda item: -item[1]):
        console.print(f"    {name:<18}{cycles:8.0f} cycles  {'#' * round(40 * cycles / step.longest)}", highlight=False)
    console.print(f"  what fills it     {step.limiter}; {step.advice}", highlight=False, soft_wrap=True)


def _print_program(console: Console, program: ProgramFacts) -> None:
    console.print(
        f"  program           {program.bundles} bundles, {program.spills} spills, {program.dma_bytes} bytes of copies "
        f"of known size, {program.dynamic_dmas} copies of other sizes",
        highlight=False,
    )
    for unit, count in sorted(program.slots.items(), key=lambda item: -item[1]):
        console.print(
            f"    {unit:<18}{count:8} in {program.bundles} bundles, at most {program.widest[unit]} in one",
            highlight=False,
        )
    for region in program.regions:
        if region.bundles >= program.bundles / 20:
            where = "once" if region.loops == 0 else f"in {region.loops} loops" if region.loops > 1 else "in the loop"
            slots = ", ".join(f"{n} {unit}" for unit, n in sorted(region.slots.items(), key=lambda item: -item[1])[:4])
            console.print(
                f"    from {region.start:<6} {region.bundles:6} bundles {where}"
                f"{', on a condition' if region.conditional else ''}: {slots}",
                highlight=False,
                soft_wrap=True,
            )


_GPU_GROUPS = {
    "matrix, wgmma": ("GMMA",),
    "matrix, tcgen05": ("UTCHMMA", "UTCQMMA", "UTCOMMA", "UTCIMMA"),
    "matrix, mma": ("HMMA.", "QMMA.", "IMMA."),
    "matrix, MFMA": ("mfma", "smfmac"),
    "async copies": ("LDGSTS", "UTMALDG", "UBLKCP", "_lds_"),
    "global loads": ("LDG.", "global_load", "buffer_load"),
    "shared memory": ("LDS.", "STS.", "LDSM", "STSM", "ds_"),
    "tensor memory": ("LDTM", "STTM"),
    "atomics": ("RED", "ATOM", "atomic"),
}


def _print_opcodes(console: Console, counts: dict[str, int], groups: dict[str, tuple[str, ...]]) -> None:
    console.print(f"  instructions      {sum(counts.values())}", highlight=False)
    for name, words in groups.items():
        found = [f"{n} {op}" for op, n in counts.items() if any(w in op for w in words)]
        if found:
            console.print(f"    {name:<18}{', '.join(found[:8])}", highlight=False, soft_wrap=True)


def print_bench(console: Console, title: str, rows: Sequence[Any]) -> None:
    """Measured tiles."""
    table = Table(title=title, title_justify="left")
    for column in ("tokens", "tiles: GEMM 1 | GEMM 2", "time", "5..95 %", "grade", "samples", "row error", "checks"):
        table.add_column(column, justify="right" if column != "tiles: GEMM 1 | GEMM 2" else "left")
    for row in rows:
        tiles = " | ".join(tile.label() for tile in row.tiles)
        if row.timing is None:
            table.add_row(str(row.num_tokens), tiles, row.reason)
            continue
        timing = row.timing
        table.add_row(
            str(row.num_tokens),
            tiles,
            time_text(timing.latency_us),
            interval_text(timing),
            "implausible" if timing.implausible else timing.grade,
            str(len(timing.samples_us)),
            f"{row.error:.2g}",
            str(row.checks),
        )
    console.print(table)
    done = next((row for row in rows if row.timing is not None), None)
    if done is not None:
        console.print(f"{done.device}, {done.software}")


def print_rows(console: Console, title: str, rows: Sequence[dict[str, Any]]) -> None:
    """A plain table of dictionaries with the same keys."""
    table = Table(title=title, title_justify="left")
    for column in rows[0] if rows else ():
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("-" if v is None else str(v) for v in row.values()))
    console.print(table)
