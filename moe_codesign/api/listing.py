"""Rows for ``moe-codesign list``."""

from typing import Any

from moe_codesign.chips import chip_names, load_chip
from moe_codesign.models import catalogue


def rows(what: str, storage: str) -> list[dict[str, Any]]:
    """Chips, models, kernels, spaces or studies, one dictionary each with the same keys."""
    return {"chips": _chips, "models": _models, "kernels": _kernels, "spaces": _spaces}.get(
        what, lambda: _studies(storage)
    )()


def _chips() -> list[dict[str, Any]]:
    found = []
    for chip in map(load_chip, chip_names()):
        price = chip.price
        found.append(
            {
                "chip": chip.name,
                "product": chip.product,
                "bf16 TFLOP/s": _three_digits(chip.peak("bfloat16") / 1e12) if chip.has("bfloat16") else None,
                "TB/s": _three_digits(chip.memory.hbm_bytes_per_s / 1e12),
                "GB": _three_digits(chip.memory.hbm_bytes / 1e9),
                "memory": chip.memory.kind,
                "link GB/s": f"{chip.link.bytes_per_s / 1e9:g}" if chip.link else None,
                "domain": chip.link.domain_chips if chip.link else None,
                "compile target": chip.target,
                "$/h": price.usd_per_hour if price else None,
                "price of": f"{price.kind}, {price.date}" if price else None,
                "grade without the chip": chip.grade,
                "price source": price.source if price else None,
                "numbers": chip.confidence,
            }
        )
    return found


def _three_digits(value: float) -> str:
    """At least three digits, and never an exponent: 0.23, 141, 21000."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _models() -> list[dict[str, Any]]:
    return [
        {
            "model": shape.name,
            "hidden_size": shape.hidden_size,
            "moe_intermediate_size": shape.moe_intermediate_size,
            "num_experts": shape.num_experts,
            "num_experts_per_tok": shape.num_experts_per_tok,
            "n_shared_experts": shape.n_shared_experts,
            "num_layers": shape.num_layers,
            "gated": shape.gated,
            "moe_latent_size": shape.moe_latent_size,
            "dtype": one.dtype,
        }
        for one in catalogue().values()
        for shape in (one.shape,)
    ]


def _kernels() -> list[dict[str, Any]]:
    from moe_codesign.compiler.kernels import why_missing
    from moe_kernels.registry import kernels

    found, missing = kernels()
    rows = [
        {
            "kernel": kernel.name,
            "tile fields": ", ".join(kernel.tile_type.fields()),
            "dtypes": ", ".join(kernel.dtypes),
            "ops": ", ".join(kernel.ops),
            "tiles in its space": sum(1 for _ in kernel.tiles()),
        }
        for kernel in found.values()
    ]
    return rows + [
        {"kernel": name, "tile fields": why_missing(error), "dtypes": "", "ops": "", "tiles in its space": 0}
        for name, error in missing.items()
    ]


def _spaces() -> list[dict[str, Any]]:
    from moe_codesign.study.space import load_space, space_names

    spaces = [load_space(name) for name in space_names()]
    return [
        {
            "space": space.name,
            "reference": space.reference,
            "chips": ", ".join(chip.name for chip in space.chips),
            "objectives": ", ".join(map(str, space.objectives)),
            "trials": space.budget.trials,
        }
        for space in spaces
    ]


def _studies(storage: str) -> list[dict[str, Any]]:
    from moe_codesign.storage.database import Database, exists
    from moe_codesign.storage.studies import Studies

    if not exists(storage):
        return []
    with Database(storage) as database:
        return Studies(database).every()
