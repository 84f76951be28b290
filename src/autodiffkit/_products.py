"""Products of a function's derivatives with directions: by each of JAX's modes, and without them.

A flat function takes arrays and returns a list of arrays. Products are NumPy arrays in double
precision, so that comparing them adds no rounding: with a direction they have axes
[direction, output entry], with a weight [weight, input entry].
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from autodiffkit._complex_step import allows_complex_step, complex_step
from autodiffkit._differences import Differences, central_differences, exact
from autodiffkit._jax_compat import directions_at
from autodiffkit._kept_rules import with_rules_kept
from autodiffkit._leaves import is_complex, slices

Flat = Callable[..., Sequence[Array]]

_FEW = 2  # so many products are computed one by one, and need no batching rule


# Points and directions -----------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Directions:
    """Directions in which one leaf moves, or weights of one output.

    Args:
        arrays: In double precision, the first axis that of directions; their values are exact in
            the leaf's dtype.
        unit: What each is a multiple of the unit direction by, 1 for random ones.
    """

    arrays: np.ndarray
    unit: np.ndarray

    def __len__(self) -> int:
        return len(self.arrays)

    def typed(self, dtype: Any) -> Array:
        """In a leaf's dtype."""
        return _typed(self.arrays, dtype)

    @property
    def flat(self) -> np.ndarray:
        """Axes [direction, entry]."""
        return self.arrays.reshape(len(self.arrays), math.prod(self.arrays.shape[1:]))


# In NumPy, where a conversion compiles nothing.


def numbers(x: Any) -> np.ndarray:
    """An array in double precision."""
    return np.asarray(x).astype(np.complex128 if is_complex(x.dtype) else np.float64)


def _typed(x: np.ndarray, dtype: Any) -> Array:
    return jnp.asarray(x.astype(np.dtype(dtype)))


def directions_of(leaf: Array, count: int, random: np.random.Generator) -> Directions:
    """Random directions, each entry in proportion to the leaf's.

    Args:
        leaf: The leaf. In proportion to it, a step leaves no domain that it is well inside of; an
            entry much smaller than others moves as if it were an eighth of them.
        count: How many directions.
        random: Where they come from.

    Returns:
        The directions.
    """
    size = _sizes(leaf)
    shape = (count, *leaf.shape)
    spread = random.uniform(0.5, 1.0, shape) * size
    if is_complex(leaf.dtype):
        found = spread * np.exp(2j * np.pi * random.uniform(size=shape))
    else:
        found = spread * random.choice([-1.0, 1.0], shape)
    return Directions(_rounded(found, leaf.dtype), np.ones(count))


def unit_directions_of(leaf: Array, *, holomorphic: bool) -> Directions:
    """A direction for each entry, two if it is complex, by a power of two as long as the entry."""
    size = 2.0 ** np.round(np.log2(_sizes(leaf))).reshape(-1)
    found = np.diag(size).reshape(leaf.size, *leaf.shape)
    if is_complex(leaf.dtype) and not holomorphic:
        return Directions(np.concatenate([found, 1j * found]), np.concatenate([size, size]))
    return Directions(found, size)


def weights_of(target: Any, count: int, random: np.random.Generator) -> Directions:
    """Random weights of an output's entries, of size one."""
    shape = (count, *target.shape)
    found: np.ndarray = random.uniform(0.5, 1.0, shape)
    if is_complex(target.dtype):
        found = found * np.exp(2j * np.pi * random.uniform(size=shape))
    else:
        found *= random.choice([-1.0, 1.0], shape)
    return Directions(_rounded(found, target.dtype), np.ones(count))


def unit_weights_of(target: Any, *, holomorphic: bool) -> Directions:
    """A weight for each entry of an output, two if it is complex."""
    size = int(np.prod(target.shape))
    found = np.eye(size).reshape(size, *target.shape)
    if is_complex(target.dtype) and not holomorphic:
        return Directions(np.concatenate([found, 1j * found]), np.ones(2 * size))
    return Directions(found, np.ones(size))


def _sizes(leaf: Array) -> np.ndarray:
    found = np.abs(numbers(leaf))
    found = np.where(np.isfinite(found), found, 0.0)
    mean = float(np.sqrt(np.mean(found**2))) if found.size else 0.0
    # What all is zero is moved as if it were one.
    return np.maximum(found, mean / 8 if mean > 0 else 1.0)


def _rounded(found: np.ndarray, dtype: Any) -> np.ndarray:
    return numbers(found.astype(np.dtype(dtype)))


# By JAX's modes -------------------------------------------------------------------


def compiled(function: Callable[..., Any], *, traceable: bool) -> Callable[..., Any]:
    """The function as one program, if it is one whatever the values are."""
    return jax.jit(function) if traceable else function


class Pushed(NamedTuple):
    """Products with directions, and the noise of rounding in them."""

    values: np.ndarray
    noise: float


def pushed(
    function: Flat, point: Sequence[Array], directions: Sequence[Directions], *, traceable: bool
) -> list[list[Pushed]]:
    """Forward mode, twice, along directions of two lengths: the results differ by rounding.

    Returns:
        For each leaf, the derivatives of each output along its directions.
    """

    def push(point: list[Array], tangents: list[Array]) -> list[Array]:
        tangents = directions_at(point, tangents)
        return jax.jvp(lambda *xs: list(function(*xs)), point, tangents)[1]

    run = compiled(push, traceable=traceable)
    zeros = [_typed(np.zeros(x.shape), x.dtype) for x in point]

    def along(j: int, direction: Array) -> list[Array]:
        return run(list(point), [*zeros[:j], direction, *zeros[j + 1 :]])

    def products(j: int, several: np.ndarray) -> list[np.ndarray]:
        if len(several) == 0 or len(several) > _FEW:
            batch = _typed(several, point[j].dtype)
            return flat_products(jax.vmap(functools.partial(along, j))(batch))
        rows = [along(j, _typed(v, point[j].dtype)) for v in several]
        return [
            np.stack([numbers(x).reshape(-1) for x in part]) for part in zip(*rows, strict=True)
        ]

    found: list[list[Pushed]] = []
    for j, several in enumerate(directions):
        both = products(j, several.arrays), products(j, _LONGER * several.arrays)
        found.append([Pushed(x, _difference(x, y / _LONGER)) for x, y in zip(*both, strict=True)])
    return found


_LONGER = 1.375


def _difference(one: np.ndarray, two: np.ndarray) -> float:
    """The largest difference that is finite."""
    with np.errstate(invalid="ignore"):
        found = np.abs(one - two)
    return float(np.max(found, initial=0.0, where=np.isfinite(found)))


def pulled(
    function: Flat, point: Sequence[Array], weights: Sequence[Directions], *, traceable: bool
) -> list[list[np.ndarray]]:
    """Reverse mode: for each output, the products of its weights with each leaf's derivative."""
    products = compiled(gradient(function, weights), traceable=traceable)(*point)
    return by_output(products, len(point))


def by_output(products: Sequence[Array], count: int) -> list[list[np.ndarray]]:
    """What `gradient` gives: for each output, for so many leaves."""
    flat = flat_products(products)
    return [flat[start : start + count] for start in range(0, len(flat), count)]


def gradient(function: Flat, weights: Sequence[Directions]) -> Flat:
    """The weighted outputs' gradients by reverse mode, as a flat function: by output, by leaf."""

    def run(*point: Array) -> list[Array]:
        outs, pull = jax.vjp(with_rules_kept(function), *point)
        return [
            leaf
            for i, w in enumerate(weights)
            for leaf in _each(functools.partial(_pull, pull, outs, i), w.typed(outs[i].dtype))
        ]

    return run


def forward_gradient(function: Flat, weights: Sequence[Directions]) -> Flat:
    """The same by forward mode, of real arguments or a holomorphic function."""

    def run(*point: Array) -> list[Array]:
        holomorphic = any(is_complex(x.dtype) for x in point)
        jacobian = jax.jacfwd(
            lambda *xs: list(function(*xs)), tuple(range(len(point))), holomorphic=holomorphic
        )(*point)
        return [
            weighted(w.typed(block.dtype), block, leaf)
            for w, row in zip(weights, jacobian, strict=True)
            for block, leaf in zip(row, point, strict=True)
        ]

    return run


def weighted(weights: Array, block: Array, leaf: Array) -> Array:
    """The products of weights with a block, in the leaf's dtype."""
    product = jnp.tensordot(
        weights, block, axes=weights.ndim - 1, precision=jax.lax.Precision.HIGHEST
    )
    real = is_complex(product.dtype) and not is_complex(leaf.dtype)
    return (product.real if real else product).astype(leaf.dtype)


def _pull(
    pull: Callable[[list[Array]], Sequence[Array]], outs: Sequence[Array], i: int, weight: Array
) -> list[Array]:
    cotangents = [jnp.zeros_like(out) for out in outs]
    cotangents[i] = weight
    return list(pull(directions_at(outs, cotangents)))


def _each(function: Callable[[Array], list[Array]], batch: Array) -> list[Array]:
    """Applies a function along the first axis; the results have it, too."""
    if len(batch) == 0 or len(batch) > _FEW:
        return list(jax.vmap(function)(batch))
    return [jnp.stack(parts) for parts in zip(*map(function, batch), strict=True)]


def flat_products(products: Sequence[Array]) -> list[np.ndarray]:
    """Axes [direction or weight, entry]."""
    return [numbers(x).reshape(x.shape[0], math.prod(x.shape[1:])) for x in products]


# Without derivatives --------------------------------------------------------------


class Reference:
    """What a function's derivatives are compared with: differences, or complex steps.

    The function is evaluated in a wider dtype if it takes one and returns it.

    Args:
        function: The function, compiled if it can be. Its own derivatives are not asked for.
        point: Where.
        outs: Its value there.
        program: It as a program, with its constants; `None` if it cannot be traced or should not
            be looked into.
    """

    def __init__(
        self,
        function: Flat,
        point: Sequence[Array],
        outs: Sequence[Array],
        program: tuple[Any, list[Any]] | None = None,
    ) -> None:
        self._function = function
        self._point = list(point)
        self.middle = _end_to_end(outs)
        self.parts = slices(outs)
        self.failure: Exception | None = None
        self._centre = self.middle  # in the dtype of the differences
        dtypes = [x.dtype for x in (*point, *outs)]
        self._complex_step: Callable[..., list[Array]] | None = None
        if program is not None and allows_complex_step(*program, point):
            self._complex_step = jax.jit(functools.partial(complex_step, program[0]))
            self._constants = program[1]
        else:
            dtypes = self._widen() or dtypes
        self.roundoff = max(map(roundoff, dtypes))

    @property
    def name(self) -> str:
        """What it is called."""
        return "differences" if self._complex_step is None else "complex step"

    def along(self, j: int, direction: np.ndarray, wanted: np.ndarray) -> Differences:
        """The derivatives of all outputs, laid end to end, along a direction of one leaf."""
        if self._complex_step is not None:
            lines = [np.zeros(x.shape) for x in self._point]
            lines[j] = direction
            outs = self._complex_step(self._constants, self._point, lines)
            return exact(_end_to_end(outs), self.roundoff)

        def evaluate(step: float) -> np.ndarray:
            return _end_to_end(self.displaced(j, step * direction))

        found = central_differences(evaluate, self._centre, self.roundoff, wanted)
        self.failure = self.failure or found.failure
        return found

    def displaced(self, j: int, change: np.ndarray) -> list[Array]:
        """The outputs with one leaf changed."""
        point = list(self._point)
        point[j] = moved(point[j], change)
        return self._run(point)

    def _run(self, point: Sequence[Array]) -> list[Array]:
        if self._centre is self.middle:
            return list(self._function(*point))
        with jax.numpy_dtype_promotion("standard"):
            return list(self._function(*point))

    def _widen(self) -> list[Any] | None:
        """Evaluates in a wider dtype from here on, if the function does."""
        wide = [_typed(numbers(x), _wider(x.dtype)) for x in self._point]
        if all(x.dtype == y.dtype for x, y in zip(wide, self._point, strict=True)):
            return None
        try:
            with jax.numpy_dtype_promotion("standard"):
                outs = list(self._function(*wide))
        except Exception:  # annotations, or an operation on operands of equal dtypes only
            return None
        if any(_wider(x.dtype) != x.dtype for x in outs):
            return None
        self._point, self._centre = wide, _end_to_end(outs)
        return [x.dtype for x in (*wide, *outs)]


def moved(leaf: Array, change: np.ndarray) -> Array:
    """A leaf with something added to it."""
    return _typed(numbers(leaf) + change, leaf.dtype)


def real(products: np.ndarray) -> np.ndarray:
    """The real part of what may be complex."""
    return np.real(products) if np.iscomplexobj(products) else products


def roundoff(dtype: Any) -> float:
    """The distance from 1 to the next number."""
    return float(jnp.finfo(dtype).eps)


def _wider(dtype: Any) -> Any:
    double = np.complex128 if is_complex(dtype) else np.float64
    if is_complex(dtype) or jnp.dtype(dtype).itemsize >= 4:
        return jax.dtypes.canonicalize_dtype(double)
    return jnp.promote_types(jnp.float32, jax.dtypes.canonicalize_dtype(double))


def _end_to_end(outs: Sequence[Any]) -> np.ndarray:
    return np.concatenate([numbers(x).reshape(-1) for x in outs]) if outs else np.zeros(0)
