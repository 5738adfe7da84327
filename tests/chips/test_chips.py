import tomllib
from pathlib import Path

import pytest

import moe_codesign.chips
from moe_codesign.chips import chip_names, load_chip
from moe_codesign.errors import UserError

WANTED = [
    *("a100_sxm", "b200", "b300", "gb200", "gb300", "h100_sxm", "h200_sxm", "l40s", "mi300x", "mi355x", "rtx_pro_6000"),
    *("tpu7x", "tpu_v5e", "tpu_v5p", "tpu_v6e", "trainium2", "cpu"),
]
FOLDER = Path(moe_codesign.chips.__file__).parent


def test_the_catalogue_is_whole() -> None:
    assert set(WANTED) == set(chip_names())


@pytest.mark.parametrize("name", WANTED)
def test_every_chip_loads_with_sources(name: str) -> None:
    chip = load_chip(name)
    assert chip.name == name
    assert (chip.peak("bfloat16") or 0) > 1e9
    assert all(chip.sources.values())


def test_a_number_without_source_is_refused(tmp_path: Path) -> None:
    text = (FOLDER / "h100_sxm.toml").read_text()
    data = tomllib.loads(text)
    lost = next(key for key in data["sources"] if key.startswith("core"))
    file = tmp_path / "mine.toml"
    file.write_text("\n".join(line for line in text.splitlines() if not line.startswith(f'"{lost}"')))
    with pytest.raises(UserError, match=r"core.*has no source"):
        load_chip(str(file))


def test_a_chip_of_ones_own_is_one_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text((FOLDER / "h100_sxm.toml").read_text().replace('name = "h100_sxm"', 'name = "mine"'))
    assert load_chip(str(file)).name == "mine"


def test_an_unknown_chip_names_those_there_are() -> None:
    with pytest.raises(UserError, match="h100_sxm"):
        load_chip("h100")


def test_the_host_is_detected() -> None:
    host = load_chip("cpu")
    assert host.is_host
    assert host.core.count >= 1
    assert host.memory.hbm_bytes_per_s > 1e9
