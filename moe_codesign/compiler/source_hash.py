"""The hash of what decides a binary: the kernel's source text, without what compiles to nothing.

Comments, docstrings, blank lines and blanks at the ends of lines are left out, so that a better comment does not throw
away hours of compiling. What is left is hashed as text, not as tokens: the tokens of an f-string differ from one
version of Python to the next.
"""

import ast
import functools
import hashlib
import io
import tokenize
from collections.abc import Iterable
from pathlib import Path

ANALYSIS = 1
"""Version of the code that reads binaries (gpu.py, sass.py, tpu.py, llo.py, described.py) and of what it reads.

Raise it with every change there that can change a fact. Facts of another version are compiled again; ``make
facts-check``, which compiles a sample again, finds a change that forgot to.
"""


def source_hash(sources: Iterable[Path]) -> str:
    """Hash of the code in these files, in their order, and of :data:`ANALYSIS`."""
    return _hash(tuple(sources))


@functools.cache
def _hash(sources: tuple[Path, ...]) -> str:
    digest = hashlib.sha256(f"analysis {ANALYSIS}\n".encode())
    for path in sources:
        digest.update(code_of(path.read_bytes()).encode() + b"\0")
    return digest.hexdigest()[:16]


def code_of(source: bytes) -> str:
    """Python source without comments, docstrings and blank lines, with line ends of one kind.

    Text that is not Python is returned as it is, but for its line ends.
    """
    text = source.decode("utf-8", "surrogateescape").replace("\r\n", "\n").replace("\r", "\n")
    try:
        cuts = [*_docstrings(text), *_comments(text)]
    except (SyntaxError, ValueError, tokenize.TokenError):
        return text
    lines = text.split("\n")
    for (first, start), (last, end) in sorted(cuts, reverse=True):
        kept = lines[first - 1][:start] + lines[last - 1][end:]
        lines[first - 1 : last] = [kept]
    return "\n".join(line.rstrip() for line in lines if line.strip())


_Cut = tuple[tuple[int, int], tuple[int, int]]
"""From (line, column) to (line, column): lines from 1, columns in characters from 0."""


def _docstrings(text: str) -> list[_Cut]:
    """Strings that are statements of their own: docstrings of modules, classes, functions and of attributes."""
    lines = text.split("\n")

    def column(line: int, in_bytes: int) -> int:
        return len(lines[line - 1].encode("utf-8", "surrogateescape")[:in_bytes].decode("utf-8", "surrogateescape"))

    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            end_line, end = node.end_lineno or node.lineno, node.end_col_offset or 0
            found.append(((node.lineno, column(node.lineno, node.col_offset)), (end_line, column(end_line, end))))
    return found


def _comments(text: str) -> list[_Cut]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [(token.start, token.end) for token in tokens if token.type == tokenize.COMMENT]
