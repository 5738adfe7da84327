"""Run or resume a search."""

from collections.abc import Sequence
from pathlib import Path

from moe_codesign.api.executors import ExecutorName, executor_of
from moe_codesign.api.report import write_report
from moe_codesign.compiler.build import Progress
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.errors import UserError
from moe_codesign.files import check_folder
from moe_codesign.storage import DEFAULT_STORAGE
from moe_codesign.storage.database import Database
from moe_codesign.storage.studies import Studies, check_study
from moe_codesign.study.runner import SearchResult, run_search
from moe_codesign.study.space import Space, load_space
from moe_codesign.study.space_tables import MOST_TRIALS
from moe_codesign.study.trials import TrialProgress
from moe_codesign.versions import provenance


def search(
    space: str | Path | Space,
    *,
    chips: Sequence[str] | None = None,
    trials: int | None = None,
    jobs: int | None = 1,
    recompile: bool = False,
    executor: ExecutorName = "local",
    storage: str = DEFAULT_STORAGE,
    study: str | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    compiling: Progress | None = None,
    running: TrialProgress | None = None,
) -> SearchResult:
    """Search the pair of shape and tiles; the same study goes on where it stopped.

    Args:
        space: a space file, the name of one that comes with the project, or a Space.
        chips: names or files of chips, instead of the space's.
        trials: over all chips and modes, instead of the space's budget; a number asks for a sampler where the space's
            is auto.
        jobs: compiler processes; None for as many as the executor has cores.
        recompile: compile here what the facts that come with the package would answer.
        executor: where tiles are compiled and pairs measured: local, in processes of this machine; or ray, over the
            Ray cluster that this machine is part of, or that RAY_ADDRESS names, one accelerator a process.
        storage: database URL. On a PostgreSQL server any number of processes may run the same search together.
        study: name; default the space's.
        seed: instead of the space's.
        out: folder for report.html and pairs.json; none written if None.
        compiling, running: progress callbacks.

    Raises:
        UserError: wrong space, chip, storage or study. Nothing has been stored then.
    """
    loaded = load_space(space, chips=chips, seed=seed)
    if trials is not None and not 1 <= trials <= MOST_TRIALS:
        raise UserError("trials", value=trials, fix=f"give 1 to {MOST_TRIALS:,}")
    name = check_study(study or loaded.name)
    if out is not None:
        check_folder(Path(out))
    where = executor_of(executor)
    with Database(storage) as database:
        result = run_search(
            loaded,
            Studies(database),
            Tables(jobs=jobs or where.cores(), progress=compiling, recompile=recompile, executor=where),
            study=name,
            trials=trials,
            provenance=provenance(),
            progress=running,
        )
    if out is not None:
        write_report(result, Path(out))
    return result
