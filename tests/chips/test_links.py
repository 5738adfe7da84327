"""How chips reach each other: what the files say, and what a group of chips can use."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_codesign.chips import Link, chip_names, load_chip
from moe_codesign.errors import UserError
from tests.chips.test_chips import copy_of, lines_of


@pytest.mark.parametrize("name", chip_names())
def test_every_chip_has_links_or_says_why_not(name: str) -> None:
    chip = load_chip(name)
    if chip.link is None:
        assert chip.sources["link"]
        return
    assert chip.linked() == chip.link
    # A network is slower than the wires of a domain, and these than the chip's own memory.
    assert chip.link.bytes_per_s < chip.memory.hbm_bytes_per_s
    assert (chip.link.scale_out_bytes_per_s or 0) <= 2 * chip.link.bytes_per_s


def test_without_links_a_split_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a split over several cpu cannot be timed: a host is one machine.*one chip$"):
        load_chip("cpu").linked()
    text = "\n".join(lines_of("trainium2"))
    start, end = text.index("[link]"), text.index("[power]")
    (tmp_path / "mine.toml").write_text(text[:start] + text[end:])
    with pytest.raises(UserError, match=r"trainium2 cannot be timed: its file has no \[link\]; ask for one chip"):
        load_chip(str(tmp_path / "mine.toml")).linked()


def test_a_link_without_source_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("\n".join(line for line in lines_of("h100_sxm") if not line.startswith('"link')))
    with pytest.raises(UserError, match=r"link\.bytes_per_s has no source"):
        load_chip(str(file))


def test_a_wiring_that_is_not_known_is_refused(tmp_path: Path) -> None:
    file = copy_of("h100_sxm", tmp_path / "mine.toml", {"topology": '"ring"'})
    with pytest.raises(UserError, match=r"link\.topology = 'ring'"):
        load_chip(file)


def link(topology: str, chips: int) -> Link:
    return Link.model_validate({"name": "n", "topology": topology, "bytes_per_s": 600.0, "domain_chips": chips})


@pytest.mark.parametrize(
    ("topology", "domain", "rates"),
    [
        ("switch", 8, {2: 600, 8: 600}),
        ("mesh", 7, {2: 100, 4: 300, 7: 600}),
        ("torus3d", 4096, {2: 100, 4: 200, 7: 200, 8: 300, 64: 600, 4096: 600}),
        ("torus2d", 256, {2: 150, 4: 300, 16: 600}),
    ],
)
def test_what_a_group_can_use(topology: str, domain: int, rates: dict[int, float]) -> None:
    wires = link(topology, domain)
    assert {chips: wires.bytes_per_s_among(chips) for chips in rates} == rates
    for chips in (1, domain + 1):
        with pytest.raises(ValueError, match="no group"):
            wires.bytes_per_s_among(chips)


@given(
    topology=st.sampled_from(["switch", "mesh", "dragonfly", "torus2d", "torus3d", "host"]),
    domain=st.integers(2, 9216),
    data=st.data(),
)
def test_a_larger_group_uses_no_less_and_never_more_than_there_is(
    topology: str, domain: int, data: st.DataObject
) -> None:
    wires = link(topology, domain)
    fewer, more = sorted(data.draw(st.lists(st.integers(2, domain), min_size=2, max_size=2)))
    assert 0 < wires.bytes_per_s_among(fewer) <= wires.bytes_per_s_among(more) <= wires.bytes_per_s
