"""Gauss-Newton fit of a differential equation, solved by diffrax.

Numbers of prey and predators follow the equations of Lotka and Volterra. Their four rates are
fitted to noisy counts by Gauss-Newton steps, each a linear least-squares problem with the Jacobian
of the residuals by name. The Jacobian at the fit has the standard errors of the rates. optimistix
finds the same fit.
"""

import sys
from typing import Any, NamedTuple

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float

import autodiffkit as adk


class Rates(eqx.Module):
    """The parameters, each per unit of time."""

    growth: Float[Array, ""]  # of the prey
    predation: Float[Array, ""]  # of the prey, per predator
    gain: Float[Array, ""]  # of the predators, per prey
    death: Float[Array, ""]  # of the predators


class Data(NamedTuple):
    """What was observed, and when."""

    times: Float[Array, "n"]
    log_numbers: Float[Array, "n 2"]  # of prey and of predators


def field(_: Any, state: Float[Array, "2"], params: Rates) -> Float[Array, "2"]:
    """How fast the logarithms of both numbers change."""
    prey, predators = jnp.exp(state)
    births, deaths = params.growth, params.death
    return jnp.stack([births - params.predation * predators, params.gain * prey - deaths])


def log_numbers(params: Rates, times: Float[Array, "n"]) -> Float[Array, "n 2"]:
    """The logarithms of both numbers, from four prey and two predators at time zero."""
    solution = dfx.diffeqsolve(
        dfx.ODETerm(field),
        dfx.Tsit5(),
        t0=0.0,
        t1=times[-1],
        dt0=None,
        y0=jnp.log(jnp.array([4.0, 2.0])),
        args=params,
        saveat=dfx.SaveAt(ts=times),
        stepsize_controller=dfx.PIDController(rtol=1e-8, atol=1e-8),
        adjoint=dfx.ForwardMode(),
        throw=False,  # where there is no solution there are no finite residuals
    )
    assert solution.ys is not None
    return solution.ys


def observations() -> Data:
    """The solution for some rates, with errors of five per cent."""
    times = jnp.linspace(0.5, 12.0, 24)
    exact = log_numbers(Rates(*jnp.array([1.0, 0.4, 0.3, 0.8])), times)
    errors = 0.05 * jax.random.normal(jax.random.key(0), exact.shape, exact.dtype)
    return Data(times, exact + errors)


def residuals(params: Rates, data: Data) -> Float[Array, "n 2"]:
    """Model minus observation."""
    return log_numbers(params, data.times) - data.log_numbers


def fit(params: Rates, data: Data) -> tuple[Rates, list[adk.Jacobian[Array]]]:
    """Gauss-Newton steps, halved until they lower the sum of squares; and the Jacobians."""
    jacobian = jax.jit(adk.jacobian(residuals, wrt="params"))
    solve = jax.jit(lambda J: J.lstsq(-J.value).params)
    found = [jacobian(params, data)]
    step = solve(found[0])
    for _ in range(50):
        moved = jax.tree.map(jnp.add, params, step)
        J = jacobian(moved, data)
        if loss(J) <= loss(found[-1]):
            params, step = moved, solve(J)
            found.append(J)
            if loss(found[-2]) - loss(J) < 1e-8 * loss(J):
                return params, found
        else:
            step = jax.tree.map(lambda x: x / 2, step)
    raise RuntimeError("no convergence in 50 steps")


def loss(J: adk.Jacobian[Array]) -> float:
    """The sum of squares of the residuals."""
    return float(jnp.sum(J.value**2))


def main() -> None:
    """Fits the rates and prints them with their standard errors."""
    with jax.enable_x64(True):
        data = observations()
        start = Rates(*jnp.array([0.8, 0.5, 0.35, 1.0]))
        params, found = fit(start, data)
        print("sums of squares:", *(f"{loss(J):.6f}" for J in found))
        errors = found[-1].covariance(found[-1].value).stderr().params
        solver = optx.LevenbergMarquardt(rtol=1e-8, atol=1e-8)
        other = optx.least_squares(residuals, solver, start, data, options={"jac": "fwd"})
        print("rate         estimate  std. error  optimistix")
        for name in ("growth", "predation", "gain", "death"):
            numbers = (float(getattr(x, name)) for x in (params, errors, other.value))
            print(f"{name:9}", *(f"{x:11.4f}" for x in numbers))


if __name__ == "__main__":
    sys.exit(main())
