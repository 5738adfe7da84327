from pathlib import Path

import pytest

from moe_codesign.compiler.llo import read_cycles, read_program, refusal
from moe_codesign.compiler.sass import read_amdgcn, read_sass

SASS = """
.L_x_0:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   LDGSTS.E.BYPASS.128 [R3], desc[UR4][R2.64] ;
.L_x_2:
        /*0020*/              @!P0 HGMMA.64x128x16.F32.BF16 R24, gdesc[UR8] ;
        /*0030*/                   IADD3 R1, R1, 0x1, RZ ;
        /*0040*/               @P1 BRA `(.L_x_2) ;
        /*0050*/                   NOP ;
        /*0060*/               @P2 BRA `(.L_x_1) ;
        /*0070*/                   EXIT ;
"""


def test_sass_counts_and_inner_loop() -> None:
    listing = read_sass(SASS)
    assert listing.instructions["HGMMA.64x128x16.F32.BF16"] == 1
    assert listing.instructions["BRA"] == 2
    assert "NOP" not in listing.instructions
    assert (listing.loop_instructions, listing.loop_matrix) == (3, 1), "the inner loop, not the one around it"


def test_amdgcn_loop() -> None:
    text = (
        "\tv_mov_b32 v0, 0\n.LBB0_1:\n\tv_mfma_f32_32x32x8_bf16 a, b\n\ts_nop 1\n\ts_cbranch_scc1 .LBB0_1\n\ts_endpgm\n"
    )
    listing = read_amdgcn(text)
    assert (listing.loop_instructions, listing.loop_matrix) == (2, 1)


def test_tpu_dump(tmp_path: Path) -> None:
    (tmp_path / "1-mm.1-00-schedule-analysis_final_bundles.txt").write_text("noise")
    (tmp_path / "1-mm.1-01-final_bundles.txt").write_text(
        "  0x1   : > { %1 = vst [vmem:[#a]] %v6 ;;  %2 = vmatmul.mubr.bf16.gmra.mrb %v2 }\n"
        " 0x2 : { %3 = vld [x] }\nend\n"
    )
    (tmp_path / "mm.1_TPU_static_llo_profile.textproto").write_text("a { estimated_cycles: 1234 }")
    program = read_program(tmp_path, "mm", "v6e:2x2")
    assert program.bundles == 2
    assert program.instructions == {"vst": 1, "vmatmul.mubr.bf16.gmra.mrb": 1, "vld": 1}
    assert read_cycles(tmp_path, "mm") == 1234
    with pytest.raises(FileNotFoundError):
        read_cycles(tmp_path, "other")


def test_refusal_names_asked_and_allowed() -> None:
    message = "RESOURCE_EXHAUSTED: Ran out of memory ... Scoped allocation with size 49.02M and limit 32.00M exceeded"
    assert refusal(message) == "VMEM: needs 49.02M, the compiler allows 32.00M per kernel; use smaller tiles"
    assert refusal("INVALID_ARGUMENT: no") is None


def test_a_wait_behind_the_end_is_no_loop_and_a_loop_around_a_loop_is_not_the_main_one() -> None:
    far = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   UTCHMMA gdesc[UR4] ;
.L_x_2:
        /*0020*/                   UTCHMMA gdesc[UR8] ;
        /*0030*/               @P1 BRA `(.L_x_2) ;
        /*0040*/               @P2 BRA `(.L_x_1) ;
        /*0050*/                   EXIT ;
.L_x_9:
        /*0060*/                   SYNCS.PHASECHK R1 ;
        /*0070*/                   BRA `(.L_x_2) ;
"""
    listing = read_sass(far)
    assert (listing.loop_instructions, listing.loop_matrix) == (2, 1)
