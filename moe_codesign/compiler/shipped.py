"""Compiled facts that come with the package, so that a first answer needs neither a compiler nor minutes.

One file for each kernel, target, data type and op, ``facts/KERNEL/TARGET/DTYPE.OP.json.xz``: the artifacts of a tile
space as columns, which compress to some 60 bytes each. A file holds the hash of the kernel's source and the version of
the compiler. Facts of another source are not used; facts of another compiler are, and the answer says so. The hash of
each tile's program is there for ``moe_codesign.compiler.build_facts``, which writes the files: after an edit of the
source it compiles those tiles again whose program is another.
"""

import functools
import lzma
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from moe_codesign.compiler.artifact import Artifact, Compiled, GpuFacts, Reason, Refused, TpuFacts
from moe_codesign.compiler.request import Request
from moe_codesign.errors import UserError, first_line
from moe_codesign.files import replace_file
from moe_kernels.kernel import Op
from moe_kernels.tile import TileConfig, Value

FOLDER = Path(__file__).with_name("facts")
FORMAT = 1

SAME_BINARIES: Mapping[str, tuple[str, frozenset[str]]] = {
    "cuda:121": ("cuda:120", frozenset({"bfloat16", "float16", "mxfp4", "int4"})),
}
"""Targets without files of their own: another target's facts are theirs for those data types, for which the compiler
makes the same binaries. In 8 bits it does not: Triton 3.7 knows no such matrix instruction of compute capability 12.1
and widens operands to 16 bits, so that those tiles are compiled where they are asked for."""

Key = tuple[Value, ...]
"""A tile's values, in the order of its type's fields."""


def key_of(tile: TileConfig) -> Key:
    """What a tile is found by."""
    return tuple(tile.as_dict().values())


@dataclass(frozen=True)
class ShippedTable:
    """The artifacts of one kernel, target, data type and op.

    Args:
        source_hash: of the kernel that was compiled (:func:`moe_codesign.compiler.source_hash.source_hash`).
        compiler: name and version of what compiled it.
        fields: of the kernel's tile, in order.
        artifacts: by the values of the tile, launch fields at their defaults.
        programs: hash of each tile's program (:func:`moe_codesign.compiler.program.program_hash`), where it has one.
    """

    source_hash: str
    compiler: str
    fields: tuple[str, ...]
    artifacts: Mapping[Key, Artifact]
    programs: Mapping[Key, str] = field(default_factory=dict)


def path_of(kernel: str, target: str, dtype: str, op: Op, folder: Path = FOLDER) -> Path:
    """Where the file is, or would be."""
    return folder / kernel / target.replace(":", "_") / f"{dtype}.{op}.json.xz"


def find(request: Request) -> Artifact | None:
    """The shipped artifact of this request, or None. It may be by another compiler than the request's."""
    twin, dtypes = SAME_BINARIES.get(request.target, (request.target, frozenset[str]()))
    target = twin if request.dtype in dtypes else request.target
    table = _table(path_of(request.kernel, target, request.dtype, request.op))
    if table is None or table.source_hash != request.source_hash or table.fields != request.tile.fields():
        return None
    return table.artifacts.get(key_of(request.tile))


@functools.cache
def _table(path: Path) -> ShippedTable | None:
    return read_table(path)


def read_table(path: Path) -> ShippedTable | None:
    """A file's artifacts; None where there is no file.

    Raises:
        UserError: it cannot be read, or is of another format.
    """
    try:
        packed = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        data = _FILE.validate_json(lzma.decompress(packed))
        if data.format != FORMAT:
            raise ValueError(f"format {data.format}, this version reads {FORMAT}")
        artifacts = _decode(data)
        programs = {key: one for key, one in zip(artifacts, data.programs, strict=True) if one}
        return ShippedTable(data.source_hash, data.compiler, tuple(data.tiles), artifacts, programs)
    except (OSError, lzma.LZMAError, ValidationError, ValueError, KeyError, IndexError) as error:
        text = first_line(error)
        raise UserError(
            f"shipped facts {path} cannot be read ({type(error).__name__}: {text})", fix="install the package again"
        ) from None


def write_table(path: Path, table: ShippedTable) -> None:
    """Write a file in one step. The same table gives the same bytes."""
    text = _FILE.dump_json(_encode(table), exclude_none=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lzma.compress(text, check=lzma.CHECK_CRC32, preset=9 | lzma.PRESET_EXTREME))
    _table.cache_clear()


@checked_dataclass(frozen=True, kw_only=True)
class _RefusedTile:
    kind: Literal["refused", "failed"]
    reason: Reason


@checked_dataclass(frozen=True, kw_only=True)
class _File:
    """What is written.

    Args:
        tiles: field to its value in every tile.
        programs: hash of every tile's program, or an empty text.
        refused: by the tile's place in these lists.
        gpu: fact to its value in every tile that is not refused.
        opcodes: opcode to its count in each of the same.
        tpu: facts of each of the same, as they are.
    """

    format: int
    source_hash: str
    compiler: str
    tiles: dict[str, list[bool | int]]
    programs: list[str]
    refused: dict[int, _RefusedTile]
    gpu: dict[str, list[int | None]]
    opcodes: dict[str, list[int]]
    tpu: list[TpuFacts]


_FILE: TypeAdapter[_File] = TypeAdapter(_File)


def _encode(table: ShippedTable) -> _File:
    keys = sorted(table.artifacts)
    refused: dict[int, _RefusedTile] = {}
    gpu: list[GpuFacts] = []
    tpu: list[TpuFacts] = []
    for place, key in enumerate(keys):
        match table.artifacts[key]:
            case Refused(kind=kind, reason=reason):
                refused[place] = _RefusedTile(kind=kind, reason=reason)
            case Compiled(facts=GpuFacts() as facts):
                gpu.append(facts)
            case Compiled(facts=TpuFacts() as facts):
                tpu.append(facts)
            case other:
                raise TypeError(f"no facts of a kernel's tile: {other!r}")
    plain: list[dict[str, Any]] = [asdict(facts) for facts in gpu]
    opcodes = sorted({opcode for facts in gpu for opcode in facts.instructions})
    columns = [name for name in (plain[0] if plain else ()) if name != "instructions"]
    return _File(
        format=FORMAT,
        source_hash=table.source_hash,
        compiler=table.compiler,
        tiles={name: [key[i] for key in keys] for i, name in enumerate(table.fields)},
        programs=[table.programs.get(key, "") for key in keys],
        refused=refused,
        gpu={name: [one[name] for one in plain] for name in columns},
        opcodes={opcode: [facts.instructions.get(opcode, 0) for facts in gpu] for opcode in opcodes},
        tpu=tpu,
    )


def _decode(data: _File) -> dict[Key, Artifact]:
    counts = list(zip(*data.opcodes.values(), strict=True))
    values = list(zip(*data.gpu.values(), strict=True))
    gpu = [
        GpuFacts(
            **dict(zip(data.gpu, row, strict=True)),
            instructions={opcode: n for opcode, n in zip(data.opcodes, of_row, strict=True) if n},
        )
        for row, of_row in zip(values, counts, strict=True)
    ]
    left: Iterator[GpuFacts | TpuFacts] = iter([*gpu, *data.tpu])
    found: dict[Key, Artifact] = {}
    for place, key in enumerate(zip(*data.tiles.values(), strict=True)):
        if place in data.refused:
            one = data.refused[place]
            found[key] = Refused(kind=one.kind, reason=one.reason, compiler=data.compiler)
        elif (compiled := next(left, None)) is not None:
            found[key] = Compiled(facts=compiled, compiler=data.compiler)
        else:
            raise ValueError("fewer facts than tiles")
    if next(left, None) is not None:
        raise ValueError("more facts than tiles")
    return found
