"""What random programs are compared with: JAX's derivatives of them, as matrices."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from strategies import Program

# Nearly all of the time is compilation, and what is compiled runs once.
quick_jit = functools.partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)


@dataclasses.dataclass(frozen=True, eq=False)
class Flat:
    """A call of a function as a function of arrays: what is differentiated, in order."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @functools.cached_property
    def _bound(self) -> inspect.BoundArguments:
        return inspect.signature(self.function).bind(*self.args, **self.kwargs)

    @functools.cached_property
    def _leaves(self) -> tuple[list[Any], Any]:
        return jax.tree.flatten(list(self._bound.arguments.values()))

    @functools.cached_property
    def _places(self) -> list[int]:
        return [i for i, leaf in enumerate(self._leaves[0]) if _is_float(leaf)]

    @property
    def point(self) -> list[Any]:
        """The leaves that are differentiated, as arrays; Python floats stay weak."""
        return [jnp.asarray(self._leaves[0][i]) for i in self._places]

    def call(self, point: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the function with other leaves."""
        leaves, tree = list(self._leaves[0]), self._leaves[1]
        for i, leaf in zip(self._places, point, strict=True):
            leaves[i] = leaf
        bound = inspect.BoundArguments(self._bound.signature, self._bound.arguments.copy())
        bound.arguments.update(zip(bound.arguments, tree.unflatten(leaves), strict=True))
        return bound.args, bound.kwargs

    def outputs(self, *point: Any) -> list[Any]:
        """The floating outputs of the leaves."""
        args, kwargs = self.call(point)
        outs = jax.tree.leaves(self.function(*args, **kwargs))
        return [out for out in outs if jnp.issubdtype(out.dtype, jnp.inexact)]


def _is_float(leaf: Any) -> bool:
    is_array = isinstance(leaf, jax.Array) and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))
    return is_array or isinstance(leaf, float)


def flat_of(program: Program, **options: Any) -> Flat:
    """The call that a program comes with."""
    return Flat(program.function, *program.arguments(**options))


def called(how: str, transform: Any, flat: Flat) -> Any:
    """The derivative in one of the places where it may be asked for."""
    if how == "eager":
        return transform(*flat.args, **flat.kwargs)

    def run(point):
        args, kwargs = flat.call(point)
        return transform(*args, **kwargs)

    if how == "jit":
        return quick_jit(run)(flat.point)
    batch = [jnp.stack([0.7 * x, x]) for x in flat.point]
    return jax.tree.map(lambda x: x[1], quick_jit(jax.vmap(run))(batch))


# Derivatives by JAX -------------------------------------------------------------------------


def jacobian_of_jax(flat: Flat, transform: Callable[..., Any] = jax.jacfwd) -> np.ndarray:
    """The Jacobian as a matrix."""
    numbers = tuple(range(len(flat.point)))

    @quick_jit
    def run(point):
        return flat.outputs(*point), transform(flat.outputs, numbers)(*point)

    # JAX's transforms themselves mix dtypes where arguments do.
    with jax.numpy_dtype_promotion("standard"):
        outs, rows = run(flat.point)
    return matrix_of(rows, outs, flat.point)


def is_finite_in_jax(program: Program, how: str) -> bool:
    """Whether both of JAX's Jacobians are, of the same function in the same place.

    What is compiled with little care may compute what `max` reads in two ways that round
    differently, so that no entry is the largest one.
    """
    flat = Flat(program.plain, *program.arguments())
    numbers = tuple(range(len(flat.point)))

    def jacobians(*args: Any, **kwargs: Any) -> Any:
        point = Flat(program.plain, args, kwargs).point
        return [f(flat.outputs, numbers)(*point) for f in (jax.jacfwd, jax.jacrev)]

    with jax.numpy_dtype_promotion("standard"):
        found = jax.tree.leaves(called(how, jacobians, flat))
    return all(bool(jnp.all(jnp.isfinite(x))) for x in found)


def plain_jacobian(program: Program) -> np.ndarray:
    """That of the same function without loops that stop by themselves and rules."""
    return jacobian_of_jax(Flat(program.plain, *program.arguments()))


def plain_hessian(program: Program) -> tuple[np.ndarray, np.ndarray]:
    """The gradient and the Hessian of a scalar, of the same function without rules."""
    flat = Flat(program.plain, *program.arguments())
    numbers = tuple(range(len(flat.point)))

    @quick_jit
    def run(point):
        gradient = jax.grad(lambda *point: flat.outputs(*point)[0], numbers)
        return gradient(*point), jax.jacfwd(gradient, numbers)(*point)

    with jax.numpy_dtype_promotion("standard"):
        gradient, rows = run(flat.point)
    return ravelled(gradient), matrix_of(rows, flat.point, flat.point)


def matrix_of(rows: Any, outs: Any, ins: Any) -> np.ndarray:
    """Blocks by output and input as one matrix, wide enough for any of them."""
    return np.concatenate([
        np.concatenate(
            [
                np.asarray(block, complex).reshape(out.size, x.size)
                for block, x in zip(row, ins, strict=True)
            ],
            axis=1,
        )
        for out, row in zip(outs, rows, strict=True)
    ])


# Vectors and comparisons -----------------------------------------------------------------------


def vector(like: Any, seed: int) -> Any:
    """Random numbers in a structure."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape), x.dtype), like)


def ravelled(tree: Any) -> np.ndarray:
    """All leaves one after the other."""
    leaves = [np.asarray(x, complex).ravel() for x in jax.tree.leaves(tree)]
    return np.concatenate([*leaves, np.zeros(0)])


def close(
    found: Any, expected: Any, program: Program, scale: Any = None, factor: float = 1
) -> None:
    """Equal but for the rounding of the program's dtypes, relative to the largest entry."""
    found, expected = (np.asarray(x, complex) for x in (found, expected))
    sizes = np.abs(expected if scale is None else np.asarray(scale, complex))
    largest = max(1.0, float(np.max(sizes, initial=0.0)))
    tolerance = factor * program.precision * largest
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
