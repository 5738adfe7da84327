"""Compile kernels for chips that are not here, in child processes, once."""

from moe_codesign.compiler.artifact import Compiled, CompileResult, Refused, Unanswered
from moe_codesign.compiler.build import compile_all, compile_functions, requests_for, unlaunchable
from moe_codesign.compiler.cache import ArtifactCache
from moe_codesign.compiler.request import Request

__all__ = [
    "ArtifactCache",
    "CompileResult",
    "Compiled",
    "Refused",
    "Request",
    "Unanswered",
    "compile_all",
    "compile_functions",
    "requests_for",
    "unlaunchable",
]
