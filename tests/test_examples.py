"""The worked examples, against closed forms, published digits, SciPy and optimistix."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from scipy import integrate, optimize

import autodiffkit as adk
import heat_equation
import laplace_approximation
import natural_gradient
import newton
import ode_fit


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


# Newton's method ----------------------------------------------------------------


def test_newton_finds_the_published_regression_with_quadratic_convergence(x64):
    data = newton.load()
    params, hessians = newton.newton(newton.start(data), data)
    # The design is balanced, so the rates are those of the levels' means.
    means = np.asarray(data.counts).reshape(3, 3).mean(axis=0)
    expected = [np.log(means[0]), *np.log(means[1:] / means[0]), 0, 0]
    np.testing.assert_allclose(flat(params), expected, atol=1e-12)
    errors = flat(newton.standard_errors(hessians[-1]))
    published = ["1.709e-01", "2.022e-01", "1.927e-01", "2.000e-01", "2.000e-01"]
    assert [f"{x:.3e}" for x in errors] == published
    slopes = [newton.slope(H) for H in hessians]
    ratios = [after / before**2 for before, after in itertools.pairwise(slopes[1:])]
    assert len(slopes) == 5
    assert all(0.003 < ratio < 0.006 for ratio in ratios)


def test_newton_and_bfgs_agree(x64, capsys):
    data = newton.load()
    params, hessians = newton.newton(newton.start(data), data)
    solution = newton.bfgs(newton.start(data), data)
    np.testing.assert_allclose(flat(solution.value), flat(params), atol=1e-6)
    assert solution.stats["num_steps"] > 4 * len(hessians)


# The Laplace approximation ------------------------------------------------------


def test_the_laplace_approximation_of_a_linear_model_is_exact(x64):
    generator = np.random.default_rng(0)
    design, observed = generator.normal(size=(12, 3)), generator.normal(size=12)
    noise, prior = 0.7, 1.3

    def energy(params, design, observed):
        coefficients = jnp.concatenate([params["slopes"], params["offset"][None]])
        misfit = (observed - design @ coefficients) / noise
        constants = 12 * jnp.log(noise) + 3 * jnp.log(prior) + 7.5 * jnp.log(2 * jnp.pi)
        return (misfit @ misfit + coefficients @ coefficients / prior**2) / 2 + constants

    start = {"slopes": jnp.zeros(2), "offset": jnp.zeros(())}
    found = laplace_approximation.laplace(energy, start, jnp.asarray(design), jnp.asarray(observed))
    covariance = np.linalg.inv(design.T @ design / noise**2 + np.eye(3) / prior**2)
    mode = covariance @ design.T @ observed / noise**2
    np.testing.assert_allclose(found.mode["slopes"], mode[:2])
    errors = found.covariance.stderr().params
    np.testing.assert_allclose(errors["slopes"], np.sqrt(np.diag(covariance))[:2])
    np.testing.assert_allclose(errors["offset"], np.sqrt(covariance[2, 2]))
    marginal = noise**2 * np.eye(12) + prior**2 * design @ design.T
    _, logdet = np.linalg.slogdet(2 * np.pi * marginal)
    evidence = -(observed @ np.linalg.solve(marginal, observed) + logdet) / 2
    np.testing.assert_allclose(found.log_evidence, evidence)


@pytest.fixture
def bioassay(x64):
    start = laplace_approximation.Line(jnp.zeros(()), jnp.zeros(()))
    data = laplace_approximation.load()
    return laplace_approximation.laplace(laplace_approximation.energy, start, data)


def test_the_laplace_approximation_of_the_bioassay_is_near_the_quadrature(bioassay):
    data = laplace_approximation.load()

    @jax.jit
    @jax.vmap
    @jax.vmap
    def density(intercept, slope):
        return jnp.exp(
            -laplace_approximation.energy(laplace_approximation.Line(intercept, slope), data)
        )

    intercept, slope = jnp.linspace(-7, 9, 321), jnp.linspace(-25, 65, 361)
    weights = np.asarray(density(*jnp.meshgrid(intercept, slope, indexing="ij")))
    total = weights.sum() * 0.05 * 0.25
    np.testing.assert_allclose(bioassay.log_evidence, np.log(total), atol=0.01)
    for name, grid, axis in [("intercept", intercept, 1), ("slope", slope, 0)]:
        marginal = weights.sum(axis=axis) / weights.sum()
        spread = np.sqrt(marginal @ np.square(grid - marginal @ grid))
        error = getattr(bioassay.covariance.stderr().params, name)
        np.testing.assert_allclose(error, spread, rtol=0.03)


def test_without_a_prior_the_bioassay_has_the_published_digits(x64):
    found = laplace_approximation.laplace(
        lambda params, assay: -laplace_approximation.log_likelihood(params, assay),
        laplace_approximation.Line(jnp.zeros(()), jnp.zeros(())),
        laplace_approximation.load(),
    )
    errors = found.covariance.stderr().params
    assert [f"{x:.1f}" for x in (found.mode.intercept, errors.intercept)] == ["0.8", "1.0"]
    assert [f"{x:.1f}" for x in (found.mode.slope, errors.slope)] == ["7.7", "4.9"]


def test_the_samples_have_the_moments_of_the_approximation(bioassay):
    draws = laplace_approximation.sample(bioassay, jax.random.key(1), 40_000)
    assert draws.slope.shape == (40_000,)
    together = np.stack([draws.intercept, draws.slope])
    np.testing.assert_allclose(together.mean(axis=1), flat(bioassay.mode), atol=0.1)
    np.testing.assert_allclose(np.cov(together), bioassay.covariance.as_matrix(), rtol=0.05)


# The fit of a differential equation ---------------------------------------------


def test_the_fit_of_an_ode_is_that_of_scipy_and_of_optimistix(x64):
    data = ode_fit.observations()
    start = ode_fit.Rates(*jnp.array([0.8, 0.5, 0.35, 1.0]))
    params, found = ode_fit.fit(start, data)

    def residuals(rates):
        growth, predation, gain, death = rates

        def field(_, state):
            prey, predators = np.exp(state)
            return [growth - predation * predators, gain * prey - death]

        solution = integrate.solve_ivp(
            field, (0, 12), np.log([4, 2]), t_eval=data.times, method="DOP853", rtol=1e-9, atol=1e-9
        )
        return (solution.y.T - data.log_numbers).ravel()

    other = optimize.least_squares(residuals, flat(start), jac="3-point", xtol=1e-10)
    np.testing.assert_allclose(flat(params), other.x, rtol=1e-5)
    variance = 2 * other.cost / (48 - 4)
    covariance = variance * np.linalg.inv(other.jac.T @ other.jac)
    J = found[-1]
    C = J.covariance(J.value)
    np.testing.assert_allclose(flat(C.stderr()), np.sqrt(np.diag(covariance)), rtol=1e-4)
    expected = covariance[0, 3] / np.sqrt(covariance[0, 0] * covariance[3, 3])
    np.testing.assert_allclose(C.correlation().params.growth.params.death, expected, rtol=1e-4)
    # The rates of which the data were made are within three standard errors.
    distance = (flat(params) - [1.0, 0.4, 0.3, 0.8]) / flat(C.stderr())
    assert np.abs(distance).max() < 3

    solver = optx.LevenbergMarquardt(rtol=1e-8, atol=1e-8)
    third = optx.least_squares(ode_fit.residuals, solver, start, data, options={"jac": "fwd"})
    np.testing.assert_allclose(flat(params), flat(third.value), rtol=1e-5)


def test_steps_that_are_too_long_for_the_ode_are_halved(x64):
    start = ode_fit.Rates(*jnp.array([1.5, 1.0, 0.5, 0.5]))
    _, found = ode_fit.fit(start, ode_fit.observations())
    losses = [ode_fit.loss(J) for J in found]
    assert losses == sorted(losses, reverse=True)
    np.testing.assert_allclose(losses[-1], 0.110627, atol=1e-6)


def test_an_ode_that_is_solved_forwards_is_differentiated_forwards(x64):
    plan = adk.jacobian(ode_fit.residuals, wrt="params").plan(
        ode_fit.Rates(*jnp.ones(4)), ode_fit.Data(jnp.arange(1.0, 4.0), jnp.zeros((3, 2)))
    )
    assert "forward mode" in str(plan)
    assert "4 directions pushed forward" in str(plan)


# The heat equation --------------------------------------------------------------


def test_the_exact_solution_solves_the_heat_equation(x64):
    points = heat_equation.scattered(jax.random.key(5), 7)
    laplacian = jax.vmap(adk.laplacian(heat_equation.exact, wrt="x"))(*points)
    np.testing.assert_allclose(laplacian.laplacian, -2 * np.pi**2 * laplacian.value)
    heating = jax.vmap(adk.grad(heat_equation.exact, wrt="t"))(*points).t
    np.testing.assert_allclose(heating, heat_equation.CONDUCTIVITY * laplacian.laplacian)


def test_training_solves_the_heat_equation(x64):
    start = heat_equation.network(jax.random.key(0), 20)
    points = heat_equation.scattered(jax.random.key(1), 200)
    others = heat_equation.scattered(jax.random.key(2), 1000)
    params, losses = heat_equation.train(start, points, steps=60)
    assert losses[-1] < 1e-5 * losses[0]
    assert heat_equation.error(params, others) < 2e-3 < 0.2 < heat_equation.error(start, others)


def test_the_residual_of_the_heat_equation_is_that_of_finite_differences(x64):
    params = heat_equation.network(jax.random.key(0), 5)
    x, t, h = jnp.array([0.3, 0.6]), jnp.array(0.4), 1e-4

    def u(dx, dy, dt):
        return heat_equation.u(x + jnp.array([dx * h, dy * h]), t + dt * h, params)

    around = u(1, 0, 0) + u(-1, 0, 0) + u(0, 1, 0) + u(0, -1, 0) - 4 * u(0, 0, 0)
    heating = (u(0, 0, 1) - u(0, 0, -1)) / (2 * h)
    expected = heating - heat_equation.CONDUCTIVITY * around / h**2
    np.testing.assert_allclose(heat_equation.residual(x, t, params), expected, atol=1e-5)


# The natural gradient -----------------------------------------------------------


def test_the_fisher_information_is_the_expected_square_of_the_score():
    model, data = natural_gradient.network(), natural_gradient.spirals(9)
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)

    @jax.jit
    @jax.vmap
    def weighted_scores(point):
        """The score of each label by the square root of its probability."""

        def log_chances(arrays):
            return jax.nn.log_softmax(eqx.combine(arrays, rest)(point))

        leaves = jax.tree.leaves(jax.jacrev(log_chances)(arrays))
        scores = jnp.concatenate([x.reshape(3, -1) for x in leaves], axis=1)
        return jnp.exp(log_chances(arrays) / 2)[:, None] * scores

    scores = np.asarray(weighted_scores(data.points)).reshape(27, -1)
    F = adk.fisher(natural_gradient.logits, "categorical", wrt="model")(model, data.points)
    np.testing.assert_allclose(F.as_matrix(), scores.T @ scores, atol=1e-5)


def test_the_steps_with_and_without_the_matrix_agree():
    model, data = natural_gradient.network(), natural_gradient.spirals(60)
    stored = eqx.filter_jit(natural_gradient.natural_step)(model, data, 1.0)
    free = eqx.filter_jit(natural_gradient.matrix_free_step)(model, data, 1.0)
    np.testing.assert_allclose(flat(free.change), flat(stored.change), atol=1e-3)
    np.testing.assert_array_equal(free.loss, stored.loss)


def test_the_natural_gradient_is_faster_than_the_gradient():
    data = natural_gradient.spirals(150)
    natural = natural_gradient.train(natural_gradient.natural_step, 3.0, data, steps=20)
    assert natural[-1] < 0.2
    for rate in (0.003, 0.01, 0.03):
        plain = natural_gradient.train(natural_gradient.gradient_step, rate, data, steps=20)
        assert natural[-1] < plain[-1] / 2


# The scripts --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (newton, "outcome    [-0.4543 -0.293 ] +- [0.2022 0.1927]"),
        (laplace_approximation, "log evidence -3.917"),
        (ode_fit, "growth         1.0558      0.0443      1.0558"),
        (heat_equation, "step 60: mean square of the residuals"),
        (natural_gradient, "without the matrix"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_each_script_prints_a_report(module, expected, capsys):
    module.main()
    assert expected in capsys.readouterr().out
