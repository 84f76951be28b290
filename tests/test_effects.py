"""Callbacks happen as often as the function calls them, or the derivative is refused."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.experimental import io_callback
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import autodiffkit as adk
from autodiffkit import _effects
from autodiffkit._silencing import silenced
from functions import own_batches

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


def io_of_values_in_order(x):
    io_callback(lambda v: SEEN.append(float(v)), None, lax.stop_gradient(x[0]), ordered=True)


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


@pytest.mark.parametrize("effect", [io, io_in_order, io_of_values_in_order])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_jax_loses_of_a_scan_happens_once(effect, name):
    f = in_scan(effect)
    expected = events(f, X)
    assert len(expected) == 3
    # (If JAX no longer loses them in reverse mode, nothing has to be done here.)
    assert len(events(jax.grad(f), X)) < 3
    assert len(events(jax.jit(jax.grad(f)), X)) < 3
    for call in (TRANSFORMS[name](f), TRANSFORMS[name](jax.jit(f)), jax.jit(TRANSFORMS[name](f))):
        assert events(call, X) == expected
    wanted = TRANSFORMS[name](in_scan(lambda x: None))(X)
    np.testing.assert_array_equal(TRANSFORMS[name](f)(X).as_matrix(), wanted.as_matrix())


def in_turns(effect):
    return lambda x: jnp.sum(lax.map(lambda y: in_scan(effect)(y * x), x[:, None]))


def in_scan_of_branch(effect):
    return lambda x: lax.cond(x[0] > 0, in_scan(effect), jnp.sum, x)


def in_scan_of_checkpoint(effect):
    return lambda x: jax.checkpoint(in_scan(effect))(x)


def in_scan_of_loop(effect):
    f = in_scan(effect)
    return lambda x: lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, s[1] * f(x)), (0, x))[
        1
    ]


def beside_others(effect):
    """The loop that is not differentiated is not run twice."""

    def f(x):
        effect(x)
        scale = in_scan(effect)(jnp.ones(2))
        return scale * in_scan(effect)(x)

    return f


@pytest.mark.parametrize(
    "wrap", [in_turns, in_scan_of_branch, in_scan_of_checkpoint, in_scan_of_loop, beside_others]
)
def test_a_scan_whose_callbacks_jax_loses_may_be_a_part_of_anything(wrap):
    f = wrap(io)
    expected = events(f, X)
    for transform in (adk.jacobian, adk.linearize):
        assert events(transform(f), X) == expected
        assert events(jax.jit(transform(f)), X) == expected
    J = adk.jacobian(f)(X)
    np.testing.assert_allclose(J.x, jax.jacfwd(wrap(lambda x: None))(X), rtol=1e-6)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_a_scan_says_in_each_turn_is_said_in_each_turn(name):
    """As of a bar of progress."""

    def turn(x):
        jax.debug.callback(lambda: SEEN.append(1.0))

    def turn_of_scale(x):
        lax.cond(scale > 0, lambda: jax.debug.callback(SEEN.append, scale), lambda: None)

    scale = jnp.float32(2)
    for effect in (turn, turn_of_scale):
        f = in_scan(effect)
        assert len(events(f, X)) == 3
        assert len(events(jax.grad(f), X)) == 1  # what JAX does of it
        for call in (TRANSFORMS[name](f), jax.jit(TRANSFORMS[name](f))):
            assert events(call, X) == events(f, X)


@pytest.mark.parametrize("check_vma", [False, True])
def test_a_callback_in_a_scan_that_is_divided_among_devices_happens_once(check_vma):
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Auto,))
    f = jax.shard_map(in_scan(io), mesh=mesh, in_specs=P(), out_specs=P(), check_vma=check_vma)
    for call in (adk.grad(f), jax.jit(adk.grad(f)), adk.hessian(f)):
        assert events(call, X) == events(f, X)


def turned(body):
    return lambda x: jnp.sum(lax.scan(lambda carry, _: (body(carry), None), x, length=3)[0])


def said(x):
    """What is given the same in each turn."""
    jax.debug.callback(lambda: SEEN.append(1.0))
    return jnp.sin(x)


@jax.custom_jvp
def said_with_rule(x):
    return said(x)


said_with_rule.defjvp(lambda x, t: (said_with_rule(*x), jnp.cos(*x) * t[0]))


def counted(x):
    """A loop inside of a loop, of which JAX says what it counts in two of three parts."""

    def body(state):
        jax.debug.callback(lambda k: SEEN.append(float(k)), state[0])
        return state[0] + 1, jnp.sin(state[1])

    return lax.while_loop(lambda state: state[0] < 2, body, (0, x))[1]


@pytest.mark.parametrize(
    "f",
    [
        turned(jax.jit(said)),
        turned(eqx.filter_jit(said)),
        turned(jax.checkpoint(said)),
        turned(jax.vmap(said)),
        turned(said_with_rule),
        turned(counted),
        jax.checkpoint(turned(said)),
        jax.jit(jax.checkpoint(turned(said))),
        jax.jit(turned(said), inline=True),
        turned(jax.jit(said, inline=True)),
        lambda x: jnp.sum(lax.fori_loop(0, 3, lambda _, y: said(y), x)),
    ],
)
def test_whatever_a_turn_calls_says_it_in_each_turn(f):
    expected = events(f, X)
    assert len(expected) > 1
    for transform in (adk.jacobian, adk.grad, adk.hessian, adk.hvp):
        assert events(transform(f), X) == expected
        assert events(jax.jit(transform(f)), X) == expected


def ruled(says, function_says=debug):
    """A function whose rule says something else."""

    @jax.custom_jvp
    def square(x):
        function_says(-x)
        return x**2

    @square.defjvp
    def rule(primals, tangents):
        says(primals[0], tangents[0])
        return primals[0] ** 2, 2 * primals[0] * tangents[0]

    return square


def ruled_silently(says):
    """The same of a function that says nothing."""
    return ruled(says, silent)


def ruled_backwards(says):
    """A function that only has a rule for reverse mode, in a branch."""

    @jax.custom_vjp
    def square(x):
        debug(-x)
        return x**2

    def forward(x):
        says(x, None)
        return x**2, x

    square.defvjp(forward, lambda x, g: (2 * x * g,))
    return lambda x: lax.cond(x[0] > 0, jax.jit(square), jnp.sin, x)


@pytest.mark.parametrize("effect", [lambda x: debug(jax.nn.softmax(x)), io, said])
@pytest.mark.parametrize("make", [ruled, ruled_silently, ruled_backwards])
@pytest.mark.parametrize("wrap", [lambda f: f, turned, lambda f: jax.jit(turned(f))])
def test_what_a_rule_says_takes_the_place_of_what_its_function_says(wrap, make, effect):
    f = wrap(make(lambda x, t: effect(x)))
    expected = events(wrap(lambda x: (effect(x), x**2)[1]), X)
    g = adk.hessian(lambda x: jnp.sum(f(x)))
    for call in (adk.jacobian(f), jax.jit(adk.jacobian(f)), jax.jit(g)):
        assert events(call, X) == expected
    want = jax.jacfwd(wrap(lambda x: x**2))(X)
    np.testing.assert_allclose(jax.jit(adk.jacobian(f))(X).x, want, rtol=1e-6)


def test_second_derivatives_beside_a_callback_follow_the_rule():
    """Its slope is not that of the function, and calls the function."""

    @jax.custom_jvp
    def scaled(x):
        return jnp.sin(x)

    scaled.defjvp(lambda x, t: (scaled(*x), 3 * scaled(*x) * t[0]))

    f, quiet = turned(lambda x: scaled(said(x))), turned(lambda x: scaled(jnp.sin(x)))
    want = jax.jacfwd(jax.jacfwd(quiet))(X)
    for call in (adk.hessian(f), jax.jit(adk.hessian(f))):
        assert events(call, X) == [1.0, 1.0, 1.0]
        np.testing.assert_allclose(call(X).x.x, want, rtol=1e-5, atol=1e-6)


def ruled_by(body, divides):
    """A function whose rule has a loop: of what is known, or of that with its tangents."""

    @jax.custom_jvp
    def f(x):
        return turned(jnp.sin)(x)

    @f.defjvp
    def rule(primals, tangents):
        if divides:
            return jax.jvp(turned(body), primals, tangents)
        turned(body)(*primals)
        return jax.jvp(f.fun, primals, tangents)

    return f


@pytest.mark.parametrize("divides", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        said,
        jax.jit(said),
        counted,
        lambda x: (io(x), jnp.sin(x))[1],
        lambda x: (debug(x), jnp.sin(x))[1],
        lambda x: (jax.vmap(lambda y: io(y[None]))(x), jnp.sin(x))[1],
    ],
)
def test_a_loop_in_a_rule_makes_the_calls_of_each_turn(body, divides):
    f = ruled_by(body, divides)
    expected = events(turned(body), X)
    assert len(expected) >= 3
    for call in (adk.grad(f), jax.jit(adk.grad(f)), jax.jit(adk.hessian(f))):
        assert events(call, X) == expected
    want = jax.jacfwd(turned(body if divides else jnp.sin))(X)
    np.testing.assert_allclose(jax.jit(adk.grad(f))(X).x, want, rtol=1e-6)


def test_a_loop_in_a_rule_that_must_not_run_twice_is_refused():
    f = ruled_by(lambda x: in_turn_of_answers(said(x)), True)
    with pytest.raises(adk.ModeError, match="lose or repeat a callback in scan"):
        adk.grad(f)(X)
    with pytest.raises(adk.ModeError, match="lose or repeat a callback in scan"):
        jax.jit(adk.grad(f))(X)


def in_while_of(f, x):
    return lax.while_loop(lambda s: s[0] < 1, lambda s: (s[0] + 1, s[1] * f(s[1])), (0, x))[1]


@pytest.mark.parametrize("body", [said, lambda x: (io(x), jnp.sin(x))[1]])
@pytest.mark.parametrize(
    "wrap",
    [
        jax.jit,
        jax.checkpoint,
        lambda f: lambda x: lax.cond(x[0] > 0, f, jnp.sum, x),
        lambda f: lambda x: jnp.sum(in_while_of(f, x)),
        lambda f: jax.jit(lambda x: jax.jit(jax.vmap(f))(x[None])[0]),
    ],
)
def test_a_loop_in_a_rule_is_seen_in_what_makes_no_calls_itself(wrap, body):
    """JAX says what is the same in each turn once, and loses an `io_callback`."""
    f = wrap(ruled_by(body, divides=False))
    assert events(f, X) == []
    for call in (adk.grad(f), jax.jit(adk.grad(f))):
        assert events(call, X) == events(turned(body), X)
    want = jax.jacfwd(wrap(turned(jnp.sin)))(X)
    np.testing.assert_allclose(adk.grad(f)(X).x, want, rtol=1e-6)


def test_a_loop_in_a_rule_that_depends_on_what_is_differentiated():
    @jax.custom_jvp
    def scaled(x, a):
        return jnp.sum(a * x)

    def rule(primals, tangents):
        x, a = primals
        if isinstance(tangents[1], SymbolicZero):
            turned(said)(x)
            return scaled(x, a), jnp.sum(a * tangents[0])
        return scaled(x, a), jnp.sum(a * tangents[0]) + jnp.sum(x) * tangents[1]

    scaled.defjvp(rule, symbolic_zeros=True)
    f = jax.jit(scaled)
    assert events(adk.grad(f, wrt="x"), X, 2.0) == [1.0, 1.0, 1.0]
    assert events(adk.grad(f), X, 2.0) == []


@pytest.mark.parametrize("body", [debug, said, io])
@pytest.mark.parametrize("divides", [False, True])
def test_a_loop_in_a_rule_beside_what_writes_to_a_reference(body, divides):
    count = jax.new_ref(jnp.float32(0))

    def saying(x):
        body(x)
        return jnp.sin(x)

    ruled = ruled_by(saying, divides)

    def branch(x):
        count[...] += 1.0
        return ruled(x)

    def f(x):
        return lax.cond(x[0] > 0, branch, jnp.sum, x)

    for call in (adk.grad(f), jax.jit(adk.grad(f))):
        if body is debug:  # which differs from turn to turn, so that JAX keeps it
            assert events(call, X) == events(turned(saying), X)
            continue
        with pytest.raises(adk.ModeError, match=r"callback in cond at tests/test_effects"):
            call(X)


@pytest.mark.parametrize("symbolic_zeros", [False, True])
def test_a_rule_is_asked_for_its_calls_once_for_each_program(symbolic_zeros, monkeypatch):
    @jax.custom_jvp
    def f(x):
        return jnp.sin(x)

    f.defjvp(lambda x, t: (f(*x), jnp.cos(*x) * t[0]), symbolic_zeros=symbolic_zeros)
    asked = []
    push = _effects.pushed
    monkeypatch.setattr(_effects, "pushed", lambda *args: (asked.append(args), push(*args))[1])
    program = jax.jit(f)
    gradient = adk.grad(lambda x: jnp.sum(program(x)))
    gradient(X)
    assert len(asked) == 1
    gradient(X)
    assert len(asked) == 1  # and of the same program no more


def in_turn_of_answers(x):
    kind = jax.ShapeDtypeStruct((), jnp.float32)
    return jnp.sin(x) * io_callback(lambda: np.float32(2), kind)


@pytest.mark.parametrize("make", [ruled, ruled_backwards])
def test_rules_that_say_nothing_beside_a_callback_in_a_scan(make):
    square = make(lambda x, t: None)
    f = turned(lambda x: square(said(x)))
    want = jax.jacrev(turned(lambda x: jnp.sin(x) ** 2))(X)
    for call in (adk.grad(f), jax.jit(adk.grad(f)), jax.jit(adk.hessian(f))):
        assert events(call, X) == [1.0, 1.0, 1.0]
    np.testing.assert_allclose(adk.grad(f)(X).x, want, rtol=1e-6)


def test_what_a_rule_in_a_scan_says_of_a_tangent_is_said_by_the_sweeps():
    f = turned(ruled(lambda x, t: debug(t)))
    L = adk.linearize(f)
    assert events(L, X) == []
    assert events(L(X).mv, X) == events(jax.linearize(f, X)[1], X)
    assert len(SEEN) == 3


def test_a_callback_on_what_an_inner_program_computes_is_not_repeated():
    def body(x):
        y = jax.nn.softmax(x)
        z = jax.jit(lambda y: lax.cond(y[0] > 0, jnp.sin, jnp.cos, y))(y)
        debug(z)
        return jnp.sin(z)

    f = turned(body)
    for call in (adk.grad(f), jax.jit(adk.grad(f)), jax.jit(adk.hessian(f))):
        assert events(call, X) == events(f, X)


def silent(x):
    pass


# What JAX makes as many calls of in a scan as the function does, and what it does not.
KEPT = [silent, debug, debug_in_order]
LOST = [said, counted, io]


@pytest.mark.parametrize("effect", KEPT + LOST)
def test_a_turn_that_writes_to_a_reference_runs_once(effect):
    count = jax.new_ref(jnp.float32(0))

    def f(x):
        def turn(carry, _):
            effect(carry)
            count[...] += 1.0
            return jnp.sin(carry) * count[...], None

        return jnp.sum(lax.scan(turn, x, length=3)[0])

    if effect in KEPT:
        want, slope = jax.value_and_grad(f)(X)
    for transform in (adk.grad, adk.hessian):
        for call in (transform(f), transform(jax.jit(f)), jax.jit(transform(f))):
            count[...] = 0.0
            if effect in LOST:
                with pytest.raises(adk.ModeError, match=r"callback in scan at tests/test_effects"):
                    call(X)
                assert float(count[...]) == 0
                continue
            expected = len(events(f, X))
            count[...] = 0.0
            assert len(events(call, X)) == expected
            assert float(count[...]) == 3
            count[...] = 0.0
            found = call(X)
            np.testing.assert_allclose(found.value, want, rtol=1e-6)
            gradient = found if transform is adk.grad else found.grad
            np.testing.assert_allclose(gradient.x, slope, rtol=1e-6)


def test_a_loop_that_is_not_differentiated_may_be_divided_by_jax_nevertheless():
    """It is refused then, too; compiled, it is not divided."""
    count = jax.new_ref(jnp.float32(0))

    def f(x):
        def turn(carry, _):
            said(carry)
            count[...] += 1.0
            return jnp.sin(carry), None

        return jnp.sum(x) * jnp.sum(lax.scan(turn, jnp.ones(2), length=3)[0])

    assert events(jax.jit(adk.grad(f)), X) == [1.0, 1.0, 1.0]
    with pytest.raises(adk.ModeError, match=r"callback in scan at tests/test_effects"):
        adk.grad(f)(X)


def test_what_a_scan_is_answered_beside_it_is_no_hindrance():
    @jax.jit
    def f(x):
        scale = io_callback(lambda: np.float32(2), jax.ShapeDtypeStruct((), jnp.float32))
        return scale * turned(said)(x)

    for call in (adk.grad(f), jax.jit(adk.grad(f))):
        assert events(call, X) == events(f, X)


def test_a_callback_in_a_scan_is_mapped_and_compiled_ahead():
    f = in_scan(io)
    expected = sorted(2 * events(f, X))
    assert events(jax.vmap(adk.grad(f)), jnp.stack([X, X])) == expected
    compiled = adk.grad(f).compile(X)
    assert events(compiled, X) == events(f, X)


def test_a_callback_in_a_scan_whose_answer_is_not_used_happens_once():
    def note(x):
        io_callback(
            lambda v: (SEEN.append(float(v)), v)[1], jax.typeof(x[0]), lax.stop_gradient(x[0])
        )

    f = in_scan(note)
    for call in (adk.grad(f), jax.jit(adk.grad(f)), adk.hessian(f)):
        assert events(call, X) == events(f, X)


@pytest.mark.parametrize("effect", KEPT + LOST)
def test_a_callback_in_a_scan_whose_answer_is_used_happens_once(effect):
    f = in_scan_of_answers(effect)
    for transform in (adk.grad, adk.hessian):
        for call in (transform(f), transform(jax.jit(f)), jax.jit(transform(f))):
            if effect in LOST:
                with pytest.raises(adk.ModeError, match=r"callback in scan at tests/test_effects"):
                    events(call, X)
                jax.effects_barrier()
                assert SEEN == []
            else:
                assert events(call, X) == events(f, X)


def in_scan_of_answers(effect):
    def answer(v):
        SEEN.append(float(v))
        return np.float32(2)

    def f(x):
        def body(carry, _):
            effect(carry)
            held = lax.stop_gradient(carry[0])
            scale = io_callback(answer, jax.ShapeDtypeStruct((), jnp.float32), held)
            return jnp.sin(carry) * scale, None

        return jnp.sum(lax.scan(body, x, length=3)[0])

    return f


def test_an_io_callback_whose_answer_a_loop_needs_again_is_refused():
    def f(x):
        def body(state):
            scale = io_callback(lambda: np.float32(2), jax.ShapeDtypeStruct((), jnp.float32))
            return state[0] + 1, state[1] * scale

        return lax.while_loop(lambda s: s[0] < 2, body, (0, x))[1]

    for call in (adk.jacobian(f), jax.jit(adk.jacobian(f))):
        with pytest.raises(adk.ModeError, match="would run again with each sweep"):
            call(X)


@pytest.mark.parametrize("effect", [io, io_in_order])
def test_a_checkpoint_with_an_io_callback_calls_it_once(effect):
    f = in_checkpoint(effect)
    with pytest.raises(NotImplementedError, match="Effects not supported"):
        jax.grad(f)(X)
    for transform in (adk.jacobian, adk.grad, adk.hessian):
        assert events(transform(f), X) == events(f, X)
        assert events(jax.jit(transform(f)), X) == events(f, X)
    np.testing.assert_allclose(adk.grad(f)(X).x, jnp.cos(X) * X + jnp.sin(X), rtol=1e-6)


def within(body):
    """Three calls on the way of what JAX does not linearise, among and in other operations."""

    def f(x):
        debug(x)
        y = body(2 * x)
        debug(y)
        return jnp.sum(y)

    return f


@jax.custom_jvp
def pushed(x):
    return jnp.sin(x)


@pushed.defjvp
def _(primals, tangents):
    debug(-primals[0])
    values, slopes = jax.jvp(own_batches, primals, tangents)
    return values, slopes


@pytest.mark.parametrize(
    "body",
    [
        own_batches,
        jax.jit(lambda x: (debug(x * x), own_batches(x))[1]),
        jax.jit(lambda x: (debug(x * x), own_batches(x))[1], inline=True),
        jax.checkpoint(lambda x: (debug(x * x), own_batches(x))[1]),
        lambda x: lax.cond(x[0] > 0, lambda x: (debug(x * x), own_batches(x))[1], jnp.cos, x),
        lambda x: lax.scan(lambda c, _: (own_batches((said(c), c)[1]), None), x, length=3)[0],
        lambda x: lax.scan(lambda c, _: (own_batches((io(c), c)[1]), None), x, length=3)[0],
    ],
)
def test_what_jax_does_not_linearise_repeats_no_calls(body):
    f = within(body)
    expected = events(f, X)
    for transform in (adk.grad, adk.hessian):
        for call in (transform(f), transform(jax.jit(f))):
            assert events(call, X) == expected
    assert events(jax.jit(adk.grad(f)), X) == expected
    slopes = [jax.jvp(f, (X,), (t,))[1] for t in jnp.eye(3, dtype=X.dtype)]
    np.testing.assert_allclose(adk.grad(f)(X).x, slopes, rtol=1e-6)


def test_a_rule_that_jax_does_not_linearise_is_refused_if_it_calls_back():
    """JAX makes some of its calls before it fails."""
    f = within(pushed)
    message = "cannot linearise custom_jvp_call at tests/test_effects.*whose rule calls back"
    for call in (adk.grad(f), jax.jit(adk.grad(f)), adk.hessian(f)):
        with pytest.raises(adk.ModeError, match=message):
            call(X)


MESH = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Auto,))


@pytest.mark.parametrize("check_vma", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        lambda divide: turned(lambda x: divide(jnp.sin)((debug(x), x)[1])),
        lambda divide: turned(divide(said)),
        lambda divide: jax.checkpoint(turned(divide(said))),
        lambda divide: lambda x: jnp.sum(divide(lambda x: in_turns_of(own_batches, x))(x)),
    ],
)
def test_programs_divided_among_devices_may_be_in_what_calls_back(body, check_vma):
    def divide(f):
        return jax.shard_map(f, mesh=MESH, in_specs=P("d"), out_specs=P("d"), check_vma=check_vma)

    f = body(divide)
    expected = events(f, X)
    slopes = [jax.jvp(f, (X,), (t,))[1] for t in jnp.eye(3, dtype=X.dtype)]
    for call in (adk.grad(f), jax.jit(adk.grad(f)), adk.grad(jax.jit(f)), adk.hessian(f)):
        assert events(call, X) == expected
    np.testing.assert_allclose(adk.grad(f)(X).x, slopes, rtol=1e-6)


def in_turns_of(body, x):
    return lax.scan(lambda carry, _: (body(carry), None), x, length=2)[0]


def test_what_holds_a_value_constant_is_no_obstacle_to_what_comes_later():
    def f(x):
        io(x)
        scale = jax.pure_callback(lambda v: v, jax.typeof(x[0]), lax.floor(x[0]) + 2)
        return jnp.sum(own_batches(x) * scale)

    for call in (adk.grad(f), jax.jit(adk.grad(f)), adk.grad(jax.jit(f))):
        assert events(call, X) == events(f, X)
        np.testing.assert_allclose(call(X).x, 2 * jnp.cos(X), rtol=1e-6)


def test_a_program_without_callbacks_stays_what_it_is():
    jaxpr = jax.make_jaxpr(lambda x: 2 * x)(X).jaxpr
    assert silenced(jaxpr, 1) is jaxpr
    printing = jax.make_jaxpr(plain(debug))(X).jaxpr
    assert silenced(printing, 1) is printing  # what it prints depends on its input
    assert not silenced(printing, 0).effects
