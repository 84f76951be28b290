"""Run times and first calls as ratios to plain JAX, from repeats that are interleaved.

A ratio above 1 means that autodiffkit was faster than the better of JAX's plain modes. Losses
are printed like wins. `--json` writes the numbers to a file.
"""

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import autodiffkit as adk


class Problem(NamedTuple):
    """A function with arguments; `order` 2 means its Hessian by the first argument."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    order: int = 1


def problems() -> list[Problem]:
    """Functions of research practice in the shapes that plain modes are good and bad at."""
    key = jax.random.key(0)

    def normal(*shape: int) -> Any:
        nonlocal key
        key, new = jax.random.split(key)
        return jax.random.normal(new, shape) / max(1, shape[-1]) ** 0.5

    W = normal(200, 200)
    tall, wide = normal(2000, 20), normal(20, 2000)
    X, y = normal(500, 30), normal(500)

    def rollout(x: Any) -> Any:
        def step(state: Any, _: None) -> tuple[Any, None]:
            return state + 0.01 * jnp.stack([state[1], -jnp.sin(state[0])]), None

        return jax.lax.scan(step, x, length=1000)[0]

    def scalar_code(x: Any) -> Any:
        return jnp.stack([x[i] * x[(i + 3) % 20] + jnp.sin(x[i]) for i in range(20)])

    return [
        Problem("square layer, 200 by 200", lambda x: jnp.tanh(W @ x), (normal(200),)),
        Problem("tall regression, 2000 by 20", lambda w: jnp.tanh(tall @ w), (normal(20),)),
        Problem("wide regression, 20 by 2000", lambda w: jnp.tanh(wide @ w), (normal(2000),)),
        Problem("elementwise, 1000", jnp.sin, (normal(1000),)),
        Problem("ODE rollout by scan, 1000 steps", rollout, (normal(2),)),
        Problem("scalar-at-a-time code, 20", scalar_code, (normal(20),)),
        Problem(
            "Hessian of logistic regression, 30",
            lambda w: jnp.sum(jax.nn.softplus(X @ w) - y * (X @ w)),
            (normal(30),),
            2,
        ),
    ]


class Timing(NamedTuple):
    """Seconds, by variant: the median of many calls, and the first call with its compilation."""

    warm: float
    first: float


def blocks(transform: Callable[..., Any]) -> Callable[..., Any]:
    """The function that returns what plain JAX would, for the first argument."""
    return lambda *arguments: transform(*arguments).to_jax(0)


def compare(problem: Problem, repeats: int) -> dict[str, Timing]:
    """Times every variant, each repeat visiting all of them."""
    f = problem.function
    if problem.order == 1:
        # Blocks alone on all sides: the value, which comes along here, would be extra there.
        variants = {"adk": blocks(adk.jacobian(f)), "fwd": jax.jacfwd(f), "rev": jax.jacrev(f)}
    else:
        variants = {"adk": blocks(adk.hessian(f)), "hessian": jax.hessian(f)}
    first: dict[str, float] = {}
    compiled: dict[str, Any] = {}
    for name, variant in variants.items():
        compiled[name] = jax.jit(variant)
        start = time.perf_counter()
        jax.block_until_ready(compiled[name](*problem.arguments))
        first[name] = time.perf_counter() - start
    warm: dict[str, list[float]] = {name: [] for name in variants}
    order = list(compiled.items())
    shuffle = random.Random(0).shuffle
    for _ in range(repeats):
        shuffle(order)  # or the one after the slowest would always find the caches cold
        for name, call in order:
            start = time.perf_counter()
            jax.block_until_ready(call(*problem.arguments))
            warm[name].append(time.perf_counter() - start)
    return {name: Timing(statistics.median(warm[name]), first[name]) for name in variants}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Compare with plain JAX.")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, {platform.machine()}")
    print(f"{'problem':38}{'best of JAX':>12}{'here':>12}{'ratio':>8}{'first call':>12}")
    results: dict[str, dict[str, Any]] = {}
    for problem in problems():
        timings = compare(problem, options.repeats)
        ours = timings.pop("adk")
        best = min(timing.warm for timing in timings.values())
        first = min(timing.first for timing in timings.values())
        print(
            f"{problem.name:38}{best * 1e3:9.3f} ms{ours.warm * 1e3:9.3f} ms"
            f"{best / ours.warm:8.2f}{first / ours.first:12.2f}"
        )
        results[problem.name] = {
            "adk": ours._asdict(),
            **{name: timing._asdict() for name, timing in timings.items()},
        }
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
