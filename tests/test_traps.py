"""Fifteen places where people fall with plain JAX, and what happens there instead."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Array, Float, TypeCheckError, jaxtyped

import autodiffkit as adk
from functions import custom_vjp, while_loop
from places import place

X = jnp.array([0.5, -1.0])
Y = jnp.array([2.0, 3.0])
Z = jax.lax.complex(X, Y)

NO_REVERSE = "Reverse-mode differentiation does not work for lax.while_loop"
NO_FORWARD = r"can't apply forward-mode autodiff \(jvp\) to a custom_vjp function"
NO_ARRAY = "at least one array or dtype is required"


def product(x, y):
    return x * y


# 1. `jacrev(f)(x=...)`
def test_arguments_may_be_keywords():
    with pytest.raises(ValueError, match=r"Positional argument indices, .* must have value"):
        jax.jacrev(product)(x=X, y=Y)
    J = adk.jacobian(product)(y=Y, x=X)
    np.testing.assert_array_equal(J.as_matrix(), np.hstack([np.diag(Y), np.diag(X)]))


# 2. "Output had shape: (1,)"
def test_the_gradient_of_one_entry_says_how_to_make_it_a_scalar():
    with pytest.raises(TypeError, match=r"scalar-output functions. Output had shape: \(1,\)"):
        jax.grad(product)(X[:1], Y[:1])
    with pytest.raises(adk.NotDifferentiableError, match=r"a scalar with \.squeeze\(\)"):
        adk.grad(product)(X[:1], Y[:1])


# 3. "got int32", but which leaf?
def test_an_integer_leaf_is_held_and_named():
    def f(p):
        return jnp.sum(p["w"]) * p["n"]["steps"].astype("float32")

    p = {"w": X, "n": {"steps": jnp.array(3)}}
    with pytest.raises(TypeError, match=r"grad requires real- or complex-valued .* but got int32"):
        jax.grad(f)(p)
    G = adk.grad(f)(p)
    np.testing.assert_array_equal(G.p["w"], [3, 3])
    with pytest.raises(AttributeError, match=r"'p\.n\.steps': held constant: int32\[\]"):
        G["p.n.steps"]
    with pytest.raises(TypeError, match=r"wrt='p\.n\.steps' cannot be .*: it is int32\[\]"):
        adk.grad(f, wrt="p.n.steps")(p)


# 4. `hessian` blames `jacfwd`
def test_the_message_names_the_transform_that_was_called():
    with pytest.raises(TypeError, match="jacfwd requires real-valued inputs"):
        jax.hessian(product)(3, 2)
    for name in ("jacobian", "grad", "hessian", "linearize", "hvp"):
        with pytest.raises(TypeError, match=rf"^{name}\(product\): nothing to .*\n  x  an int"):
            getattr(adk, name)(product)(3, 2)


# 5. The Hessian of a complex argument
def test_the_hessian_by_a_complex_argument_says_why_not_and_what_instead():
    def f(z):
        return jnp.sum(z.real**2 * z.imag)

    np.testing.assert_array_equal(adk.jacobian(f)(Z).z, jax.jacrev(f)(Z))
    with pytest.raises(TypeError, match=r"jacfwd requires real-valued inputs .* got complex64"):
        jax.hessian(f)(Z)
    with pytest.raises(TypeError, match="Differentiate by real and imaginary parts, or pass holo"):
        adk.hessian(f)(Z)
    H = adk.hessian(lambda re, im: f(jax.lax.complex(re, im)))(X, Y)
    np.testing.assert_allclose(H.re.im, np.diag(2 * X))
    H = adk.hessian(lambda z: jnp.sum(z**3), holomorphic=True)(Z)
    np.testing.assert_allclose(H.z.z, np.diag(6 * Z), rtol=1e-5)


# 6. A complex output of a real input
@pytest.mark.parametrize("mode", ["auto", "fwd", "rev"])
def test_a_complex_output_needs_no_particular_mode(mode):
    def f(x):
        return jax.lax.complex(x**2, x**3)

    for transform in (jax.jacrev, jax.hessian):
        with pytest.raises(TypeError, match=r"jacrev requires real-valued outputs .* complex64"):
            transform(f)(X)
    np.testing.assert_allclose(adk.jacobian(f, mode=mode)(X).x, jax.jacfwd(f)(X))
    np.testing.assert_allclose(adk.hessian(f, mode=mode)(0.5).x.x, 2 + 3j)


# 7. `while_loop`
def test_a_while_loop_is_gone_round():
    def f(x):
        return jnp.sum(while_loop(x))

    for transform in (jax.grad, jax.jacrev, jax.hessian):
        with pytest.raises(ValueError, match=NO_REVERSE):
            transform(f)(X)
    H = adk.hessian(f)(X)
    np.testing.assert_allclose(H.grad.x, jax.jacfwd(f)(X), rtol=1e-5)
    np.testing.assert_allclose(H.x.x, jax.jacfwd(jax.jacfwd(f))(X), rtol=1e-5, atol=1e-5)
    loop = f"while_loop at {place(while_loop, 'lax.while_loop')}"
    assert adk.grad(f).plan(X).reason == f"reverse mode is impossible: it stops at {loop}"
    with pytest.raises(adk.ModeError, match="Use mode='auto' or mode='fwd'") as caught:
        adk.grad(f, mode="rev")(X)
    assert f"cannot pull through {loop}: {NO_REVERSE}" in str(caught.value)


# 8. `custom_vjp`
def test_a_custom_vjp_is_gone_round_also_where_a_while_loop_follows():
    def both(x):
        return while_loop(custom_vjp(x))

    for f in (custom_vjp, both):
        with pytest.raises(TypeError, match=NO_FORWARD):
            jax.jacfwd(f)(X)
    with pytest.raises(ValueError, match=NO_REVERSE):
        jax.jacrev(both)(X)
    np.testing.assert_array_equal(adk.jacobian(custom_vjp)(X).x, np.diag(2 * X))
    expected = jax.jacfwd(while_loop)(X**2) @ jnp.diag(2 * X)
    np.testing.assert_allclose(adk.jacobian(both)(X).x, expected, rtol=1e-5)
    rule = f"forward mode is impossible: it stops at custom_vjp at {place(custom_vjp, '_square(')}"
    assert adk.jacobian(custom_vjp).plan(X).reason == rule


# 9. The activation of an `eqx.nn.MLP` is a leaf
def test_an_activation_among_the_leaves_is_held():
    def f(m, x):
        return m(x)

    mlp = eqx.nn.MLP(2, 2, 3, 1, activation=jax.nn.relu, key=jax.random.key(0))
    with pytest.raises(TypeError, match=r"'<.*custom_jvp object at .*' .* is not a valid JAX type"):
        jax.jacrev(f)(mlp, X)
    J = adk.jacobian(f)(mlp, X)
    arrays, rest = eqx.partition(mlp, eqx.is_inexact_array)
    expected = jax.jacrev(lambda arrays: eqx.combine(arrays, rest)(X))(arrays)
    for ours, theirs in zip(jax.tree.leaves(J.m), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    with pytest.raises(AttributeError, match=r"'m\.activation': held constant: a custom_jvp"):
        J["m.activation"]
    assert "held    a custom_jvp: m.activation" in str(adk.jacobian(f).plan(mlp, X))


# 10. "at least one array or dtype is required"
def test_none_is_named_and_a_python_float_counts():
    with pytest.raises(ValueError, match=NO_ARRAY):
        jax.jacrev(lambda x: None)(X)
    with pytest.raises(TypeError, match=r"no array at all.* returned None\."):
        adk.jacobian(lambda x: None)(X)
    for transform in (eqx.filter_jacfwd, eqx.filter_hessian):
        with pytest.raises(ValueError, match=NO_ARRAY):
            transform(jnp.square)(3.0)
    assert adk.hessian(lambda x: x**2)(3.0).grad.x == 6


def test_an_output_tree_may_hold_anything():
    def f(x):
        return {"y": 2 * x, "none": None, "scale": 2.0, "label": "a"}

    with pytest.raises(TypeError, match="not a valid JAX type"):
        jax.jacfwd(f)(X)
    J = adk.jacobian(f)(X)
    np.testing.assert_array_equal(J.as_matrix(), [[0, 0], [2, 0], [0, 2]])
    assert J.x["none"] is J.x["label"] is None
    assert {**J.value, "y": 0} == {**f(X), "y": 0}


# 11. Duplicate arguments
def test_what_is_selected_twice_counts_once():
    with pytest.raises(TypeError, match=r"unsupported operand type\(s\) for \*: 'NoneType'"):
        jax.jacrev(product, argnums=(0, 0))(X, Y)
    J = adk.jacobian(product, wrt=("x", "x"))(X, Y)
    np.testing.assert_array_equal(J.as_matrix(), np.diag(Y))
    J = adk.jacobian(lambda p: p["w"] * p["b"], wrt=("p.w", "p", "p.*"))({"w": X, "b": Y})
    assert J.column_labels == (("p.b", slice(0, 2)), ("p.w", slice(2, 4)))
    with pytest.raises(adk.SignatureError, match="multiple values for argument 'x'"):
        adk.jacobian(product)(X, x=Y)
    J = adk.jacobian(product)(X, X)  # one array, two arguments
    np.testing.assert_array_equal(J.as_matrix(), np.hstack([np.diag(X), np.diag(X)]))


# 12. `eigvalsh` of a dict
def test_a_hessian_of_a_dict_is_a_matrix():
    def f(p):
        return jnp.sum(p["w"] ** 2) * p["s"]

    p = {"w": X, "s": jnp.array(2.0)}
    with pytest.raises(TypeError, match=r"eigvalsh requires ndarray .*, got <class 'dict'>"):
        jnp.linalg.eigvalsh(jax.hessian(f)(p))
    H = adk.hessian(f)(p)
    np.testing.assert_allclose(jnp.linalg.eigvalsh(H.as_matrix()), [-1, 4, 5], rtol=1e-5)
    assert H.column_labels == H.row_labels == (("p.s", slice(0, 1)), ("p.w", slice(1, 3)))
    message = r"hessian\(f\) is no single array, but blocks with names\. \.as_matrix\(\) gives"
    for convert in (jnp.linalg.eigvalsh, jnp.asarray, np.asarray):
        with pytest.raises(adk.StructureError, match=message):
            convert(H)


# 13. Silent NaN
def distance(x, y):
    return jnp.sqrt(jnp.sum(x**2)) + 2 * y


def test_a_result_counts_the_entries_that_are_not_finite():
    assert np.isnan(jax.grad(distance)(jnp.zeros(2), 1.0)).all()
    assert repr(adk.jacobian(distance)(jnp.zeros(2), 1.0)).splitlines()[-2:] == [
        "  output  x                float32[2] (2 of 2 not finite)  [nan, nan]",
        "  output  y                float32[]                       2",
    ]
    assert "float32[2, 2] (4 of 4 not finite)" in repr(adk.hessian(distance)(jnp.zeros(2), 1.0).x)


# 81 blocks are stored as one array, and 30 blocks are more than the table shows.
@pytest.mark.parametrize(("transform", "n", "zero"), [(adk.hessian, 9, 0), (adk.jacobian, 30, 29)])
def test_the_count_does_not_depend_on_the_number_of_blocks(transform, n, zero):
    p = {f"a{i:02}": jnp.float32(i != zero) for i in range(n)}
    result = transform(lambda p: sum(jnp.sqrt(a) for a in p.values()))(p)
    assert (~np.isfinite(result.as_matrix())).sum() == 1
    assert "not finite" in repr(result)


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (jnp.linalg.norm, [0.0, 0.0]),
        (lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0), [-1.0, 0.0, 4.0]),
        (lambda x: jnp.linalg.eigh(x)[1], [[1.0, 0.0], [0.0, 1.0]]),
    ],
)
def test_a_mode_is_finite_wherever_that_of_jax_is(f, x):
    x = jnp.array(x)
    assert not np.isfinite(jax.jacrev(f)(x)).all()
    for mode, plain in (("fwd", jax.jacfwd), ("rev", jax.jacrev)):
        found = np.isfinite(adk.jacobian(f, mode=mode)(x).x)
        assert (found >= np.isfinite(plain(f)(x))).all()


def test_blocks_beside_one_that_is_not_finite_stay_finite():
    assert np.isnan(jax.hessian(distance, (0, 1))(jnp.zeros(2), 1.0)[0][1]).all()
    H = adk.hessian(distance)(jnp.zeros(2), 1.0)
    np.testing.assert_array_equal(H.x.y, [0, 0])
    assert (H.y.y, H.grad.y) == (0, 2)


def test_a_cut_brings_no_nan_that_both_plain_modes_are_free_of():
    def waist(x, y):
        h = jnp.stack([jnp.sqrt(jnp.sum(x**2)), jnp.sum(y)])
        return {"a": h[0] * jnp.arange(50.0), "b": jnp.exp(-h[1] * jnp.arange(50.0))}

    x, y = jnp.zeros(60), jnp.linspace(0, 1, 60)
    assert adk.jacobian(waist).plan(x, y).mode == "mixed"
    plain = [jax.tree.leaves(d(waist, (0, 1))(x, y)) for d in (jax.jacfwd, jax.jacrev)]
    found = jax.tree.leaves(adk.jacobian(waist)(x, y).to_jax())
    for block, forward, reverse in zip(found, *plain, strict=True):
        assert np.all(np.isfinite(block) | ~np.isfinite(forward) | ~np.isfinite(reverse))


# 14. Silent zeros
@pytest.mark.parametrize("step", [jnp.round, jnp.sign, lambda x: x.astype(int).astype(float)])
def test_the_plan_lists_what_is_zero_by_structure(step):
    def f(x, y):
        return jnp.sum((step(x) + y) * y)

    assert not jax.jacrev(f)(X, Y).any()
    assert not adk.grad(f)(X, Y).x.any()
    plan = adk.grad(f).plan(X, Y)
    assert plan.zeros == (("", "x"),)
    assert "\n  zeros   output by x: no path\n" in str(plan)
    assert adk.hessian(f).plan(X, Y).zeros == (("x", "x"), ("x", "y"), ("y", "x"))
    assert adk.jacobian(step).plan(X).reason == "no output depends on an input"


# 15. A Python float under `Float[Array, ""]`
def test_a_python_float_fits_the_annotation_of_a_scalar_everywhere():
    def f(x: Float[Array, "n"], s: Float[Array, ""]) -> Float[Array, "n"]:
        return x * s

    for wrt in ("x", "s", None):  # held or differentiated
        np.testing.assert_array_equal(adk.jacobian(f, wrt=wrt)(X, 2.0).value, 2 * X)
    with pytest.raises(adk.AnnotationError, match=r"'s' does not(.|\n)* Float(.|\n)* float32\[2\]"):
        adk.jacobian(f)(X, Y)


def test_a_function_with_a_check_of_its_own_leaves_the_bare_one_checked():
    def bare(s: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.sum(s**2)

    checked = jaxtyped(bare, typechecker=beartype)
    with pytest.raises(TypeCheckError, match="Actual value"):
        checked(2.0)
    assert jax.grad(checked)(2.0) == adk.grad(checked)(2.0).s == 4
    with pytest.raises(adk.AnnotationError, match="argument 's' does not fit its annotation"):
        adk.grad(bare)(X)
