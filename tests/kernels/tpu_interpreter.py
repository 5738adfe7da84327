"""The TPU interpreter as the tests run kernels in it: it forgives nothing that a TPU would not.

Memory starts as NaN, copies happen when they are awaited, races are found, and reads beyond what a TPU's tiles hold
are errors.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.pallas.mosaic import tpu_info
from jax._src.pallas.mosaic.interpret import interpret_pallas_call
from jax.experimental.pallas import tpu as pltpu

INTERPRET = pltpu.InterpretParams(
    dma_execution_mode="on_wait", uninitialized_memory="nan", detect_races=True, buffer_bounds="padded"
)
# A form is compiled for a run or two: what XLA spends on optimising is most of a test's time.
jax.config.update("jax_disable_most_optimizations", True)
# The interpreter pads arrays as the chip it runs on would; here that is the host, which stands for a v6e.
tpu_info.registry["cpu"] = lambda: tpu_info.get_tpu_info_for_chip(tpu_info.ChipVersion.TPU_V6E, 1)


def no_race() -> bool:
    """Whether the last kernel had none."""
    return not interpret_pallas_call.races.races_found


def cut(sizes: list[int], rows: int) -> list[int]:
    """Group sizes that fit into so many rows: what is too much is cut from the last ones.

    The kernels compile anew for each number of rows and groups, but not for other sizes.
    """
    ends = np.minimum(np.cumsum([0, *sizes]), rows)
    return [int(size) for size in np.diff(ends)]


def random(rng: np.random.Generator, *shape: int, dtype: type = jnp.bfloat16) -> jnp.ndarray:
    """Normal values; weights (three axes) scaled so that a product's variance is one."""
    scale = shape[-2] ** -0.5 if len(shape) == 3 else 1.0
    return jnp.asarray(rng.standard_normal(shape) * scale, dtype)


def f64(array: jnp.ndarray) -> np.ndarray:
    return np.asarray(array, np.float64)
