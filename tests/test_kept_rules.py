"""Second derivatives follow the rules that a `scan` calls, also where JAX forgets them."""

import functools
import gc

import equinox as eqx
import equinox.internal as eqxi
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
from autodiffkit import _kept_rules
from autodiffkit._jax_compat import forgets_rules

X = jnp.array([0.3, 0.4], dtype="float32")
MESH = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Auto,))
EVERYTHING = jax.checkpoint_policies.everything_saveable


# Rules whose slopes are not those of their functions, so that forgetting one shows.


@jax.custom_jvp
def slope(x):
    return jnp.cos(x)


slope.defjvp(lambda x, t: (slope(*x), -3 * jnp.sin(*x) * t[0]))


def ruled(rule):
    """A sine with a rule, which takes the function, too."""

    @jax.custom_jvp
    def f(x):
        return jnp.sin(x)

    f.defjvp(lambda x, t: rule(f, *x, *t))
    return f


linear = jax.custom_jvp(lambda t: 2 * t)
linear.defjvp(lambda x, t: (linear(*x), linear(*t)))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def scaled(x, k):
    return k * jnp.sin(x)


scaled.defjvp(lambda k, x, t: (scaled(*x, k), k * slope(*x) * t[0]))


@jax.custom_jvp
def powered(x, n, y):
    return jnp.sin(x) * y ** jnp.asarray(n, x.dtype), n


def powered_rule(primals, tangents):
    x, n, y = primals
    found = jnp.zeros_like(x)
    if not isinstance(tangents[0], SymbolicZero):
        found += slope(x) * tangents[0] * y ** jnp.asarray(n, x.dtype)
    if not isinstance(tangents[2], SymbolicZero):
        found += powered(x, n - 1, y)[0] * jnp.asarray(n, x.dtype) * tangents[2]
    return powered(*primals), (found, np.zeros((), jax.dtypes.float0))


powered.defjvp(powered_rule, symbolic_zeros=True)


@eqx.filter_custom_jvp
def named(x, name):
    return jnp.sin(x)


@named.def_jvp
def named_rule(primals, tangents):
    return named(*primals), slope(primals[0]) * tangents[0]


def turns(body, **options):
    def f(x):
        return lax.scan(lambda c, _: (body(c), body(c) * x), x, length=2, **options)[0]

    return f


LINE = turns.__code__.co_firstlineno + 2


RULES = {
    "itself": ruled(lambda f, x, t: (f(x), 3 * jnp.cos(x) * t)),
    "another": ruled(lambda f, x, t: (f(x), slope(x) * t)),
    "compiled": ruled(lambda f, x, t: (f(x), jax.jit(slope)(x) * t)),
    "branch": ruled(lambda f, x, t: (f(x), lax.cond(x[0] > 0, slope, jnp.sin, x) * t)),
    "branch of tangents": ruled(
        lambda f, x, t: (f(x), lax.cond(x[0] > 0, lambda x, t: slope(x) * t, jnp.add, x, t))
    ),
    "loop": ruled(lambda f, x, t: (f(x), turns(slope)(x) * t)),
    "loop of tangents": ruled(
        lambda f, x, t: (f(x), lax.scan(lambda t, _: (slope(x) * t, None), t, length=2)[0])
    ),
    "loops of tangents": ruled(
        lambda f, x, t: (
            f(x),
            lax.scan(
                lambda t, _: (lax.scan(lambda t, _: (slope(x) * t, None), t, length=2)[0], None),
                t,
                length=2,
            )[0],
        )
    ),
    "pushed loop": ruled(lambda f, x, t: jax.jvp(turns(slope), (x,), (t,))),
    "of a tangent": ruled(lambda f, x, t: (f(x), linear(slope(x) * t))),
    "static argument": lambda x: scaled(x, 1.5),
    "integers": lambda x: powered(x, 3, x)[0],
    "one of several": lambda x: powered(x, 2, 1.5)[0],
    "Equinox": lambda x: named(x, "sine"),
    "an array": ruled(lambda f, x, t: (f(x), slope(x) * t * np.array([1.5, 2.5], "float32"))),
}

WRAPS = {
    "scan": turns,
    "backwards": lambda f: turns(f, reverse=True),
    "unrolled": lambda f: turns(f, unroll=2),
    "fori_loop": lambda f: lambda x: lax.fori_loop(0, 2, lambda _, y: f(y), x),
    "twice": lambda f: turns(turns(f)),
    "compiled": lambda f: jax.jit(turns(jax.jit(f))),
    "branch": lambda f: lambda x: lax.cond(x[0] < 5, turns(f), jnp.sin, x),
    "checkpoint": lambda f: jax.checkpoint(turns(f)),
    "stored": lambda f: jax.checkpoint(turns(f), policy=EVERYTHING),
    "of checkpoints": lambda f: turns(jax.checkpoint(f)),
    "of stored": lambda f: turns(jax.checkpoint(f, policy=EVERYTHING)),
    "while_loop": lambda f: (
        lambda x: lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, turns(f)(s[1])), (0, x))[
            1
        ]
    ),
    "of constants": lambda f: (
        lambda x: lax.scan(lambda c, _: (turns(lambda d: d * f(x) * f(c))(c), None), x, length=2)[0]
    ),
    "solver": lambda f: turns(
        lambda x: lax.custom_linear_solve(
            lambda v: (3 + f(x)) * v, x, lambda _, b: b / (3 + f(x)), symmetric=True
        )
    ),
    "divided": lambda f: turns(jax.shard_map(f, mesh=MESH, in_specs=P("d"), out_specs=P("d"))),
    "of divided": lambda f: turns(
        jax.shard_map(turns(f), mesh=MESH, in_specs=P("d"), out_specs=P("d"), check_vma=False)
    ),
    "mapped": lambda f: jax.vmap(turns(lambda y: f(y * X)[0])),
}

# Each rule in a scan, and each scan with a rule that makes a call.
CASES = [("scan", rule) for rule in RULES] + [(wrap, "another") for wrap in list(WRAPS)[1:]]
CASES += [("checkpoint", "itself"), ("twice", "loop of tangents"), ("stored", "Equinox")]


@pytest.mark.parametrize(("wrap", "rule"), CASES)
def test_second_derivatives_follow_the_rules_in_a_loop(wrap, rule):
    """As forward mode does, twice, which JAX never does in parts."""
    f = WRAPS[wrap](RULES[rule])

    def loss(x):
        return jnp.sum(f(x))

    want = jax.jit(jax.jacfwd(jax.jacfwd(loss)))(X)
    unruled = jax.jit(jax.jacfwd(jax.jacfwd(lambda x: jnp.sum(WRAPS[wrap](jnp.sin)(x)))))(X)
    assert not np.allclose(want, unruled, rtol=1e-2)
    for call in (
        jax.jit(lambda x: adk.hessian(loss)(x).x.x),
        lambda x: adk.hvp(jax.jit(loss))(x).as_matrix(),
        jax.jit(jax.jacfwd(lambda x: adk.grad(loss)(x).x)),  # which JAX pushes, and not the package
    ):
        np.testing.assert_allclose(call(X), want, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("rule", ["itself", "another", "loop of tangents"])
def test_what_is_differentiated_later_is_kept_as_well(rule):
    """The first derivative is by the other argument, so that the rule is not run for it."""

    def loss(x, y):
        f = RULES[rule]
        step = lambda c, _: ((c[0] * f(c[1]) * x, f(c[1])), None)  # noqa: E731
        return jnp.sum(lax.scan(step, (x, y), length=3)[0][0])

    want = jax.jit(jax.jacfwd(jax.jacfwd(loss, 0), 1))(X, 2 * X)
    first = lambda y: adk.grad(loss, wrt="x")(X, y).x  # noqa: E731
    for found in (jax.jacfwd(first)(2 * X), adk.jacobian(first)(2 * X).y):
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


def test_third_derivatives_and_batches_follow_them():
    loss = lambda x: jnp.sum(turns(RULES["another"])(x))  # noqa: E731
    want = jax.jit(jax.jacfwd(jax.jacfwd(jax.jacfwd(loss))))(X)
    third = jax.jit(lambda x: adk.jacobian(lambda x: adk.hessian(loss)(x).x.x)(x).x)
    np.testing.assert_allclose(third(X), want, rtol=1e-4, atol=1e-5)
    batch = jax.vmap(lambda x: adk.hessian(loss)(x).x.x)(jnp.stack([X, 2 * X]))
    want = jax.vmap(jax.jacfwd(jax.jacfwd(loss)))(jnp.stack([X, 2 * X]))
    np.testing.assert_allclose(batch, want, rtol=1e-4, atol=1e-5)
    with jax.disable_jit():
        np.testing.assert_allclose(adk.hessian(loss)(X).x.x, want[0], rtol=1e-4, atol=1e-5)


def test_a_loop_with_kept_rules_is_named_with_its_line():
    inner = jax.custom_vjp(jnp.sin)
    inner.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (jnp.cos(x) * g,))
    outer = jax.custom_vjp(jnp.sin)
    outer.defvjp(lambda x: (inner(x), x), lambda x, g: (inner(x) * g,))
    with pytest.raises(adk.ModeError) as caught:
        adk.hessian(lambda x: jnp.sum(turns(outer)(x)), mode="fwd")(X)
    lines = [x for x in str(caught.value).splitlines() if "through scan" in x]
    assert lines
    assert all(f"scan at tests/test_kept_rules.py:{LINE}" in x for x in lines), lines


@pytest.mark.usefixtures("collected_quickly")
def test_a_kept_rule_leaks_nothing():
    loss = lambda x: jnp.sum(turns(RULES["another"])(x))  # noqa: E731
    with jax.checking_leaks():
        jax.jit(lambda x: adk.hessian(loss)(x).x.x)(X)


def test_a_removable_singularity_in_a_loop():
    """JAX gives the slope of sinc at zero to each order by a rule of the next one."""

    def loss(x):
        return jnp.sum(lax.scan(lambda c, _: (c + jnp.sinc(c), None), x, length=1)[0])

    x = jnp.zeros(1)
    np.testing.assert_allclose(adk.hessian(loss)(x).x.x, [[-(np.pi**2) / 3]], rtol=1e-5)
    assert adk.check_derivatives(loss, order=2)(x)


def test_calls_of_a_rule_for_reverse_mode_follow_their_rules():
    @jax.custom_vjp
    def f(x):
        return jnp.sin(x)

    f.defvjp(lambda x: (f(x), slope(x)), lambda s, g: (s * g,))

    def loss(x):
        return jnp.sum(lax.scan(lambda c, _: (f(c), None), x, length=2)[0])

    want = jax.jacrev(jax.grad(lambda x: jnp.sum(f(f(x)))))(X)
    np.testing.assert_allclose(adk.hessian(loss)(X).x.x, want, rtol=1e-5, atol=1e-6)
    other = jax.custom_vjp(jnp.sin)  # which makes no calls
    other.defvjp(lambda x: (other(x), x), lambda x, g: (2 * jnp.cos(x) * g,))
    loss = lambda x: jnp.sum(turns(other)(x))  # noqa: E731
    np.testing.assert_allclose(adk.grad(loss)(X).x, jax.grad(loss)(X), rtol=1e-6)
    want = jax.jacrev(jax.grad(lambda x: jnp.sum(other(other(x)))))(X)
    np.testing.assert_allclose(adk.hessian(loss)(X).x.x, want, rtol=1e-5, atol=1e-6)


def test_a_checkpointed_loop_that_calls_rules():
    """Its rule for reverse mode asks of what it stores whether it is a `bool`."""

    def body(x):
        def step(state):
            return state[0] + 1, jax.nn.softplus(RULES["another"](state[1]))

        unfinished = lambda state: state[0] < 2  # noqa: E731
        return eqxi.while_loop(unfinished, step, (0, x), max_steps=3, kind="checkpointed")[1]

    def loss(x):
        return jnp.sum(turns(body)(x))

    def written_out(x):
        for _ in range(4):
            x = jax.nn.softplus(RULES["another"](x))
        return jnp.sum(x)

    for call in (adk.grad(loss), jax.jit(adk.grad(loss))):
        np.testing.assert_allclose(call(X).x, jax.grad(written_out)(X), rtol=1e-5)
    want = jax.jacfwd(jax.jacfwd(written_out))(X)
    np.testing.assert_allclose(adk.hessian(loss)(X).x.x, want, rtol=1e-4, atol=1e-5)


def test_a_rule_is_asked_about_what_is_differentiated_alone():
    """One that refuses the rest is traced by JAX once for each question, and has to succeed."""
    f = jax.custom_vjp(lambda x, n: jnp.sin(x) * n)

    def forward(x, n):
        if n.perturbed:
            raise TypeError("n is constant")
        return f(x.value, n.value), jnp.cos(x.value) * n.value

    f.defvjp(forward, lambda s, g: (s * g, jnp.zeros_like(g[0])), symbolic_zeros=True)

    def loss(x, n):
        return jnp.sum(lax.scan(lambda c, _: (f(jax.nn.softplus(c), n), None), x, length=2)[0])

    n = jnp.float32(2)
    for call in (adk.grad(loss, wrt="x"), jax.jit(adk.grad(loss, wrt="x"))):
        np.testing.assert_allclose(call(X, n).x, jax.grad(loss)(X, n), rtol=1e-6)


def test_calls_of_kept_rules_are_made_once_a_turn():
    seen = []

    @jax.custom_jvp
    def told(x):
        return jnp.cos(x)

    @told.defjvp
    def rule(primals, tangents):
        io_callback(lambda: seen.append(1), None)
        return told(*primals), -3 * jnp.sin(*primals) * tangents[0]

    f = ruled(lambda f, x, t: (f(x), told(x) * t))
    loss = lambda x: jnp.sum(lax.scan(lambda c, _: (f(c), None), x, length=3)[0])  # noqa: E731
    want = jax.jit(jax.jacfwd(jax.jacfwd(loss)))(X)
    for call in (adk.hessian(loss), jax.jit(adk.hessian(loss)), adk.hessian(jax.jit(loss))):
        seen.clear()
        np.testing.assert_allclose(call(X).x.x, want, rtol=1e-4, atol=1e-5)
        jax.effects_barrier()
        assert len(seen) == 3


@pytest.mark.skipif(not forgets_rules(), reason="this version of JAX keeps rules by itself")
def test_a_loop_is_rewritten_once_for_each_program(compilations):
    """So that an eager call compiles nothing that has been compiled."""

    def step(c, _):
        return RULES["another"](c), None

    @jax.checkpoint
    def loss(x):
        return jnp.sum(lax.scan(step, x, length=2)[0])

    gradient = adk.grad(loss)
    gradient(X)
    compilations.clear()
    gradient(X)
    assert not compilations


@pytest.mark.skipif(not forgets_rules(), reason="this version of JAX keeps rules by itself")
def test_what_is_rewritten_is_forgotten_with_its_program():
    def count():
        jax.clear_caches()
        gc.collect()
        return len(_kept_rules._KEPT), len(_kept_rules._CALLS)

    def differentiate():
        f = ruled(lambda f, x, t: (f(x), slope(x) * t))
        jax.jit(adk.grad(lambda x: jnp.sum(turns(f)(x)))).trace(X)

    differentiate()
    before = count()
    for _ in range(3):
        differentiate()
    assert count() == before
