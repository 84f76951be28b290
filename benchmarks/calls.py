"""Calls without `jit`, and the cost of a compiled call, beside plain JAX.

`nox -s bench -- --calls` prints a line for each problem: how many times as long ours takes, in the
median of pairs from the same repeat, below 1 where it is faster. The function runs each time on
either side.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from measure import Spread, interleaved, ratio_of
from problem import COMPILATION, Problem
from problems import problems

import autodiffkit as adk

# Of calls without jit, in the median of all problems: over eager jax.jacfwd, and jax.hessian.
_JACOBIANS, _HESSIANS = 1.5, 1.0

# Of a compiled call of a small function.
_COMPILED = 1.5

_REPEATS = 7


class Call(NamedTuple):
    """Our time over that of plain JAX, both medians in seconds."""

    name: str
    over: Spread
    ours: float
    theirs: float


def measure_calls(repeats: int | None = None) -> Iterator[str]:
    """A line for each problem, and the medians."""
    repeats = repeats or _REPEATS
    chosen = [x for x in problems() if x.layout == "dense" and x.group != COMPILATION]
    yield "Without jit, Jacobians: autodiffkit, jax.jacfwd"
    first = yield from _lines(_eager(x, repeats) for x in chosen if x.order == 1)
    yield _in_short("Jacobians", first, _JACOBIANS)
    yield "Without jit, Hessians: autodiffkit, jax.hessian"
    second = yield from _lines(_eager(x, repeats) for x in chosen if x.order == 2)
    yield _in_short("Hessians", second, _HESSIANS)
    yield "Compiled, small functions: autodiffkit, jax.jacfwd"
    small = yield from _lines(_compiled(repeats))
    yield _in_short("a call, not waited for", small[:1], _COMPILED)


def _lines(calls: Iterable[Call]) -> Any:
    found: list[Call] = []
    for call in calls:
        found.append(call)
        yield (
            f"  {call.name:46} {call.ours * 1e3:9.3f} ms, {call.theirs * 1e3:9.3f} ms: "
            f"{call.over.median:.2f} ({call.over.low:.2f} to {call.over.high:.2f})"
        )
    return found


def _in_short(kind: str, calls: list[Call], limit: float) -> str:
    ratios = [call.over.median for call in calls]
    median = statistics.median(ratios)
    return (
        f"  {kind}: {median:.2f} in the median, {max(ratios):.2f} at most   <= {limit:g}"
        f"{'   missed' if median > limit else ''}"
    )


def _eager(problem: Problem, repeats: int) -> Call:
    argnums = tuple(range(len(problem.arguments)))
    f = problem.function
    if problem.order == 1:
        pair: tuple[Any, Any] = adk.jacobian(f), jax.jacfwd(f, argnums)
    else:
        pair = adk.hessian(f), jax.hessian(f, argnums)
    return _compare(problem.name, *pair, problem.arguments, repeats, batch=1)


def _compiled(repeats: int) -> Iterator[Call]:
    """Functions so small that what is measured is the call."""

    def rosenbrock(x: jax.Array) -> jax.Array:
        return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    def with_value(x: jax.Array) -> Any:
        return rosenbrock(x), jax.jacfwd(rosenbrock)(x)

    def module(x: jax.Array) -> _Module:
        return _Module(*with_value(x))

    x = (jnp.linspace(-1, 1, 10),)
    ours: Any = jax.jit(adk.jacobian(rosenbrock))
    alone = jax.jit(jax.jacfwd(rosenbrock))
    repeats *= 20
    name = "Rosenbrock, 10"
    yield _compare(name, ours, alone, x, repeats, batch=50, wait=_go_on)
    yield _compare(f"{name}, waited for", ours, alone, x, repeats, batch=50)
    for what, theirs in (("with the value", with_value), ("value in a module", module)):
        call = jax.jit(theirs)
        yield _compare(f"{name}, waited for, {what}", ours, call, x, repeats, batch=50)


class _Module(eqx.Module):
    """What an Equinox module takes that holds the same two arrays."""

    value: jax.Array
    block: jax.Array


def _go_on(_: Any) -> None:
    """Does not wait for a result: what is timed is the call, with all that it hands out."""


def _compare(
    name: str,
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
    arguments: tuple[Any, ...],
    repeats: int,
    *,
    batch: int,
    wait: Callable[[Any], Any] = jax.block_until_ready,
) -> Call:
    calls = {"ours": ours, "theirs": theirs}
    for call in calls.values():
        for _ in range(3):
            jax.block_until_ready(call(*arguments))
    taken = interleaved(calls, arguments, repeats, batch, wait=wait)
    return Call(
        name,
        ratio_of(taken["ours"], taken["theirs"]),
        statistics.median(taken["ours"]),
        statistics.median(taken["theirs"]),
    )
