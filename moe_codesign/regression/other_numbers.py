"""Other random numbers for a function that draws its operands and takes no seed."""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

_default_rng = np.random.default_rng


@contextmanager
def other_numbers(seed: int) -> Iterator[None]:
    """Whatever seeds a generator meanwhile, of NumPy, PyTorch, JAX or Python, seeds it by ``seed`` too.

    A function that draws with ``numpy.random.default_rng(0)`` so draws other numbers for another seed, and the same
    ones for the same seed. One that seeds nothing draws by ``seed`` alone.
    """
    with ExitStack() as patched:

        def replace(owner: Any, name: str, new: Callable[..., Any]) -> None:
            patched.enter_context(patch.object(owner, name, new))

        def mixed(given: Any) -> int:
            """Both seeds as one."""
            plain = [int(one) for one in np.ravel(given)] if given is not None else []
            return int(np.random.SeedSequence([seed, *(abs(one) for one in plain)]).generate_state(1)[0])

        def generator(given: Any = None) -> np.random.Generator:
            numbers = given is None or isinstance(given, int | np.integer | list | tuple | np.ndarray)
            return _default_rng(mixed(given) if numbers else given)

        replace(np.random, "default_rng", generator)
        seeding: list[tuple[Any, str]] = [(np.random, "seed"), (random, "seed")]
        if (torch := sys.modules.get("torch")) is not None:
            seeding.append((torch, "manual_seed"))
        if (jax := sys.modules.get("jax")) is not None:
            seeding += [(jax.random, "key"), (jax.random, "PRNGKey")]
        for owner, name in seeding:
            before = getattr(owner, name)

            def seeded(given: Any = None, *more: Any, before: Any = before, **options: Any) -> Any:
                return before(mixed(given) if isinstance(given, int | None) else given, *more, **options)

            if name in ("seed", "manual_seed"):
                before(mixed(None))
            replace(owner, name, seeded)
        yield
