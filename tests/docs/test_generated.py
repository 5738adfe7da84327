from docs import generate


def test_pages_list_the_keys_that_the_schemas_have() -> None:
    assert generate.main(["--check"]) == 0, "run `make docs`"


def test_a_key_that_changes_changes_its_page() -> None:
    text = "<!-- keys of [budget] -->\nold\n<!-- end -->"
    assert "| `trials` | whole number | `200` |" in generate.page_text(text)
