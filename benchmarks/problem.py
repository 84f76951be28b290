"""What a problem is: a function, its arguments, what is asked of it and what is promised."""

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

CUT = "where a cut helps"
STRUCTURE = "where structure helps"
NO_LOSS = "where nothing may be lost"
COMPILATION = "compilation"


class ByHand(NamedTuple):
    """The derivative written out for one problem, as a function of the same arguments.

    `name` says what was written, `at_most` how many times as long ours may take.
    """

    name: str
    function: Callable[..., Any]
    at_most: float


class Problem(NamedTuple):
    """A function and the arguments at which it is differentiated, by all of them.

    `order` 2 means the Hessian. `target` is the smallest promised ratio to the better plain
    mode; in the group `COMPILATION`, the most seconds that the first call may take. Plain
    modes know the dense `layout` only: a compact result is compared with `by_hand` alone.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    order: int = 1
    target: float | None = None
    group: str = NO_LOSS
    by_hand: ByHand | None = None
    layout: Literal["dense", "compact"] = "dense"

    @property
    def argnums(self) -> int | tuple[int, ...]:
        """The positions of all arguments, for JAX; of a single one, its number."""
        count = len(inspect.signature(self.function).parameters)
        return 0 if count == 1 else tuple(range(count))


class Draw:
    """Random arrays in float32, scaled so that products with them keep their size."""

    def __init__(self, seed: int) -> None:
        """Starts a stream that is the same in every run."""
        self._generator = np.random.default_rng(seed)

    def normal(self, *shape: int) -> Array:
        """Normal numbers over the root of the last dimension."""
        drawn = self._generator.standard_normal(shape) / max(1, *shape[-1:]) ** 0.5
        return jnp.asarray(drawn, jnp.float32)

    def labels(self, count: int) -> Array:
        """Zeros and ones."""
        return jnp.asarray(self._generator.integers(0, 2, count), jnp.float32)
