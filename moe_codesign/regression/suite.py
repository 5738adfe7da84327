"""Suite files: which kernels are under test, at which tiles, for which chips, by which rules."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, PositiveInt, Tag, model_validator

from moe_codesign.domain.dtype import DEFAULT_DTYPE
from moe_codesign.domain.routing import DEFAULT_ROUTING
from moe_codesign.domain.workload import DtypeText, RoutingText
from moe_codesign.errors import UserError
from moe_codesign.files import read_toml
from moe_codesign.regression.facts import Fact
from moe_codesign.regression.rules import DEFAULT_RULES, FACTS, Rule
from moe_codesign.tables import Table, did_you_mean, read_table
from moe_kernels.kernel import Op

Value = bool | int | float | str | list[int]


class ProblemTable(Table):
    """A layer whose two GEMMs the cost model times with each tile.

    Args:
        model: a catalogue name or a config.json.
        num_tokens: tokens of the batch, over all ranks together.
        routing: how tokens choose experts, as in a space file.
        tp: tensor-parallel ranks.
        ep: expert-parallel ranks.
    """

    model: str
    num_tokens: PositiveInt
    routing: RoutingText = DEFAULT_ROUTING
    tp: PositiveInt = 1
    ep: PositiveInt = 1

    @property
    def time(self) -> Fact:
        """What its modelled time is called: the model, the tokens, the split and the routing all decide it."""
        split = "".join(f" {name}{n}" for name, n in (("tp", self.tp), ("ep", self.ep)) if n > 1)
        return Fact("latency_us", f"{self.model} {self.num_tokens} tokens{split}", str(self.routing))


class RuleChange(Table):
    """What a suite or a kernel changes of a fact's rule; see :class:`moe_codesign.regression.rules.Rule`.

    Args:
        worse: which direction is worse: more, less, or any change.
        percent: by how many percent it may become worse.
        by: by how much it may become worse; the larger of the two counts.
    """

    worse: Literal["more", "less", "change"] | None = None
    percent: Annotated[float, Field(ge=0)] | None = None
    by: Annotated[float, Field(ge=0)] | None = None


Rules = dict[str, RuleChange | Literal[False]]


def _check_rules(rules: Rules) -> None:
    for fact in rules:
        if fact not in FACTS:
            raise ValueError(f"rules has {fact!r}, which is no fact{did_you_mean(fact, FACTS)}")


class _Kernel(Table):
    """What every kernel under test has."""

    name: str | None = None
    chips: Annotated[list[str], Field(min_length=1)]
    tiles: list[dict[str, Value]] = []
    rules: Rules = {}

    _of_others: ClassVar[Sequence[str]] = ()
    """Keys that other kinds of kernel have."""
    _instead: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, data: Any) -> Any:
        if isinstance(data, dict) and any(key in data for key in cls._of_others):
            raise ValueError(cls._instead)
        return data

    @model_validator(mode="after")
    def _check_the_rules(self) -> Self:
        _check_rules(self.rules)
        return self


class OurKernel(_Kernel):
    """One of this project's kernels.

    Args:
        kernel: its name, one of ``moe-codesign list kernels``.
        name: what the baseline calls it; default the kernel's name.
        chips: chips to compile for.
        ops: its GEMMs.
        dtypes: data types of the weights.
        tiles: tiles to compile; a field that is not given is the default tile's. Without tiles, the default tiles for
            ``rows`` rows per expert.
        rows: see tiles.
        problems: layers whose time is modelled with each tile.
        rules: rules that differ from the suite's; false drops one.
    """

    kernel: str
    ops: list[Op] = ["gate_up", "down"]
    dtypes: list[DtypeText] = [DEFAULT_DTYPE]
    rows: list[PositiveInt] = []
    problems: list[ProblemTable] = []

    _of_others = ("signature", "constants", "arguments")
    _instead = "signature, constants and arguments describe a function; a kernel of ours has its own"

    @model_validator(mode="after")
    def _check_problems(self) -> Self:
        labels = [problem.time.asked for problem in self.problems]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"problems has {twice[0]!r} twice, and facts have no other name for it; leave one out")
        return self

    @property
    def label(self) -> str:
        """What the table's kernels have in common in the baseline."""
        return self.name or self.kernel

    def name_of(self, op: Op, dtype: str) -> str:
        """The name of one GEMM and data type in the baseline."""
        return f"{self.label} {op} {dtype}"

    @property
    def names(self) -> list[str]:
        """Every name that the table has in the baseline."""
        return [self.name_of(op, dtype) for op in self.ops for dtype in self.dtypes]


class _Function(_Kernel):
    function: str
    constants: dict[str, Value] = {}

    @property
    def label(self) -> str:
        """What the baseline calls it."""
        return self.name or self.function.rpartition(":")[2]

    @property
    def names(self) -> list[str]:
        """Every name that the table has in the baseline."""
        return [self.label]


_OURS_ALONE = ("ops", "dtypes", "rows", "problems")
_NOT_OURS = "ops, dtypes, rows and problems are for kernels of ours alone; leave them out"


class TritonFunction(_Function):
    """Any Triton kernel.

    Args:
        function: ``file.py:name`` (relative to the suite) or ``module:name``.
        name: what the baseline calls it; default the function's name.
        chips: chips to compile for.
        signature: the type of each argument, as ``*bf16:16``.
        constants: values of its constants.
        tiles: further constants and compile options, by their names; it is compiled with each.
        rules: rules that differ from the suite's; false drops one.
    """

    signature: Annotated[dict[str, str], Field(min_length=1)]

    _of_others = _OURS_ALONE
    _instead = _NOT_OURS


class JaxFunction(_Function):
    """Any JAX function, with Pallas kernels inside.

    Args:
        function: ``file.py:name`` (relative to the suite) or ``module:name``.
        name: what the baseline calls it; default the function's name.
        chips: chips to compile for.
        arguments: types and shapes of its arrays, as ``bf16[2048,2048] s32[8]``.
        constants: values of further arguments.
        tiles: further arguments, by their names; it is compiled with each.
        rules: rules that differ from the suite's; false drops one.
    """

    arguments: Annotated[str, Field(min_length=1)]

    _of_others = _OURS_ALONE
    _instead = _NOT_OURS


def _kind(table: Any) -> str | None:
    """Which kind of kernel a table describes, by its keys."""
    if isinstance(table, _Kernel):
        return type(table).__name__
    if not isinstance(table, dict):
        return None
    kinds = {
        ("kernel",): "OurKernel",
        ("function", "signature"): "TritonFunction",
        ("function", "arguments"): "JaxFunction",
    }
    given = tuple(key for key in ("kernel", "function") if key in table)
    if given == ("function",):
        given += tuple(key for key in ("signature", "arguments") if key in table)
    return kinds.get(given)


KernelTable = Annotated[
    Annotated[OurKernel, Tag("OurKernel")]
    | Annotated[TritonFunction, Tag("TritonFunction")]
    | Annotated[JaxFunction, Tag("JaxFunction")],
    Discriminator(
        _kind,
        custom_error_type="kind",
        custom_error_message="give either kernel (one of ours) or function (any), and a function with either signature "
        "(a Triton kernel) or arguments (a JAX function)",
    ),
]
"""A ``[[kernels]]`` table; its keys say of which kind it is."""


class TimedTable(Table):
    """A case to time here against another revision.

    Args:
        name: in the report.
        function: ``file.py:name``, relative to the suite. Called with a seed, it draws operands by it and returns
            (run, expected, tolerance): ``run()`` does the work once and returns the result, ``expected()`` is what that
            should be (or an array is).
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
    """A validated suite file: kernels to compile, cases to time, and rules that differ from the defaults.

    Args:
        kernels: kernels to compile, as [[kernels]].
        timed: cases to time, as [[timed]].
        rules: rules that differ from the defaults, by fact, as [rules.FACT]; false drops a rule.
    """

    kernels: list[KernelTable] = []
    timed: list[TimedTable] = []
    rules: Rules = {}
    path: Annotated[Path, Field(exclude=True)] = Path("suite.toml")

    @model_validator(mode="before")
    @classmethod
    def _check_kinds(cls, data: Any) -> Any:
        # Where a misspelt key leaves the kind of a table open, the key is what is wrong.
        tables = data.get("kernels") if isinstance(data, dict) else None
        for number, table in enumerate(tables if isinstance(tables, list) else ()):
            if isinstance(table, dict) and _kind(table) is None:
                known = [*OurKernel.model_fields, *TritonFunction.model_fields, *JaxFunction.model_fields]
                for key in table:
                    if key not in known:
                        raise ValueError(f"kernels.{number}.{key} is unknown{did_you_mean(key, dict.fromkeys(known))}")
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_rules(self.rules)
        names = [name for kernel in self.kernels for name in kernel.names]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two kernels are called {twice[0]!r}; give each a name")
        return self

    @property
    def name(self) -> str:
        """What reports and the database call it."""
        return self.path.stem

    @property
    def times(self) -> dict[str, list[Fact]]:
        """The modelled times of our kernels by their names in the baseline."""
        ours = [kernel for kernel in self.kernels if isinstance(kernel, OurKernel)]
        return {name: [problem.time for problem in kernel.problems] for kernel in ours for name in kernel.names}

    @property
    def problems(self) -> list[str]:
        """Every problem whose time is modelled, with its routing, once."""
        return list(dict.fromkeys(fact.asked for facts in self.times.values() for fact in facts))

    @property
    def baseline(self) -> Path:
        """Where its facts are kept."""
        return self.path.with_suffix(".facts.json")

    def rules_by_kernel(self) -> dict[str, dict[str, Rule | None]]:
        """The rules of every name in the baseline: the defaults, as the suite and then the kernel change them."""
        return {name: self._rules_of(kernel) for kernel in self.kernels for name in kernel.names}

    def _rules_of(self, kernel: _Kernel) -> dict[str, Rule | None]:
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
        UserError: unreadable, or wrong: names the key, the value and the fix.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError("suite", value=str(path), fix="give a TOML file, as benchmarks/baselines/default.toml")
    suite = parse_suite(read_toml(file), file)
    if not (suite.kernels or suite.timed):
        # A check of nothing would pass.
        raise UserError(f"{file} has nothing to check", fix="add a table [[kernels]] or [[timed]]")
    return suite


def parse_suite(data: dict[str, Any], path: Path) -> Suite:
    """Validate a suite; ``path`` is where its files are relative to. Raises UserError."""
    return read_table(Suite, {**data, "path": path}, path.name)
