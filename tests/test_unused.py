"""What JAX computes beside a linear program calls no rule whose result nothing needs."""

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import io_callback

import autodiffkit as adk
from autodiffkit import _unused
from autodiffkit._naming import is_custom_rule
from autodiffkit._program import linearize

X = jnp.arange(1.0, 4.0) / 4
SEEN = []


def told(says):
    """A function whose rule calls another rule, which alone says something."""

    @jax.custom_jvp
    def slope(x):
        return jnp.cos(x)

    @slope.defjvp
    def slope_rule(primals, tangents):
        says(primals[0])
        return slope(*primals), -3 * jnp.sin(*primals) * tangents[0]

    @jax.custom_jvp
    def f(x):
        return jnp.sin(x)

    f.defjvp(lambda x, t: (f(*x), slope(*x) * t[0]))
    return f


def debug(x):
    jax.debug.callback(lambda: SEEN.append(1))


def debug_of_values(x):
    jax.debug.callback(lambda v: SEEN.append(float(v)), x[0])


def io(x):
    io_callback(lambda: SEEN.append(1), None)


def in_while(f):
    def g(x):
        return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, f(s[1])), (0, x))[1]

    return g


def in_scan(f):
    return lambda x: lax.scan(lambda c, _: (f(c), None), x, length=3)[0]


WRAPS = {
    "plain": lambda f: f,
    "while_loop": in_while,
    "scan": in_scan,
    "compiled": lambda f: jax.jit(in_while(f)),
    "checkpoint": jax.checkpoint,
    "checkpoint of a while_loop": lambda f: jax.checkpoint(in_while(f)),
    "branch": lambda f: lambda x: lax.cond(x[0] < 5, in_while(f), jnp.sin, x),
    "of checkpoints": lambda f: in_while(jax.checkpoint(f)),
    "scan of checkpoints": lambda f: in_scan(jax.checkpoint(f)),
    "while_loop of scans": lambda f: in_while(in_scan(f)),
    "scan of while_loops": lambda f: in_scan(in_while(f)),
    "twice": lambda f: in_while(in_while(f)),
    "mapped": lambda f: jax.vmap(in_while(lambda y: f(y[None])[0])),
    "beside another": lambda f: lambda x: in_while(f)(x * jnp.sum(x)) * f(x),
}


@pytest.mark.parametrize(
    ("wrap", "says"),
    [(wrap, debug) for wrap in WRAPS]
    + [(wrap, says) for wrap in ("while_loop", "scan", "branch") for says in (debug_of_values, io)],
)
def test_a_rule_that_only_a_rule_calls_makes_its_calls_once_in_a_hessian(wrap, says):
    f = WRAPS[wrap](told(says))

    def loss(x):
        return jnp.sum(f(x))

    def seen(call):
        SEEN.clear()
        found = jax.block_until_ready(call(X))
        jax.effects_barrier()
        return sorted(SEEN), found

    def slope(x):
        return jax.jvp(loss, [x], [X])[1]

    expected, _ = seen(lambda x: jax.jvp(slope, [x], [X])[1])
    assert len(expected) >= (1 if wrap in {"plain", "checkpoint"} else 3)
    quiet = WRAPS[wrap](told(lambda _: None))
    want = jax.jit(jax.jacfwd(jax.jacfwd(lambda x: jnp.sum(quiet(x)))))(X)
    for call in (
        lambda x: adk.hessian(loss)(x).x.x,
        jax.jit(lambda x: adk.hessian(loss)(x).x.x),
        lambda x: adk.hessian(jax.jit(loss))(x).x.x,
    ):
        calls, found = seen(call)
        assert calls == expected
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
    assert seen(lambda x: adk.hvp(loss)(x).mv(x).x)[0] == expected


def rules(jaxpr):
    return sum(
        is_custom_rule(x) + sum(map(rules, jex.jaxprs_in_params(x.params))) for x in jaxpr.eqns
    )


@pytest.mark.parametrize("wrap", ["while_loop", "twice", "branch", "checkpoint of a while_loop"])
def test_the_value_is_computed_without_what_only_tangents_need(wrap):
    f = WRAPS[wrap](told(io))

    def value(x):
        return linearize(lambda x: ([f(x)], []), [x])[0]

    assert rules(jax.make_jaxpr(value)(X).jaxpr) == 1  # the function, and not its slope


def test_outside_of_other_transformations_nothing_is_watched(monkeypatch):
    watched = []

    def watch(function, *_):
        watched.append(function)
        return function

    monkeypatch.setattr(_unused, "with_operations", watch)
    adk.grad(lambda x: jnp.sum(jnp.sin(x)))(X)
    assert not watched
    adk.hessian(lambda x: jnp.sum(jnp.sin(x)))(X)
    assert watched
