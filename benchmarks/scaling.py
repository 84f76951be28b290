"""How the cost of a Jacobian grows with inputs, outputs, leaves and a batch, beside plain modes."""

import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from measure import OURS, Result, compare, interleaved
from problem import Draw, Problem
from report import table

import autodiffkit as adk

LEAVES = "leaves"


class Point(NamedTuple):
    """A size of a family and what was measured there.

    Of leaves, `traces` has the seconds to trace the function alone, and to trace its derivatives.
    """

    family: str
    size: int
    result: Result
    traces: dict[str, float] | None = None


def measure_scaling(repeats: int | None = None) -> Iterator[Point]:
    """All families, each from small to large."""
    for family, sizes, make in (
        ("inputs", (10, 30, 100, 300, 1000), _inputs),
        ("outputs", (10, 30, 100, 300, 1000), _outputs),
        (LEAVES, (1, 10, 40, 200), _leaves),
        ("batch", (1, 4, 16, 64, 256), _batch),
    ):
        for size in sizes:
            problem = make(size)
            traces = _traces(problem) if family == LEAVES else None
            yield Point(family, size, compare(problem, repeats, every=True), traces)


def line(point: Point) -> str:
    """A point in the terminal."""
    text = f"{point.family:8}{point.size:6}"
    for name, timing in point.result.timings.items():
        assert timing.warm is not None
        text += f"   {name} {timing.warm * 1e3:9.3f} ms, first {timing.first:5.2f} s"
    if point.traces is not None:
        text += "   traces: " + ", ".join(f"{k} {v * 1e3:.1f} ms" for k, v in point.traces.items())
    return f"{text}   {point.result.plan}"


def markdown(points: Sequence[Point]) -> str:
    """What tracing takes with many leaves, beside the function itself."""
    heads = (
        "leaves", "function", "jax.linearize", "jax.jacfwd", "jax.jacrev", "here",
        "beyond jax.linearize, over the function", "first call over that of JAX",
    )  # fmt: skip
    body: list[list[str]] = []
    for point in points:
        if point.traces is None:
            continue
        traces, result = point.traces, point.result
        own = (traces[OURS] - traces["linearize"]) / traces["function"]
        times = [traces[name] for name in ("function", "linearize", "fwd", "rev", OURS)]
        body.append([
            str(point.size),
            *(f"{seconds * 1e3:.1f} ms" for seconds in times),
            f"{own:.2f}",
            f"{result.first_ratio:.2f}",
        ])
    return table(heads, body)


def _inputs(n: int) -> Problem:
    """A layer from n entries to 100, by the entries."""
    draw = Draw(1)
    weight = draw.normal(100, n)
    return Problem(f"{n} inputs", lambda x: jnp.tanh(weight @ x), (draw.normal(n),))


def _outputs(m: int) -> Problem:
    """A layer from 100 entries to m, by the entries."""
    draw = Draw(2)
    weight = draw.normal(m, 100)
    return Problem(f"{m} outputs", lambda x: jnp.tanh(weight @ x), (draw.normal(100),))


def _leaves(count: int) -> Problem:
    """A sum of as many layers as there are leaves, eight numbers each, and a layer over it."""
    draw = Draw(3)
    inputs = [draw.normal(8) for _ in range(count)]
    mixing = draw.normal(8, 8)

    def additive(weights: list[Array]) -> Array:
        terms = [jnp.tanh(w * x) for w, x in zip(weights, inputs, strict=True)]
        return mixing @ functools.reduce(jnp.add, terms)

    return Problem(f"{count} leaves", additive, ([draw.normal(8) for _ in range(count)],))


def _batch(count: int) -> Problem:
    """A network of two layers on a batch, by the batch."""
    draw = Draw(4)
    first, second = draw.normal(32, 16), draw.normal(8, 32)

    def network(x: Array) -> Array:
        return jnp.tanh(x @ first.T) @ second.T

    return Problem(f"batch of {count}", network, (draw.normal(count, 16),))


def _traces(problem: Problem) -> dict[str, float]:
    """Seconds to trace the function, and its derivatives, without lowering or compiling."""
    functions: dict[str, Callable[..., Any]] = {
        "function": problem.function,
        "linearize": lambda *xs: jax.linearize(problem.function, *xs)[0],
        OURS: adk.jacobian(problem.function),
        "fwd": jax.jacfwd(problem.function),
        "rev": jax.jacrev(problem.function),
    }

    def traced(function: Callable[..., Any]) -> Callable[..., None]:
        def trace(*xs: Any) -> None:
            jax.clear_caches()
            jax.make_jaxpr(lambda *ys: jax.tree.leaves(function(*ys)))(*xs)

        return trace

    calls = {name: traced(function) for name, function in functions.items()}
    begin = time.perf_counter()
    for call in calls.values():
        call(*problem.arguments)
    repeats = 9 if time.perf_counter() - begin < 1 else 3
    taken = interleaved(calls, problem.arguments, repeats, 1)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}
