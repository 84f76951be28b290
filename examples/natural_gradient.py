"""Natural-gradient steps for a classifier.

A small network tells three spirals apart. A step of the natural gradient is the gradient
multiplied by the inverse of the Fisher information, damped: by a factorisation of the stored
matrix, or by conjugate gradients, which only multiply by it. Plain gradient descent is set
against it.
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Int

import autodiffkit as adk


class Data(NamedTuple):
    """Points in the plane and the spirals that they are on."""

    points: Float[Array, "n 2"]
    labels: Int[Array, "n"]


class Step(NamedTuple):
    """The loss, and what is to be subtracted from the network."""

    loss: Float[Array, ""]
    change: eqx.nn.MLP


def spirals(count: int) -> Data:
    """Points on three spirals, half a turn each, with noise."""
    labels = jnp.arange(count) % 3
    direction = 2 / 3 * jnp.pi * labels.astype(float)
    radius = jnp.linspace(0.2, 1.0, count)
    noise = 0.5 * jax.random.normal(jax.random.key(1), (count,))
    angle = jnp.pi * radius + direction + noise
    return Data(radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1), labels)


def network() -> eqx.nn.MLP:
    """One hidden layer of sixteen; the output are logits."""
    return eqx.nn.MLP(2, 3, 16, 1, activation=jnp.tanh, key=jax.random.key(0))


def logits(model: eqx.nn.MLP, points: Float[Array, "n 2"]) -> Float[Array, "n 3"]:
    """What the network says of each point."""
    return jax.vmap(model)(points)


def loss(model: eqx.nn.MLP, data: Data) -> Float[Array, ""]:
    """The negative log likelihood of the labels, summed."""
    chances = jax.nn.log_softmax(logits(model, data.points))
    return -jnp.sum(jnp.take_along_axis(chances, data.labels[:, None], axis=1))


def natural_step(model: eqx.nn.MLP, data: Data, damping: float) -> Step:
    """The step of the natural gradient by a factorisation of the damped matrix."""
    G = adk.grad(loss, wrt="model")(model, data)
    F = adk.fisher(logits, "categorical", wrt="model")(model, data.points)
    return Step(G.value, F.materialise().damped(damping).solve(G).model)


def matrix_free_step(model: eqx.nn.MLP, data: Data, damping: float) -> Step:
    """The same by conjugate gradients, which only multiply by the matrix."""
    G = adk.grad(loss, wrt="model")(model, data)
    F = adk.fisher(logits, "categorical", wrt="model")(model, data.points)
    damped = F.as_lineax() + damping * lx.IdentityLinearOperator(F.in_structure)
    operator = lx.TaggedLinearOperator(damped, lx.positive_semidefinite_tag)
    solver = lx.CG(rtol=1e-5, atol=1e-5)
    return Step(G.value, lx.linear_solve(operator, G.tree, solver).value.model)


def gradient_step(model: eqx.nn.MLP, data: Data, rate: float) -> Step:
    """The step of gradient descent."""
    G = adk.grad(loss, wrt="model")(model, data)
    return Step(G.value, jax.tree.map(lambda x: rate * x, G.model))


def train(
    step: Callable[[eqx.nn.MLP, Data, float], Step], setting: float, data: Data, steps: int
) -> list[float]:
    """The mean loss before each step and after the last one."""
    model, run, losses = network(), eqx.filter_jit(step), list[float]()
    for _ in range(steps + 1):
        value, change = run(model, data, setting)
        losses.append(float(value) / len(data.labels))
        model = eqx.apply_updates(model, jax.tree.map(jnp.negative, change))
    return losses


def main() -> None:
    """Trains the network in several ways and prints how the loss falls."""
    data = spirals(150)
    runs = [
        ("natural gradient", natural_step, 3.0),
        ("without the matrix", matrix_free_step, 3.0),
        ("gradient, rate 0.003", gradient_step, 0.003),
        ("gradient, rate 0.01", gradient_step, 0.01),
        ("gradient, rate 0.03", gradient_step, 0.03),
    ]
    print(f"{'steps':20}", *(f"{i:7}" for i in range(0, 41, 10)))
    for name, step, setting in runs:
        losses = train(step, setting, data, steps=40)
        print(f"{name:20}", *(f"{x:7.4f}" for x in losses[::10]))


if __name__ == "__main__":
    sys.exit(main())
