"""Compile what a suite names, and read each kernel, chip and tile as numbers that a baseline can hold.

Nothing in them depends on the machine: no path, time, or host.
"""

from moe_codesign.compiler import ArtifactCache, compile_all, compile_functions
from moe_codesign.compiler.artifact import Status
from moe_codesign.compiler.build import Progress
from moe_codesign.regression.functions_of_others import function_facts, observe_functions
from moe_codesign.regression.our_kernels import our_requests
from moe_codesign.regression.readings import Observation, Place
from moe_codesign.regression.suite import Suite

_BY_CHANCE: tuple[Status, ...] = ("timeout", "crashed")
"""May be the machine's doing (busy, out of memory): tried again each time."""


def observe(
    suite: Suite, *, cache: ArtifactCache | None = None, jobs: int = 1, progress: Progress | None = None
) -> list[Observation]:
    """Facts of every kernel, chip and tile of a suite.

    Raises:
        UserError: a chip, kernel, model or tile field that does not exist.
    """
    cache = cache or ArtifactCache()
    # Everything is asked for before anything is compiled: a wrong name costs no work.
    ours = [one for table in suite.kernels if table.kernel is not None for one in our_requests(table)]
    others = [one for table in suite.kernels if table.function is not None for one in observe_functions(suite, table)]
    artifacts = compile_all(
        [request for one in ours for request in one.requests.values()],
        cache,
        jobs=jobs,
        progress=progress,
        again=_BY_CHANCE,
    )
    functions = [request for _, _, request in others]
    compiled = compile_functions(functions, cache, jobs=jobs, progress=progress, again=_BY_CHANCE)
    found = [seen for one in ours for seen in one.observe(artifacts)]
    found += [function_facts(place, chip, request, compiled[request]) for place, chip, request in others]
    return sorted(found, key=lambda seen: seen.place)


def places(suite: Suite) -> list[Place]:
    """What :func:`observe` will have facts of; nothing is compiled. Raises as that."""
    found = []
    for table in suite.kernels:
        if table.kernel is not None:
            found += [one.place(label) for one in our_requests(table) for label in one.tiles]
        else:
            found += [place for place, _, _ in observe_functions(suite, table)]
    return found
