"""How a chip reaches other chips: what its file says in ``[link]``."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from moe_codesign.tables import Label, Table

Topology = Literal["switch", "mesh", "dragonfly", "torus2d", "torus3d", "host"]
"""How the chips of a domain are wired: through switches, each to each, to some of the
others which pass data on, to neighbours on two or three axes, or over the host's bus."""
_AXES = {"torus2d": 2, "torus3d": 3}


class Link(Table):
    """The wires of one chip. All rates are of one chip, in one direction, at the peak that its maker states.

    Args:
        name: as the maker calls it.
        topology: how the chips of a domain are wired: `switch` (any chip reaches any other at the full rate), `mesh` (a
            wire to each other chip), `dragonfly` (wires to some, which pass data on to the rest), `torus2d` and
            `torus3d` (wires to neighbours on two or three axes), or `host` (over the host's bus).
        bytes_per_s: over all the wires of the chip together, to chips of its own domain.
        domain_chips: chips of the largest scale-up domain.
        scale_out_bytes_per_s: to chips of other domains, over the network; left out where nothing is known.
    """

    name: Label
    topology: Topology
    bytes_per_s: PositiveFloat
    domain_chips: Annotated[PositiveInt, Field(ge=2)]
    scale_out_bytes_per_s: PositiveFloat | None = None

    def bytes_per_s_among(self, chips: int) -> float:
        """What each of so many neighbours in one domain can send to the others per second.

        Behind a switch that is the full rate. In a mesh it is the wires to the others alone. In a torus a group lies on
        few axes: doubling it adds one wire per chip, until all are in use. (A group of 16 or more has edges, whose
        chips have fewer; where the torus does not close, this is the most that there can be.)

        Raises:
            ValueError: fewer than two chips, or more than the domain has.
        """
        if not 2 <= chips <= self.domain_chips:
            raise ValueError(f"{chips} chips are no group of a domain of {self.domain_chips}")
        if self.topology == "mesh":
            return self.bytes_per_s * (chips - 1) / (self.domain_chips - 1)
        if (axes := _AXES.get(self.topology)) is not None:
            wires = 2 * axes
            return self.bytes_per_s * min(chips.bit_length() - 1, wires) / wires
        return self.bytes_per_s
