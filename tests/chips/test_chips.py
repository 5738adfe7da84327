import json
import math
import os
import re
import tomllib
from pathlib import Path

import pytest

import moe_codesign as mc
import moe_codesign.chips
from moe_codesign.chips import DatasheetChip, GpuChip, HostChip, TpuChip, chip_names, load_chip, load_chips, parse_chip
from moe_codesign.cost.datasheet import SRAM, layer_slowdown
from moe_codesign.errors import UserError
from moe_codesign.regression.observe import places
from moe_codesign.regression.suite import parse_suite

FOLDER = Path(moe_codesign.chips.__file__).parent
FILES = [name for name in chip_names() if name != "cpu"]


def lines_of(name: str) -> list[str]:
    return (FOLDER / f"{name}.toml").read_text().splitlines()


def copy_of(name: str, path: Path, changed: dict[str, str] | None = None, *, without: str = "") -> str:
    """A chip file with other values for some keys, or without one key and its source; returns its path."""
    lines = []
    for line in lines_of(name):
        key = line.partition(" =")[0].strip('"')
        if without and without in (key, key.rpartition(".")[2]):
            continue
        lines.append(f"{key} = {changed[key]}" if changed and key in changed else line)
    path.write_text("\n".join(lines))
    return str(path)


@pytest.mark.parametrize("name", FILES)
def test_every_chip_file_loads_by_its_name_with_sources(name: str) -> None:
    chip = load_chip(name)
    assert chip.name == name
    assert min(chip.peak_flops_per_s.values()) > 1e9
    assert all(chip.sources.values())
    assert chip.price in (None, *chip.prices.values())
    assert all(price.source and price.date for price in chip.prices.values())


@pytest.mark.parametrize("name", FILES)
def test_a_product_name_says_no_other_capacity_than_the_memory(name: str) -> None:
    chip = load_chip(name)
    for said in re.findall(r"(\d+) GB", chip.product):
        assert said == f"{chip.memory.hbm_bytes / 1e9:.0f}"


def test_the_kind_of_a_chip_is_its_class() -> None:
    kinds = {"h100_sxm": GpuChip, "mi300x": GpuChip, "tpu_v6e": TpuChip, "trainium2": DatasheetChip, "cpu": HostChip}
    assert {name: type(load_chip(name)) for name in kinds} == kinds
    with pytest.raises(UserError, match="chip tpu_v6e is a TPU, not a GPU"):
        GpuChip.of(load_chip("tpu_v6e"))


@pytest.mark.parametrize("name", FILES)
def test_a_gpus_clock_and_cores_make_its_peak(name: str) -> None:
    """A core does a power of two of FLOPs in a cycle."""
    chip = load_chip(name)
    if isinstance(chip, GpuChip):
        per_cycle = chip.peak("bfloat16") / (chip.core.count * chip.core.clock_hz)
        assert per_cycle == pytest.approx(2 ** round(math.log2(per_cycle)), rel=0.01)


def numbers_of(name: str) -> list[tuple[str, str]]:
    data = tomllib.loads("\n".join(lines_of(name)))
    optional = {"memory.l3_bytes"}
    return [
        (name, f"{table}.{field}")
        for table in ("memory", "core")
        for field in data[table]
        if f"{table}.{field}" not in optional
    ]


@pytest.mark.parametrize(
    ("name", "field"), [one for name in ("h100_sxm", "mi300x", "tpu_v6e") for one in numbers_of(name)]
)
def test_a_number_that_a_model_reads_cannot_be_left_out(name: str, field: str, tmp_path: Path) -> None:
    file = copy_of(name, tmp_path / "mine.toml", without=field.rpartition(".")[2])
    with pytest.raises(UserError, match=rf"mine\.toml: {field} is missing; add it$"):
        load_chip(file)


@pytest.mark.parametrize("name", ["h100_sxm", "tpu_v6e"])
def test_the_peak_that_every_model_reads_cannot_be_left_out(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="need a peak for bfloat16"):
        load_chip(copy_of(name, tmp_path / "mine.toml", without="bfloat16"))


def test_a_number_without_source_is_refused(tmp_path: Path) -> None:
    text = "\n".join(line for line in lines_of("h100_sxm") if not line.startswith('"core'))
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UserError, match=r"core.* has no source"):
        load_chip(str(tmp_path / "mine.toml"))


def test_a_price_without_date_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"price_date\.rental_3y is missing; say when"):
        load_chip(copy_of("h100_sxm", tmp_path / "mine.toml", without="price_date"))
    with pytest.raises(UserError, match=r"price_date\.own = 'last year'"):
        load_chip(copy_of("h100_sxm", tmp_path / "mine.toml", {"price_date": '"last year"'}))
    dates = '{ own = "2026-07", rental_3y = "2026-07", on_demand = "2026-07" }'
    with pytest.raises(UserError, match=r"price_date\.on_demand is the date of no price"):
        load_chip(copy_of("h100_sxm", tmp_path / "mine.toml", {"price_date": dates}))


def test_each_kind_of_price_has_its_own_date(tmp_path: Path) -> None:
    dates = '{ own = "2026-07", rental_3y = "2026-08-31" }'
    chip = load_chip(copy_of("h100_sxm", tmp_path / "mine.toml", {"price_date": dates}))
    assert {kind: price.date for kind, price in chip.prices.items()} == {"rental_3y": "2026-08-31", "own": "2026-07"}
    assert chip.price is not None
    assert (chip.price.kind, chip.price.date) == ("rental_3y", "2026-08-31")


@pytest.mark.parametrize(
    ("listed", "kind"),
    [
        ("own = 1.0\nrental_3y = 2.0\non_demand = 3.0", "on_demand"),
        ("own = 1.0\nrental_3y = 2.0", "rental_3y"),
        ("rental_3y = 0.5\nown = 1.0", "rental_3y"),
        ("own = 1.0", "own"),
    ],
)
def test_costs_are_by_one_kind_of_price_whatever_is_lowest(listed: str, kind: str, tmp_path: Path) -> None:
    text = "\n".join(lines_of("h100_sxm")).replace("own = 1.17\nrental_3y = 2.0", listed)
    (tmp_path / "mine.toml").write_text(text)
    chip = load_chip(str(tmp_path / "mine.toml"))
    assert chip.price is not None
    assert (chip.price.kind, chip.price.date) == (kind, "2026-07")
    assert str(chip.price) == f"{chip.price.usd_per_hour:g} $/h {kind}, 2026-07"


def test_a_kind_of_price_that_is_not_known_is_refused(tmp_path: Path) -> None:
    text = "\n".join(lines_of("h100_sxm")).replace("own = 1.17", "spot = 1.17")
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UserError, match=r"price_usd_per_hour\.spot.*'on_demand', 'rental_3y' or 'own'"):
        load_chip(str(tmp_path / "mine.toml"))


def test_another_backend_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"backend = 'tritn' is unknown; did you mean triton\?"):
        load_chip(copy_of("h100_sxm", tmp_path / "mine.toml", {"backend": '"tritn"'}))
    with pytest.raises(UserError, match="backend is missing; write one of triton, pallas, none"):
        load_chip(copy_of("h100_sxm", tmp_path / "mine.toml", without="backend"))


def test_a_type_without_matrix_units_is_refused_in_one_way() -> None:
    for name in ("a100_sxm", "tpu_v5e"):
        assert not load_chip(name).has("fp8_block")
        with pytest.raises(UserError, match=f"{name} has no fp8_block matrix units; use one of bfloat16"):
            load_chip(name).peak("fp8_block")
    assert load_chip("h100_sxm").peak("int4") == load_chip("h100_sxm").peak("bfloat16")


def test_a_new_chip_is_one_file_and_is_audited(tmp_path: Path) -> None:
    file = copy_of("trainium2", tmp_path / "mine.toml", {"name": '"mine"', "hbm_bytes_per_s": "5.8e12"})
    mine, theirs = mc.audit("Qwen3-30B-A3B", [file, "trainium2"], tokens=[1])
    assert (mine.chip, theirs.chip) == ("mine", "trainium2")
    assert mine.estimate is not None
    assert theirs.estimate is not None
    assert theirs.estimate.timing.bound_us == pytest.approx(2 * mine.estimate.timing.bound_us)


def test_two_chips_of_one_name_are_not_compared(tmp_path: Path) -> None:
    copy = copy_of("trainium2", tmp_path / "mine.toml", {"hbm_bytes_per_s": "5.8e12"})
    with pytest.raises(UserError, match="two different chips have the name trainium2; give the copy a `name`"):
        mc.audit("Qwen3-30B-A3B", ["trainium2", copy], tokens=[1])
    # Alone, the copy has its own times, whichever of the two was asked for first.
    rows = [mc.audit("Qwen3-30B-A3B", [name], tokens=[1])[0] for name in ("trainium2", copy, "trainium2")]
    first, changed, again = (row.estimate.timing.bound_us for row in rows if row.estimate)
    assert first == again == pytest.approx(2 * changed)
    assert load_chips(["trainium2", copy_of("trainium2", tmp_path / "same.toml")])


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    before = load_chip(copy_of("trainium2", path)).memory.hbm_bytes_per_s
    status = path.stat()
    copy_of("trainium2", path, {"hbm_bytes_per_s": "5.8e12"})
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert load_chip(str(path)).memory.hbm_bytes_per_s == 2 * before


def test_chips_are_keys_by_all_that_they_are() -> None:
    chip = load_chip("h100_sxm")
    changed = chip.model_copy(update={"memory": chip.memory.model_copy(update={"hbm_latency_ns": 1.0})})
    assert len({chip, changed, load_chip("h100_sxm")}) == 2


def test_chips_that_hold_a_model() -> None:
    chip = load_chip("h100_sxm")
    assert [chip.chips_that_hold(n * 80e9) for n in (0, 0.5, 1, 1.01, 17)] == [1, 1, 1, 2, 17]
    sram = [name for name in FILES if load_chip(name).memory.kind == "sram"]
    for name in sram:
        assert layer_slowdown(load_chip(name)) == SRAM, "they launch nothing"
        (row,) = mc.audit("DeepSeek-V3", [name], tokens=[1], dtype=next(iter(load_chip(name).peak_flops_per_s)))
        assert row.estimate is not None, row.error
        assert re.search(r"raise tp or ep: they take \d\d+ of them or more", row.estimate.notes[0])
    assert sram


def test_an_unknown_chip_names_those_there_are() -> None:
    with pytest.raises(UserError, match="h100_sxm"):
        load_chip("h101")


def test_a_peak_that_a_data_sheet_does_not_say_is_unknown() -> None:
    with pytest.raises(UserError, match="no peak of trainium2 for int8 is known; use one of bfloat16"):
        load_chip("trainium2").peak("int8")


def test_the_host_is_detected() -> None:
    host = load_chip("cpu")
    assert isinstance(host, HostChip)
    assert host.core.count >= 1
    assert host.memory.hbm_bytes_per_s > 1e9


def test_two_chips_of_one_name_are_no_place_of_a_suite(tmp_path: Path) -> None:
    copy = copy_of("h100_sxm", tmp_path / "mine.toml", {"hbm_latency_ns": "1.0"})
    suite = parse_suite({"kernels": [{"kernel": "triton.grouped_gemm", "chips": ["h100_sxm", copy]}]}, tmp_path / "s")
    with pytest.raises(UserError, match="two different chips have the name h100_sxm"):
        places(suite)


@pytest.mark.parametrize("name", FILES)
def test_a_stored_chip_is_read_back_as_it_was(name: str) -> None:
    chip = load_chip(name)
    assert parse_chip(json.loads(chip.model_dump_json(exclude_unset=True)), "stored chip") == chip
