"""Which entry serves a chip."""

from pathlib import Path

import pytest

from moe_codesign.calibrations.catalogue import Entry, Found, files, nearest
from moe_codesign.chips import CompiledChip, GpuChip, TpuChip, load_chip


def chip(name: str) -> CompiledChip:
    found = load_chip(name)
    assert isinstance(found, GpuChip | TpuChip)
    return found


def entry(name: str, *, own: bool = False) -> Entry[str]:
    return Entry(name, own, lambda: f"{name} {'own' if own else 'shipped'}")


def test_a_chips_own_comes_first_and_a_users_before_the_shipped() -> None:
    entries = [entry("h200_sxm"), entry("h100_sxm"), entry("h100_sxm", own=True), entry("b200", own=True)]
    assert nearest(chip("h100_sxm"), entries) == Found("h100_sxm own", "h100_sxm", own=True, distance=0.0)
    assert nearest(chip("h200_sxm"), entries) == Found("h200_sxm shipped", "h200_sxm", own=False, distance=0.0)


def test_else_the_most_similar_chip_of_the_catalogue_serves() -> None:
    entries = [entry("a100_sxm"), entry("b200"), entry("tpu_v6e"), entry("mine", own=True)]
    found = nearest(chip("b300"), entries)
    assert found is not None
    assert (found.value, found.distance > 0) == ("b200 shipped", True)
    assert nearest(chip("tpu7x"), entries[:2]) is None, "a GPU's numbers say nothing of a TPU's"
    assert nearest(chip("b300"), [entry("mine")]) is None, "a chip that the catalogue does not have is like no other"


def test_only_the_entry_that_serves_is_read() -> None:
    def unread() -> str:
        pytest.fail("another chip's file was read")

    assert nearest(chip("b200"), [Entry("h100_sxm", own=True, read=unread), entry("b200")]) is not None


def test_a_file_that_was_just_written_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOE_CODESIGN_CALIBRATIONS", str(tmp_path / "own"))
    assert not any(own for _, own in files())
    (tmp_path / "own").mkdir()
    assert not any(own for _, own in files())
    (tmp_path / "own" / "a-ours.toml").touch()
    assert [path.name for path, own in files() if own] == ["a-ours.toml"]
    assert not any(own for _, own in files(shipped_only=True))
