"""Neural networks: their outputs by inputs or parameters, and Hessians of losses."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from problem import Draw, Problem

GROUP = "networks"

Params = list[dict[str, Array]]


def _layers(draw: Draw, *sizes: int) -> Params:
    pairs = itertools.pairwise(sizes)
    return [{"w": draw.normal(m, n), "b": 0.1 * draw.normal(m)} for n, m in pairs]


def _apply(params: Params, x: Array) -> Array:
    for layer in params[:-1]:
        x = jnp.tanh(layer["w"] @ x + layer["b"])
    return params[-1]["w"] @ x + params[-1]["b"]


def problems() -> list[Problem]:
    """Networks with their arguments."""
    draw = Draw(13)
    batch, targets = draw.normal(64, 8), draw.normal(64, 2)
    mlp, deep, auto = (
        _layers(draw, *sizes) for sizes in ((8, 16, 2), (64, 64, 64, 64, 64), (200, 80, 4, 80, 200))
    )
    wide_in, wide_out = draw.normal(64, 64), draw.normal(64, 64)
    kernels = draw.normal(4, 1, 3, 3), draw.normal(1, 4, 3, 3)
    first, second = draw.normal(24, 6), draw.normal(5, 24)

    def loss(params: Params) -> Array:
        return jnp.mean((jax.vmap(lambda x: _apply(params, x))(batch) - targets) ** 2)

    def per_example(params: Params) -> Array:
        return jax.vmap(lambda x: _apply(params, x))(batch)

    def residual(x: Array) -> Array:
        for _ in range(6):
            x = x + wide_out @ jnp.tanh(wide_in @ x)
        return x

    def hypernetwork(code: Array) -> Array:
        """A network writes the weights of another one (Ha, Dai and Le, *HyperNetworks*, 2016)."""
        written = jnp.tanh(hyper @ code)
        weights, last = written[: 16 * 8].reshape(16, 8), written[16 * 8 :].reshape(2, 16)
        return jnp.tanh(batch @ weights.T) @ last.T

    hyper = draw.normal(16 * 8 + 2 * 16, 6)

    def attention(x: Array) -> Array:
        """Vaswani and others, *Attention is all you need*, 2017; one head."""
        keys, queries = x @ wide_in[:16, :16], x @ wide_out[:16, :16]
        return jax.nn.softmax(queries @ keys.T / 4.0, axis=1) @ x

    def convolutions(x: Array) -> Array:
        x = x[None, None]
        for kernel in kernels:
            x = jnp.tanh(jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME"))
        return x[0, 0]

    def recurrent(x: Array) -> Array:
        def step(state: Array, entry: Array) -> tuple[Array, Array]:
            state = jnp.tanh(first @ jnp.concatenate([second @ state, entry[None]]))
            return state, second @ state

        return jax.lax.scan(step, jnp.zeros(24, x.dtype), x)[1]

    def fixed(params: Params) -> Callable[..., Any]:
        return lambda x: _apply(params, x)

    return [
        Problem("MLP, 64 examples by parameters", per_example, (mlp,), group=GROUP),
        Problem("MLP loss, Hessian", loss, (mlp,), order=2, group=GROUP),
        Problem("deep square MLP by input", fixed(deep), (draw.normal(64),), group=GROUP),
        Problem("autoencoder by input", fixed(auto), (draw.normal(200),), group=GROUP),
        Problem("residual network by input", residual, (draw.normal(64),), group=GROUP),
        Problem("hypernetwork by code", hypernetwork, (draw.normal(6),), group=GROUP),
        Problem("attention, 20 tokens of 16", attention, (draw.normal(20, 16),), group=GROUP),
        Problem("two convolutions, 12 by 12", convolutions, (draw.normal(12, 12),), group=GROUP),
        Problem("recurrent network, 30 steps", recurrent, (draw.normal(30),), group=GROUP),
    ]
