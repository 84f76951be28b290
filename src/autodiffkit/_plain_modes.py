"""Which blocks of a derivative are not finite in JAX's plain modes, and a direction that shows it.

Blocks are pushed or pulled all together first. Directions that are zero for the other leaves meet
infinities there, and 0 times infinity is NaN; so what is not finite is tried again by itself.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from autodiffkit._jax_compat import directions_at
from autodiffkit._leaves import is_complex
from autodiffkit._origins import is_bad, not_finite

Function = Callable[..., list[Any]]

# With more entries than this, a leaf has one direction, the mean of its unit directions.
_DIRECTIONS = 256


@dataclasses.dataclass(frozen=True)
class Block:
    """A block that is not finite.

    Attributes:
        output: The number of the output.
        source: The number of the input.
        direction: A tangent of the input, or a cotangent of the output, that shows it.
    """

    output: int
    source: int
    direction: Any


def is_exact(arrays: Sequence[Any]) -> bool:
    """Whether each entry has a direction of its own."""
    return sum(x.size for x in arrays) <= _DIRECTIONS


def pushed_blocks(
    function: Function, primals: Sequence[Any], *, holomorphic: bool = False
) -> list[Block]:
    """The blocks that are not finite in forward mode.

    Args:
        function: Takes arrays and returns a list of them.
        primals: Where.
        holomorphic: Whether complex entries have one direction.

    Returns:
        The blocks.

    Raises:
        Exception: Whatever JAX raises of a function that cannot be pushed through.
    """
    units = _units(primals, holomorphic=holomorphic)

    def push(tangents: list[Any]) -> list[Any]:
        return jax.jvp(function, list(primals), tangents)[1]

    found: list[Block] = []
    if not any(map(is_bad, _batched(push, primals, _together(units)))):
        return found
    for j, unit in enumerate(units):

        def alone(x: Any, j: int = j) -> list[Any]:
            return function(*primals[:j], x, *primals[j + 1 :])

        def push_alone(tangents: list[Any], j: int = j, alone: Any = alone) -> list[Any]:
            return jax.jvp(alone, [primals[j]], tangents)[1]

        for i, pushed in enumerate(_batched(push_alone, [primals[j]], [unit])):
            if is_bad(pushed):
                found.append(Block(i, j, unit[_first_row(pushed)]))
    return found


def pulled_blocks(
    function: Function, primals: Sequence[Any], *, holomorphic: bool = False
) -> list[Block]:
    """The blocks that are not finite in reverse mode.

    Args:
        function: As for `pushed_blocks`.
        primals: As for `pushed_blocks`.
        holomorphic: As for `pushed_blocks`.

    Returns:
        The blocks.

    Raises:
        Exception: Whatever JAX raises of a function that cannot be pulled through.
    """
    outputs, pull = jax.vjp(function, *primals)
    units = _units(outputs, holomorphic=holomorphic)
    found: list[Block] = []
    if not any(map(is_bad, _batched(pull, outputs, _together(units)))):
        return found
    for i, unit in enumerate(units):

        def alone(*x: Any, i: int = i) -> list[Any]:
            return [function(*x)[i]]

        _, pull_alone = jax.vjp(alone, *primals)
        for j, pulled in enumerate(_batched(pull_alone, [outputs[i]], [unit])):
            if is_bad(pulled):
                found.append(Block(i, j, unit[_first_row(pulled)]))
    return found


def _batched(
    sweep: Callable[[list[Any]], Sequence[Any]], arrays: Sequence[Any], batch: Sequence[Any]
) -> Sequence[Any]:
    """A batch of sweeps, from some arrays; of no directions, nothing."""

    def run(*directions: Any) -> Sequence[Any]:
        return sweep(directions_at(arrays, directions))

    return jax.vmap(run)(*batch) if len(batch[0]) else ()


def _units(arrays: Sequence[Any], *, holomorphic: bool) -> list[Any]:
    """For each array its unit directions along the first axis, or the mean of them."""
    exact = is_exact(arrays)
    units: list[Any] = []
    for x in arrays:
        rows = x.size if exact else min(x.size, 1)
        scale = 1.0 if exact or not x.size else 1.0 / x.size
        flat = jnp.eye(x.size, dtype=x.dtype) if exact else jnp.full((rows, x.size), scale, x.dtype)
        if is_complex(x.dtype) and not holomorphic:
            flat = jnp.concatenate([flat, flat * jnp.asarray(1j, x.dtype)])
        units.append(flat.reshape(len(flat), *x.shape))
    return units


def _together(units: Sequence[Any]) -> list[Any]:
    """Directions of all leaves in one batch, each zero for the other leaves."""
    total = sum(len(unit) for unit in units)
    rows: list[Any] = []
    start = 0
    for unit in units:
        empty = jnp.zeros((total, *unit.shape[1:]), unit.dtype)
        rows.append(empty.at[start : start + len(unit)].set(unit))
        start += len(unit)
    return rows


def _first_row(batch: Any) -> int:
    found = not_finite(batch)
    return int(found.reshape(len(found), -1).any(axis=1).argmax())
