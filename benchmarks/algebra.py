"""Products, Gram matrices, diagonals and Laplacians beside what one would write in plain JAX.

`nox -s bench -- --algebra` prints a line each: how many times as long ours takes, in the median of
pairs from the same repeat, below 1 where it is faster. `at most` is what is promised.
"""

import resource
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import formulas
import jax
import jax.numpy as jnp
from jax import Array
from measure import Spread, interleaved, ratio_of
from problem import Draw

import autodiffkit as adk


class Pair(NamedTuple):
    """Two ways to the same numbers, each a function of the same arguments."""

    name: str
    plain: str
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    arguments: tuple[Any, ...]
    at_most: float | None = None


class Measured(NamedTuple):
    """Our time over that of plain JAX, both medians in seconds, and the largest difference."""

    pair: Pair
    over: Spread
    ours: float
    theirs: float
    deviation: float


def measure_algebra(repeats: int | None = None) -> Iterator[str]:
    """A line for each pair, and one for the eigenvalue of a large Hessian."""
    for pair in _pairs():
        yield line(_compare(pair, repeats or 40))
    yield _lanczos()


def line(found: Measured) -> str:
    """A result in the terminal."""
    pair = found.pair
    promise = "" if pair.at_most is None else f"   <= {pair.at_most:g}"
    missed = pair.at_most is not None and found.over.median > pair.at_most
    return (
        f"{pair.name:46} {found.ours * 1e3:9.3f} ms, {pair.plain} {found.theirs * 1e3:9.3f} ms: "
        f"{found.over.median:.2f} ({found.over.low:.2f} to {found.over.high:.2f}){promise}"
        f"{'   missed' if missed else ''}   differs by {found.deviation:.0e}"
    )


def _compare(pair: Pair, repeats: int) -> Measured:
    calls = {"ours": jax.jit(pair.ours), "theirs": jax.jit(pair.theirs)}
    values = {name: jax.block_until_ready(call(*pair.arguments)) for name, call in calls.items()}
    seconds = interleaved(calls, pair.arguments, repeats, 3)
    scale = float(jnp.max(jnp.abs(values["theirs"])))
    return Measured(
        pair,
        ratio_of(seconds["ours"], seconds["theirs"]),
        statistics.median(seconds["ours"]),
        statistics.median(seconds["theirs"]),
        float(jnp.max(jnp.abs(values["ours"] - values["theirs"]))) / scale,
    )


def _pairs() -> list[Pair]:
    draw = Draw(0)
    return [*_products(draw), *_tall(draw), *_diagonals(draw), *_laplacians(draw)]


def _products(draw: Draw) -> list[Pair]:
    network = formulas.network(draw, 500, 500, 500, 500)
    x, v = draw.normal(500), draw.normal(500)
    linear = adk.linearize(network)(x)
    _, push = jax.linearize(network, x)
    _, pull = jax.vjp(network, x)
    wide = Draw(1)
    loss = formulas.logistic_loss(wide.normal(2000, 300), wide.labels(2000))
    weights, direction = wide.normal(300), wide.normal(300)
    hessian = adk.hvp(loss)(weights)
    _, push_gradient = jax.linearize(jax.grad(loss), weights)
    return [
        Pair(
            "mv of three layers of 500",
            "jax.linearize",
            lambda a, _, v: a.mv(v),
            lambda _, f, v: f(v),
            (linear, push, v),
            1.1,
        ),
        Pair(
            "rmv of three layers of 500",
            "jax.vjp",
            lambda a, _, v: jax.tree.leaves(a.rmv(v))[0],
            lambda _, f, v: f(v)[0],
            (linear, pull, v),
            1.1,
        ),
        Pair(
            "mv of a logistic Hessian, 300",
            "jax.linearize(jax.grad)",
            lambda a, _, v: jax.tree.leaves(a.mv(v))[0],
            lambda _, f, v: f(v),
            (hessian, push_gradient, direction),
            1.1,
        ),
    ]


def _tall(draw: Draw) -> list[Pair]:
    rows = draw.normal(20000, 50)
    jacobian = adk.jacobian(lambda w: jnp.tanh(rows @ w))(draw.normal(50))
    return [
        Pair(
            "gram() of 20000 by 50",
            "J.T @ J",
            lambda a, _: a.gram().as_matrix(),
            lambda _, m: m.T @ m,
            (jacobian, jacobian.as_matrix()),
            1.2,
        ),
    ]


def _diagonals(draw: Draw) -> list[Pair]:
    rows = draw.normal(2000, 300)
    loss = formulas.logistic_loss(rows, draw.labels(2000))
    layers = [draw.normal(256, 256) for _ in range(3)]

    def deep(x: Array) -> Array:
        for weight in layers:
            x = jnp.tanh(weight @ x)
        return jnp.sum(x**2)

    def one_by_one(f: Callable[[Array], Array]) -> Callable[[Array], Array]:
        def entries(x: Array) -> Array:
            _, push = jax.linearize(jax.grad(f), x)
            return jax.vmap(lambda e: push(e) @ e)(jnp.eye(x.size))

        return entries

    return [
        Pair(
            f"diagonal of a Hessian, {name}",
            "a direction an entry",
            lambda x, f=f: jax.tree.leaves(adk.hessian_diagonal(f)(x).diagonal)[0],
            one_by_one(f),
            (x,),
        )
        for name, f, x in (
            ("logistic, 300", loss, draw.normal(300)),
            ("deep network, 256", deep, draw.normal(256)),
        )
    ]


def _laplacians(draw: Draw) -> list[Pair]:
    pairs: list[Pair] = []
    for size in (3, 64):
        network = formulas.network(draw, size, 64, 64, 1)

        def scalar(x: Array, network: Callable[[Array], Array] = network) -> Array:
            return network(x)[0]

        points = draw.normal(256, size)
        pairs.append(
            Pair(
                f"Laplacian at 256 points, {size} coordinates",
                "trace of jax.hessian",
                jax.vmap(lambda x, f=scalar: adk.laplacian(f)(x).laplacian),
                jax.vmap(lambda x, f=scalar: jnp.trace(jax.hessian(f)(x))),
                (points,),
            )
        )
    return pairs


def _lanczos(size: int = 10**6, steps: int = 12) -> str:
    """The largest eigenvalue of a Hessian of a million parameters, with two vectors at a time."""
    scales = jnp.linspace(0.5, 2.0, size)

    def loss(x: Array) -> Array:
        return jnp.sum(scales * jnp.cosh(0.1 * x)) + jnp.sum(jnp.sin(x[1:] * x[:-1])) / 10

    @jax.jit
    def largest(x: Array, start: Array) -> Array:
        hessian = adk.hvp(loss)(x)

        def step(carry: Any, _: None) -> Any:
            before, here, beta = carry
            product = jax.tree.leaves(hessian.mv(here))[0] - beta * before
            alpha = product @ here
            product = product - alpha * here
            norm = jnp.linalg.norm(product)
            return (here, product / norm, norm), (alpha, norm)

        begin = (jnp.zeros_like(start), start / jnp.linalg.norm(start), jnp.zeros(()))
        _, (alphas, betas) = jax.lax.scan(step, begin, length=steps)
        tridiagonal = jnp.diag(alphas) + jnp.diag(betas[:-1], 1) + jnp.diag(betas[:-1], -1)
        return jnp.linalg.eigvalsh(tridiagonal)[-1]

    x = jnp.linspace(-1.0, 1.0, size)
    start = jax.random.normal(jax.random.key(0), (size,))
    compiled = largest.lower(x, start).compile()
    begin = time.perf_counter()
    value = float(compiled(x, start))
    seconds = time.perf_counter() - begin
    analysis = compiled.memory_analysis()
    assert analysis is not None
    vectors = analysis.temp_size_in_bytes / (4 * size)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (
        f"largest eigenvalue of a Hessian of {size:,} parameters: {value:.4f} in {seconds:.2f} s, "
        f"{steps} products, temporaries of {vectors:.1f} vectors (process at most {peak:.1f} GiB)"
    )
