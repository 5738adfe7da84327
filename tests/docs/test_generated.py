import click

from docs import generate
from moe_codesign.cli import cli


def test_pages_list_the_keys_that_the_schemas_have() -> None:
    assert generate.main(["--check"]) == 0, "run `make docs`"


def test_a_key_that_changes_changes_its_page() -> None:
    text = "<!-- keys of [budget] -->\nold\n<!-- end -->"
    assert "| `trials` | whole number | `200` |" in generate.page_text(text)


def test_what_a_number_of_tokens_counts_is_said_wherever_one_is_given() -> None:
    """Of a batch that several ranks share it is the tokens of all of them together."""
    words = "over all ranks together"
    options = [
        option
        for command in ("audit", "bench", "sweet-spots")
        for option in cli.commands[command].params
        if isinstance(option, click.Option) and option.name == "tokens"
    ]
    assert len(options) == 3
    assert all(words in (option.help or "") for option in options)
    for table in ("[[workloads]]", "fused_moe", "[[kernels.problems]]"):
        (row,) = [line for line in generate.table_of(table).splitlines() if "`num_tokens`" in line]
        assert words in row
