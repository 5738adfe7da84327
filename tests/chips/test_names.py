"""Chips by the names that people and drivers have for them."""

import pytest

from moe_codesign.chips import chip_named, chip_names, load_chip
from moe_codesign.errors import UserError

SPELT = {
    "h100_sxm": (
        "H100",
        "h100",
        "NVIDIA_H100_80GB_HBM3",
        "NVIDIA H100 80GB HBM3",
        "H100 SXM",
        "H100-SXM5",
        "H100_80GB",
    ),
    "h200_sxm": ("H200", "NVIDIA_H200", "H200 SXM", "h200-141gb"),
    "a100_sxm": ("A100", "NVIDIA_A100-SXM4-80GB", "A100-80GB"),
    "b200": ("B200", "NVIDIA_B200"),
    "gb200": ("GB200", "NVIDIA GB200"),
    "mi300x": ("MI300X", "AMD_Instinct_MI300X", "AMD_Instinct_MI300X_OAM"),
    "mi355x": ("MI355X", "AMD Instinct MI355X"),
    "tpu_v5e": ("TPU v5e", "v5e", "TPU v5 lite", "v5litepod"),
    "tpu_v6e": ("v6e", "tpu-v6e", "Trillium", "TPU v6 lite"),
    "tpu7x": ("TPU7x", "Ironwood"),
    "trainium2": ("Trainium2", "trn2", "AWS Trainium2"),
    "trainium3": ("Trainium3", "trn3"),
    "h20": ("H20", "NVIDIA H20", "NVIDIA_H20", "h20-96gb"),
    "mi325x": ("MI325X", "AMD_Instinct_MI325X", "AMD_Instinct_MI325_OAM"),
    "l4": ("L4", "NVIDIA L4"),
    "l40s": ("L40S", "NVIDIA_L40S"),
    "gb10": ("GB10", "DGX Spark", "NVIDIA_GB10"),
    "vr200": ("VR200", "Rubin"),
    "cerebras_wse3": ("WSE-3", "Cerebras", "CS-3"),
    "groq3_lpu": ("LP30",),
    "ascend_910c": ("Ascend 910C", "910C"),
    "gaudi3": ("Gaudi3",),
    "arc_pro_b60": ("B60", "Arc Pro B60"),
}


@pytest.mark.parametrize("name", SPELT)
def test_usual_spellings(name: str) -> None:
    for text in SPELT[name]:
        assert load_chip(text).name == name, text


@pytest.mark.parametrize("text", ["H100 PCIe", "H100 NVL", "NVIDIA A100-PCIE-40GB", "H200 NVL"])
def test_a_variant_that_the_catalogue_lacks_is_refused_and_names_the_one_it_has(text: str) -> None:
    with pytest.raises(UserError, match=r"there is \w+_sxm alone"):
        load_chip(text)


@pytest.mark.parametrize(
    "text", ["", "80GB", "sxm", "tpu", "nvidia", "gpu", "triton", "H20-3e", "L40", "groq", "A10", "B20", "x" * 9999]
)
def test_words_that_name_no_chip(text: str) -> None:
    assert chip_named(text) is None


def test_every_chip_is_found_by_its_own_names() -> None:
    for name in chip_names():
        if name != "cpu":
            chip = load_chip(name)
            assert load_chip(chip.product).name == name
            assert load_chip(name.upper()).name == name
