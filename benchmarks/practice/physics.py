"""Residuals and energies of physical models."""

import jax
import jax.numpy as jnp
from jax import Array
from problem import Draw, Problem

GROUP = "physics"


def problems() -> list[Problem]:
    """Physical models with their arguments."""
    draw = Draw(15)
    first, last = draw.normal(16, 2), draw.normal(16)
    places = jnp.linspace(0.0, 1.0, 40)

    def burgers(params: dict[str, Array]) -> Array:
        """Residuals of Burgers' equation (Raissi, Perdikaris and Karniadakis, 2019)."""

        def u(x: Array, t: Array) -> Array:
            return params["last"] @ jnp.tanh(params["first"] @ jnp.stack([x, t]) + params["b"])

        def residual(x: Array) -> Array:
            t = 0.3 * x
            rate = jax.grad(u, 1)(x, t)
            bend = jax.grad(jax.grad(u))(x, t)
            return rate + u(x, t) * jax.grad(u)(x, t) - 0.01 * bend

        return jax.vmap(residual)(places)

    def roe(left: Array, right: Array) -> Array:
        """The flux of Roe, *Approximate Riemann solvers*, 1981, for the Euler equations."""

        def parts(u: Array) -> tuple[Array, Array, Array]:
            speed = u[:, 1] / u[:, 0]
            pressure = 0.4 * (u[:, 2] - 0.5 * u[:, 0] * speed**2)
            return speed, pressure, (u[:, 2] + pressure) / u[:, 0]

        def flux(u: Array) -> Array:
            speed, pressure, enthalpy = parts(u)
            return jnp.stack([u[:, 1], u[:, 1] * speed + pressure, u[:, 1] * enthalpy], axis=1)

        (ul, _, hl), (ur, _, hr) = parts(left), parts(right)
        wl, wr = jnp.sqrt(left[:, 0]), jnp.sqrt(right[:, 0])
        u, h = (wl * ul + wr * ur) / (wl + wr), (wl * hl + wr * hr) / (wl + wr)
        a = jnp.sqrt(0.4 * (h - 0.5 * u**2))
        jump = right - left
        middle = 0.4 / a**2 * (jump[:, 0] * (h - u**2) + u * jump[:, 1] - jump[:, 2])
        lower = (jump[:, 0] * (u + a) - jump[:, 1] - a * middle) / (2 * a)
        upper = jump[:, 0] - lower - middle
        waves = (
            (lower * jnp.abs(u - a), jnp.stack([jnp.ones_like(u), u - a, h - u * a], axis=1)),
            (middle * jnp.abs(u), jnp.stack([jnp.ones_like(u), u, 0.5 * u**2], axis=1)),
            (upper * jnp.abs(u + a), jnp.stack([jnp.ones_like(u), u + a, h + u * a], axis=1)),
        )
        spread = sum(strength[:, None] * shape for strength, shape in waves)
        return 0.5 * (flux(left) + flux(right)) - 0.5 * spread

    def propane(x: Array) -> Array:
        """Combustion of propane in air, the reduced system.

        Meintjes and Morgan, *Chemical equilibrium systems as numerical test problems*, 1990; in
        MINPACK-2 as the problem of five unknowns.
        """
        p, rr = 40.0, 10.0
        r = [0.0, 0.0, 0.193, 2.597e-3 / p**0.5, 3.448e-3 / p**0.5, 1.799e-5 / p]
        r += [2.155e-4 / p**0.5, 3.846e-5 / p]
        return jnp.stack([
            x[0] * x[1] + x[0] - 3 * x[4],
            2 * x[0] * x[1] + x[0] + x[1] * x[2] ** 2 + r[7] * x[1] - rr * x[4]
            + 2 * r[7] * x[1] ** 2 + r[6] * x[1] * x[2] + r[5] * x[1],
            2 * x[1] * x[2] ** 2 + 2 * r[4] * x[2] ** 2 - 8 * x[4] + r[6] * x[1] * x[2]
            + r[3] * x[2],
            r[6] * x[1] * x[3] + 2 * x[3] ** 2 - 4 * rr * x[4],
            x[0] * (x[1] + 1) + r[7] * x[1] ** 2 + x[1] * x[2] ** 2 + r[5] * x[1]
            + r[4] * x[2] ** 2 + x[3] ** 2 - 1 + r[3] * x[2] + r[6] * x[1] * x[2],
        ])  # fmt: skip

    def bratu(u: Array) -> Array:
        """Residuals of the Bratu problem, -laplace(u) = exp(u), on a grid."""
        padded = jnp.pad(u, 1)
        near = padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2]
        return 4 * u - near - 0.01 * jnp.exp(u)

    def lennard_jones(x: Array) -> Array:
        """The energy of a cluster of atoms (Jones, 1924)."""
        rows, columns = jnp.triu_indices(x.shape[0], 1)
        apart = jnp.sum((x[rows] - x[columns]) ** 2, axis=1)
        return jnp.sum(apart**-6 - 2 * apart**-3)

    params = {"first": first, "last": last, "b": jnp.zeros(16)}
    still = jnp.asarray([1.0, 0.1, 2.5], jnp.float32)
    states = [still[None] + 0.05 * draw.normal(100, 3) for _ in range(2)]
    atoms = 1.2 * jnp.stack(jnp.meshgrid(*[jnp.arange(3.0)] * 3), axis=-1).reshape(27, 3)
    start = jnp.asarray([0.1, 3.0, 10.0, 1.0, 0.05], jnp.float32)
    return [
        Problem("PINN of Burgers' equation", burgers, (params,), group=GROUP),
        Problem("Roe flux, 100 faces", roe, (states[0], states[1]), group=GROUP),
        Problem("propane combustion", propane, (start,), group=GROUP),
        Problem("Bratu, 20 by 20", bratu, (draw.normal(20, 20),), group=GROUP),
        Problem("Lennard-Jones, 27 atoms, Hessian", lennard_jones, (atoms,), order=2, group=GROUP),
        *_with_rules(draw),
    ]


def _with_rules(draw: Draw) -> list[Problem]:
    """What JAX differentiates in one mode, or in none."""

    @jax.custom_vjp
    def projected(x: Array) -> Array:
        return x / jnp.sqrt(jnp.sum(x**2))

    def forward(x: Array) -> tuple[Array, tuple[Array, Array]]:
        norm = jnp.sqrt(jnp.sum(x**2))
        return x / norm, (x / norm, norm)

    def backward(kept: tuple[Array, Array], g: Array) -> tuple[Array]:
        unit, norm = kept
        return ((g - unit * (unit @ g)) / norm,)

    projected.defvjp(forward, backward)

    def constrained(x: Array) -> Array:
        """A rule of its own, reverse only, inside of a step."""
        return jnp.sin(3 * projected(jnp.tanh(x) + 0.1))

    def relaxed(x: Array) -> Array:
        """An iteration until it has settled: a `while_loop`, forward only."""

        def step(state: tuple[Array, Array]) -> tuple[Array, Array]:
            y = 0.5 * jnp.cos(state[0]) + x
            return y, jnp.max(jnp.abs(y - state[0]))

        return jax.lax.while_loop(
            lambda state: state[1] > 1e-4, step, (x, jnp.asarray(1.0, x.dtype))
        )[0]

    def both(x: Array) -> Array:
        """The one after the other, on which both of JAX's modes raise."""
        return relaxed(projected(x)[:4])

    return [
        Problem("custom_vjp, 60", constrained, (draw.normal(60),), group=GROUP),
        Problem("while_loop, 60", relaxed, (draw.normal(60),), group=GROUP),
        Problem("custom_vjp, then while_loop", both, (draw.normal(60),), group=GROUP),
    ]
