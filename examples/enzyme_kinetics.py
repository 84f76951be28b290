"""Nonlinear regression with a structured Jacobian: how fast an enzyme works.

The Michaelis-Menten model says that the rate of an enzymatic reaction depends on the
concentration of the substrate as `vmax * concentration / (km + concentration)`. It is fitted
to the rates that Treloar measured with and without puromycin, by the method of Levenberg and
Marquardt, and the estimates and their standard errors are set against the published ones.

Data: M. A. Treloar, Effects of Puromycin on Galactosyltransferase in Golgi Membranes, M.Sc.
thesis, University of Toronto, 1974, as printed in D. M. Bates and D. G. Watts, Nonlinear
Regression Analysis and Its Applications, Wiley, 1988, Appendix A1.3. Published estimates: the
examples of the data set `Puromycin` in the R package `datasets`, by `nls`.

Concentrations are in parts per million, rates in counts per minute per minute.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import autodiffkit as adk

TREATED = """
0.02 76   0.02 47   0.06 97   0.06 107  0.11 123  0.11 139
0.22 159  0.22 152  0.56 191  0.56 201  1.10 207  1.10 200
"""
UNTREATED = """
0.02 67   0.02 51   0.06 84   0.06 86   0.11 98   0.11 115
0.22 131  0.22 124  0.56 144  0.56 158  1.10 160
"""


class Kinetics(eqx.Module):
    """The parameters of the model: a pytree, which is fitted as it is."""

    vmax: float | Float[Array, ""]
    km: float | Float[Array, ""]


class Experiment(NamedTuple):
    """One series of measurements."""

    name: str
    concentration: Float[Array, "n"]
    rate: Float[Array, "n"]
    start: Kinetics
    published: dict[str, tuple[str, str]]  # estimate and standard error, as printed
    published_error: str  # the residual standard error


class Fit(NamedTuple):
    """The result of a fit, everything in the structure of the parameters."""

    parameters: Kinetics
    stderr: Kinetics
    covariance: adk.SymmetricMatrix
    residual_error: float
    freedom: int


def load() -> tuple[Experiment, Experiment]:
    """The two series, with the starting values of the R examples and the published results."""

    def columns(text: str) -> tuple[Array, Array]:
        table = jnp.asarray([float(x) for x in text.split()]).reshape(-1, 2)
        return table[:, 0], table[:, 1]

    return (
        Experiment(
            "treated",
            *columns(TREATED),
            Kinetics(200.0, 0.05),
            {"vmax": ("2.127e+02", "6.947e+00"), "km": ("6.412e-02", "8.281e-03")},
            "10.93",
        ),
        Experiment(
            "untreated",
            *columns(UNTREATED),
            Kinetics(160.0, 0.05),
            {"vmax": ("1.603e+02", "6.480e+00"), "km": ("4.771e-02", "7.782e-03")},
            "9.773",
        ),
    )


def michaelis_menten(concentration: Float[Array, "n"], kinetics: Kinetics) -> Float[Array, "n"]:
    """The rate at each concentration."""
    return kinetics.vmax * concentration / (kinetics.km + concentration)


def residual(
    kinetics: Kinetics, concentration: Float[Array, "n"], rate: Float[Array, "n"]
) -> Float[Array, "n"]:
    """Model minus measurement."""
    return michaelis_menten(concentration, kinetics) - rate


def fit(
    experiment: Experiment,
    steps: int = 50,
    report: Callable[[str], None] = lambda _: None,
) -> Fit:
    """Least squares by Levenberg and Marquardt, with Marquardt's scaling of the damping.

    D. W. Marquardt, An Algorithm for Least-Squares Estimation of Nonlinear Parameters, SIAM
    Journal on Applied Mathematics 11 (1963) 431-441.

    Args:
        experiment: The measurements and where to start.
        steps: At most so many steps.
        report: Takes a line about each step.

    Returns:
        Estimates, standard errors and their covariance.

    Raises:
        RuntimeError: If the steps did not suffice.
    """
    data = (experiment.concentration, experiment.rate)
    jacobian = jax.jit(adk.jacobian(residual, wrt="kinetics"))
    kinetics, damping = experiment.start, 1e-3
    here = jacobian(kinetics, *data)
    rss = float(here.value @ here.value)
    report(f"step  {'rss':>12}  {'vmax':>9}  {'km':>9}  damping")
    for step in range(steps):
        report(
            f"{step:4}  {rss:12.6f}  {float(kinetics.vmax):9.5f}  {float(kinetics.km):9.6f}  "
            f"{damping:.0e}"
        )
        # Least squares on the Jacobian over the damping, which needs no normal equations.
        matrix = here.as_matrix()
        scale = jnp.linalg.norm(matrix, axis=0)
        damped = jnp.concatenate([matrix, jnp.diag(damping**0.5 * scale)])
        target = jnp.concatenate([-here.value, jnp.zeros(2)])
        change = here.unravel(jnp.linalg.lstsq(damped, target)[0]).kinetics
        moved = jax.tree.map(jnp.add, kinetics, change)
        trial = jacobian(moved, *data)
        trial_rss = float(trial.value @ trial.value)
        # What the linear model still promises, relative to what is there.
        promise = jnp.linalg.norm(here.mv(kinetics=change)) / jnp.linalg.norm(here.value)
        if trial_rss <= rss:
            kinetics, here, rss, damping = moved, trial, trial_rss, damping / 10
        else:
            damping *= 10
        if promise < 1e-7:
            return _summary(kinetics, here, rss)
    raise RuntimeError(f"no convergence in {steps} steps")


def _summary(kinetics: Kinetics, J: adk.Jacobian[Array], rss: float) -> Fit:
    covariance = J.covariance(J.value)
    stderr = covariance.stderr().kinetics
    rows, columns = J.as_matrix().shape
    freedom = rows - columns
    return Fit(kinetics, stderr, covariance, (rss / freedom) ** 0.5, freedom)


def table(experiment: Experiment, result: Fit) -> list[str]:
    """Estimates and standard errors beside the published ones."""
    lines = [f"{'':14}{'estimate':>12}{'published':>12}{'std. error':>14}{'published':>12}"]
    for name, published in experiment.published.items():
        estimate = f"{float(getattr(result.parameters, name)):.3e}"
        error = f"{float(getattr(result.stderr, name)):.3e}"
        label = f"kinetics.{name}"
        lines.append(f"{label:14}{estimate:>12}{published[0]:>12}{error:>14}{published[1]:>12}")
    lines.append(
        f"residual standard error {result.residual_error:.4g} on {result.freedom} degrees of "
        f"freedom (published: {experiment.published_error})"
    )
    return lines


def draw(results: Sequence[tuple[Experiment, Fit]], path: Path) -> None:
    """Saves a figure of the measurements and the fitted curves."""
    import matplotlib as mpl  # noqa: PLC0415  # only the figure needs it

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415  # after the backend is chosen

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    grid = jnp.linspace(0.0, 1.15, 200)
    for (experiment, result), colour in zip(results, ("tab:blue", "tab:orange"), strict=True):
        axes.plot(experiment.concentration, experiment.rate, "o", color=colour)
        curve = michaelis_menten(grid, result.parameters)
        # The band of one standard error of the curve, from its own Jacobian.
        slopes = adk.jacobian(michaelis_menten, wrt="kinetics")(grid, result.parameters).as_matrix()
        covariance = result.covariance.as_matrix()
        band = jnp.sqrt(jnp.einsum("ij,jk,ik->i", slopes, covariance, slopes))
        axes.plot(grid, curve, color=colour, label=experiment.name)
        axes.fill_between(grid, curve - band, curve + band, color=colour, alpha=0.2, lw=0)
    axes.set_xlabel("substrate concentration [ppm]")
    axes.set_ylabel("reaction rate [counts/min$^2$]")
    axes.set_title("Michaelis-Menten kinetics, fitted, with one standard error")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fits both series, prints everything and saves the figure."""
    parser = argparse.ArgumentParser(description="Fit Michaelis-Menten kinetics.")
    parser.add_argument("--figure", type=Path, default=Path("enzyme_kinetics.png"))
    options = parser.parse_args(arguments)
    results: list[tuple[Experiment, Fit]] = []
    with jax.enable_x64(True):
        for i, experiment in enumerate(load()):
            data = (experiment.start, experiment.concentration, experiment.rate)
            if i == 0:
                print(adk.jacobian(residual, wrt="kinetics").plan(*data), end="\n\n")
                print(adk.jacobian(residual, wrt="kinetics")(*data), end="\n\n")
            print(f"Fit of the {experiment.name} series")
            result = fit(experiment, report=print)
            print("", *table(experiment, result), "", sep="\n")
            results.append((experiment, result))
        draw(results, options.figure)
    print(f"The figure is in {options.figure}.")


if __name__ == "__main__":
    sys.exit(main())
