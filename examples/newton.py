"""Newton's method on named parameters: Poisson regression.

Counts are modelled as Poisson variables whose logarithmic rates are sums of effects of two factors.
The negative log likelihood is minimised by Newton's method, one solve with the Hessian for each
step, and by BFGS, which only sees gradients. The inverse of the Hessian at the minimum has the
standard errors.

Data: A. J. Dobson, An Introduction to Generalized Linear Models, Chapman and Hall, 1990, section
9.2.
They are those of the example of `glm` in R.
"""

import sys
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy as jsp
import optimistix as optx
from jaxtyping import Array, Float, Int

import autodiffkit as adk


class Effects(eqx.Module):
    """The parameters: effects of the levels of both factors, against the first levels."""

    intercept: Float[Array, ""]
    outcome: Float[Array, "2"]
    treatment: Float[Array, "2"]


class Data(NamedTuple):
    """Counts, and the levels of two factors at which they were taken."""

    outcome: Int[Array, "n"]
    treatment: Int[Array, "n"]
    counts: Float[Array, "n"]


def load() -> Data:
    """Nine counts, one for each pair of levels."""
    counts = [18.0, 17.0, 15.0, 20.0, 10.0, 20.0, 25.0, 13.0, 12.0]
    levels = jnp.arange(9)
    return Data(levels % 3, levels // 3, jnp.asarray(counts))


def start(data: Data) -> Effects:
    """One rate for all counts."""
    return Effects(jnp.log(jnp.mean(data.counts)), jnp.zeros(2), jnp.zeros(2))


def loss(params: Effects, data: Data) -> Float[Array, ""]:
    """The negative log likelihood of the counts."""
    first = jnp.zeros(1)
    outcome = jnp.concatenate([first, params.outcome])[data.outcome]
    treatment = jnp.concatenate([first, params.treatment])[data.treatment]
    log_rate = params.intercept + outcome + treatment
    log_factorial = jsp.special.gammaln(data.counts + 1)
    return jnp.sum(jnp.exp(log_rate) - data.counts * log_rate + log_factorial)


@jax.jit
def newton_step(params: Effects, data: Data) -> tuple[adk.Hessian[Array], Effects]:
    """The loss with its gradient and Hessian, from one pass, and where they lead."""
    H = adk.hessian(loss, wrt="params")(params, data)
    step = H.solve(H.grad).params
    return H, jax.tree.map(jnp.subtract, params, step)


def newton(params: Effects, data: Data) -> tuple[Effects, list[adk.Hessian[Array]]]:
    """Newton steps until the gradient vanishes to rounding, and the Hessians on the way."""
    hessians: list[adk.Hessian[Array]] = []
    for _ in range(20):
        H, moved = newton_step(params, data)
        hessians.append(H)
        if slope(H) < 1e-10:
            return params, hessians
        params = moved
    raise RuntimeError("no convergence in 20 steps")


def slope(H: adk.Hessian[Array]) -> float:
    """The length of the gradient."""
    return float(jnp.linalg.norm(H.ravel(H.grad)))


@jax.jit
def standard_errors(H: adk.Hessian[Array]) -> Effects:
    """Those of the estimates, from the Hessian at the minimum."""
    return H.inverse().stderr().params


def bfgs(params: Effects, data: Data) -> optx.Solution[Effects, None]:
    """The same minimum from gradients alone."""
    return optx.minimise(loss, optx.BFGS(rtol=1e-10, atol=1e-10), params, data)


def main() -> None:
    """Fits the counts by both methods and prints estimates and standard errors."""
    with jax.enable_x64(True):
        data = load()
        params, hessians = newton(start(data), data)
        for i, H in enumerate(hessians):
            print(f"step {i}: loss {float(H.value):.5f}, length of the gradient {slope(H):.1e}")
        solution = bfgs(start(data), data)
        steps = int(solution.stats["num_steps"])
        print(f"BFGS takes {steps} steps to {float(loss(solution.value, data)):.5f}.")
        errors = standard_errors(hessians[-1])
        for name in ("intercept", "outcome", "treatment"):
            print(f"{name:9}  {getattr(params, name).round(4)} +- {getattr(errors, name).round(4)}")


if __name__ == "__main__":
    sys.exit(main())
