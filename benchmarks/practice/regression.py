"""Regressions and generalised linear models."""

import jax
import jax.numpy as jnp
from jax import Array
from problem import Draw, Problem

GROUP = "regressions"


def problems() -> list[Problem]:
    """Residuals and negative log-likelihoods with their arguments."""
    draw = Draw(11)
    rows, counts = 10 * draw.normal(400, 30), draw.labels(400)
    classes = jnp.asarray(jnp.arange(300) % 5, jnp.int32)
    wide = 10 * draw.normal(300, 20)

    def linear(weights: Array, offset: Array) -> Array:
        return rows @ weights + offset - counts

    def logistic(weights: Array, offset: Array) -> Array:
        z = rows @ weights + offset
        return jnp.mean(jnp.logaddexp(0.0, z) - counts * z)

    def poisson(weights: Array, offset: Array) -> Array:
        z = 0.1 * (rows @ weights) + offset
        return jnp.mean(jnp.exp(z) - counts * z)

    def softmax(weights: Array, offset: Array) -> Array:
        z = wide @ weights + offset[None]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), classes[:, None], axis=1))

    def michaelis_menten(top: Array, half: Array, slope: Array) -> Array:
        dose = jnp.linspace(0.1, 10.0, 500)
        return top * dose**slope / (half**slope + dose**slope)

    def sines(parameters: dict[str, Array]) -> Array:
        times = jnp.linspace(0.0, 5.0, 300)
        phases = parameters["rate"][None] * times[:, None] + parameters["phase"][None]
        return jnp.sin(phases) @ parameters["height"]

    weights, zero, one = draw.normal(30), jnp.zeros(()), jnp.ones(())
    waves = {name: draw.normal(8) for name in ("height", "phase", "rate")}
    return [
        Problem("linear regression", linear, (weights, zero), group=GROUP),
        Problem("logistic regression, Hessian", logistic, (weights, zero), order=2, group=GROUP),
        Problem("Poisson regression, Hessian", poisson, (weights, zero), order=2, group=GROUP),
        Problem(
            "softmax regression, Hessian",
            softmax,
            (draw.normal(20, 5), jnp.zeros(5)),
            order=2,
            group=GROUP,
        ),
        Problem("dose response", michaelis_menten, (2 * one, one, 1.5 * one), group=GROUP),
        Problem("sum of sines", sines, (waves,), group=GROUP),
    ]
