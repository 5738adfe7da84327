"""Write the parts of docs/ that list keys and columns, from the schemas that read them.

A part lies between ``<!-- keys of NAME -->`` and ``<!-- end -->``. What a key means is read from the section ``Args``
of its schema's docstring, so that code and documentation cannot drift apart. A key without a line there is an error.

    python docs/generate.py            # rewrite
    python docs/generate.py --check    # exit 1 if a page is not what would be written
"""

import argparse
import dataclasses
import re
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from moe_codesign.chips import link, schema
from moe_codesign.domain import attention, latent_attention, model_shape, recurrence
from moe_codesign.formats import columns
from moe_codesign.regression import suite
from moe_codesign.study import constraints, space, space_tables

FOLDER = Path(__file__).parent
SCHEMAS: dict[str, type[BaseModel]] = {
    "a chip": schema.GpuChip,
    "[memory] of a GPU": schema.GpuMemory,
    "[core] of a GPU": schema.GpuCore,
    "[core] of a TPU": schema.TpuCore,
    "[core] of another chip": schema.DatasheetCore,
    "[link]": link.Link,
    "[power]": schema.Power,
    "a space": space.Space,
    "[[workloads]]": space_tables.WorkloadTable,
    "[constraints]": constraints.Constraints,
    "[budget]": space_tables.Budget,
    "[recommend]": space_tables.Recommend,
    "[price.CHIP]": space_tables.PriceTable,
    "[power.CHIP]": space_tables.PowerTable,
    "a suite": suite.Suite,
    "[[kernels]], a kernel of this project": suite.OurKernel,
    "[[kernels]], a Triton function": suite.TritonFunction,
    "[[kernels]], a JAX function": suite.JaxFunction,
    "[[kernels.problems]]": suite.ProblemTable,
    "[rules.FACT]": suite.RuleChange,
    "[[timed]]": suite.TimedTable,
}
"""The tables of space files and suites, by what stands in a page's marker."""
FIELDS: dict[str, type] = {
    "a whole model": model_shape.ModelShape,
    "a group of layers": model_shape.LayerGroup,
    "the type of each part": model_shape.PartTypes,
    "GQA": attention.GroupedQueryAttention,
    "index": attention.SparseIndex,
    "MLA": latent_attention.LatentAttention,
    "compressed": latent_attention.CompressedAttention,
    "gated delta net": recurrence.GatedDeltaNet,
    "KDA": recurrence.KimiDeltaAttention,
    "lightning": recurrence.LightningAttention,
    "convolution": recurrence.ShortConvolution,
    "Mamba-2": recurrence.Mamba2,
    "Mamba": recurrence.Mamba1,
}
"""Classes whose fields a page lists."""
_MARKER = re.compile(r"<!-- keys of (?P<name>.+?) -->\n.*?<!-- end -->", re.DOTALL)
_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path"}


def page_text(text: str) -> str:
    """A page with its generated parts written anew.

    Raises:
        KeyError: a marker names no schema, or a field of a class has no description.
        ValueError: a key of a schema has no description.
    """
    return _MARKER.sub(lambda found: f"<!-- keys of {found['name']} -->\n{table_of(found['name'])}<!-- end -->", text)


def table_of(name: str) -> str:
    """The Markdown table of one schema's keys, or of the columns of a problem table."""
    if name in columns.TABLES:
        rows = [(f"`{c.name}`", c.default or "required", c.meaning) for c in columns.TABLES[name]]
        if name in ("the answer", "the quality"):
            return _markdown(("column", "meaning"), [(column, meaning) for column, _, meaning in rows])
        return _markdown(("column", "default", "meaning"), rows)
    if name in FIELDS:
        meanings = _meanings(FIELDS[name])
        return _markdown(
            ("field", "meaning"), [(f"`{one.name}`", meanings[one.name]) for one in dataclasses.fields(FIELDS[name])]
        )
    return _markdown(("key", "value", "default", "meaning"), list(_keys(SCHEMAS[name])))


def _keys(schema: type[BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    meanings = _meanings(schema)
    for key, field in schema.model_fields.items():
        if field.exclude:
            continue
        if key not in meanings:
            raise ValueError(f"{schema.__name__}.{key} has no line in the docstring's Args; write one")
        yield f"`{key}`", _kind(field.annotation), _default(field), meanings[key]


def _meanings(schema: type) -> dict[str, str]:
    """Key to meaning, from the ``Args`` of a schema and of its bases."""
    found: dict[str, str] = {}
    for one in reversed(schema.__mro__):
        section = re.search(r"\n    Args:\n(?P<lines>(?:        .*\n|\n)+)", (one.__doc__ or "") + "\n")
        if section is None:
            continue
        for item in re.split(r"\n(?=        \w)", section["lines"].rstrip()):
            key, _, meaning = " ".join(item.split()).partition(": ")
            found[key] = meaning.replace("``", "`").rstrip(".")
    return found


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ([], {}, ""):
        return "-"
    if isinstance(value, BaseModel):
        return "see there"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _kind(annotation: Any) -> str:
    """What a type is called to somebody who writes TOML."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inside[0])
    if origin is Literal:
        return " or ".join(f"`{str(value).lower() if isinstance(value, bool) else value}`" for value in inside)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_kind(one) for one in inside if one is not type(None)))
    if origin in (list, tuple):
        return f"list ({_kind(inside[0])})"
    if origin is dict:
        return "table"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    return _WORDS.get(annotation, "text")


def _markdown(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def main(arguments: list[str] | None = None) -> int:
    """Rewrite the pages, or with ``--check`` say which are stale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="Write nothing; exit 1 if a page is stale.")
    options = parser.parse_args(arguments)
    stale = []
    for page in sorted(FOLDER.glob("*.md")):
        old = page.read_text(encoding="utf-8")
        if (new := page_text(old)) != old:
            stale.append(page.name)
            if not options.check:
                page.write_text(new, encoding="utf-8")
    if stale:
        print(("stale, run `make docs`: " if options.check else "rewritten: ") + ", ".join(stale))
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
