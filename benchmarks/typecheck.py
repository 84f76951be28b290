"""What the check of annotations costs: nothing in a compiled call, little in tracing."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from problem import Draw

import autodiffkit as adk


class Layer(eqx.Module):
    """A dense layer, whose sizes are its own."""

    weight: Float[Array, "out in"]
    bias: Float[Array, "out"]


class Network(eqx.Module):
    """Several layers."""

    layers: list[Layer]


def regression(
    x: Float[Array, "n k"], w: Float[Array, "k"], scale: float | Float[Array, ""]
) -> Float[Array, "n"]:
    """A function that is traced in a few milliseconds."""
    return jnp.tanh(x @ w) * scale


def network(params: Network, x: Float[Array, "batch n"]) -> Float[Array, "batch m"]:
    """A pytree of annotated modules."""
    for layer in params.layers:
        x = jnp.tanh(x @ layer.weight.T + layer.bias)
    return x


def mixture(leaves: dict[str, Float[Array, "n"]]) -> Float[Array, "n"]:
    """A dict of many leaves."""
    return sum(leaves.values(), start=jnp.zeros_like(leaves["w0"]))


class CheckingCost(NamedTuple):
    """Medians over pairs of the same repeat: with checks over without, traced and compiled."""

    name: str
    traced: float
    compiled: float


def measure_typecheck(repeats: int | None = None) -> list[CheckingCost]:
    """Times tracing and compiled calls with and without checks, in turn."""
    draw = Draw(0)
    layers = [Layer(draw.normal(32, 32), draw.normal(32)) for _ in range(4)]
    cases: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (regression, (draw.normal(50, 20), draw.normal(20), jnp.float32(1.0))),
        (network, (Network(layers), draw.normal(8, 32))),
        (mixture, ({f"w{i}": draw.normal(20) for i in range(100)},)),
    ]
    return [_compare(function, arguments, repeats or 15) for function, arguments in cases]


def _compare(
    function: Callable[..., Any], arguments: tuple[Any, ...], repeats: int
) -> CheckingCost:
    transforms = [adk.jacobian(function, typecheck=typecheck) for typecheck in (True, False)]
    traced = [
        [_seconds(lambda t=t: jax.jit(t).trace(*arguments)) for t in transforms]
        for _ in range(repeats)
    ]
    calls = [jax.jit(transform).lower(*arguments).compile() for transform in transforms]
    compiled = [
        [_seconds(lambda c=c: jax.block_until_ready(c(*arguments)), 20) for c in calls]
        for _ in range(10 * repeats)
    ]
    return CheckingCost(function.__name__, *(_ratio(pairs) for pairs in (traced, compiled)))


def _ratio(pairs: list[list[float]]) -> float:
    return statistics.median(checked / plain for checked, plain in pairs)


def _seconds(call: Callable[[], Any], batch: int = 1) -> float:
    if batch == 1:
        jax.clear_caches()
    start = time.perf_counter()
    for _ in range(batch):
        call()
    return (time.perf_counter() - start) / batch
