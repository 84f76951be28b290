"""The functions that are differentiated, and what is promised for each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

CUT = "where a cut helps"
NO_CUT = "where no cut helps"
COMPILATION = "compilation"

# Where no cut helps, the chosen plan is a plain mode's and may cost little on top of it.
_NO_LOSS = 0.95


class Problem(NamedTuple):
    """A function and the arguments at which it is differentiated, by all of them.

    `order` 2 means the Hessian. `target` is the smallest promised ratio to the better plain
    mode; in the group `COMPILATION`, the most seconds that the first call may take.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    order: int = 1
    target: float | None = None
    group: str = NO_CUT


def problems() -> list[Problem]:
    """Functions of research practice, in shapes that plain modes are good and bad at."""
    draw = Draw(0)
    return [*_where_a_cut_helps(draw), *_where_no_cut_helps(draw), *_compilation(draw)]


class Draw:
    """Random arrays in float32, scaled so that products with them keep their size."""

    def __init__(self, seed: int) -> None:
        """Starts a stream that is the same in every run."""
        self._generator = np.random.default_rng(seed)

    def normal(self, *shape: int) -> Array:
        """Normal numbers over the root of the last dimension."""
        drawn = self._generator.standard_normal(shape) / max(1, *shape[-1:]) ** 0.5
        return jnp.asarray(drawn, jnp.float32)

    def labels(self, count: int) -> Array:
        """Zeros and ones."""
        return jnp.asarray(self._generator.integers(0, 2, count), jnp.float32)


# Where a cut helps ------------------------------------------------------------


def _where_a_cut_helps(draw: Draw) -> list[Problem]:
    return [
        Problem(
            "autoencoder 1000-500-8-500-1000",
            network(draw, 1000, 500, 8, 500, 1000),
            (draw.normal(1000),),
            target=10.0,
            group=CUT,
        ),
        Problem(
            "x[2000], t to vector(t), scalar(x, t)",
            trajectory_and_energy(draw),
            (draw.normal(2000), jnp.asarray(0.7, jnp.float32)),
            target=20.0,
            group=CUT,
        ),
        Problem(
            "1000 latents pooled to 10, 50 gains",
            decoded_rows(draw),
            (draw.normal(1000), draw.normal(50)),
            target=3.0,
            group=CUT,
        ),
        Problem(
            "Hessian of a GLM, 20 rows by 2000",
            logistic_loss(20 * draw.normal(20, 2000), draw.labels(20)),
            (draw.normal(2000),),
            order=2,
            target=2.0,
            group=CUT,
        ),
    ]


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


def logistic_loss(X: Array, y: Array) -> Callable[[Array], Array]:
    """The negative log-likelihood of a generalised linear model with a logistic link."""

    def loss(w: Array) -> Array:
        scores = X @ w
        return jnp.sum(jax.nn.softplus(scores) - y * scores)

    return loss


# Where no cut helps -----------------------------------------------------------


def _where_no_cut_helps(draw: Draw) -> list[Problem]:
    weights = {"W": draw.normal(35, 10), "b": draw.normal(35), "v": draw.normal(35)}
    rows = [
        ("MLP 128-128-128-128", network(draw, 128, 128, 128, 128), draw.normal(128)),
        ("residual network, 6 of 128", residual_network(draw, 6, 128), draw.normal(128)),
        ("square layer, 200 by 200", layer(draw, 200, 200), draw.normal(200)),
        ("tall regression, 2000 by 20", layer(draw, 2000, 20), draw.normal(20)),
        ("wide regression, 20 by 2000", layer(draw, 20, 2000), draw.normal(2000)),
        ("elementwise, 1000", lambda x: jnp.sin(x) * jnp.exp(-x), draw.normal(1000)),
        ("two convolutions, 16 by 16", convolution(draw), draw.normal(16, 16)),
        ("ODE rollout by scan, 1000 steps", rollout, jnp.asarray([1.0, 0.0], jnp.float32)),
        ("scalar by scalar, 5", coupled_by_index, draw.normal(5)),
        ("scalar by scalar, 20", coupled_by_index, draw.normal(20)),
        ("scalar by scalar, 100", coupled_by_index, draw.normal(100)),
        ("extended Rosenbrock, 20", rosenbrock_residuals, draw.normal(20)),
        ("Broyden tridiagonal, 50", broyden_residuals, draw.normal(50)),
    ]
    hessians = [
        ("Hessian of an MLP, 420", mlp_loss(draw), weights),
        (
            "Hessian of logistic regression, 30",
            logistic_loss(5 * draw.normal(500, 30), draw.labels(500)),
            draw.normal(30),
        ),
    ]
    return [
        *(Problem(name, f, (x,), target=_NO_LOSS) for name, f, x in rows),
        *(Problem(name, f, (x,), order=2, target=_NO_LOSS) for name, f, x in hessians),
    ]


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


def mlp_loss(draw: Draw) -> Callable[[dict[str, Array]], Array]:
    """Least squares of a network with one hidden layer, by its parameters."""
    inputs, observed = 3 * draw.normal(256, 10), draw.labels(256)

    def loss(params: dict[str, Array]) -> Array:
        hidden = jnp.tanh(inputs @ params["W"].T + params["b"])
        return jnp.mean((hidden @ params["v"] - observed) ** 2)

    return loss


# Compilation ------------------------------------------------------------------


def _compilation(draw: Draw) -> list[Problem]:
    shapes = [(2, 3) if i % 2 else (4,) for i in range(40)]
    state = {f"part{i}": draw.normal(*shape) for i, shape in enumerate(shapes)}
    mixing = draw.normal(200, 200)

    def mixed(state: dict[str, Array]) -> dict[str, Array]:
        """Every part of the new state depends on every part of the old one."""
        flat = jnp.tanh(mixing @ jnp.concatenate([part.ravel() for part in state.values()]))
        ends = np.cumsum([part.size for part in state.values()])
        pieces = jnp.split(flat, ends[:-1])
        return {
            name: piece.reshape(part.shape)
            for (name, part), piece in zip(state.items(), pieces, strict=True)
        }

    return [Problem("40 leaves to 40 leaves", mixed, (state,), target=3.0, group=COMPILATION)]


# Planning ---------------------------------------------------------------------


def long_program(draw: Draw, steps: int = 31) -> Problem:
    """A recurrent network written out, whose linear program has about 500 equations."""
    W, U = draw.normal(40, 40), draw.normal(40, 10)

    def unrolled(state: Array, drive: Array) -> tuple[Array, Array]:
        readings: list[Array] = []
        for _ in range(steps):
            gate = jax.lax.logistic(U @ drive)
            state = gate * jnp.tanh(W @ state) + (1 - gate) * state
            readings.append(state[0])
        return state, jnp.stack(readings)

    return Problem("a recurrent network written out", unrolled, (draw.normal(40), draw.normal(10)))
