"""The functions that are differentiated, and derivatives of some, written by hand."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from problem import Draw

# A function and its derivative written by hand.
Pair = tuple[Callable[..., Array], Callable[..., Array | tuple[Array, ...]]]


def network(draw: Draw, *widths: int) -> Callable[[Array], Array]:
    """Layers of these widths with tanh between them, as a function of the input."""
    sizes = zip(widths[1:], widths[:-1], strict=True)
    *hidden, last = [draw.normal(rows, columns) for rows, columns in sizes]

    def forward(x: Array) -> Array:
        for W in hidden:
            x = jnp.tanh(W @ x)
        return last @ x

    return forward


def trajectory_and_energy(draw: Draw) -> Callable[[Array, Array], tuple[Array, Array]]:
    """A path by time, which does not know the state, and an energy, which does: two cuts of 1."""
    frequencies, decode = draw.normal(1000), draw.normal(2000, 1000)

    def both(x: Array, t: Array) -> tuple[Array, Array]:
        path = jnp.tanh(decode @ jnp.sin(1000**0.5 * frequencies * t))
        energy = jnp.sum(jnp.cos(x * t) ** 2)
        return path, energy

    return both


def decoded_rows(draw: Draw) -> Callable[[Array, Array], Array]:
    """Rows decoded from 10 pooled latents, each with a gain of its own: a cut of 10 and 50."""
    pool, decode = draw.normal(10, 1000), network(draw, 10, 200, 50 * 100)

    def rows(latents: Array, gains: Array) -> Array:
        fields = decode(pool @ latents).reshape(50, 100)
        return jnp.tanh(jnp.exp(gains)[:, None] * fields)

    return rows


def dense_layer(draw: Draw, size: int) -> Pair:
    """A layer by its input and its bias: a matrix with scaled rows, and a diagonal one."""
    W = draw.normal(size, size)

    def output(x: Array, b: Array) -> Array:
        return jnp.tanh(W @ x + b)

    def blocks(x: Array, b: Array) -> tuple[Array, Array]:
        s = 1 - jnp.tanh(W @ x + b) ** 2
        return s[:, None] * W, jnp.diag(s)

    return output, blocks


def batched_network(draw: Draw, *widths: int) -> Pair:
    """A network with one hidden layer of a batch of rows, and its Jacobians row by row."""
    inner, hidden, outer = widths
    first, second = draw.normal(hidden, inner), draw.normal(outer, hidden)

    def batched(X: Array) -> Array:
        return jnp.tanh(X @ first.T) @ second.T

    return batched, jax.vmap(jax.jacrev(batched))


def softplus_residuals(draw: Draw, rows: int, columns: int) -> Callable[[Array], Array]:
    """Residuals of a regression with a softplus link, by its coefficients."""
    X, y = draw.normal(rows, columns), draw.labels(rows)
    return lambda w: jax.nn.softplus(X @ w) - y


def logistic_loss(X: Array, y: Array) -> Callable[[Array], Array]:
    """The negative log-likelihood of a generalised linear model with a logistic link."""

    def loss(w: Array) -> Array:
        scores = X @ w
        return jnp.sum(jax.nn.softplus(scores) - y * scores)

    return loss


def logistic_hessian(X: Array) -> Callable[[Array], Array]:
    """The Hessian of `logistic_loss`, whatever the labels."""

    def hessian(w: Array) -> Array:
        p = jax.nn.sigmoid(X @ w)
        s = p * (1 - p)
        return (X.T * s) @ X

    return hessian


def mlp_loss(draw: Draw) -> Callable[[dict[str, Array]], Array]:
    """Least squares of a network with one hidden layer, by its parameters."""
    inputs, observed = 3 * draw.normal(256, 10), draw.labels(256)

    def loss(params: dict[str, Array]) -> Array:
        hidden = jnp.tanh(inputs @ params["W"].T + params["b"])
        return jnp.mean((hidden @ params["v"] - observed) ** 2)

    return loss


def residual_network(draw: Draw, depth: int, width: int) -> Callable[[Array], Array]:
    """Blocks that add to what they were given."""
    blocks = [(draw.normal(width, width), draw.normal(width, width)) for _ in range(depth)]

    def forward(x: Array) -> Array:
        for first, second in blocks:
            x += second @ jnp.tanh(first @ x)
        return x

    return forward


def layer(draw: Draw, rows: int, columns: int) -> Callable[[Array], Array]:
    """One layer, or the predictions of a regression with a row for each observation."""
    W = draw.normal(rows, columns)
    return lambda x: jnp.tanh(W @ x)


def convolution(draw: Draw) -> Callable[[Array], Array]:
    """Two convolutions of an image through 4 channels."""
    first, second = draw.normal(4, 1, 3, 3), draw.normal(1, 4, 3, 3)

    def filtered(image: Array) -> Array:
        channels = jax.lax.conv(image[None, None], first, (1, 1), "SAME")
        return jax.lax.conv(jnp.tanh(channels), second, (1, 1), "SAME")[0, 0]

    return filtered


def rollout(state: Array) -> Array:
    """A pendulum after 1000 steps."""

    def step(state: Array, _: None) -> tuple[Array, None]:
        return state + 0.01 * jnp.stack([state[1], -jnp.sin(state[0])]), None

    return jax.lax.scan(step, state, length=1000)[0]


def coupled_by_index(x: Array) -> Array:
    """Couplings written as people write formulas, one entry after the other."""
    n = len(x)
    return jnp.stack([x[i] * x[(i + 3) % n] + jnp.sin(x[i]) for i in range(n)])


def rosenbrock_residuals(x: Array) -> Array:
    """Extended Rosenbrock, no. 21 of Moré, Garbow and Hillstrom (1981)."""
    pairs = [(10 * (x[i + 1] - x[i] ** 2), 1 - x[i]) for i in range(0, len(x), 2)]
    return jnp.stack([residual for pair in pairs for residual in pair])


def broyden_residuals(x: Array) -> Array:
    """Broyden tridiagonal, no. 30 of Moré, Garbow and Hillstrom (1981)."""
    n = len(x)
    residuals: list[Array] = []
    for i in range(n):
        residual = (3 - 2 * x[i]) * x[i] + 1
        if i > 0:
            residual -= x[i - 1]
        if i < n - 1:
            residual -= 2 * x[i + 1]
        residuals.append(residual)
    return jnp.stack(residuals)


def recurrent_network(draw: Draw, steps: int, width: int) -> Callable[[Array], Array]:
    """The state after some steps of a recurrent network, by the state before them."""
    W, drive = draw.normal(width, width), draw.normal(steps, width)

    def step(state: Array, driven: Array) -> tuple[Array, None]:
        return jnp.tanh(W @ state + driven), None

    return lambda state: jax.lax.scan(step, state, drive)[0]
