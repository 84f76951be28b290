"""Callbacks happen as often as the function calls them, or the derivative is refused."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import io_callback

import autodiffkit as adk
from autodiffkit._effects import silenced

X = jnp.arange(1.0, 4.0) / 4
SEEN = []


def debug(x):
    jax.debug.callback(lambda v: SEEN.append(float(v)), x[0])


def debug_in_order(x):
    jax.debug.callback(lambda v: SEEN.append(float(v)), x[0], ordered=True)


def io(x):
    io_callback(lambda v: SEEN.append(float(v)), None, lax.stop_gradient(x[0]))


def io_in_order(x):
    io_callback(lambda: SEEN.append(0.0), None, ordered=True)


EFFECTS = [debug, debug_in_order, io, io_in_order]


def plain(effect):
    def f(x):
        effect(x)
        return jnp.sum(jnp.sin(x) * x)

    return f


def in_while(effect):
    def f(x):
        def body(state):
            effect(state[1])
            return state[0] + 1, jnp.sin(state[1])

        return jnp.sum(lax.while_loop(lambda s: s[0] < 3, body, (0, x))[1] ** 2)

    return f


def in_scan(effect):
    def f(x):
        def body(carry, _):
            effect(carry)
            return jnp.sin(carry), None

        return jnp.sum(lax.scan(body, x, length=3)[0] ** 2)

    return f


def in_cond(effect):
    def f(x):
        def yes(x):
            effect(x)
            return jnp.sin(x)

        return jnp.sum(lax.cond(x[0] < 10, yes, lambda x: x, x) ** 2)

    return f


def in_checkpoint(effect):
    return lambda x: jax.checkpoint(plain(effect))(x)


def events(call: Callable, *args):
    """What the callbacks see during a call."""
    SEEN.clear()
    jax.block_until_ready(call(*args))
    jax.effects_barrier()
    return sorted(SEEN)


TRANSFORMS = {
    "jacobian": adk.jacobian,
    "chunks": lambda f: adk.jacobian(f, chunk_size=2),
    "grad": adk.grad,
    "hessian": adk.hessian,
    "hvp": adk.hvp,
}


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("name", ["jacobian", "hessian"])
def test_at_the_top_they_happen_once(effect, name):
    f = plain(effect)
    for call in (TRANSFORMS[name](f), jax.jit(TRANSFORMS[name](f))):
        assert events(call, X) == events(f, X)


@pytest.mark.parametrize("effect", [debug, io_in_order])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_while_loop_that_is_run_again_for_its_tangents_says_nothing_more(effect, name):
    f = in_while(effect)
    expected = events(f, X)
    assert len(expected) == 3
    for call in (TRANSFORMS[name](f), jax.jit(TRANSFORMS[name](f))):
        assert events(call, X) == expected


@pytest.mark.parametrize("name", ["jacobian", "chunks", "hessian"])
@pytest.mark.parametrize("wrap", [in_scan, in_cond, in_checkpoint])
def test_callbacks_for_debugging_happen_as_often_as_the_function_calls_them(wrap, name):
    f = wrap(debug)
    for call in (TRANSFORMS[name](f), jax.jit(TRANSFORMS[name](f))):
        assert events(call, X) == events(f, X)


def test_products_with_a_linear_map_say_nothing():
    for wrap in (in_while, in_checkpoint, in_scan):
        L = adk.linearize(wrap(debug))(X)
        assert events(L.mv, X) == []
        assert events(L.as_matrix) == []


def test_a_message_without_values_in_a_loop(capfd):
    """Its equation has neither operands nor results."""

    def f(x):
        def body(state):
            jax.debug.print("a turn")
            return state[0] + 1, jnp.sin(state[1])

        return lax.while_loop(lambda s: s[0] < 2, body, (0, x))[1]

    adk.jacobian(f)(X)
    jax.effects_barrier()
    assert capfd.readouterr().out.count("a turn") == 2


def test_what_a_rule_says_of_a_tangent_stays():
    @jax.custom_jvp
    def watched(x):
        return x**2

    @watched.defjvp
    def rule(primals, tangents):
        jax.debug.callback(lambda t: SEEN.append(float(t)), tangents[0][0])
        return watched(*primals), 2 * primals[0] * tangents[0]

    def loop(x):
        return lax.while_loop(lambda s: s[0] < 1, lambda s: (s[0] + 1, watched(s[1])), (0, x))[1]

    assert events(adk.linearize(watched)(X).mv, X) == [0.25]
    assert events(adk.linearize(loop)(X).mv, X) == [0.25]


def test_a_rule_of_the_users_runs_once():
    @jax.custom_vjp
    def square(x):
        return jnp.sum(x**2)

    def forward(x):
        debug(x)
        return jnp.sum(x**2), x

    def backward(x, g):
        debug(-x)
        return (2 * x * g,)

    square.defvjp(forward, backward)
    for call in (adk.grad(square), jax.jit(adk.grad(square))):
        assert events(call, X) == [-0.25, 0.25]


@pytest.mark.parametrize("effect", [io, io_in_order])
def test_an_io_callback_that_jax_would_lose_is_refused_while_tracing(effect):
    f = in_scan(effect)
    assert len(events(f, X)) == 3
    # JAX's own reverse mode loses them. (If it no longer does, nothing has to be refused.)
    assert len(events(jax.jit(jax.grad(f)), X)) < 3
    for transform in TRANSFORMS.values():
        with pytest.raises(adk.ModeError, match="loses an io_callback in a scan"):
            jax.jit(transform(f))(X)


def test_an_io_callback_whose_answer_a_loop_needs_again_is_refused():
    def f(x):
        def body(state):
            scale = io_callback(lambda: np.float32(2), jax.ShapeDtypeStruct((), jnp.float32))
            return state[0] + 1, state[1] * scale

        return lax.while_loop(lambda s: s[0] < 2, body, (0, x))[1]

    for call in (adk.jacobian(f), jax.jit(adk.jacobian(f))):
        with pytest.raises(adk.ModeError, match="would run again with each sweep"):
            call(X)


def test_a_checkpoint_with_an_io_callback_is_refused_as_by_jax():
    with pytest.raises(adk.ModeError, match=r"Effects not supported in (partial-eval|AD) of"):
        adk.grad(in_checkpoint(io))(X)


def test_a_program_without_callbacks_stays_what_it_is():
    jaxpr = jax.make_jaxpr(lambda x: 2 * x)(X).jaxpr
    assert silenced(jaxpr, 1) is jaxpr
    printing = jax.make_jaxpr(plain(debug))(X).jaxpr
    assert silenced(printing, 1) is printing  # what it prints depends on its input
    assert not silenced(printing, 0).effects
