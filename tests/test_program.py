"""The linear program of a function that has been traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import autodiffkit as adk
from autodiffkit._program import linearize
from autodiffkit._staging import Staged
from functions import array
from networks import SMALL

X = array(3)("float32")


def check(function, *args):
    """Values, the rest and pushed tangents are those of `jax.linearize`."""

    def flat(*args):
        return jax.tree.leaves(function(*args)), [jnp.arange(3), *args]

    linearization = Staged(flat, args).linearization
    tangents = [jnp.cos(x) for x in args]
    ours, theirs = (
        (outs, rest, linear(*tangents))
        for outs, rest, linear in (linearization(*args), linearize(flat, args))
    )
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    return linearization


@pytest.mark.parametrize("name", SMALL)
def test_the_trace_of_a_tangent_shows_the_linear_program(name):
    function, arguments = SMALL[name]()
    assert check(function, *arguments).is_separated


def repeated(x):
    return lax.scan(lambda c, _: (jnp.sin(c), c), x, length=3)


@jax.custom_jvp
def ruled(x):
    return jnp.exp(x)


@ruled.defjvp
def _(primals, tangents):
    y = ruled(*primals)
    return y, y * tangents[0]


@jax.custom_jvp
def asking(x):
    return jnp.sqrt(x)


@asking.defjvp
def _(primals, tangents):
    slope = 0.5 / jnp.sqrt(primals[0])
    return asking(*primals), jnp.where(tangents[0] != 0, tangents[0] * slope, 0.0)


@jax.custom_jvp
def watched(x):
    return x


@watched.defjvp
def _(primals, tangents):
    jax.debug.callback(lambda t: None, tangents[0])
    return primals[0], tangents[0]


@jax.jit
def block(x):
    return jnp.sin(x) * jnp.cos(x) + x**2


def blocks(x):
    for _ in range(5):
        x = block(x)
    return x


@pytest.mark.parametrize(
    ("function", "separated"),
    [
        (repeated, False),
        (jax.checkpoint(jnp.sin), False),
        (lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), False),
        (lambda x: lax.fori_loop(0, 3, lambda i, k: k + i, 0) * x, True),
        (lambda x: jnp.where(x > 0, ruled(x), jnp.linalg.norm(x)), True),
        (lambda x: (x, x, jnp.ones(2), lax.stop_gradient(x)), True),
        (lambda x: jnp.fft.rfft(x), True),
        (asking, False),
        (watched, False),
        (blocks, False),
        (block, True),
    ],
    ids=[
        *("scan", "checkpoint", "cond", "loop of constants", "rules", "outputs", "complex"),
        *("a rule that asks for zeros", "a rule with an effect", "repeated jit", "one jit"),
    ],
)
def test_an_equation_that_does_both_has_to_be_linearised(function, separated):
    assert check(function, X).is_separated == separated


def test_the_bytes_that_are_kept_are_those_of_computed_residuals():
    def kept(function):
        return Staged(lambda x: ([function(x)], []), [X]).linearization.kept

    assert kept(lambda x: 2 * x) == 0
    assert kept(lambda x: x * x) == 0  # the argument itself
    assert kept(jnp.sin) == X.nbytes
    assert kept(lambda x: jnp.sin(x)[0]) == X.nbytes


def test_a_rule_that_asks_whether_a_tangent_is_zero():
    x = jnp.array([0.25, 1.0, 4.0])
    J = jax.jit(lambda x: adk.jacobian(asking)(x).x)(x)
    np.testing.assert_allclose(J, jnp.diag(jnp.array([1.0, 0.5, 0.25])))


def test_without_values_of_tangents_such_a_rule_is_refused():
    for transform in (adk.jacobian, adk.linearize):
        with pytest.raises(adk.ModeError, match=r"can be followed under jax\.jit only"):
            transform(asking)(X + 1)


def test_what_is_compiled_for_repeated_functions_is_as_short_as_with_jax():
    def length(transform):
        return len(jax.jit(transform).lower(X).as_text())

    ours = length(lambda x: adk.jacobian(blocks)(x).x)
    assert ours < 1.1 * length(jax.jacfwd(blocks))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_mutable_arrays_are_refused(wrap):
    def f(x):
        r = jax.new_ref(jnp.zeros_like(x))
        r[...] = jnp.sin(x)
        return r[...] * x

    def count(x):
        r = jax.new_ref(jnp.zeros(()))
        r[...] += 1.0
        return jnp.sin(x) * r[...]

    with pytest.raises(adk.ModeError, match=r"is written to a jax\.new_ref"):
        wrap(adk.jacobian(f))(X)
    with pytest.raises(adk.ModeError, match="or read from one that was made in the function"):
        wrap(adk.jacobian(count))(X)
