"""The Laplace approximation of a posterior, with named standard errors.

Twenty animals got a drug in four doses. The log odds of death are linear in the logarithm of the
dose, and intercept and slope have a normal prior. Near its mode the posterior is about normal: its
covariance is the inverse of the Hessian of its negative logarithm, whose determinant gives the
evidence.

Data and prior: A. Gelman et al., Bayesian Data Analysis, 3rd edition, Chapman and Hall, 2013,
section 3.7 and exercise 3.11; from A. Racine et al., Bayesian methods in practice, Applied
Statistics 35 (1986) 93-150.
"""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy as jsp
from jaxtyping import Array, Float, PRNGKeyArray

import autodiffkit as adk


class Line(eqx.Module):
    """The parameters: log odds of death at dose one, and per unit of the logarithm."""

    intercept: Float[Array, ""]
    slope: Float[Array, ""]


class Assay(NamedTuple):
    """What was given, and what came of it."""

    log_dose: Float[Array, "n"]
    animals: Float[Array, "n"]
    deaths: Float[Array, "n"]


class Laplace(NamedTuple):
    """A normal approximation of a posterior."""

    mode: Any
    covariance: adk.SymmetricMatrix
    log_evidence: Float[Array, ""]


def load() -> Assay:
    """Four groups of five animals."""
    log_dose = jnp.array([-0.86, -0.30, -0.05, 0.73])
    return Assay(log_dose, jnp.full(4, 5.0), jnp.array([0.0, 1.0, 3.0, 5.0]))


def log_likelihood(params: Line, assay: Assay) -> Float[Array, ""]:
    """Of the deaths, which are binomial."""
    n, k = assay.animals, assay.deaths
    logit = params.intercept + params.slope * assay.log_dose
    ways = jsp.special.gammaln(n + 1) - jsp.special.gammaln(k + 1) - jsp.special.gammaln(n - k + 1)
    return jnp.sum(ways + k * logit - n * jax.nn.softplus(logit))


def log_prior(params: Line) -> Float[Array, ""]:
    """Normal: means 0 and 10, standard deviations 2 and 10, correlation 0.5."""
    covariance = jnp.array([[4.0, 10.0], [10.0, 100.0]])
    place = jnp.stack([params.intercept, params.slope])
    density = jsp.stats.multivariate_normal.logpdf(place, jnp.array([0.0, 10.0]), covariance)
    return jnp.asarray(density)


def energy(params: Line, assay: Assay) -> Float[Array, ""]:
    """The negative logarithm of the posterior, up to the evidence."""
    return -log_likelihood(params, assay) - log_prior(params)


@eqx.filter_jit
def laplace(energy: Callable[..., Array], start: Any, *data: Any) -> Laplace:
    """The approximation at the mode, which twenty Newton steps find."""
    hessian = adk.hessian(energy, wrt="params")

    def step(_: int, params: Any) -> Any:
        H = hessian(params, *data)
        return jax.tree.map(jnp.subtract, params, H.solve(H.grad).params)

    mode = jax.lax.fori_loop(0, 20, step, start)
    H = hessian(mode, *data)
    size = H.as_matrix().shape[0]
    log_evidence = size / 2 * jnp.log(2 * jnp.pi) - H.value - H.slogdet().logabsdet / 2
    return Laplace(mode, H.inverse(), log_evidence)


@eqx.filter_jit
def sample(found: Laplace, key: PRNGKeyArray, count: int) -> Any:
    """Draws from the approximation, along a last axis of each parameter."""
    C = found.covariance
    root = jnp.linalg.cholesky(C.as_matrix())
    noise = jax.random.normal(key, (root.shape[0], count), root.dtype)
    mode = C.ravel(params=found.mode)
    return C.unravel(mode[:, None] + root @ noise).params


def main() -> None:
    """Approximates the posterior of the bioassay and prints what it says."""
    with jax.enable_x64(True):
        found = laplace(energy, Line(jnp.zeros(()), jnp.zeros(())), load())
        errors = found.covariance.stderr().params
        for name in ("intercept", "slope"):
            print(f"{name:9} {getattr(found.mode, name):7.3f} +- {getattr(errors, name):.3f}")
        print(f"correlation  {found.covariance.correlation().params.intercept.params.slope:.3f}")
        print(f"log evidence {found.log_evidence:.3f}")
        draws = sample(found, jax.random.key(0), 10_000)
        print(f"half of them die at a log dose of {jnp.median(-draws.intercept / draws.slope):.3f}")


if __name__ == "__main__":
    sys.exit(main())
