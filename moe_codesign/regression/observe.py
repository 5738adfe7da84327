"""Compile what a suite names, and read the facts of each kernel, chip and tile."""

from moe_codesign.compiler import ArtifactCache, compile_all, compile_functions
from moe_codesign.compiler.build import Progress
from moe_codesign.regression.facts import Place
from moe_codesign.regression.functions_of_others import FunctionCompile, function_compiles
from moe_codesign.regression.our_kernels import OurCompiles, our_compiles
from moe_codesign.regression.readings import Observation
from moe_codesign.regression.suite import OurKernel, Suite


def observe(
    suite: Suite, *, cache: ArtifactCache | None = None, jobs: int = 1, progress: Progress | None = None
) -> list[Observation]:
    """Facts of every kernel, chip and tile of a suite.

    Raises:
        UserError: a chip, kernel, model or tile field that does not exist.
    """
    cache = cache or ArtifactCache()
    # Everything is asked for before anything is compiled: a wrong name costs no work.
    ours, others = _compiles(suite)
    outcomes = compile_all(
        [request for one in ours for request in one.requests.values()],
        cache,
        jobs=jobs,
        progress=progress,
        # What ships was compiled once, by some compiler; here it is the compilers that are compared.
        recompile=True,
    )
    compiled = compile_functions([one.request for one in others], cache, jobs=jobs, progress=progress)
    found = [seen for one in ours for seen in one.observe(outcomes)]
    found += [one.observe(compiled[one.request]) for one in others]
    return sorted(found, key=lambda seen: seen.place)


def places(suite: Suite) -> list[Place]:
    """The places that :func:`observe` will have facts of; nothing is compiled. Raises as that."""
    ours, others = _compiles(suite)
    return [one.place(label) for one in ours for label in one.tiles] + [one.place for one in others]


def _compiles(suite: Suite) -> tuple[list[OurCompiles], list[FunctionCompile]]:
    ours: list[OurCompiles] = []
    others: list[FunctionCompile] = []
    for table in suite.kernels:
        if isinstance(table, OurKernel):
            ours += our_compiles(table)
        else:
            others += function_compiles(suite.path.parent, table)
    return ours, others
