"""The runtime check of jaxtyping annotations: when it happens, and which arrays fit."""

import concurrent.futures
import functools
import importlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping as jt
import numpy as np
import pytest
from beartype import beartype
from jax import lax
from jaxtyping import Array, Float

import autodiffkit as adk
from autodiffkit import _typecheck

if TYPE_CHECKING:
    from decimal import Decimal

TRANSFORMS = [adk.jacobian, adk.grad, adk.hessian, adk.linearize, adk.hvp]
Vector = Float[Array, "n"]
Matrix = Float[Array, "m n"]
X = jnp.ones(3)
WRONG = jnp.ones(4)


def accepts(f, *args, **kwargs):
    adk.jacobian(f)(*args, **kwargs)


def refuses(f, *args, **kwargs):
    with pytest.raises(adk.AnnotationError):
        adk.jacobian(f)(*args, **kwargs)


def beside(hint, x=Vector):
    """A function of `x` and of something else with this hint."""

    def f(x, y):
        return jnp.zeros(())

    f.__annotations__ = {"x": x, "y": hint}
    return f


def energy(x: Vector, y: Vector) -> Float[Array, ""]:
    return jnp.sum(x) * jnp.sum(y)


@pytest.fixture
def checks(monkeypatch):
    """What beartype has been asked so far."""
    asked, inner = [], _typecheck.is_bearable

    def is_bearable(*args, **kwargs):
        asked.append(args)
        return inner(*args, **kwargs)

    monkeypatch.setattr(_typecheck, "is_bearable", is_bearable)
    return asked


# Whether it checks ------------------------------------------------------------------------


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("planned", [False, True], ids=["call", "plan"])
def test_every_transform_checks_unless_it_is_told_not_to(transform, planned):
    def call(made):
        return (made.plan if planned else made)(X, WRONG)

    for made in (transform(energy), transform()(energy), transform(energy, typecheck=True)):
        with pytest.raises(adk.AnnotationError):
            call(made)
    call(transform(energy, typecheck=False))
    call(transform(typecheck=False)(energy))


def test_the_error_is_one_of_the_package_and_a_type_error():
    assert adk.AnnotationError.__bases__ == (adk.AutodiffError, TypeError)


def test_a_plan_of_structures_is_checked():
    good, bad = (jax.ShapeDtypeStruct((n,), "float32") for n in (3, 4))
    for wrt in (None, "x"):
        adk.jacobian(energy, wrt=wrt).plan(good, good)
        with pytest.raises(adk.AnnotationError):
            adk.jacobian(energy, wrt=wrt).plan(good, bad)


def test_the_switch_of_jaxtyping_turns_it_off(checks):
    jt.config.update("jaxtyping_disable", True)
    try:
        accepts(energy, X, WRONG)
    finally:
        jt.config.update("jaxtyping_disable", False)
    assert not checks
    refuses(energy, X, WRONG)


# Whenever the function runs or is traced ----------------------------------------------------

CALLS = {
    "eager": lambda d, x, y: d(x, y).x,
    "jit": lambda d, x, y: jax.jit(d)(x, y).x,
    "vmap": lambda d, x, y: jax.vmap(lambda x, y: d(x, y).x)(x[None], y[None]),
    "scan": lambda d, x, y: lax.scan(lambda c, x: (c, d(x, y).x), 0.0, x[None])[1],
    "inside a derivative": lambda d, x, y: adk.jacobian(lambda x: d(x, y).x)(x).x,
    "of a derivative": lambda d, x, y: adk.jacobian(d)(x, y).x,
    "inside a derivative of JAX": lambda d, x, y: jax.jacrev(lambda x: d(x, y).x)(x),
    "without values": lambda d, x, y: jax.eval_shape(d, x, y).x,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("transform", [adk.jacobian, adk.grad])
def test_it_checks_however_the_function_is_called(call, transform):
    call(transform(energy), X, X)
    with pytest.raises(adk.AnnotationError):
        call(transform(energy), X, WRONG)


def test_under_vmap_shapes_are_those_of_one_example():
    batch = jnp.ones((7, 3))
    jax.vmap(adk.jacobian(energy))(batch, batch)
    jax.vmap(adk.jacobian(energy), in_axes=(0, None))(batch, X)
    with pytest.raises(adk.AnnotationError):
        jax.vmap(adk.jacobian(energy), in_axes=(1, 0))(batch, batch[:3])
    refuses(energy, batch, batch)


def test_a_compiled_call_is_checked_once_for_each_shape(checks):
    call = jax.jit(adk.jacobian(energy))
    call(X, X)
    assert len(checks) == 3  # two arguments and the output
    call(2 * X, X)
    assert len(checks) == 3
    call(WRONG, WRONG)
    assert len(checks) == 6


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_an_eager_call_is_checked_once(transform, checks):
    transform(energy)(X, X)
    assert len(checks) == 3


def test_a_function_is_not_entered_with_arguments_that_do_not_fit():
    entered = []

    def f(x: Vector, y: Vector) -> Vector:
        entered.append(x)
        return x

    for call in CALLS.values():
        with pytest.raises(adk.AnnotationError):
            call(adk.jacobian(f), X, WRONG)
    assert not entered


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_the_function_asks_is_answered_as_without_the_check(call):
    """A helper may ask, too, which was not written for the names of its caller."""

    def total(x):
        return jnp.sum(x) if isinstance(x, Vector) else 100 * jnp.sum(x)

    def f(x: Vector, p: Matrix) -> Float[Array, ""]:
        return total(x) + total(p[0]) + total(WRONG)

    transforms = [adk.grad(f, typecheck=typecheck) for typecheck in (True, False)]
    ours, plain = (call(transform, X, jnp.ones((2, 3))) for transform in transforms)
    if call is not CALLS["without values"]:
        assert jnp.all(ours == plain)


def test_the_output_is_checked_against_names_that_broadcasting_has_changed():
    def f(x: Float[Array, "*#b"], y: Float[Array, "*#b"]) -> Float[Array, "*b"]:
        return x + y

    with jax.numpy_rank_promotion("allow"):
        accepts(f, jnp.ones((1, 3)), jnp.ones((2, 1)))


def test_names_are_forgotten_after_the_call():
    for n in (3, 4):
        accepts(energy, jnp.ones(n), jnp.ones(n))
        refuses(energy, jnp.ones(n), jnp.ones(n + 1))
        assert isinstance(jnp.ones(9), Vector)


def test_a_call_inside_a_call_has_names_of_its_own():
    def outer(x: Vector) -> Vector:
        accepts(energy, WRONG, WRONG)
        return x

    accepts(outer, X)


@pytest.mark.parametrize("kind", [ValueError, KeyError, TypeError, KeyboardInterrupt])
@pytest.mark.parametrize("way", ["eager", "jit"])
def test_what_the_function_raises_comes_through_as_it_is(kind, way):
    def f(x: Vector, y: Vector) -> Vector:
        raise error

    found = []
    for typecheck in (True, False):
        error = kind("mine")
        with pytest.raises(kind) as caught:
            CALLS[way](adk.jacobian(f, typecheck=typecheck), X, X)
        assert caught.value is error
        found.append((error.__cause__, error.__context__, getattr(error, "__notes__", None)))
    assert found[0] == found[1]


def test_threads_do_not_disturb_each_other():
    start = threading.Barrier(8)

    def work(n):
        start.wait(timeout=60)
        for _ in range(10):
            jax.eval_shape(adk.jacobian(energy), jnp.ones(n), jnp.ones(n))
            with pytest.raises(adk.AnnotationError, match=f"n = {n} is fixed by argument 'x'"):
                jax.eval_shape(adk.jacobian(energy), jnp.ones(n), jnp.ones(n + 1))
        return True

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(1, 9)))


# Names across arguments and the output --------------------------------------------------------


def variadic(x: Vector, /, a: Vector = None, *args: Vector, k: Vector = None, **kwargs: Vector):
    return x


PASSED = {
    "positional": lambda y: ((X, y), {}),
    "keyword": lambda y: ((X,), {"a": y}),
    "*args": lambda y: ((X, X, X, y), {}),
    "keyword-only": lambda y: ((X,), {"k": y}),
    "**kwargs": lambda y: ((X,), {"more": X, "other": y}),
}


@pytest.mark.parametrize("passed", PASSED.values(), ids=PASSED)
def test_names_mean_one_thing_for_arguments_of_every_kind(passed):
    for y, check in [(X, accepts), (WRONG, refuses)]:
        args, kwargs = passed(y)
        check(variadic, *args, **kwargs)


def test_a_default_is_checked_only_if_it_is_passed():
    def f(x: Vector, y: Vector = "nothing", z: Vector = None) -> Vector:
        return x

    accepts(f, X)
    refuses(f, X, "nothing")
    accepts(f, X, X, None)  # the default says that it may be


# What is left alone ---------------------------------------------------------------------------


class Chain(NamedTuple):
    value: Any
    rest: "Chain | None" = None


LEFT_ALONE = [Array, np.ndarray, float, 3, Chain, dict[str, list[float]] | None]
LEFT_ALONE += [jt.PyTree, jt.PyTree[Any], Callable[[Vector], Vector], "some free text", "list["]
LEFT_ALONE += ["Decimal", "Decimal | list[Float[Array, 'n']]"]


@pytest.mark.parametrize("hint", LEFT_ALONE, ids=str)
def test_hints_without_annotations_of_arrays_are_left_alone(hint, checks):
    f = beside(hint, x=Any)
    accepts(f, X, {"y": 2.0})
    assert not checks


def test_what_cannot_be_resolved_leaves_the_others_checked():
    def f(x: Vector, d: "Decimal", y: "Float[Array, 'n']") -> "Decimal":
        return x

    accepts(f, X, None, X)
    refuses(f, X, None, WRONG)


# Wrappers -------------------------------------------------------------------------------------


def decorated(f):
    @functools.wraps(f)
    def wrapper(*args, **kwargs):
        return f(*args, **kwargs)

    return wrapper


def with_a_rule(f):
    rule = jax.custom_jvp(f)
    rule.defjvp(lambda primals, tangents: jax.jvp(f, primals, tangents))
    return rule


def keyed(x: Vector, y: Vector, scale) -> Float[Array, ""]:
    return energy(x, y) * scale


LOOKED_THROUGH = {
    "jax.jit": jax.jit(energy),
    "eqx.filter_jit": eqx.filter_jit(energy),
    "functools.partial": functools.partial(keyed, scale=2.0),
    "eqx.Partial": eqx.Partial(keyed, scale=2.0),
    "functools.wraps": decorated(energy),
    "jax.custom_jvp": with_a_rule(energy),
    "several": jax.jit(decorated(functools.partial(with_a_rule(energy)))),
}


@pytest.mark.parametrize("f", LOOKED_THROUGH.values(), ids=LOOKED_THROUGH)
def test_wrappers_that_keep_arguments_and_results_are_looked_through(f):
    accepts(f, X, X)
    refuses(f, X, WRONG)


CHANGED = {
    "jax.vmap": (jax.vmap, (7, 3)),
    "jit of vmap": (lambda f: jax.jit(jax.vmap(f)), (7, 3)),
    "eqx.filter_vmap": (eqx.filter_vmap, (7, 3)),
    "jax.grad": (jax.grad, (3,)),
    "jax.value_and_grad": (jax.value_and_grad, (3,)),
    "eqx.filter_grad": (eqx.filter_grad, (3,)),
    "jax.jacfwd": (jax.jacfwd, (3,)),
}


@pytest.mark.parametrize(("wrap", "shape"), CHANGED.values(), ids=CHANGED)
def test_the_annotations_of_what_is_transformed_say_nothing_of_the_transform(wrap, shape):
    accepts(wrap(energy), jnp.ones(shape), jnp.ones(shape))


# Functions that jaxtyping checks itself -------------------------------------------------------


def test_what_jaxtyped_checks_is_not_checked_twice(checks):
    def f(x: Vector, y: Vector) -> Vector:
        return x

    f = jt.jaxtyped(typechecker=beartype)(f)
    for g in (f, jax.jit(f), functools.partial(f)):
        accepts(g, X, X)
        with pytest.raises(jt.TypeCheckError, match="parameter 'y'"):
            adk.jacobian(g)(X, WRONG)
    assert not checks


@pytest.mark.parametrize("plain_first", [True, False])
def test_a_function_and_its_checked_form_are_told_apart(plain_first):
    def f(x: Vector, y: Vector) -> Vector:
        return x

    pairs = [(f, adk.AnnotationError), (jt.jaxtyped(typechecker=beartype)(f), jt.TypeCheckError)]
    for g, kind in pairs if plain_first else reversed(pairs):
        with pytest.raises(kind):
            adk.jacobian(g)(X, WRONG)


def test_what_the_import_hook_checks_is_not_checked_twice(tmp_path, monkeypatch, checks):
    (tmp_path / "hooked.py").write_text(HOOKED)
    monkeypatch.syspath_prepend(tmp_path)
    with jt.install_import_hook("hooked", "beartype.beartype"):
        hooked = importlib.import_module("hooked")
    for f in (hooked.f, hooked.Model(X)):
        accepts(f, X, X)
        with pytest.raises(jt.TypeCheckError, match="parameter 'y'"):
            adk.jacobian(f)(X, WRONG)
    assert not checks


HOOKED = """
import equinox as eqx
from jaxtyping import Array, Float

Vector = Float[Array, "n"]

def f(x: Vector, y: Vector) -> Vector:
    return x

class Model(eqx.Module):
    w: Vector

    def __call__(self, x: Vector, y: Vector) -> Vector:
        return self.w * x
"""
