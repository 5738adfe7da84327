"""Measured runs of whole models under serving stacks, as NVIDIA's packages list them (InferenceX's and others).

One row a run: model, chip, stack, split, prompt and answer lengths, requests under way, time to the first token and
time for each further one.
"""

import csv
import dataclasses
import gzip
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_codesign.domain.deployment import ModelSplit
from moe_codesign.errors import UserError

_CHIPS = {"b200_sxm": "b200", "b300_sxm": "b300"}
"""The packages' names of chips where they are not ours."""
_PRECISION = {"fp4": "nvfp4", "fp8": "fp8", "bf16": "bfloat16", "": "bfloat16"}
_FORM = re.compile(r"-(fp8|nvfp4)$", re.IGNORECASE)
"""What a checkpoint's name adds to its model's: the form of its weights, which ``precision`` says."""
_LEAST = 0.8
"""Share of the time a token of a run with fewer requests, below which a run of more is taken for broken: repeats of a
run differ by less."""
HELD_OUT = ("minimax", "kimi", "glm")
"""Families whose runs are in no fit: what a name begins with, in small letters. They are kept for acceptance."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A measured run.

    Args:
        model: as the database names it. chip, stack, version: where and under what.
        precision: ``bfloat16``, ``fp8`` or ``nvfp4``, as the database says it of the whole model.
        isl, osl: nominal tokens of a prompt and of an answer.
        requests: under way.
        split: of the model.
        tpot_ms, ttft_ms: mean time for a token after the first, and to the first.
    """

    model: str
    chip: str
    stack: str
    version: str
    precision: str
    isl: int
    osl: int
    requests: int
    split: ModelSplit
    tpot_ms: float
    ttft_ms: float

    @property
    def is_held_out(self) -> bool:
        """Whether its family is in no fit."""
        return self.model.rsplit("/", 1)[-1].lower().startswith(HELD_OUT)


def read_runs(path: Path) -> tuple[list[Run], Counter[str]]:
    """Runs with prefill and decode on the same chips, and how many rows are left out, by reason.

    A run is listed again under other names of its family (DeepSeek-V3 and R1 are one shape): the name is kept that
    comes last in the alphabet.

    Raises:
        UserError: the file cannot be read, or lacks a column.
    """
    left_out: Counter[str] = Counter()
    found: dict[Run, Run] = {}
    for row in _rows(path):
        if row["mode"] != "agg":
            left_out["prefill and decode on chips of their own"] += 1
            continue
        try:
            run = _run(row)
        except ValueError as error:
            left_out[str(error)] += 1
            continue
        key = dataclasses.replace(run, model=family_of(run.model), version="")
        if (before := found.get(key)) is not None:
            left_out["listed twice"] += 1
            run = max(run, before, key=lambda one: one.model)
        found[key] = run
    kept = _without_broken(list(found.values()))
    if broken := len(found) - len(kept):
        left_out["faster than the same deployment with fewer requests"] = broken
    return kept, left_out


def _without_broken(runs: list[Run]) -> list[Run]:
    """The runs but for those that take far less time a token than the same deployment with fewer requests.

    There most requests were not served at once: they waited in a queue, or failed.
    """
    alike: defaultdict[Run, list[Run]] = defaultdict(list)
    for run in runs:
        alike[dataclasses.replace(run, requests=1, tpot_ms=1.0, ttft_ms=1.0, version="")].append(run)
    return [
        run
        for same in alike.values()
        for run in same
        if all(run.tpot_ms >= _LEAST * other.tpot_ms for other in same if other.requests < run.requests)
    ]


def family_of(model: str) -> str:
    """A family by the first word of a model's name: DeepSeek-R1 and V3 are one, Qwen3 and Qwen3.5 are two."""
    return model.rsplit("/", 1)[-1].lower().split("-")[0]


def _rows(path: Path) -> Iterable[Mapping[str, str]]:
    try:
        raw = path.read_bytes()
        text = gzip.decompress(raw) if path.suffix == ".gz" else raw
        reader = csv.DictReader(io.StringIO(text.decode()))
        rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: {error}", fix="give a table of measured runs") from None
    needed = ("mode", "model_path", "system", "backend", "silicon_tpot_ms", "silicon_ttft_ms", "isl", "osl")
    if missing := [name for name in needed if name not in (reader.fieldnames or ())]:
        raise UserError(f"{path} lacks a column", value=missing[0], fix="give a table of measured runs")
    return rows


def _run(row: Mapping[str, str]) -> Run:
    """Raise ValueError, with the reason, for a row that is no usable run."""
    split = _split(row)
    if not (row["silicon_tpot_ms"] and row["silicon_ttft_ms"]):
        raise ValueError("no time")
    requests = row.get("concurrency") or _number(row, "batch_size") * split.dp
    system = row["system"]
    return Run(
        model=_FORM.sub("", row["model_path"]),
        chip=_CHIPS.get(system, system),
        stack=row["backend"],
        version=row["backend_version"],
        precision=_PRECISION[row["precision"]],
        isl=int(row["isl"]),
        osl=int(row["osl"]),
        requests=round(float(requests)),
        split=split,
        tpot_ms=float(row["silicon_tpot_ms"]),
        ttft_ms=float(row["silicon_ttft_ms"]),
    )


def _number(row: Mapping[str, str], name: str) -> int:
    return int(float(row[name] or 1)) or 1


def _split(row: Mapping[str, str]) -> ModelSplit:
    """The split, put right where the row multiplies a size with itself.

    Runs of tp 8 with 8 expert ranks are listed as tp 64 with experts on 8 x 8: each of the chips was counted once for
    tp and once for ep. So are those with copies of attention in place of tp.
    """
    tp, dp = _number(row, "tp_size"), _number(row, "attention_dp_size")
    moe_tp, ep = _number(row, "moe_tp_size"), _number(row, "moe_ep_size")
    if moe_tp == ep > 1 and tp * dp == moe_tp * ep and 1 in (tp, dp) and max(tp, dp) == ep * ep:
        tp, dp, moe_tp = (ep, 1, 1) if dp == 1 else (1, ep, 1)
    pp = _number(row, "pp_size")
    if tp * dp != moe_tp * ep:
        raise ValueError("attention and experts on unlike numbers of chips")
    if tp * dp * pp & (tp * dp * pp - 1) or tp * dp > 8:
        raise ValueError("a number of chips that no server has")
    return ModelSplit(tp=tp, dp=dp, moe_tp=moe_tp, ep=ep, pp=pp)
