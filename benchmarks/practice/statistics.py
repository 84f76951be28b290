"""Likelihoods and bounds of statistical models."""

import jax
import jax.numpy as jnp
from jax import Array
from problem import Draw, Problem

GROUP = "statistics"


def problems() -> list[Problem]:
    """Log-likelihoods with their arguments."""
    draw = Draw(12)
    places, values = jnp.linspace(0.0, 1.0, 60), draw.normal(60)
    points = 3 * draw.normal(200, 3)
    measured = draw.normal(40, 2)

    def gaussian_process(scales: dict[str, Array]) -> Array:
        """Rasmussen and Williams, *Gaussian Processes for Machine Learning*, 2006, eq. 2.30."""
        distance = (places[:, None] - places[None]) / jnp.exp(scales["length"])
        kernel = jnp.exp(2 * scales["height"] - 0.5 * distance**2)
        kernel += jnp.exp(2 * scales["noise"]) * jnp.eye(60, dtype=kernel.dtype)
        factor = jnp.linalg.cholesky(kernel)
        white = jax.scipy.linalg.solve_triangular(factor, values, lower=True)
        return 0.5 * white @ white + jnp.sum(jnp.log(jnp.diagonal(factor)))

    def mixture(means: Array, scales: Array, weights: Array) -> Array:
        """Bishop, *Pattern Recognition and Machine Learning*, 2006, eq. 9.14."""
        away = (points[:, None] - means[None]) / jnp.exp(scales)[None, :, None]
        logs = -0.5 * jnp.sum(away**2, axis=2) - 3 * scales[None]
        logs += jax.nn.log_softmax(weights)[None]
        return -jnp.sum(jax.nn.logsumexp(logs, axis=1))

    def kalman(transition: Array, noise: Array) -> Array:
        """Kalman, *A new approach to linear filtering and prediction problems*, 1960."""
        identity = jnp.eye(2, dtype=transition.dtype)

        def step(state: tuple[Array, Array], seen: Array) -> tuple[tuple[Array, Array], Array]:
            mean, spread = transition @ state[0], transition @ state[1] @ transition.T
            spread += jnp.exp(noise[0]) * identity
            total = spread + jnp.exp(noise[1]) * identity
            away = seen - mean
            gain = jnp.linalg.solve(total, spread).T
            cost = 0.5 * away @ jnp.linalg.solve(total, away) + 0.5 * jnp.linalg.slogdet(total)[1]
            return (mean + gain @ away, (identity - gain) @ spread), cost

        start = (jnp.zeros(2, transition.dtype), identity)
        return jnp.sum(jax.lax.scan(step, start, measured)[1])

    def rosenbrock(x: Array) -> Array:
        """Rosenbrock, *An automatic method for finding the greatest or least value*, 1960."""
        return jnp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)

    def bound(mean: Array, spread: Array) -> Array:
        """A variational bound of a logistic model, Kingma and Welling, 2014."""
        noise = jnp.sin(jnp.arange(16 * 3, dtype=mean.dtype)).reshape(16, 3)
        drawn = mean[None] + jnp.exp(spread)[None] * noise
        fits = jnp.mean(jax.nn.log_sigmoid(points @ drawn.T))
        return fits - 0.5 * jnp.sum(mean**2 + jnp.exp(2 * spread) - 2 * spread)

    scales = {name: jnp.asarray(x, jnp.float32) for name, x in _SCALES.items()}
    return [
        Problem("Gaussian process, Hessian", gaussian_process, (scales,), order=2, group=GROUP),
        Problem(
            "Gaussian mixture, Hessian",
            mixture,
            (draw.normal(5, 3), jnp.zeros(5), jnp.zeros(5)),
            order=2,
            group=GROUP,
        ),
        Problem(
            "Kalman filter, Hessian",
            kalman,
            (0.5 * jnp.eye(2), jnp.zeros(2)),
            order=2,
            group=GROUP,
        ),
        Problem("Rosenbrock, 100, Hessian", rosenbrock, (draw.normal(100),), order=2, group=GROUP),
        Problem("variational bound", bound, (draw.normal(3), jnp.zeros(3)), group=GROUP),
    ]


_SCALES = {"length": -1.0, "height": 0.0, "noise": -1.0}
