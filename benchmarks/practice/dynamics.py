"""Rollouts of differential equations, shooting and many bodies."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from problem import Draw, Problem

GROUP = "dynamics"

Field = Callable[[Array], Array]


def _rolled(field: Field, state: Array, step: float, count: int) -> Array:
    """All states of the classical Runge-Kutta method (Kutta, 1901)."""

    def advance(x: Array, _: None) -> tuple[Array, Array]:
        k1 = field(x)
        k2 = field(x + 0.5 * step * k1)
        k3 = field(x + 0.5 * step * k2)
        k4 = field(x + step * k3)
        x = x + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return x, x

    return jax.lax.scan(advance, state, None, length=count)[1]


def problems() -> list[Problem]:
    """Trajectories with their initial states and parameters."""
    draw = Draw(14)

    def lotka_volterra(state: Array, rates: Array) -> Array:
        """Lotka, *Elements of Physical Biology*, 1925."""

        def field(x: Array) -> Array:
            prey, hunters = x
            return jnp.stack([
                rates[0] * prey - rates[1] * prey * hunters,
                rates[2] * prey * hunters - rates[3] * hunters,
            ])

        return _rolled(field, state, 0.05, 200)

    def lorenz(state: Array) -> Array:
        """Lorenz, *Deterministic nonperiodic flow*, 1963."""

        def field(x: Array) -> Array:
            return jnp.stack([
                10.0 * (x[1] - x[0]),
                x[0] * (28.0 - x[2]) - x[1],
                x[0] * x[1] - 8.0 / 3.0 * x[2],
            ])

        return _rolled(field, state, 0.01, 300)[-1]

    def robertson(rates: Array) -> Array:
        """Robertson, *The solution of a set of reaction rate equations*, 1966."""

        def field(x: Array) -> Array:
            first, second, third = rates[0] * x[0], rates[1] * x[1] ** 2, rates[2] * x[1] * x[2]
            return jnp.stack([third - first, first - third - second, second])

        return _rolled(field, jnp.asarray([1.0, 0.0, 0.0], rates.dtype), 1e-3, 200)

    def bodies(places: Array, speeds: Array) -> Array:
        """Gravitation, softened, by the leapfrog method."""

        def pull(x: Array) -> Array:
            apart = x[None] - x[:, None]
            return jnp.sum(apart / (jnp.sum(apart**2, axis=2, keepdims=True) + 0.1) ** 1.5, axis=1)

        def step(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
            x, v = state
            v = v + 0.01 * pull(x)
            return (x + 0.01 * v, v), None

        return jax.lax.scan(step, (places, speeds), None, length=50)[0][0]

    def shooting(states: Array, controls: Array) -> Array:
        """Defects of multiple shooting (Bock and Plitt, 1984) of a pendulum."""

        def end(x: Array, u: Array) -> Array:
            return _rolled(lambda x: jnp.stack([x[1], u - jnp.sin(x[0])]), x, 0.05, 4)[-1]

        return jax.vmap(end)(states[:-1], controls) - states[1:]

    def chain(angles: Array) -> Array:
        """The energy of a hanging chain of rods, and its rate along the field of gravity."""
        x, y = jnp.cumsum(jnp.sin(angles)), jnp.cumsum(-jnp.cos(angles))
        return jnp.sum(y) + 0.5 * jnp.sum(x**2) / angles.size

    return [
        Problem(
            "Lotka-Volterra, 200 steps",
            lotka_volterra,
            (jnp.ones(2), jnp.asarray([1.1, 0.4, 0.1, 0.4], jnp.float32)),
            group=GROUP,
        ),
        Problem("Lorenz, 300 steps", lorenz, (jnp.ones(3),), group=GROUP),
        Problem(
            "Robertson kinetics, 200 steps",
            robertson,
            (jnp.asarray([0.04, 30.0, 10.0], jnp.float32),),
            group=GROUP,
        ),
        Problem(
            "12 bodies, 50 steps",
            bodies,
            (4 * draw.normal(12, 3), draw.normal(12, 3)),
            group=GROUP,
        ),
        Problem(
            "multiple shooting, 40 intervals",
            shooting,
            (draw.normal(41, 2), draw.normal(40)),
            group=GROUP,
        ),
        Problem("hanging chain, 60 rods, Hessian", chain, (draw.normal(60),), order=2, group=GROUP),
    ]
