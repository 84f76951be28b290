"""Transforms as wrappers: of functions, methods, modules, and of each other."""

import copy
import functools
import inspect
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autodiffkit as adk
from functions import Affine, make_affine

X = jnp.array([0.5, -1.0])
TRANSFORMS = [adk.jacobian, adk.grad, adk.hessian, adk.linearize, adk.hvp]


def cubes(x, scale: float = 2.0) -> Any:
    """The sum of cubes."""
    return jnp.sum(x**3) * scale


def paths(result: Any) -> list[str]:
    return [path for path, _ in result.column_labels]


# Forms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_three_forms_are_the_same(transform):
    called = transform(cubes, wrt="x", mode="auto")

    @transform(wrt="x", mode="auto")
    def with_keywords(x, scale=2.0):
        return cubes(x, scale)

    @transform()
    def with_parentheses(x, scale=2.0):
        return cubes(x, scale)

    @transform
    def plain(x, scale=2.0):
        return cubes(x, scale)

    results = [f(X).as_matrix() for f in (called, with_keywords, with_parentheses, plain)]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    assert paths(with_keywords(X, 3.0)) == ["x"]
    assert paths(plain(X, 3.0)) == ["x", "scale"]


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_transform_is_a_module_that_wraps_its_function(transform):
    wrapped = transform(cubes)
    assert isinstance(wrapped, eqx.Module)
    assert wrapped.__wrapped__ is cubes
    assert wrapped.__name__ == "cubes"
    assert wrapped.__qualname__ == "cubes"
    assert wrapped.__doc__ == "The sum of cubes."
    assert wrapped.__module__ == __name__
    assert list(inspect.signature(wrapped).parameters) == ["x", "scale"]
    assert inspect.signature(wrapped).parameters["scale"].default == 2.0
    assert inspect.unwrap(wrapped) is cubes


def test_a_function_without_a_docstring_gives_none():
    def f(x):
        return x

    assert adk.jacobian(f).__doc__ is None
    assert adk.jacobian(f).__name__ == "f"


def test_options_are_keywords_only():
    with pytest.raises(TypeError):
        adk.jacobian(cubes, "x")
    with pytest.raises(TypeError):
        adk.jacobian(f=cubes)


def test_the_names_of_a_methods_own_parameters_are_free():
    """Whatever the wrapper calls its own parameters, the user's names reach the function."""

    def f(self, args, kwargs, function, options, f):
        return self * args * kwargs * function * options * f

    J = adk.jacobian(f)(self=1.0, args=2.0, kwargs=3.0, function=4.0, options=5.0, f=6.0)
    assert J["self"] == 720
    assert J["f"] == 120
    plan = adk.jacobian(f).plan(self=1.0, args=2.0, kwargs=3.0, function=4.0, options=5.0, f=6.0)
    assert plan.mode == "rev"


# Identity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: cubes, lambda: make_affine("float32")])
def test_a_transform_hashes_and_compares_by_identity(make):
    function = make()
    a, b = adk.jacobian(function), adk.jacobian(function)
    assert a == a
    assert a != b
    assert hash(a) == hash(a)
    assert len({a, b, a}) == 2
    assert copy.copy(a) != a


# Methods ------------------------------------------------------------------------------------


class Spring(eqx.Module):
    """A spring."""

    stiffness: Any
    name: str = "spring"

    @adk.grad
    def force(self, x):
        """The force."""
        return 0.5 * self.stiffness * jnp.sum(x**2)

    @adk.jacobian(wrt=("self.stiffness", "x"))
    def slope(self, x, *, offset=0.0):
        return self.stiffness * x + offset

    @staticmethod
    @adk.jacobian
    def static(x):
        return x**2

    @classmethod
    @adk.jacobian
    def of_class(cls, x):
        assert cls is Spring
        return 3 * x

    def energy(self, x):
        return 0.5 * self.stiffness * jnp.sum(x**2)


def test_a_decorated_method_called_bound_holds_self_constant():
    G = Spring(jnp.array(3.0)).force(X)
    assert paths(G) == ["x"]
    np.testing.assert_allclose(G.x, 3 * X)


def test_a_decorated_method_called_unbound_differentiates_self():
    G = Spring.force(Spring(jnp.array(3.0)), X)
    assert paths(G) == ["self.stiffness", "x"]
    np.testing.assert_allclose(G.self.stiffness, 0.625)
    G = Spring.force(x=X, self=Spring(jnp.array(3.0)))
    np.testing.assert_allclose(G["self.stiffness"], 0.625)


def test_a_decorated_method_with_wrt_on_self():
    J = Spring(jnp.array(3.0)).slope(X, offset=1.0)
    assert paths(J) == ["self.stiffness", "x"]
    np.testing.assert_allclose(J.self.stiffness, X)
    np.testing.assert_allclose(J.value, 3 * X + 1)


def test_a_decorated_method_keeps_its_name_and_signature():
    bound = Spring(jnp.array(3.0)).force
    assert bound.__name__ == Spring.force.__name__ == "force"
    assert bound.__doc__ == Spring.force.__doc__ == "The force."
    assert list(inspect.signature(bound).parameters) == ["x"]
    assert list(inspect.signature(Spring.force).parameters) == ["self", "x"]
    assert bound.plan(jnp.ones(100)).mode == "rev"


def test_static_and_class_methods():
    for owner in (Spring, Spring(jnp.array(3.0))):
        np.testing.assert_allclose(owner.static(X).x, np.diag(2 * X))
        np.testing.assert_allclose(owner.of_class(X).x, 3 * np.eye(2))
        assert paths(owner.of_class(X)) == ["x"]


class Plain:
    """A class that is no pytree."""

    def __init__(self, k):
        self.k = k

    @adk.jacobian
    def scaled(self, x):
        return self.k * x

    def method(self, x, y=1.0):
        return self.k * x * y

    @classmethod
    def by_class(cls, x):
        return 2 * x

    @staticmethod
    def by_nobody(x):
        return 2 * x

    def __call__(self, x):
        return self.k * x**2


def test_methods_of_a_class_that_is_no_pytree():
    for J in (Plain(3.0).scaled(X), adk.jacobian(Plain(3.0).method)(X)):
        assert paths(J) == ["x"]
        np.testing.assert_allclose(J.x, 3 * np.eye(2))
    assert paths(Plain.scaled(Plain(3.0), X)) == ["x"]


def test_transforms_of_methods_of_every_kind():
    spring = Spring(jnp.array(3.0))
    np.testing.assert_allclose(adk.grad(spring.energy)(X).x, 3 * X)
    assert paths(adk.grad(Spring.energy)(spring, X)) == ["self.stiffness", "x"]
    for function in (Plain.by_class, Plain.by_nobody, Plain(1.0).by_class, Plain(1.0).by_nobody):
        np.testing.assert_allclose(adk.jacobian(function)(X).x, 2 * np.eye(2))


def test_an_object_with_a_call_method():
    J = adk.jacobian(Plain(3.0))(X)
    assert paths(J) == ["x"]
    np.testing.assert_allclose(J.x, np.diag(6 * X))


def test_a_decorated_method_inside_jit_and_vmap():
    spring = Spring(jnp.array(3.0))
    forces = jax.jit(jax.vmap(lambda x: spring.force(x).x))(jnp.stack([X, 2 * X]))
    np.testing.assert_allclose(forces, [3 * X, 6 * X])
    jitted = eqx.filter_jit(lambda s, x: s.force(x).x)
    np.testing.assert_allclose(jitted(spring, X), 3 * X)


class Parent(eqx.Module):
    k: Any

    @adk.jacobian
    def scaled(self, x):
        return self.k * self.shape(x)

    def shape(self, x):
        return x


class Child(Parent):
    def shape(self, x):
        return x**2


def test_a_decorated_method_is_inherited():
    np.testing.assert_allclose(Child(2.0).scaled(X).x, np.diag(4 * X))


# Callables of other kinds -----------------------------------------------------------------


def test_a_callable_module():
    model = make_affine("float32")
    J = adk.jacobian(model)
    assert J.__wrapped__ is model
    assert J(jnp.ones(3)).x.shape == (2, 3)
    assert paths(J(jnp.ones(3))) == ["x"]
    assert list(inspect.signature(J).parameters) == ["x", "gain"]
    assert repr(J(jnp.ones(3))).startswith("Jacobian of Affine, 2 by 3\n")


def test_a_module_decorated_in_its_call_method():
    class Decorated(eqx.Module):
        k: Any

        @adk.grad
        def __call__(self, x):
            return self.k * jnp.sum(x**2)

    G = Decorated(jnp.array(2.0))(X)
    assert paths(G) == ["x"]
    np.testing.assert_allclose(G.x, 4 * X)


def test_functools_partial():
    J = adk.jacobian(functools.partial(cubes, scale=3.0))(X)
    np.testing.assert_allclose(J.x, 9 * X**2)
    J = adk.jacobian(functools.partial(lambda a, x: a * x, 4.0))(X)
    np.testing.assert_allclose(J.x, 4 * np.eye(2))
    assert repr(adk.jacobian(functools.partial(cubes, scale=3.0))(X)).startswith(
        "Jacobian of cubes"
    )


def test_partials_of_jax_and_equinox():
    for partial in (jax.tree_util.Partial, eqx.Partial):
        J = adk.jacobian(partial(lambda a, x: a * x, jnp.array(4.0)))(X)
        np.testing.assert_allclose(J.x, 4 * np.eye(2))


@pytest.mark.parametrize("wrapper", [jax.jit, eqx.filter_jit, jax.checkpoint, jax.named_call])
def test_functions_wrapped_by_jax_and_equinox(wrapper):
    J = adk.jacobian(wrapper(cubes))(X, scale=3.0)
    assert paths(J) == ["x", "scale"]
    np.testing.assert_allclose(J.x, 9 * X**2)
    np.testing.assert_allclose(J.value, 3 * jnp.sum(X**3))


def test_a_jitted_function_with_static_arguments():
    f = jax.jit(lambda x, how: x**2 if how == "square" else x, static_argnames="how")
    np.testing.assert_allclose(adk.jacobian(f)(X, how="square").x, np.diag(2 * X))
    np.testing.assert_allclose(adk.jacobian(f)(X, "square").x, np.diag(2 * X))


def test_a_function_vectorised_by_jax():
    J = adk.jacobian(jax.vmap(lambda x, y: x * y, in_axes=(0, None)))(X, jnp.float32(2))
    np.testing.assert_allclose(J.x, 2 * np.eye(2))


class Jitted(eqx.Module):
    k: Any

    @eqx.filter_jit
    def method(self, x):
        return self.k * x**2

    @eqx.filter_jit
    def __call__(self, x):
        return self.k * x


def test_jitted_methods_of_modules():
    model = Jitted(jnp.array(2.0))
    J = adk.jacobian(model.method)(X)
    assert paths(J) == ["x"]
    np.testing.assert_allclose(J.x, np.diag(4 * X))
    J = adk.jacobian(model.method, wrt="self")(X)
    np.testing.assert_allclose(J.self.k, X**2)
    J = adk.jacobian(model)(X)
    assert paths(J) == ["x"]
    np.testing.assert_allclose(J.x, 2 * np.eye(2))
    np.testing.assert_allclose(adk.jacobian(model, wrt="self.k")(X)["self.k"], X)
    assert paths(adk.jacobian(Jitted.method)(model, X)) == ["self.k", "x"]


@pytest.mark.parametrize("function", [jnp.sin, jnp.dot, jax.nn.softmax, jnp.linalg.norm])
def test_functions_of_jax_itself(function):
    args = (X, X) if function is jnp.dot else (X,)
    expected = jax.jacfwd(function)(*args)
    np.testing.assert_allclose(adk.jacobian(function)(*args).to_jax(0), expected, rtol=1e-5)


# Compilation --------------------------------------------------------------------------------


@pytest.mark.parametrize("jit", [jax.jit, eqx.filter_jit])
def test_a_jitted_transform_of_a_module_traces_once(jit):
    count = 0

    def activation(x):
        nonlocal count
        count += 1
        return jnp.tanh(x)

    model = Affine(jnp.ones((2, 3)), jnp.ones(2), 2, activation)
    transform = jit(adk.jacobian(model))
    for scale in (0.1, 0.2, 0.3):
        J = transform(scale * jnp.ones(3))
    assert count == 1
    np.testing.assert_allclose(J.x, jax.jacobian(model)(0.3 * jnp.ones(3)), rtol=1e-5)


def test_filter_jit_takes_the_arrays_of_a_transform_as_arguments():
    count = 0

    @eqx.filter_jit
    def apply(transform, x):
        nonlocal count
        count += 1
        return transform(x).x

    k = [jnp.array(2.0), jnp.array(3.0)]
    transform = adk.jacobian(Parent(k[0]).shape)  # a method that uses no array
    first = apply(transform, X)
    other = eqx.tree_at(lambda t: jax.tree.leaves(t), transform, [k[1]])
    second = apply(other, X)
    assert count == 1
    np.testing.assert_allclose(first, second)


def test_the_leaves_of_a_transform_are_those_of_its_callable():
    model = make_affine("float32")
    assert [x for x in jax.tree.leaves(adk.jacobian(model)) if eqx.is_array(x)] == [
        x for x in jax.tree.leaves(model) if eqx.is_array(x)
    ]
    doubled = jax.tree.map(lambda x: 2 * x if eqx.is_array(x) else x, adk.jacobian(model))
    expected = jax.jacobian(jax.tree.map(lambda x: 2 * x if eqx.is_array(x) else x, model))
    np.testing.assert_allclose(doubled(jnp.ones(3)).x, expected(jnp.ones(3)), rtol=1e-5)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_jitted_transform_gives_the_same_result(transform):
    eager = transform(cubes, wrt="x")(X)
    jitted = jax.jit(transform(cubes, wrt="x"))(X)
    np.testing.assert_allclose(jitted.as_matrix(), eager.as_matrix(), rtol=1e-6)
    assert type(jitted) is type(eager)


# Transforms of transforms -------------------------------------------------------------------


def test_a_jacobian_of_a_jacobian_is_the_hessian():
    expected = adk.hessian(cubes)(X, 2.0)

    def blocks(x, scale):
        return adk.jacobian(cubes)(x, scale).tree

    second = adk.jacobian(blocks)(X, 2.0)
    np.testing.assert_allclose(second.of("x").x, expected.x.x, rtol=1e-6)
    np.testing.assert_allclose(second.of("scale").x, expected.scale.x, rtol=1e-6)


def test_a_transform_of_a_transform_names_the_blocks():
    second = adk.jacobian(adk.grad(cubes), of=("x", "scale"))(X, 2.0)
    assert [path for path, _ in second.row_labels] == ["x", "scale"]
    expected = adk.hessian(cubes)(X, 2.0)
    np.testing.assert_allclose(second.as_matrix(), expected.as_matrix(), rtol=1e-6)
    assert list(inspect.signature(adk.jacobian(adk.grad(cubes))).parameters) == ["x", "scale"]
    assert paths(adk.jacobian(adk.grad(cubes), of="x", wrt="scale")(X)) == ["scale"]


def test_the_value_inside_a_transform_of_a_transform():
    second = adk.jacobian(adk.grad(cubes), of="value")(X, 2.0)
    np.testing.assert_allclose(second.of("value").x, 6 * X**2, rtol=1e-6)
    assert isinstance(second.value, adk.Gradient)
    np.testing.assert_allclose(second.value.x, 6 * X**2, rtol=1e-6)


def test_a_default_is_omitted_through_two_transforms():
    assert paths(adk.jacobian(adk.grad(cubes), of="x")(X)) == ["x"]


def test_a_transform_of_a_decorated_method():
    spring = Spring(jnp.array(3.0))
    bound = adk.jacobian(spring.force, of="x")(X)
    assert paths(bound) == ["x"]
    np.testing.assert_allclose(bound.of("x").x, 3 * np.eye(2), atol=1e-6)
    unbound = adk.jacobian(Spring.force, of="x")(spring, X)
    assert paths(unbound) == ["self.stiffness", "x"]
    np.testing.assert_allclose(unbound.of("x").wrt("self.stiffness"), X)
    by_keyword = adk.jacobian(Spring.force, of="x")(self=spring, x=X)
    np.testing.assert_allclose(by_keyword.as_matrix(), unbound.as_matrix())


def test_a_transform_of_a_transform_of_a_module():
    model = make_affine("float32")
    second = adk.jacobian(adk.jacobian(model), of="x")(jnp.ones(3))
    assert paths(second) == ["x"]
    expected = jax.jit(jax.hessian(model))(jnp.ones(3))
    np.testing.assert_allclose(second.of("x").x, expected, rtol=1e-4, atol=1e-6)


def test_jax_differentiates_through_a_transform():
    def total(x):
        return jnp.sum(adk.grad(cubes)(x).x)

    np.testing.assert_allclose(jax.grad(total)(X), 12 * X, rtol=1e-6)
    np.testing.assert_allclose(adk.grad(total)(X).x, 12 * X, rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(total, (X,), (X,))[1], 12 * X @ X, rtol=1e-6)


def test_an_argument_named_self():
    def f(self, x):
        return self * x

    J = adk.jacobian(f)(self=2.0, x=X)
    assert paths(J) == ["self", "x"]
    np.testing.assert_allclose(J.self, X)
    np.testing.assert_allclose(adk.jacobian(f, wrt="self")(2.0, X).self, X)
    assert adk.hessian(f)(self=2.0, x=X).wrt("self", "x").shape == (2, 2)
    second = adk.jacobian(adk.jacobian(f), of="x")(self=2.0, x=X)
    assert paths(second) == ["self", "x"]
    assert adk.jacobian(f).plan(self=2.0, x=X).cut_size == 2


def test_a_bound_object_whose_name_is_that_of_another_argument():
    class Odd(eqx.Module):
        k: Any

        def __call__(this, self):
            return this.k * self

        def method(this, self, **kwargs):
            return this.k * self

    for f in (Odd(jnp.array(2.0)), Odd(jnp.array(2.0)).method):
        J = adk.jacobian(f)(X)
        assert paths(J) == ["self"]
        np.testing.assert_allclose(J["self"], 2 * np.eye(2))


def test_static_and_class_methods_in_either_order():
    class Holder:
        @adk.jacobian
        @staticmethod
        def inner(x):
            return x**2

        @staticmethod
        @adk.jacobian
        def outer(x):
            return x**2

        @classmethod
        @adk.jacobian
        def of_class(cls, x):
            return x**2

    for call in (Holder.inner, Holder().inner, Holder.outer, Holder().outer, Holder.of_class):
        assert call(3.0).x == 6
    with pytest.raises(adk.SignatureError) as caught:
        adk.jacobian(classmethod(lambda cls, x: x))
    assert str(caught.value) == (
        "jacobian takes a function, and @classmethod makes something else of it; write "
        "@classmethod above @adk.jacobian."
    )
