"""The chip catalogue: one TOML file each, beside this module; ``cpu`` is this host, detected."""

from moe_codesign.chips.catalogue import chip_named, chip_names, load_chip, load_chips, parse_chip
from moe_codesign.chips.link import Link
from moe_codesign.chips.schema import Chip, CompiledChip, DatasheetChip, GpuChip, HostChip, TpuChip

__all__ = [
    "Chip",
    "CompiledChip",
    "DatasheetChip",
    "GpuChip",
    "HostChip",
    "Link",
    "TpuChip",
    "chip_named",
    "chip_names",
    "load_chip",
    "load_chips",
    "parse_chip",
]
