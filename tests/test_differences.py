"""Differences and complex steps by themselves: errors that hold, kinks, evaluations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from autodiffkit._complex_step import allows_complex_step, complex_step
from autodiffkit._differences import central_differences
from autodiffkit._jaxprs import inlined

ROUNDOFF = {"float32": 2.0**-23, "float64": 2.0**-52}


def differences(f, x, dtype, wanted=None):
    """The derivative of a NumPy function by differences in a dtype, and the evaluations."""
    runs = []

    def evaluate(step):
        runs.append(step)
        with np.errstate(all="ignore"):
            return np.atleast_1d(np.asarray(f(np.asarray(x + step, dtype)), np.float64))

    roundoff = ROUNDOFF[dtype]
    middle = evaluate(0.0)
    size = np.full(middle.shape, roundoff**0.5 if wanted is None else wanted)
    return central_differences(evaluate, middle, roundoff, size), len(runs) - 1


@pytest.mark.parametrize("dtype", ROUNDOFF)
@pytest.mark.parametrize(
    ("f", "x", "slope"),
    [
        (np.sin, 0.7, np.cos(0.7)),
        (np.exp, 2.0, np.exp(2.0)),
        (lambda x: np.sin(50 * x), 0.7, 50 * np.cos(35.0)),
        (lambda x: x**3 - x, 1e-3, 3e-6 - 1),
        (lambda x: 1 / x, 0.6, -1 / 0.36),
        (np.log, 0.3, 1 / 0.3),
        (lambda x: np.abs(x - 0.01), 0.0, -1.0),
        (lambda x: x * 0 + 3, 1.0, 0.0),
    ],
)
def test_the_error_is_within_what_is_expected_and_that_is_small(f, x, slope, dtype):
    found, _ = differences(f, x, dtype)
    assert abs(found.value[0] - slope) <= 3 * found.error[0]
    assert found.error[0] <= ROUNDOFF[dtype] ** 0.5 * (1 + abs(slope))
    assert found.breaks[0] == ""


def test_three_steps_are_enough_for_smooth_functions():
    for dtype in ROUNDOFF:
        assert differences(np.sin, 0.7, dtype)[1] == 6
    assert differences(lambda x: np.sin(50 * x), 0.7, "float32")[1] > 6
    assert differences(np.abs, 0.0, "float32")[1] == 20


@pytest.mark.parametrize("dtype", ROUNDOFF)
@pytest.mark.parametrize(
    ("f", "kind", "left", "right"),
    [
        (np.abs, "kink", -1, 1),
        (lambda x: np.maximum(x, 0), "kink", 0, 1),
        (lambda x: np.maximum(2 * x, 0) + np.sin(x), "kink", 1, 3),
        (lambda x: np.where(x >= 0, 1.0, 0.0), "jump", None, None),
        (lambda x: np.where(x >= 0, 3.0, 1.0) + np.cos(x), "jump", None, None),
        (lambda x: np.sqrt(np.abs(x)), "vertical", None, None),
        (np.cbrt, "", None, None),  # equal slopes on both sides, however steep
        (lambda x: x * np.abs(x), "", 0, 0),
    ],
)
def test_kinks_and_jumps_are_told_apart(f, kind, left, right, dtype):
    found, _ = differences(f, 0.0, dtype)
    assert found.breaks[0] == kind
    if left is not None:
        np.testing.assert_allclose([found.left[0], found.right[0]], [left, right], atol=0.01)


def test_noise_is_no_kink(getkey):
    rng = np.random.default_rng(int(jax.random.bits(getkey(), (), "uint32")))

    def rough(x):
        return np.sin(np.linspace(0, 9, 2000) + x) + 1e-5 * rng.normal(size=2000)

    for dtype in ROUNDOFF:
        found, _ = differences(rough, 0.3, dtype)
        assert not np.any(found.breaks != "")
        error = np.abs(found.value - np.cos(np.linspace(0, 9, 2000) + 0.3))
        assert np.mean(error <= 3 * found.error) > 0.9


def test_one_sided_domains_and_refusals():
    found, runs = differences(np.sqrt, 0.0, "float64")
    assert np.isnan(found.value[0])
    assert runs == 20
    found, _ = differences(np.sqrt, 1e-3, "float64")  # the first steps leave the domain
    np.testing.assert_allclose(found.value[0], 0.5 * 1e-3**-0.5, rtol=1e-6)

    def refuses(x):
        if x != 0:
            raise ValueError("only zero")
        return x

    found, _ = differences(refuses, 0.0, "float64")
    assert str(found.failure) == "only zero"


ANALYTIC = {
    "cos": jnp.cos,
    "cosh": jnp.cosh,
    "cumsum": jnp.cumsum,
    "div": lambda x: x / (1 + x**2),
    "dot_general": lambda x: jnp.outer(x, x) @ x,
    "dynamic_slice": lambda x: lax.dynamic_slice(x, (1,), (2,)) ** 2,
    "dynamic_update_slice": lambda x: lax.dynamic_update_slice(x, x[:2] ** 2, (1,)),
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    "gather": lambda x: x[jnp.array([2, 0, 0])] ** 2,
    "integer_pow": lambda x: x**3 + x**-2,
    "log": jnp.log,
    "log1p": jnp.log1p,
    "logistic": jax.nn.sigmoid,
    "pad": lambda x: jnp.pad(x, 2) * 2,
    "reduce_prod": lambda x: jnp.prod(x) * x,
    "rev": lambda x: x[::-1] ** 2,
    "rsqrt": lax.rsqrt,
    "select_n": lambda x: jnp.where(jnp.arange(4) > 1, x**2, x),
    "sin": jnp.sin,
    "sinh": jnp.sinh,
    "sqrt": jnp.sqrt,
    "square": jnp.square,
    "stack": lambda x: jnp.stack([x, x**2]),
    "tan": jnp.tan,
    "tanh": jnp.tanh,
    "transpose": lambda x: jnp.outer(x, x**2).T,
    "checkpoint": jax.checkpoint(jnp.sin),
}


@pytest.mark.parametrize("name", ANALYTIC)
def test_complex_steps_are_exact(name):
    with jax.enable_x64(True):
        x, v = jnp.array([0.3, 0.9, 1.7, 2.6]), np.array([1.0, -0.5, 0.25, 2.0])
        jaxpr, constants = inlined(jax.make_jaxpr(ANALYTIC[name])(x))
        assert allows_complex_step(jaxpr, constants, [x])
        (found,) = complex_step(jaxpr, constants, [x], [v])
        expected = jax.jvp(ANALYTIC[name], (x,), (jnp.asarray(v),))[1]
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    "f",
    [
        jnp.abs,
        jnp.sort,
        jnp.max,
        jax.nn.relu,
        jnp.round,
        lax.stop_gradient,
        lambda x: jnp.where(x > 0, x, 2 * x),
        lambda x: jnp.abs(jnp.fft.rfft(x)),
        lambda x: x.astype(int).astype(x.dtype) * x,
        lambda x: lax.scan(lambda c, _: (c * 2, None), x, length=2)[0],
    ],
)
def test_no_complex_steps_where_a_program_is_not_analytic(f):
    x = jnp.array([0.3, 0.9, 1.7])
    jaxpr, constants = inlined(jax.make_jaxpr(f)(x))
    assert not allows_complex_step(jaxpr, constants, [x])
