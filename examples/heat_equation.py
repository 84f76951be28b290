"""A network that solves the heat equation: a residual with a Laplacian.

On a square whose edge is kept at zero, a network is trained until it solves the heat equation. Edge
and initial values hold by construction, so the residual at points in space and time is all that
there is to fit, by the method of Levenberg and Marquardt. The exact solution is known.
"""

import sys
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

import autodiffkit as adk

CONDUCTIVITY = 0.05


class Network(eqx.Module):
    """The parameters: one hidden layer, whose inputs are place and time."""

    inner: Float[Array, "hidden 3"]
    offset: Float[Array, "hidden"]
    outer: Float[Array, "hidden"]


class Points(NamedTuple):
    """Places and times."""

    x: Float[Array, "n 2"]
    t: Float[Array, "n"]


def network(key: PRNGKeyArray, hidden: int) -> Network:
    """One with random numbers in it."""
    numbers = jax.random.normal(key, (hidden, 5))
    return Network(numbers[:, :3], numbers[:, 3], numbers[:, 4] / 10)


def exact(x: Float[Array, "2"], t: Float[Array, ""]) -> Float[Array, ""]:
    """The solution, which keeps its shape and fades."""
    return jnp.exp(-2 * jnp.pi**2 * CONDUCTIVITY * t) * jnp.prod(jnp.sin(jnp.pi * x))


def u(x: Float[Array, "2"], t: Float[Array, ""], params: Network) -> Float[Array, ""]:
    """The initial values, and what the network adds to them as time passes."""
    place = jnp.concatenate([x, t[None]])
    change = params.outer @ jnp.tanh(params.inner @ place + params.offset)
    return jnp.prod(jnp.sin(jnp.pi * x)) + t * change * jnp.prod(x * (1 - x))


def residual(x: Float[Array, "2"], t: Float[Array, ""], params: Network) -> Float[Array, ""]:
    """By how much the equation fails in one point."""
    heating = adk.grad(u, wrt="t")(x, t, params).t
    return heating - CONDUCTIVITY * adk.laplacian(u, wrt="x")(x, t, params).laplacian


def residuals(params: Network, points: Points) -> Float[Array, "n"]:
    """By how much it fails in many."""
    return jax.vmap(residual, in_axes=(0, 0, None))(*points, params)


linearised = jax.jit(adk.jacobian(residuals, wrt="params"))


@jax.jit
def step(J: adk.Jacobian[Array], damping: float) -> Network:
    """The step of Levenberg and Marquardt, to be subtracted."""
    return J.gram().damped(damping).solve(J.rmv(J.value)).params


def loss(J: adk.Jacobian[Array]) -> float:
    """The mean square of the residuals."""
    return float(jnp.mean(J.value**2))


def train(params: Network, points: Points, steps: int) -> tuple[Network, list[float]]:
    """Steps with less damping after each success and more after each failure; and the losses."""
    here, damping = linearised(params, points), 0.1
    losses = [loss(here)]
    for _ in range(steps):
        moved = jax.tree.map(jnp.subtract, params, step(here, damping))
        trial = linearised(moved, points)
        if loss(trial) < losses[-1]:
            params, here, damping = moved, trial, damping / 5
        else:
            damping *= 5
        losses.append(loss(here))
    return params, losses


def scattered(key: PRNGKeyArray, count: int) -> Points:
    """Points at random."""
    numbers = jax.random.uniform(key, (count, 3))
    return Points(numbers[:, :2], numbers[:, 2])


@jax.jit
def error(params: Network, points: Points) -> Float[Array, ""]:
    """The largest difference from the exact solution."""
    found = jax.vmap(u, in_axes=(0, 0, None))(*points, params)
    return jnp.max(jnp.abs(found - jax.vmap(exact)(*points)))


def main() -> None:
    """Trains a network and prints how the loss and the error fall."""
    with jax.enable_x64(True):
        start = network(jax.random.key(0), 20)
        data, others = scattered(jax.random.key(1), 200), scattered(jax.random.key(2), 1000)
        params, losses = train(start, data, steps=60)
        for i in range(0, len(losses), 10):
            print(f"step {i:2}: mean square of the residuals {losses[i]:.1e}")
        print(f"largest error: {error(start, others):.1e}, then {error(params, others):.1e}")


if __name__ == "__main__":
    sys.exit(main())
