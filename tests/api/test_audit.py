import moe_codesign as mc


def test_audit_says_what_it_cannot_do_and_goes_on() -> None:
    rows = mc.audit("DeepSeek-V3", ["trainium2", "cpu"], tokens=[1, 64], dtype="fp8")
    assert [row.chip for row in rows] == ["trainium2", "trainium2", "cpu", "cpu"]
    assert all(row.estimate is not None for row in rows[:2])
    assert all(row.error is not None and "fp8" in row.error.text for row in rows[2:])
