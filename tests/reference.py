"""What JAX itself says of a registered function: its derivatives leaf by leaf."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functions import Case


def is_floating(leaf: Any) -> bool:
    """Whether a leaf can be differentiated."""
    if isinstance(leaf, (float, complex)):
        return True
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)


def flat_function(case: Case, args: Any, kwargs: Any) -> tuple[Callable[..., Any], list[Any]]:
    """The function of its floating leaves alone, which returns its floating outputs."""
    leaves, treedef = jax.tree.flatten((args, kwargs))
    floating = [is_floating(x) for x in leaves]
    selected = [jnp.asarray(x) for x, f in zip(leaves, floating, strict=True) if f]

    def function(*values: Any) -> list[Any]:
        left = iter(values)
        filled = [next(left) if f else x for x, f in zip(leaves, floating, strict=True)]
        new_args, new_kwargs = jax.tree.unflatten(treedef, filled)
        out = case.function(*new_args, **new_kwargs)
        outs = jax.tree.leaves(out[0] if case.has_aux else out)
        return [jnp.asarray(x) for x in outs if is_floating(x)]

    return function, selected


def first(case: Case, args: Any, kwargs: Any) -> list[list[Any]]:
    """JAX's Jacobian as blocks by output and source."""
    function, selected = flat_function(case, args, kwargs)
    argnums = tuple(range(len(selected)))
    holomorphic = case.kind == "holomorphic"
    reverse = case.only == "rev" or case.kind == "C to R"
    transform = jax.jacrev if reverse else jax.jacfwd
    rows = transform(function, argnums, holomorphic=holomorphic)(*selected)
    return [list(row) for row in rows]


def second(case: Case, args: Any, kwargs: Any) -> list[list[list[Any]]]:
    """JAX's Hessian as blocks by output, source and source."""
    function, selected = flat_function(case, args, kwargs)
    argnums = tuple(range(len(selected)))
    if case.only == "fwd" or case.kind == "R to C":
        inner = jax.jacfwd(function, argnums)
    else:
        inner = jax.jacrev(function, argnums, holomorphic=case.kind == "holomorphic")
    outer = jax.jacfwd(inner, argnums, holomorphic=case.kind == "holomorphic")
    return [[list(row) for row in rows] for rows in outer(*selected)]


def assert_close(ours: Any, theirs: Any, scale: float = 1.0) -> None:
    """Equal up to the rounding of the dtype."""
    dtype = np.asarray(ours).dtype
    tolerance = scale * 50 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(
        np.asarray(ours), np.asarray(theirs).astype(dtype), rtol=tolerance, atol=tolerance
    )
