"""Kernels that do not do the work, by author's malice or by mistake, in the place of the host's ``moe_experts``.

Each is made from an honest layer in NumPy: 16-bit operands, sums in float32, the hidden row and the result rounded to
bfloat16. Without a GPU a side stream is a thread that finishes after the call has returned.
"""

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from moe_codesign.domain.failure import Failure
from moe_codesign.measure import LayerJob, Measurement, MeasuringProcess, jax_device
from moe_codesign.measure.jax_device import JaxDevice
from moe_codesign.measure.protocol import measure_layer
from moe_kernels import reference

Array = npt.NDArray[Any]
SLEEP_S = 0.002
"""What work takes at least where only time tells whether it was done."""


@dataclass
class Call:
    """One call of the kernel: its operands as it got them, and as float32."""

    held: tuple[jax.Array, ...]
    x: Array
    w_up: list[Array]
    w_down: Array
    token: Array
    weight: Array
    sizes: Array

    def layer(self, *, parts: int = 1) -> Array:
        """The honest layer; with ``parts``, sums over K of so many parts, each rounded to bfloat16."""
        out = np.zeros_like(self.x)
        start = 0
        for expert, size in enumerate(self.sizes):
            token, weight = self.token[start : start + size], self.weight[start : start + size]
            products = [_product(self.x[token], w[expert], parts) for w in self.w_up]
            gate = products[0]
            hidden = gate / (1 + np.exp(-gate)) * products[1] if len(products) == 2 else np.square(np.maximum(gate, 0))
            rows = _bfloat16(_product(_bfloat16(hidden), self.w_down[expert], parts))
            np.add.at(out, token, rows * weight[:, None])
            start += size
        return out


def _bfloat16(array: Array) -> Array:
    return array.astype(jnp.bfloat16).astype(np.float32)


def _product(a: Array, b: Array, parts: int) -> Array:
    if parts == 1:
        return a @ b
    out = np.zeros((len(a), b.shape[1]), np.float32)
    for k in np.array_split(np.arange(a.shape[1]), parts):
        out = _bfloat16(out + a[:, k] @ b[k])
    return out


class Kernels:
    """The cheats, a method each. State is of one instance, hence of one test."""

    def __init__(self) -> None:
        self.kept: dict[Any, Any] = {}
        self.calls = 0

    def honest(self, call: Call) -> Any:
        return call.layer()

    def zeros(self, call: Call) -> Any:
        return np.zeros_like(call.x)

    def stale_output(self, call: Call) -> Any:
        """Writes nothing: what the last call of this shape left stands there."""
        before = self.kept.get(call.x.shape)
        self.kept[call.x.shape] = call.layer()
        return self.kept[call.x.shape] if before is None else before

    def changes_activations(self, call: Call) -> Any:
        """Clears x, so that a reference computed from it afterwards is what it returned."""
        _clear(call.held[0])
        return np.zeros_like(call.x)

    def changes_weights(self, call: Call) -> Any:
        _clear(call.held[-1])
        return np.zeros_like(call.x)

    def right_but_changes_a_weight(self, call: Call) -> Any:
        out = call.layer()
        _clear(call.held[-1], size=2)
        return out

    def cached_by_shape(self, call: Call) -> Any:
        return self.kept.setdefault(call.x.shape, call.layer())

    def cached_by_identity(self, call: Call) -> Any:
        key = tuple(id(array) for array in call.held)
        if key not in self.kept:
            time.sleep(SLEEP_S)
            self.kept[key] = call.layer()
        return self.kept[key]

    def cached_by_address(self, call: Call) -> Any:
        key = tuple(array.unsafe_buffer_pointer() for array in call.held)
        if key not in self.kept:
            time.sleep(SLEEP_S)
            self.kept[key] = call.layer()
        return self.kept[key]

    def cached_by_routing(self, call: Call) -> Any:
        key = call.sizes.tobytes()
        if key not in self.kept:
            self.kept[key] = call.layer()
        return self.kept[key]

    def side_stream(self, call: Call) -> Any:
        """Returns at once; another thread writes the result later."""
        out = np.full_like(call.x, np.nan)

        def work() -> None:
            time.sleep(SLEEP_S)
            out[:] = call.layer()

        threading.Thread(target=work).start()
        return out

    def returns_the_reference(self, call: Call) -> Any:
        x, gate, down, weight = (one.astype(np.float64) for one in (call.x, call.w_up[0], call.w_down, call.weight))
        return reference.moe_experts(x, gate, call.w_up[1].astype(np.float64), down, call.token, weight, call.sizes)

    def finds_the_reference(self, call: Call) -> Any:
        """Looks for a reference of this shape in memory; else works."""
        import gc

        for one in gc.get_objects():
            if type(one) is dict:
                for found in list(one.values()):
                    if type(found) is np.ndarray and found.dtype == np.float64 and found.shape == call.x.shape:
                        return found
        return call.layer()

    def skips_the_last_tile(self, call: Call) -> Any:
        out = call.layer()
        out[:, -16:] = 0
        return out

    def skips_the_last_row(self, call: Call) -> Any:
        out = call.layer()
        out[-1] = 0
        return out

    def drops_an_expert(self, call: Call) -> Any:
        call.w_down = call.w_down.copy()
        call.w_down[5] = 0
        return call.layer()

    def drops_experts_with_an_odd_index(self, call: Call) -> Any:
        call.w_down = call.w_down.copy()
        call.w_down[1::2] = 0
        return call.layer()

    def right_for_uniform_routing_only(self, call: Call) -> Any:
        pairs, experts = int(call.sizes.sum()), len(call.sizes)
        mean = -(-pairs // experts)
        if call.sizes.max() > 4 * mean:
            call.sizes = np.minimum(call.sizes, 4 * mean)
        return call.layer()

    def low_precision_accumulation(self, call: Call) -> Any:
        return call.layer(parts=16)

    def patched_timer(self, call: Call) -> Any:
        """Right, and at least so slow; the clocks of ``time`` say that no time passes."""
        time.sleep(SLEEP_S)
        for name in ("perf_counter", "perf_counter_ns", "monotonic", "time", "process_time"):
            setattr(time, name, lambda: 0.0)
        return call.layer()

    def lazy_tensor(self, call: Call) -> Any:
        """Computes when it is looked at; here nothing but time tells."""

        class Lazy:
            def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
                time.sleep(SLEEP_S)
                return call.layer().astype(dtype or np.float32)

            def block_until_ready(self) -> "Lazy":
                return self

        return Lazy()

    def right_on_its_first_run_only(self, call: Call) -> Any:
        self.calls += 1
        return call.layer() if self.calls == 1 else np.zeros_like(call.x)

    def right_until_it_is_timed(self, call: Call) -> Any:
        """Counts the checks, and then remembers."""
        self.calls += 1
        if self.calls <= 4:
            self.kept["last"] = call.layer()
        return self.kept["last"]

    def right_but_while_it_is_timed(self, call: Call) -> Any:
        """Knows the routing that is timed, and works on it every other time."""
        self.calls += 1
        key = call.sizes.tobytes()
        first = self.kept.setdefault("first", key)
        if key == first and self.calls > 4 and self.calls % 8:
            return self.kept["last"]
        self.kept["last"] = call.layer()
        return self.kept["last"]

    def not_a_number(self, call: Call) -> Any:
        return _spoilt(call, np.nan)

    def infinite(self, call: Call) -> Any:
        return _spoilt(call, np.inf)

    def denormal(self, call: Call) -> Any:
        return _spoilt(call, 1e-40)

    def another_shape(self, call: Call) -> Any:
        return call.layer()[:1]

    def nothing(self, call: Call) -> Any:
        return None


def _spoilt(call: Call, value: float) -> Array:
    out = call.layer()
    out[-1, -1] = value
    return out


def _clear(array: jax.Array, size: int | None = None) -> None:
    ctypes.memset(array.unsafe_buffer_pointer(), 0, array.nbytes if size is None else size)


SLOW = ("patched_timer", "lazy_tensor")
"""Right results, whose times must be those of the work."""
FORGETS = ("cached_by_identity", "cached_by_address")
"""Remembers by what new operands may share with old ones: then it is wrong, else it has to work."""
WRONG = tuple(
    name for name in vars(Kernels) if not name.startswith("_") and name != "honest" and name not in (*SLOW, *FORGETS)
)


def kernel(name: str) -> Callable[..., Any]:
    """What stands in for ``moe_experts``."""
    method = getattr(Kernels(), name)

    def run(
        x: jax.Array, w_up: tuple[jax.Array, ...], w_down: jax.Array, token: jax.Array, weight: jax.Array,
        sizes: jax.Array, **options: Any,
    ) -> Any:  # fmt: skip
        wide = [np.array(array, dtype=np.float32) for array in (x, *w_up, w_down, weight)]
        held = (x, token, weight, sizes, *w_up, w_down)
        call = Call(held, wide[0], wide[1:-2], wide[-2], np.array(token), wide[-1], np.array(sizes))
        return method(call)

    return run


class ThisProcess(MeasuringProcess):
    """Measures here, where a kernel can be planted."""

    def __init__(self, platform: str, **options: Any) -> None:
        self._device = JaxDevice("cpu")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: Any) -> None:
        pass

    def measure(self, job: LayerJob) -> list[Measurement | Failure]:
        return measure_layer(job, self._device)


@contextmanager
def planted(name: str, monkeypatch: Any) -> Iterator[None]:
    """The kernel in place of the host's, in bench and in searches; what it does to ``time`` is undone."""
    from moe_codesign.api import bench
    from moe_codesign.study import runner

    before = dict(vars(time))
    with monkeypatch.context() as patch:
        patch.setattr(jax_device, "moe_experts", kernel(name))
        patch.setattr(bench, "MeasuringProcess", ThisProcess)
        patch.setattr(runner, "MeasuringProcess", ThisProcess)
        try:
            yield
        finally:
            vars(time).update(before)
