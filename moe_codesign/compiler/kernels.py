"""Which kernel runs on a chip, and with which tiles for an untuned user."""

from moe_codesign.chips import Chip, DatasheetChip
from moe_codesign.domain.grouped_gemm import layer_gemms
from moe_codesign.domain.rank import RankWork
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.errors import UserError
from moe_codesign.extras import EXTRA_OF, how_to_install
from moe_kernels.kernel import Kernel
from moe_kernels.registry import MissingKernelError, default_kernel, kernel_named, kernels


def kernel_for(chip: Chip, name: str | None = None) -> Kernel:
    """The kernel of that name, or the default of the chip's backend.

    Raises:
        UserError: unknown kernel, one for another backend, a chip without any, or a backend that is not installed.
    """
    if name is not None and (kernel := kernel_named(name)) is not None:
        if isinstance(chip, DatasheetChip):
            raise UserError(f"chip {chip.name} has no compiler here", fix="leave the kernel out")
        if not chip.runs(kernel.backend):
            raise UserError(f"kernel {name} does not run on {chip.name}", fix=f"use a {chip.backend} kernel")
        if kernel.on_host != chip.is_host:
            where = "the host alone" if kernel.on_host else "accelerators alone"
            raise UserError(f"kernel {name} runs on {where}", fix=f"leave it out for {chip.name}")
        return kernel
    if name is not None:
        found, missing = kernels()
        fix = why_missing(missing[name]) if name in missing else "use one of " + ", ".join(found)
        raise UserError("kernel", value=name, fix=fix)
    try:
        return default_kernel(chip.backend, on_host=chip.is_host)
    except LookupError:
        raise UserError(
            f"there is no kernel for backend {chip.backend!r} of {chip.name}",
            fix="choose a chip with a compile target in `moe-codesign list chips`",
        ) from None
    except MissingKernelError as error:
        raise UserError(f"the kernel for {chip.name} cannot be loaded", fix=why_missing(error)) from None


def why_missing(error: MissingKernelError) -> str:
    """Why a kernel's module cannot be imported, and what to install where that is a package of the project's extras."""
    package = (error.name or "").split(".")[0]
    return f"{error}; {how_to_install(package)}" if package in EXTRA_OF else str(error)


def default_tiles(kernel: Kernel, work: RankWork, target: str | None) -> TilePair:
    """What an untuned user of the kernel gets for this work."""
    per_group = work.total_rows / max(int((work.rows > 0).sum()), 1)
    first, second = (kernel.default_tile(g.problem, per_group, target) for g in layer_gemms(work))
    return TilePair(first, second)
