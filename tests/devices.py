"""On four devices; `test_sharding.py` runs this in a process that has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import shard_map
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import autodiffkit as adk

AUTO = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
EXPLICIT = jax.make_mesh((4,), ("d",))  # its axes are explicit by default
NUMBERS = np.random.default_rng(0)
X = jnp.asarray(NUMBERS.normal(size=(8, 3)), jnp.float32)
W = jnp.asarray(NUMBERS.normal(size=(3, 3)), jnp.float32)


def model(x, w):
    return jnp.tanh(x @ w)


def loss(x, w):
    return jnp.sum(jnp.tanh(x @ w) ** 2)


def whole_loss(x, w):
    return jax.lax.psum(loss(x, w), "d")


extensive = pytest.mark.extensive

TRANSFORMS = {
    "jacobian": (adk.jacobian, model),
    "forward": (lambda f: adk.jacobian(f, mode="fwd"), model),
    "reverse": (lambda f: adk.jacobian(f, mode="rev"), model),
    "chunks": (lambda f: adk.jacobian(f, chunk_size=5), model),
    "grad": (adk.grad, loss),
    "hessian": (adk.hessian, loss),
    "linearize": (adk.linearize, model),
    "hvp": (adk.hvp, loss),
    "laplacian": (adk.laplacian, loss),
    "diagonal": (adk.hessian_diagonal, loss),
    "gauss_newton": (lambda f: adk.gauss_newton(f, lambda y: jnp.sum(y**2)), model),
}


SOME = ["grad", "hessian"]
ALL = [name if name in SOME else pytest.param(name, marks=extensive) for name in TRANSFORMS]


def close(found, want):
    np.testing.assert_allclose(found, want, rtol=2e-4, atol=1e-4)


def compare(found, want):
    """Maps by their matrices, other results leaf by leaf."""
    if hasattr(want, "as_matrix"):
        close(found.as_matrix(), want.as_matrix())
        close(found.value, want.value)
    else:
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
            close(a, b)


@pytest.fixture(params=[pytest.param("auto", marks=extensive), "explicit"])
def mesh(request):
    mesh = AUTO if request.param == "auto" else EXPLICIT
    # Some operations of JAX itself need to be told of a mesh with explicit axes.
    with jax.set_mesh(mesh):
        yield mesh


@pytest.mark.parametrize("name", ALL)
def test_divided_arguments(name, mesh):
    make, f = TRANSFORMS[name]
    x, w = (
        jax.device_put(X, NamedSharding(mesh, P("d"))),
        jax.device_put(W, NamedSharding(mesh, P())),
    )
    want = make(f)(X, W)
    for call in (make(f), jax.jit(make(f))):
        compare(call(x, w), want)


def looped(x, w):
    return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, length=2)[0]


def looped_loss(x, w):
    return jnp.sum(looped(x, w) ** 2)


def on_explicit_mesh():
    return (
        jax.device_put(X, NamedSharding(EXPLICIT, P("d"))),
        jax.device_put(W, NamedSharding(EXPLICIT, P())),
    )


@pytest.mark.parametrize(
    "name",
    ["forward", "hessian", *(pytest.param(n, marks=extensive) for n in ("laplacian", "diagonal"))],
)
def test_what_a_loop_carries_is_divided(name):
    """JAX wants what goes into a loop to lie where it lies after a turn: tangents as well."""
    make, f = TRANSFORMS[name]
    f = looped_loss if f is loss else looped
    want = make(f)(X, W)
    with jax.set_mesh(EXPLICIT):
        x, w = on_explicit_mesh()
        compare(jax.jit(make(f))(x, w), want)


@extensive
def test_a_loop_of_divided_carries_is_checked():
    with jax.set_mesh(EXPLICIT):
        x, w = on_explicit_mesh()
        assert adk.check_derivatives(looped)(x, w)
        assert adk.find_nonfinite(looped)(x, w)


def test_a_mesh_with_explicit_axes_has_to_be_in_use():
    x, w = on_explicit_mesh()
    try:
        found, message = adk.grad(looped_loss)(x, w), None
    except adk.ModeError as error:
        found, message = None, str(error)
    if message is None:  # since JAX 0.11
        close(found.x, adk.grad(looped_loss)(X, W).x)
    else:
        assert message.startswith(
            "grad(looped_loss): x is on a mesh with explicit axes, which is not in use. Make the "
            "call inside of jax.set_mesh(mesh)."
        )


def test_blocks_are_divided_as_the_arguments_are():
    x = jax.device_put(X, NamedSharding(AUTO, P("d")))
    for call in (adk.jacobian(model, wrt="w"), jax.jit(adk.jacobian(model, wrt="w"))):
        J = call(x, W)
        assert J.w.sharding.spec[0] == "d"
        assert J.value.sharding.spec[0] == "d"
    with jax.set_mesh(EXPLICIT):
        x = jax.device_put(X, NamedSharding(EXPLICIT, P("d")))
        J = adk.jacobian(model, wrt="w", mode="fwd")(
            x, jax.device_put(W, NamedSharding(EXPLICIT, P()))
        )
        assert jax.typeof(J.w).sharding.spec == P("d", None, None, None)
        assert J.mv(w=W).shape == (8, 3)
        assert J.rmv(J.value).w.shape == (3, 3)


def test_a_mesh_is_not_mistaken_for_another():
    """Programs are found again by their text, which does not name the mesh of a whole array."""
    f = adk.grad(lambda w: jnp.sum(jnp.tanh(w) ** 2))
    want = f(W).w
    for mesh in (EXPLICIT, AUTO):
        for _ in range(2):
            with jax.set_mesh(mesh):
                close(f(jax.device_put(W, NamedSharding(mesh, P()))).w, want)
            close(f(W).w, want)


def test_residuals_stay_where_they_are():
    x = jax.device_put(X, NamedSharding(AUTO, P("d")))
    L = adk.linearize(model)(x, W)
    specs = [getattr(r.sharding, "spec", ()) for r in L._linear.residuals]
    assert any(spec[:1] == ("d",) for spec in specs)
    compare(L, adk.linearize(model)(X, W))


def test_donated_and_divided():
    call = jax.jit(adk.grad(loss), donate_argnums=0)
    x = jax.device_put(X, NamedSharding(AUTO, P("d")))
    close(call(x, W).x, adk.grad(loss)(X, W).x)
    assert x.is_deleted()


def test_compiled_for_divided_arguments():
    x = jax.device_put(X, NamedSharding(AUTO, P("d")))
    compiled = adk.jacobian(model, wrt="w").compile(X, W)
    close(compiled(X, W).w, adk.jacobian(model, wrt="w")(x, W).w)


# `shard_map` -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [n if n == "grad" else pytest.param(n, marks=extensive) for n in TRANSFORMS]
)
def test_a_shard_map_inside(name):
    make, f = TRANSFORMS[name]
    is_loss = f is loss
    inside = shard_map(
        whole_loss if is_loss else f,
        mesh=AUTO,
        in_specs=(P("d"), P()),
        out_specs=P() if is_loss else P("d"),
    )
    want = make(f)(X, W)
    for call in (make(inside), jax.jit(make(inside))):
        compare(call(X, W), want)


def by_w(transform, f, mode="auto"):
    options = {} if transform in (adk.laplacian, adk.hessian_diagonal) else {"mode": mode}
    return lambda x, w: transform(f, wrt="w", **options)(x, w)


LOCAL = {
    "fwd": (lambda x, w: by_w(adk.jacobian, model, "fwd")(x, w).w, P("d"), adk.jacobian(model)),
    "rev": (lambda x, w: by_w(adk.jacobian, model, "rev")(x, w).w, P("d"), adk.jacobian(model)),
    "auto": (lambda x, w: by_w(adk.jacobian, model)(x, w).w, P("d"), adk.jacobian(model)),
}


@pytest.mark.parametrize("mode", LOCAL)
@pytest.mark.parametrize("wrap", [pytest.param(lambda f: f, marks=extensive), jax.jit])
def test_inside_a_shard_map_a_derivative_is_that_of_what_the_device_computes(mode, wrap):
    """JAX's own reverse mode adds up the devices' shares where its forward mode does not."""
    f, spec, whole = LOCAL[mode]
    found = wrap(shard_map(f, mesh=AUTO, in_specs=(P("d"), P()), out_specs=spec))(X, W)
    close(found, whole(X, W).w)


SUMMED = {
    "grad": (lambda x, w: adk.grad(loss, wrt="w")(x, w).w, lambda: adk.grad(loss)(X, W).w),
    "hessian": (
        lambda x, w: adk.hessian(loss, wrt="w")(x, w).w.w,
        lambda: adk.hessian(loss)(X, W).w.w,
    ),
    "laplacian": (
        lambda x, w: adk.laplacian(loss, wrt="w")(x, w).laplacian,
        lambda: adk.laplacian(loss, wrt="w")(X, W).laplacian,
    ),
    "products": (
        lambda x, w: adk.hvp(loss, wrt="w")(x, w).mv(w=w).w,
        lambda: adk.hvp(loss, wrt="w")(X, W).mv(w=W).w,
    ),
}


@pytest.mark.parametrize(
    "name", ["grad", *(pytest.param(n, marks=extensive) for n in list(SUMMED)[1:])]
)
def test_shares_of_the_devices_are_added_up_by_the_user(name):
    f, want = SUMMED[name]

    def shares(x, w):
        return jax.lax.psum(f(x, w), "d")

    for wrap in (lambda f: f, jax.jit):
        found = wrap(shard_map(shares, mesh=AUTO, in_specs=(P("d"), P()), out_specs=P()))(X, W)
        close(found, want())


WHOLE = {
    "grad": (lambda x, w: adk.grad(whole_loss, wrt="w")(x, w).w, jax.grad(loss, 1)),
    "forward": (
        lambda x, w: adk.jacobian(whole_loss, wrt="w", mode="fwd")(x, w).w,
        jax.grad(loss, 1),
    ),
    "hessian": (lambda x, w: adk.hessian(whole_loss, wrt="w")(x, w).w.w, jax.hessian(loss, 1)),
    "products": (
        lambda x, w: adk.linearize(whole_loss, wrt="w")(x, w).rmv(1.0).w,
        jax.grad(loss, 1),
    ),
}


@pytest.mark.parametrize(
    "name", ["grad", *(pytest.param(n, marks=extensive) for n in list(WHOLE)[1:])]
)
def test_a_sum_over_the_devices_has_the_derivative_of_the_whole(name):
    f, want = WHOLE[name]
    for wrap in (lambda f: f, jax.jit):
        found = wrap(shard_map(f, mesh=AUTO, in_specs=(P("d"), P()), out_specs=P()))(X, W)
        close(found, want(X, W))


def test_outputs_of_both_kinds_are_refused():
    def both(x, w):
        return adk.jacobian(lambda w: (model(x, w), whole_loss(x, w)))(w).w[1]

    with pytest.raises(adk.ModeError, match="one output varies along 'd' and another does not"):
        shard_map(both, mesh=AUTO, in_specs=(P("d"), P()), out_specs=P())(X, W)


def test_an_output_that_depends_on_nothing_is_of_no_kind():
    def counted(x, w):
        return adk.jacobian(lambda w: (model(x, w), jnp.ones(3)))(w).w[0]

    found = shard_map(counted, mesh=AUTO, in_specs=(P("d"), P()), out_specs=P("d"))(X, W)
    close(found, adk.jacobian(model)(X, W).w)


def branched(x, w):
    return jax.lax.cond(w[0, 0] > 5, lambda x: x @ w, lambda x: jnp.sin(x @ w) * 2.0, x)


def stored_again(x, w):
    return jax.checkpoint(
        lambda x: jax.lax.scan(lambda c, _: (c @ w, branched(c, w)), x, length=2)
    )(x)[1]


def test_an_operation_in_a_shard_map_is_named_with_its_line():
    def f(x, w):
        step = lambda s: (s[0] + 1, jnp.tanh(s[1] @ w))  # noqa: E731
        return jax.lax.while_loop(lambda s: s[0] < 2, step, (0, x))[1]

    def local(x, w):
        return adk.jacobian(f, wrt="w", mode="rev")(x, w).w

    where = rf"while_loop at \S*devices.py:{f.__code__.co_firstlineno + 2}:"
    with pytest.raises(adk.ModeError, match=where):
        shard_map(local, mesh=AUTO, in_specs=(P("d"), P()), out_specs=P("d"))(X, W)


def solved(x, w):
    def solve(turned):
        return lambda _, b: jnp.linalg.inv(turned(w) + 4 * jnp.eye(3)) @ b

    return x @ jax.lax.custom_linear_solve(
        lambda v: w @ v + 4 * v, w, solve(lambda w: w), solve(jnp.transpose)
    )


@pytest.mark.parametrize(
    ("f", "axis"),
    [
        (lambda x, w: x @ jnp.sin(2 * w), 0),
        (looped, 0),
        (branched, 0),
        (stored_again, 1),
        pytest.param(solved, 0, marks=extensive),
    ],
)
@pytest.mark.parametrize("mode", [pytest.param("fwd", marks=extensive), "rev"])
def test_parameters_that_are_the_same_on_all_devices(f, axis, mode):
    """What they are joined with is not, also where that is in a loop or a branch."""

    def local(x, w):
        products = adk.linearize(f, wrt="w")(x, w)
        return adk.jacobian(f, wrt="w", mode=mode)(x, w).w, products.rmv(products.value).w[None]

    divided = P(*[None] * axis, "d")
    specs = {"in_specs": (P("d"), P()), "out_specs": (divided, P("d"))}
    found, products = jax.jit(shard_map(local, mesh=AUTO, **specs))(X, W)
    want = [adk.jacobian(f, wrt="w")(x, W) for x in jnp.split(X, 4)]
    close(found, jnp.concatenate([J.w for J in want], axis=axis))
    close(products, jnp.stack([J.rmv(J.value).w for J in want]))


def test_a_parameter_that_enters_a_rule_for_reverse_mode_has_to_vary_first():
    rule = jax.custom_vjp(jnp.sin)
    rule.defvjp(lambda w: (rule(w), w), lambda w, g: (jnp.cos(w) * g,))

    def local(x, w):
        return adk.grad(lambda w: jnp.sum(x @ rule(w)))(w).w

    specs = {"mesh": AUTO, "in_specs": (P("d"), P()), "out_specs": P("d")}
    with pytest.raises(adk.ModeError, match=r"the same along 'd' enters a jax.custom_vjp.*pcast"):
        shard_map(local, **specs)(X, W)
    found = shard_map(lambda x, w: local(x, jax.lax.pcast(w, "d", to="varying")), **specs)(X, W)
    want = [adk.grad(lambda w: jnp.sum(x @ jnp.sin(w)))(W).w for x in jnp.split(X, 4)]  # noqa: B023
    close(found, jnp.concatenate(want))


@jax.custom_jvp
def bent(x):
    return jnp.sin(x)


# The slope is not that of the function, so that a rule that is forgotten shows.
bent.defjvp(lambda x, t: (bent(*x), 2 * bent(*x) * t[0]))


@pytest.mark.parametrize("check_vma", [True, pytest.param(False, marks=extensive)])
def test_rules_in_a_shard_map_in_a_loop_are_kept(check_vma):
    """JAX 0.10 and 0.11 forget them there."""

    def step(x, w):
        y = bent(x @ w)
        return y, jnp.sum(bent(y))

    def added(x, w):
        y, total = step(x, w)
        return y, jax.lax.psum(total, "d")

    specs = {"in_specs": (P("d"), P()), "out_specs": (P("d"), P())}
    divided = shard_map(added, mesh=AUTO, check_vma=check_vma, **specs)

    def loss_of(step):
        def f(x, w):
            y, totals = jax.lax.scan(lambda c, _: step(c, w), x, length=2)
            return jnp.sum(y) + jnp.sum(totals**2)

        return f

    want = jax.jit(jax.jacfwd(jax.jacfwd(loss_of(step), 1), 1))(X, W)
    close(jax.jit(adk.hessian(loss_of(divided), wrt="w"))(X, W).w.w, want)
