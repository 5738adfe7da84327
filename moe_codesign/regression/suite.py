"""Suite files: which kernels are under test, at which tiles, for which chips, by which rules."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from moe_codesign.domain.routing import DEFAULT_ROUTING_TEXT
from moe_codesign.errors import UserError
from moe_codesign.regression.rules import DEFAULT_RULES, FACTS, Rule
from moe_codesign.tables import Table, did_you_mean, read_table

Value = bool | int | float | str | list[int]


class ProblemTable(Table):
    """A layer whose two GEMMs the cost model times with each tile."""

    model: str
    num_tokens: PositiveInt
    routing: str = DEFAULT_ROUTING_TEXT
    tp: PositiveInt = 1
    ep: PositiveInt = 1

    def label(self) -> str:
        split = "".join(f" {name}{n}" for name, n in (("tp", self.tp), ("ep", self.ep)) if n > 1)
        return f"{self.model} {self.num_tokens} tokens{split}"


class RuleChange(Table):
    """What of a fact's rule is another here; see :class:`moe_codesign.regression.rules.Rule`."""

    worse: Literal["more", "less", "change"] | None = None
    percent: Annotated[float, Field(ge=0)] | None = None
    by: Annotated[float, Field(ge=0)] | None = None


Rules = dict[str, RuleChange | Literal[False]]


def _check_rules(rules: Rules) -> None:
    for fact in rules:
        if fact not in FACTS:
            raise ValueError(f"rules has {fact!r}, which is no fact{did_you_mean(fact, FACTS)}")


class KernelTable(Table):
    """One kernel under test: ours by name, or any function with what it is called with.

    Args:
        kernel: of ``moe-codesign list kernels``.
        function: ``file.py:name`` (relative to the suite) or ``module:name``; Triton or JAX.
        name: in the baseline; default the kernel's, or the function's.
        chips: to compile for.
        ops, dtypes: of a kernel of ours.
        tiles: fields that vary; a function's are constants or compile options by their names. Of ours, those not given
            are the default tile's; none: its default tiles for ``rows`` rows an expert.
        rows: see tiles.
        problems: layers to model the time of, for a kernel of ours.
        signature: argument to type of a Triton kernel, as ``*bf16:16``.
        constants: values of further arguments.
        arguments: of a JAX function, types and shapes.
        rules: that differ from the suite's; false: none.
    """

    kernel: str | None = None
    function: str | None = None
    name: str | None = None
    chips: Annotated[list[str], Field(min_length=1)]
    ops: list[Literal["gate_up", "up", "down"]] = ["gate_up", "down"]
    dtypes: list[str] = ["bfloat16"]
    tiles: list[dict[str, Value]] = []
    rows: list[PositiveInt] = []
    problems: list[ProblemTable] = []
    signature: dict[str, str] = {}
    constants: dict[str, Value] = {}
    arguments: str = ""
    rules: Rules = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kernel is None) == (self.function is None):
            raise ValueError("give either kernel (one of ours) or function (any)")
        _check_rules(self.rules)
        if self.kernel is not None and (self.signature or self.constants or self.arguments):
            raise ValueError("signature, constants and arguments describe a function; a kernel of ours has its own")
        if self.function is not None and self.problems:
            raise ValueError("problems are modelled for kernels of ours alone; leave them out")
        if self.function is not None and bool(self.signature) == bool(self.arguments):
            raise ValueError("describe a Triton kernel by signature, a JAX function by arguments")
        return self

    @property
    def label(self) -> str:
        return self.name or self.kernel or str(self.function).rpartition(":")[2]


class TimedTable(Table):
    """A case to time here against another revision.

    Args:
        name: in the report.
        function: ``file.py:name``, relative to the suite. It returns (run, expected, tolerance): ``run()`` does the
            work once and returns the result when it is there.
        import_from: folders of the repository, relative to the suite, whose other revision is timed against.
        device: where it runs; ``cpu`` is every host.
    """

    name: str
    function: str
    import_from: Annotated[list[str], Field(min_length=1)]
    device: Literal["cpu", "cuda", "tpu"] = "cpu"

    @model_validator(mode="after")
    def _check(self) -> Self:
        file, _, name = self.function.rpartition(":")
        if not file.endswith(".py") or not name.isidentifier():
            raise ValueError(f"function = {self.function!r} of {self.name} is no file.py:name")
        return self


class Suite(Table):
    """A validated suite file."""

    kernels: list[KernelTable] = []
    timed: list[TimedTable] = []
    rules: Rules = {}
    path: Path = Path("suite.toml")

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_rules(self.rules)
        names = [kernel.label for kernel in self.kernels]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two kernels are called {twice[0]!r}; give each a name")
        return self

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def baseline(self) -> Path:
        """Where its facts are kept."""
        return self.path.with_suffix(".facts.json")

    def rules_for(self, kernel: KernelTable) -> dict[str, Rule | None]:
        """Defaults, then what the suite, then what the kernel changes of them."""
        found: dict[str, Rule | None] = dict(DEFAULT_RULES)
        for changes in (self.rules, kernel.rules):
            for fact, change in changes.items():
                if isinstance(change, RuleChange):
                    before = found.get(fact) or DEFAULT_RULES.get(fact) or Rule()
                    found[fact] = before.model_copy(update=change.model_dump(exclude_none=True))
                else:
                    found[fact] = None
        return found


def load_suite(path: str | Path) -> Suite:
    """Read a suite file.

    Raises:
        UserError: unreadable, or wrong: names the key, the value and the mend.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError("suite", value=str(path), fix="give a TOML file, as benchmarks/baselines/default.toml")
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error})") from None
    return parse_suite(data, file)


def parse_suite(data: dict[str, Any], path: Path) -> Suite:
    """Validate a suite; ``path`` is where its files are relative to. Raises UserError."""
    return read_table(Suite, {**data, "path": path}, path.name)
