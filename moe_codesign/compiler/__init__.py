"""Compile kernels for chips that are not here, in child processes, once."""

from moe_codesign.compiler.artifact import Artifact, Request
from moe_codesign.compiler.build import compile_all, compile_functions, requests_for, unlaunchable
from moe_codesign.compiler.cache import ArtifactCache

__all__ = ["Artifact", "ArtifactCache", "Request", "compile_all", "compile_functions", "requests_for", "unlaunchable"]
