"""The executors by name."""

from typing import Literal

from moe_codesign.errors import UserError
from moe_codesign.execution import LOCAL, Executor
from moe_codesign.extras import require
from moe_codesign.versions import provenance

ExecutorName = Literal["local", "ray"]
EXECUTORS: tuple[ExecutorName, ...] = ("local", "ray")


def executor_of(name: str) -> Executor:
    """Where compiles and measurements run.

    Raises:
        UserError: no such executor, Ray is not installed, or no cluster is running.
    """
    if name == "local":
        return LOCAL
    if name != "ray":
        raise UserError("executor", value=name, fix=f"give one of {', '.join(EXECUTORS)}")
    require("ray", "executor ray")
    from moe_codesign.execution.ray_pool import Ray

    return Ray(provenance)
