"""What bad input gets: the class and the exact text of every exception."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import autodiffkit as adk
import autodiffkit.testing
from autodiffkit import _memory
from functions import Strict, make_affine
from places import place

X = jnp.array([0.5, -1.0])
Z = jax.lax.complex(X, X)

# What JAX says of the two modes, which is quoted below the package's own first line.
NO_FORWARD = "can't apply forward-mode autodiff (jvp) to a custom_vjp function"
NO_REVERSE = "Reverse-mode differentiation does not work for lax.while_loop"
NO_CALLBACK = "Pure callbacks do not support JVP"


def product(x, y):
    return x * y


def model(x, params, n=2, *, scale=1.0):
    return params["w"] * x * scale


def params() -> dict[str, Any]:
    return {"w": X, "b": X, "steps": 3, "name": "dense"}


def structured(x):
    return {"energy": jnp.sum(x), "forces": [x, 2 * x], "count": jnp.arange(1), "note": "n"}


def quadratic(x, p):
    return jnp.sum(x * p["a"])


def anything(*args, **kwargs):
    return X


def sine(x):
    return jnp.sin(x)


def square_sum(x):
    return jnp.sum(x**2)


def shift(x):
    return jax.lax.complex(x, x)


def integers(n, scale=1.0):
    return n


def tree_input(t):
    return t["a"]


@jax.custom_vjp
def square(x):
    return x**2


square.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))


def only_reverse(x):
    return square(x)


def only_forward(x):
    return jax.lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, jnp.sin(s[1])), (0, x))[1]


def alternating(x):
    return only_forward(only_reverse(x))


def inseparable(x):
    return jax.lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, square(s[1])), (0, x))[1]


def repeated(x):
    return jax.lax.scan(lambda c, _: (alternating(c), None), x, length=2)[0]


def callback(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


@dataclasses.dataclass
class Unregistered:
    a: Any


class Broken:
    """A pytree node that cannot be flattened."""


def _refuse(_: Any) -> Any:
    raise RuntimeError("no leaves here")


jax.tree_util.register_pytree_node(Broken, _refuse, _refuse)


def message(kind: type[Exception], call: Callable[[], Any]) -> str:
    """What `call` raises, which is of exactly this class and speaks of no internals."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    text = str(caught.value)
    for internal in ("jacfwd", "jacrev", "selected[0]", "Traced<", "_flat", "<class"):
        assert internal not in text
    return text


Row = tuple[str, type[Exception], Callable[[], Any], str]


def table(*rows: Row) -> Any:
    """A parametrisation whose ids say what is bad."""
    marks = [pytest.param(*row[1:], id=row[0]) for row in rows]
    return pytest.mark.parametrize(("kind", "call", "text"), marks)


# Classes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "bases"),
    [
        (adk.SignatureError, [TypeError]),
        (adk.SelectionError, [ValueError]),
        (adk.NotDifferentiableError, [TypeError]),
        (adk.ModeError, [ValueError]),
        (adk.ResultTooLargeError, [MemoryError]),
        (adk.StructureError, [ValueError]),
        (adk.NotDifferentiatedError, [AttributeError, KeyError]),
    ],
)
def test_exceptions_are_also_those_of_python(kind, bases):
    for base in [adk.AutodiffError, *bases]:
        assert issubclass(kind, base)


def test_a_missing_block_is_an_attribute_error_and_a_key_error():
    J = adk.jacobian(product, wrt="x")(X, X)
    assert not hasattr(J, "y")
    assert getattr(J, "y", "nothing") == "nothing"
    for access in (lambda: J.y, lambda: J["y"], lambda: J.wrt("y"), lambda: J.of("a")):
        for kind in (AttributeError, KeyError, adk.AutodiffError):
            with pytest.raises(kind):
                access()


def test_the_text_of_a_key_error_is_not_quoted():
    error = adk.NotDifferentiatedError("one line\nand another")
    assert str(error) == "one line\nand another"


# The transform and its options --------------------------------------------------------------

WRT_KINDS = (
    "an argument name, a path, a glob, a tuple of these, or a predicate (path, leaf) -> bool"
)
OF_KINDS = "a path, a glob or a tuple of these"


@table(
    (
        "no function",
        adk.SignatureError,
        lambda: adk.jacobian(3),
        "jacobian takes a function or a callable module; got 3. Pass the function itself, and its "
        "arguments to the result: adk.jacobian(f)(x).",
    ),
    (
        "no function but text",
        adk.SignatureError,
        lambda: adk.hvp("x"),
        "hvp takes a function or a callable module; got 'x'. Pass the function itself, and its "
        "arguments to the result: adk.hvp(f)(x).",
    ),
    (
        "unknown mode",
        adk.ModeError,
        lambda: adk.hessian(product, mode="forward"),
        "hessian(product): there is no mode 'forward'; it is one of 'auto', 'fwd', 'rev'.",
    ),
    (
        "mode that cannot be hashed",
        adk.ModeError,
        lambda: adk.jacobian(product, mode=["fwd"]),
        "jacobian(product): there is no mode ['fwd']; it is one of 'auto', 'fwd', 'rev'.",
    ),
    (
        "an array as mode",
        adk.ModeError,
        lambda: adk.jacobian(product, mode=np.zeros(2)),
        "jacobian(product): there is no mode array([0., 0.]); it is one of 'auto', 'fwd', 'rev'.",
    ),
    (
        "an array as layout",
        adk.SelectionError,
        lambda: adk.jacobian(product, layout=np.zeros(2)),
        "jacobian(product): there is no layout array([0., 0.]); it is one of 'dense', 'compact'.",
    ),
    (
        "empty wrt",
        adk.SelectionError,
        lambda: adk.grad(product, wrt=()),
        f"grad(product): wrt=() selects nothing; give {WRT_KINDS}.",
    ),
    (
        "empty of",
        adk.SelectionError,
        lambda: adk.jacobian(product, of=[]),
        f"jacobian(product): of=() selects nothing; give {OF_KINDS}.",
    ),
    (
        "wrt by position",
        adk.SelectionError,
        lambda: adk.jacobian(product, wrt=0),
        f"jacobian(product): wrt=0 is no selection. Give {WRT_KINDS}. "
        "Arguments are selected by name here, not by position.",
    ),
    (
        "wrt by positions",
        adk.SelectionError,
        lambda: adk.linearize(product, wrt=(0, 1)),
        f"linearize(product): wrt=(0, 1) is no selection. Give {WRT_KINDS}. "
        "Arguments are selected by name here, not by position.",
    ),
    (
        "wrt of another kind",
        adk.SelectionError,
        lambda: adk.jacobian(product, wrt={"x": 1}),
        f"jacobian(product): wrt={{'x': 1}} is no selection. Give {WRT_KINDS}.",
    ),
    (
        "of by position",
        adk.SelectionError,
        lambda: adk.jacobian(product, of=0),
        f"jacobian(product): of=0 is no selection. Give {OF_KINDS}. "
        "Outputs are selected by path here; that of a tuple's first entry is '0'.",
    ),
    (
        "of a set",
        adk.SelectionError,
        lambda: adk.jacobian(product, of={"x"}),
        f"jacobian(product): of={{'x'}} is no selection. Give {OF_KINDS}.",
    ),
)
def test_options_that_make_no_sense(kind, call, text):
    assert message(kind, call) == text


@pytest.mark.parametrize("transform", [adk.jacobian, adk.grad, adk.hessian, adk.linearize, adk.hvp])
def test_the_decorator_form_refuses_the_same(transform):
    name = transform.__name__
    assert message(adk.ModeError, lambda: transform(mode="reverse")(product)) == (
        f"{name}(product): there is no mode 'reverse'; it is one of 'auto', 'fwd', 'rev'."
    )
    assert message(adk.SignatureError, lambda: transform(mode="fwd")("x")) == (
        f"{name} takes a function or a callable module; got 'x'. Pass the function itself, and its "
        f"arguments to the result: adk.{name}(f)(x)."
    )


# Arguments ----------------------------------------------------------------------------------


@table(
    (
        "too few",
        adk.SignatureError,
        lambda: adk.jacobian(product)(X),
        "jacobian(product): missing a required argument: 'y'. The function is product(x, y); "
        "the call passed 1 positional argument.",
    ),
    (
        "too many",
        adk.SignatureError,
        lambda: adk.jacobian(product)(X, X, X),
        "jacobian(product): too many positional arguments. The function is product(x, y); the "
        "call passed 3 positional arguments.",
    ),
    (
        "unknown keyword",
        adk.SignatureError,
        lambda: adk.grad(product)(X, X, z=1),
        "grad(product): got an unexpected keyword argument 'z'. The function is product(x, y); "
        "the call passed 2 positional arguments and the keyword z.",
    ),
    (
        "twice",
        adk.SignatureError,
        lambda: adk.jacobian(model)(X, params(), x=X, scale=1.0),
        "jacobian(model): multiple values for argument 'x'. The function is "
        "model(x, params, n=2, *, scale=1.0); the call passed 2 positional arguments and the "
        "keywords x, scale.",
    ),
    (
        "a module",
        adk.SignatureError,
        lambda: adk.jacobian(make_affine("float32"))(),
        "jacobian(Affine): missing a required argument: 'x'. The function is "
        "Affine(x, *, gain=1.0); the call passed 0 positional arguments.",
    ),
    (
        "a structure in a call",
        adk.SignatureError,
        lambda: adk.jacobian(product)(jax.ShapeDtypeStruct((2,), "float32"), X),
        "jacobian(product): 'x' is a jax.ShapeDtypeStruct, which has no values. Only .plan(...) "
        "takes structures; pass an array here.",
    ),
    (
        "no pytree",
        adk.SignatureError,
        lambda: adk.jacobian(sine)(Broken()),
        "jacobian(sine): argument 'x' could not be flattened as a pytree: no leaves here",
    ),
    (
        "no argument at all",
        adk.NotDifferentiableError,
        lambda: adk.jacobian(lambda: X)(),
        "jacobian(<lambda>): nothing to differentiate: there are no arguments. Give the function "
        "one.",
    ),
    (
        "only integers",
        adk.NotDifferentiableError,
        lambda: adk.hvp(product)(1, jnp.arange(2)),
        "hvp(product): nothing to differentiate: the call passed no floating-point array or "
        "number. Convert to floating point what should be differentiated.\n"
        "  x  an int\n"
        "  y  int32[2]",
    ),
    (
        "leaves of every kind",
        adk.NotDifferentiableError,
        lambda: adk.jacobian(anything)(
            1, "s", None, jnp.sin, True, jax.random.key(0), np.array(["a"]), Unregistered(X), n={}
        ),
        "jacobian(anything): nothing to differentiate: the call passed no floating-point array "
        "or number. Convert to floating point what should be differentiated.\n"
        "  args.0  an int\n"
        "  args.1  a str\n"
        "  args.3  a function\n"
        "  args.4  a bool\n"
        "  args.5  key<fry>[]\n"
        "  args.6  a NumPy array of dtype <U1\n"
        "  args.7  an Unregistered, a dataclass that is no pytree "
        "(jax.tree_util.register_dataclass makes it one)\n"
        "  kwargs  None or empty",
    ),
    (
        "what is constant unless named",
        adk.NotDifferentiableError,
        lambda: adk.jacobian(integers)(1),
        "jacobian(integers): nothing to differentiate: the call passed no floating-point array "
        "or number. Convert to floating point what should be differentiated, or name a constant "
        "in wrt.\n"
        "  n      an int\n"
        "  scale  a default that is left out is constant unless wrt names it",
    ),
    (
        "a module of an integer",
        adk.NotDifferentiableError,
        lambda: adk.jacobian(make_affine("float32"))(1, gain=1),
        "jacobian(Affine): nothing to differentiate: the call passed no floating-point array or "
        "number. Convert to floating point what should be differentiated, or name a constant in "
        "wrt.\n"
        "  self  the object that Affine is bound to is constant unless wrt names it\n"
        "  x     an int\n"
        "  gain  an int",
    ),
    (
        "a predicate without candidates",
        adk.NotDifferentiableError,
        lambda: adk.jacobian(product, wrt=lambda path, leaf: True)(1, 2),
        "jacobian(product): nothing to differentiate: the call passed no floating-point array or "
        "number. Convert to floating point what should be differentiated.\n"
        "  x  an int\n"
        "  y  an int",
    ),
)
def test_arguments_that_do_not_fit(kind, call, text):
    assert message(kind, call) == text


def test_errors_of_the_function_are_its_own():
    def f(x):
        raise ZeroDivisionError("mine")

    for transform in (adk.jacobian, adk.grad, adk.hessian, adk.linearize, adk.hvp):
        for call in (transform(f), jax.jit(transform(f)), transform(f).plan):
            with pytest.raises(ZeroDivisionError) as caught:
                call(X)
            assert str(caught.value) == "mine"


# wrt ------------------------------------------------------------------------------------------


@table(
    (
        "unknown, nothing near",
        adk.SelectionError,
        lambda: adk.jacobian(model, wrt="z")(X, {"w": X}),
        "jacobian(model): wrt='z' matches nothing. "
        "There is 'x', 'params', 'n', 'scale', 'params.w'.",
    ),
    (
        "unknown, many there",
        adk.SelectionError,
        lambda: adk.jacobian(anything, wrt="z")(*range(9)),
        "jacobian(anything): wrt='z' matches nothing. There is 'args', 'kwargs', 'args.0', "
        "'args.1', 'args.2', 'args.3', 'args.4', 'args.5' and 3 more.",
    ),
    (
        "unknown, something near",
        adk.SelectionError,
        lambda: adk.jacobian(model, wrt=("x", "parms"))(X, {"w": X}),
        "jacobian(model): wrt='parms' matches nothing; did you mean 'params' or 'params.w'?",
    ),
    (
        "unknown part",
        adk.SelectionError,
        lambda: adk.jacobian(model, wrt="params.wieght")(X, {"weight": X}),
        "jacobian(model): wrt='params.wieght' matches nothing; "
        "did you mean 'params.weight' or 'params'?",
    ),
    (
        "no arguments to name",
        adk.SelectionError,
        lambda: adk.jacobian(lambda: X, wrt="x")(),
        "jacobian(<lambda>): wrt='x' matches nothing. The call passed no arguments.",
    ),
    (
        "glob that reaches no default",
        adk.SelectionError,
        lambda: adk.jacobian(model, wrt="sc*")(X, {"w": X}),
        "jacobian(model): wrt='sc*' matches nothing. There is 'x', 'params', 'n', 'scale', "
        "'params.w'. A glob does not reach 'n', 'scale'; name it in words.",
    ),
    (
        "part of a leaf",
        adk.SelectionError,
        lambda: adk.jacobian(product, wrt="x.0")(X, X),
        "jacobian(product): wrt='x.0' matches nothing, because 'x' has no parts: it is float32[2]. "
        "Leave out what follows its name.",
    ),
    (
        "part of an integer",
        adk.SelectionError,
        lambda: adk.jacobian(model, wrt="params.steps.a")(X, params()),
        "jacobian(model): wrt='params.steps.a' matches nothing, because 'params.steps' has no "
        "parts: it is an int. Leave out what follows its name.",
    ),
    (
        "integer",
        adk.NotDifferentiableError,
        lambda: adk.jacobian(product, wrt="y")(X, 2),
        "jacobian(product): wrt='y' cannot be differentiated: it is an int. Pass a "
        "floating-point array or number, or leave it out of wrt.",
    ),
    (
        "integer array among others",
        adk.NotDifferentiableError,
        lambda: adk.hessian(product, wrt=("x", "y"))(X, jnp.arange(2)),
        "hessian(product): wrt='y' cannot be differentiated: it is int32[2]. Pass a "
        "floating-point array or number, or leave it out of wrt.",
    ),
    (
        "integer leaf",
        adk.NotDifferentiableError,
        lambda: adk.jacobian(model, wrt="params.steps")(X, params()),
        "jacobian(model): wrt='params.steps' cannot be differentiated: it is an int. Pass a "
        "floating-point array or number, or leave it out of wrt.",
    ),
    (
        "default that is an integer",
        adk.NotDifferentiableError,
        lambda: adk.jacobian(model, wrt="n")(X, params()),
        "jacobian(model): wrt='n' cannot be differentiated: it is an int. Pass a floating-point "
        "array or number, or leave it out of wrt.",
    ),
    (
        "glob that finds only constants",
        adk.NotDifferentiableError,
        lambda: adk.jacobian(model, wrt="params.[sn]*")(X, params()),
        "jacobian(model): wrt='params.[sn]*' matches nothing that can be differentiated. Pass "
        "floating-point arrays or numbers, or leave it out of wrt.\n"
        "  params.name   a str\n"
        "  params.steps  an int",
    ),
    (
        "argument of constants",
        adk.NotDifferentiableError,
        lambda: adk.jacobian(product, wrt="y")(X, {"a": 1, "b": "s"}),
        "jacobian(product): wrt='y' matches nothing that can be differentiated. Pass "
        "floating-point arrays or numbers, or leave it out of wrt.\n"
        "  y.a  an int\n"
        "  y.b  a str",
    ),
    (
        "argument that is None",
        adk.SelectionError,
        lambda: adk.jacobian(product, wrt="y")(X, None),
        "jacobian(product): wrt='y' names an argument without leaves: it is None or empty. Pass "
        "a floating-point array or number, or leave it out of wrt.",
    ),
    (
        "predicate that accepts nothing",
        adk.SelectionError,
        lambda: adk.jacobian(product, wrt=lambda path, leaf: False)(X, X),
        "jacobian(product): the predicate wrt accepted none of the differentiable leaves: x, y. "
        "Accept one of them, or leave wrt out.",
    ),
    (
        "predicate that accepts none of many",
        adk.SelectionError,
        lambda: adk.jacobian(tree_input, wrt=lambda path, leaf: False)([1.0] * 10),
        "jacobian(tree_input): the predicate wrt accepted none of the differentiable leaves: "
        "t.0, t.1, t.2, t.3, t.4, t.5, t.6, t.7 and 2 more. Accept one of them, or leave wrt out.",
    ),
    (
        "predicate by value under a trace",
        adk.SelectionError,
        lambda: jax.jit(adk.jacobian(product, wrt=lambda path, leaf: leaf[0] > 0))(X, X),
        "jacobian(product): the predicate wrt looked at the value of 'x', which is not known "
        "while JAX traces. Decide by the path, the shape and the dtype.",
    ),
)
def test_wrt_that_does_not_fit(kind, call, text):
    assert message(kind, call) == text


# Outputs --------------------------------------------------------------------------------------


@table(
    (
        "of, something near",
        adk.SelectionError,
        lambda: adk.jacobian(structured, of="enrgy")(X),
        "jacobian(structured): of='enrgy' matches no output; did you mean 'energy'?",
    ),
    (
        "of, nothing near",
        adk.SelectionError,
        lambda: adk.jacobian(structured, of=("energy", "zzz"))(X),
        "jacobian(structured): of='zzz' matches no output. There is 'count', 'energy', "
        "'forces', 'forces.0', 'forces.1', 'note'.",
    ),
    (
        "of a single array",
        adk.SelectionError,
        lambda: adk.jacobian(product, of="a")(X, X),
        "jacobian(product): of='a' matches no output. The output is a single array without a "
        "name; leave of out.",
    ),
    (
        "of an integer",
        adk.NotDifferentiableError,
        lambda: adk.jacobian(structured, of="count")(X),
        "jacobian(structured): of='count' matches no output that can be differentiated; only "
        "floating-point arrays can. Convert it, or select another.\n"
        "  count  int32[1]",
    ),
    (
        "of constants",
        adk.NotDifferentiableError,
        lambda: adk.jacobian(structured, of=("energy", "*o[ut]*"))(X),
        "jacobian(structured): of='*o[ut]*' matches no output that can be differentiated; only "
        "floating-point arrays can. Convert it, or select another.\n"
        "  count  int32[1]\n"
        "  note   a str",
    ),
    (
        "no output",
        adk.NotDifferentiableError,
        lambda: adk.jacobian(lambda x: None)(X),
        "jacobian(<lambda>): the function returned no array at all, so there is nothing to "
        "differentiate. Return floating-point arrays or numbers. It returned None.",
    ),
    (
        "no array",
        adk.NotDifferentiableError,
        lambda: adk.jacobian(lambda x: {"a": "text", "f": jnp.sin})(X),
        "jacobian(<lambda>): the function returned no array at all, so there is nothing to "
        "differentiate. Return floating-point arrays or numbers.\n"
        "  a  a str\n"
        "  f  a function",
    ),
    (
        "only integers",
        adk.NotDifferentiableError,
        lambda: adk.grad(lambda x: (jnp.arange(3), "n"))(X),
        "grad(<lambda>): the function returned no floating-point array, so there is nothing to "
        "differentiate. Return floating-point arrays or numbers.\n"
        "  0  int32[3]\n"
        "  1  a str",
    ),
    (
        "an object that is no pytree",
        adk.NotDifferentiableError,
        lambda: adk.jacobian(lambda x: Unregistered(x))(X),
        "jacobian(<lambda>): the function returned no array at all, so there is nothing to "
        "differentiate. Return floating-point arrays or numbers.\n"
        "  output  an Unregistered, a dataclass that is no pytree "
        "(jax.tree_util.register_dataclass makes it one)",
    ),
    (
        "no pair",
        adk.NotDifferentiableError,
        lambda: adk.jacobian(product, has_aux=True)(X, X),
        "jacobian(product): has_aux=True needs the function to return a pair (output, aux); it "
        "returned float32[2]. Return such a pair, or leave has_aux out.",
    ),
    (
        "three of a pair",
        adk.NotDifferentiableError,
        lambda: adk.jacobian(lambda x: (x, x, x), has_aux=True)(X),
        "jacobian(<lambda>): has_aux=True needs the function to return a pair (output, aux); it "
        "returned a tuple of 3. Return such a pair, or leave has_aux out.",
    ),
    (
        "gradient of an array",
        adk.NotDifferentiableError,
        lambda: adk.grad(product)(X, X),
        "grad(product): the output must be one scalar. Use adk.jacobian or adk.hessian, which "
        "take any. The function returned:\n"
        "  output  float32[2]",
    ),
    (
        "gradient of one entry",
        adk.NotDifferentiableError,
        lambda: adk.hvp(product)(X[:1], X[:1]),
        "hvp(product): the output must be one scalar. Use adk.jacobian or adk.hessian, which take "
        "any, or make the output a scalar with .squeeze(). The function returned:\n"
        "  output  float32[1]",
    ),
    (
        "gradient of several",
        adk.NotDifferentiableError,
        lambda: adk.grad(structured)(X),
        "grad(structured): the output must be one scalar. Use adk.jacobian or adk.hessian, which "
        "take any, or choose one with of='...'. The function returned:\n"
        "  energy    float32[]\n"
        "  forces.0  float32[2]\n"
        "  forces.1  float32[2]",
    ),
    (
        "gradient of a complex number",
        adk.NotDifferentiableError,
        lambda: adk.grad(lambda x: jax.lax.complex(x, x))(1.0),
        "grad(<lambda>): a gradient needs a real output; the function returned complex64[]. "
        "adk.jacobian differentiates a complex output.",
    ),
    (
        "holomorphic and real",
        adk.NotDifferentiableError,
        lambda: adk.jacobian(product, holomorphic=True)(X, X),
        "jacobian(product): holomorphic=True needs complex inputs and outputs. Convert these to "
        "complex, or leave them out of wrt or of.\n"
        "  input x  float32[2]\n"
        "  input y  float32[2]\n"
        "  output   float32[2]",
    ),
    (
        "complex to complex",
        adk.NotDifferentiableError,
        lambda: adk.jacobian(lambda z: {"w": z * z})(Z),
        "jacobian(<lambda>): a complex output of a complex input has a derivative only where "
        "the function is holomorphic. Pass holomorphic=True if it is; otherwise differentiate "
        "real and imaginary parts.\n"
        "  input z   complex64[2]\n"
        "  output w  complex64[2]",
    ),
    (
        "Hessian of a complex argument",
        adk.NotDifferentiableError,
        lambda: adk.hessian(lambda z: jnp.sum(jnp.abs(z) ** 2))(Z),
        "hessian(<lambda>): the gradient by a complex argument is not holomorphic, so its second "
        "derivative is not one array. Differentiate by real and imaginary parts, or pass "
        "holomorphic=True if the function is.\n"
        "  z  complex64[2]",
    ),
)
@pytest.mark.parametrize("jit", [False, True])
def test_outputs_that_do_not_fit(kind, call, text, jit):
    # The same text where the transform runs inside a trace.
    run = (lambda: jax.jit(lambda: jax.tree.leaves(call()))()) if jit else call
    assert message(kind, run) == text


# Modes ----------------------------------------------------------------------------------------


RULE = place(only_reverse, "square")
LOOP = place(only_forward, "jax.lax.while_loop")
BOTH = place(inseparable, "jax.lax.while_loop")
SCAN = place(repeated, "jax.lax.scan")
NEITHER = (
    "neither mode can differentiate this function, nor can both together. Give what blocks them a "
    "rule that serves both (jax.custom_jvp), hold constant what enters it (wrt=, "
    "jax.lax.stop_gradient), or differentiate the parts of the function separately.\n  cannot push "
)


@table(
    (
        "forward of a custom_vjp",
        adk.ModeError,
        lambda: adk.jacobian(only_reverse, mode="fwd"),
        "jacobian(only_reverse): mode='fwd' is impossible for this function. Use mode='auto' or "
        f"mode='rev'.\n  cannot push through custom_vjp at {RULE}: {NO_FORWARD}",
    ),
    (
        "reverse of a while_loop",
        adk.ModeError,
        lambda: adk.jacobian(only_forward, mode="rev"),
        "jacobian(only_forward): mode='rev' is impossible for this function. Use mode='auto' or "
        f"mode='fwd'.\n  cannot pull through while_loop at {LOOP}: {NO_REVERSE}",
    ),
    (
        "reverse of the gradient of a while_loop",
        adk.ModeError,
        lambda: adk.hessian(only_forward, mode="rev"),
        "hessian(only_forward): mode='rev' is impossible for this function. Use mode='auto' or "
        f"mode='fwd'.\n  cannot pull through while_loop at {LOOP}: {NO_REVERSE}",
    ),
    (
        "forward of both",
        adk.ModeError,
        lambda: adk.jacobian(alternating, mode="fwd"),
        "jacobian(alternating): mode='fwd' is impossible for this function. Use mode='auto'."
        f"\n  cannot push through custom_vjp at {RULE}: {NO_FORWARD}",
    ),
    (
        "reverse of both",
        adk.ModeError,
        lambda: adk.jacobian(alternating, mode="rev"),
        "jacobian(alternating): mode='rev' is impossible for this function. Use mode='auto'."
        f"\n  cannot pull through while_loop at {LOOP}: {NO_REVERSE}",
    ),
    (
        "a rule in a while_loop",
        adk.ModeError,
        lambda: adk.jacobian(inseparable),
        f"jacobian(inseparable): {NEITHER}through while_loop at {BOTH}: {NO_FORWARD}\n"
        f"  cannot pull through while_loop at {BOTH}: {NO_REVERSE}",
    ),
    (
        "a rule in a while_loop, and a mode",
        adk.ModeError,
        lambda: adk.jacobian(inseparable, mode="fwd"),
        f"jacobian(inseparable): {NEITHER}through while_loop at {BOTH}: {NO_FORWARD}\n"
        f"  cannot pull through while_loop at {BOTH}: {NO_REVERSE}",
    ),
    (
        "the gradient of a rule in a while_loop",
        adk.ModeError,
        lambda: adk.hessian(inseparable),
        f"hessian(inseparable): {NEITHER}through while_loop at {BOTH}: {NO_FORWARD}\n"
        f"  cannot pull through while_loop at {BOTH}: {NO_REVERSE}",
    ),
    (
        "a rule and a while_loop in a scan",
        adk.ModeError,
        lambda: adk.jacobian(repeated),
        f"jacobian(repeated): {NEITHER}through scan at {SCAN}: {NO_FORWARD}\n"
        f"  cannot pull through scan at {SCAN}: {NO_REVERSE}",
    ),
)
@pytest.mark.parametrize("jit", [False, True])
def test_modes_that_are_impossible(kind, call, text, jit):
    # JAX's own words are quoted to the end of their first line, which may change.
    transform = jax.jit(call()) if jit else call()
    assert message(kind, lambda: transform(X)).startswith(text)
    assert message(kind, lambda: call().plan(X)).startswith(text)


@pytest.mark.parametrize("transform", [adk.jacobian, adk.linearize])
def test_a_function_that_jax_cannot_differentiate(transform):
    name = transform.__name__
    assert message(adk.ModeError, lambda: transform(callback)(X)).startswith(
        f"{name}(callback): JAX evaluates this function but cannot differentiate it in any mode. "
        "Hold constant what enters the operation that refuses (wrt=, jax.lax.stop_gradient), or "
        "give it a rule of its own (jax.custom_jvp, jax.custom_vjp).\n  cannot push through "
        f"pure_callback at {place(callback, 'jax.pure_callback')}: {NO_CALLBACK}"
    )


def to_python(x):
    return jnp.sum(x) * float(x[0])


def to_numpy(x):
    return jnp.sum(x) * np.sin(x)[0]


@pytest.mark.parametrize("transform", [adk.jacobian, adk.grad, adk.hessian, adk.linearize])
@pytest.mark.parametrize(("function", "part"), [(to_python, "float(x[0])"), (to_numpy, "np.sin")])
def test_a_function_that_leaves_jax_on_the_way(transform, function, part):
    assert function(X).shape == ()
    found = message(adk.ModeError, lambda: transform(function)(X))
    where, line = place(function, part).split(" (")[0].rsplit(":", 2)[:2]
    assert found == (
        f"{transform.__name__}({function.__name__}): a value that depends on what is "
        "differentiated becomes a number of Python or an array of NumPy at "
        f"{where}:{line} ({function.__name__}), and no derivative passes there. Use jax.numpy "
        "instead of math and numpy, and x.astype(...) instead of float(x), or hold the argument "
        "constant (wrt=)."
    )


def test_a_function_that_jax_cannot_differentiate_inside_jit():
    found = message(adk.ModeError, lambda: jax.jit(adk.jacobian(callback))(X))
    assert found.startswith("jacobian(callback): ")
    assert NO_CALLBACK in found
    found = message(adk.ModeError, lambda: jax.jit(lambda x: adk.linearize(callback)(x).mv(x))(X))
    assert found.startswith("linearize(callback): JAX evaluates this function but cannot")
    assert NO_CALLBACK in found


@table(
    (
        "rmv of a while_loop",
        adk.ModeError,
        lambda: adk.linearize(only_forward)(X).rmv(X),
        "linearize(only_forward).rmv is impossible for this function. adk.jacobian may still "
        f"compute the whole matrix, which has rmv as well.\n  {NO_REVERSE}",
    ),
    (
        "rmv of the gradient of a while_loop",
        adk.ModeError,
        lambda: adk.hvp(lambda x: only_forward(x).sum())(X).rmv(X),
        "hvp(<lambda>).rmv is impossible for this function. adk.hessian may still compute the "
        f"whole matrix, which has rmv as well.\n  {NO_REVERSE}",
    ),
    (
        "mv of both",
        adk.ModeError,
        lambda: adk.linearize(alternating)(X).mv(X),
        "linearize(alternating).mv is impossible for this function. adk.jacobian may still "
        f"compute the whole matrix, which has mv as well.\n  {NO_FORWARD}",
    ),
    (
        "matrix in a mode",
        adk.ModeError,
        lambda: adk.linearize(only_forward, mode="rev")(X).as_matrix(),
        "linearize(only_forward).as_matrix: mode='rev' is impossible for this function. Use "
        f"mode='auto' or mode='fwd'.\n  cannot pull through while_loop at {LOOP}: {NO_REVERSE}",
    ),
    (
        "matrix of a rule in a while_loop",
        adk.ModeError,
        lambda: adk.linearize(inseparable)(X).as_matrix(),
        f"linearize(inseparable).as_matrix: {NEITHER}through while_loop at {BOTH}: {NO_FORWARD}\n"
        f"  cannot pull through while_loop at {BOTH}: {NO_REVERSE}",
    ),
)
def test_products_that_are_impossible(kind, call, text):
    assert message(kind, call).startswith(text)


def test_a_plan_that_needs_values_says_so():
    def f(x):
        return x if x[0] > 0 else -x

    struct = jax.ShapeDtypeStruct((2,), "float32")
    assert message(adk.SignatureError, lambda: adk.jacobian(f).plan(struct)) == (
        "jacobian(f).plan: tracing the function needs the value of an argument, and a "
        "jax.ShapeDtypeStruct has none. Pass arrays."
    )
    assert adk.jacobian(f).plan(X).mode == "fwd"


# Names of results ------------------------------------------------------------------------------


def jacobian() -> Any:
    return adk.jacobian(model)(X, params())


def hessian() -> Any:
    return adk.hessian(quadratic)(X, {"a": X, "n": 1})


def held(value: Any) -> Any:
    return adk.jacobian(lambda x, k: x)(X, value)


@table(
    (
        "omitted default",
        adk.NotDifferentiatedError,
        lambda: jacobian().scale,
        "jacobian(model): no block for 'scale': a default that is left out is constant unless "
        "wrt names it.",
    ),
    (
        "integer leaf",
        adk.NotDifferentiatedError,
        lambda: jacobian()["params.steps"],
        "jacobian(model): no block for 'params.steps': held constant: an int.",
    ),
    (
        "integer array",
        adk.NotDifferentiatedError,
        lambda: held(jnp.arange(2)).k,
        "jacobian(<lambda>): no block for 'k': held constant: int32[2].",
    ),
    (
        "None",
        adk.NotDifferentiatedError,
        lambda: held(None).k,
        "jacobian(<lambda>): no block for 'k': it holds no arrays (None or empty).",
    ),
    (
        "function",
        adk.NotDifferentiatedError,
        lambda: held(jnp.sin).k,
        "jacobian(<lambda>): no block for 'k': held constant: a function.",
    ),
    (
        "mixture",
        adk.NotDifferentiatedError,
        lambda: held({"a": 1, "b": "s", "c": 2}).wrt("k"),
        "jacobian(<lambda>): no block for 'k': held constant: an int; held constant: a str.",
    ),
    (
        "self",
        adk.NotDifferentiatedError,
        lambda: adk.jacobian(make_affine("float32"))(jnp.ones(3)).self,
        "jacobian(Affine): no block for 'self': the object that Affine is bound to is constant "
        "unless wrt names it.",
    ),
    (
        "part of self",
        adk.NotDifferentiatedError,
        lambda: adk.jacobian(make_affine("float32"))(jnp.ones(3))["self.weight"],
        "jacobian(Affine): no block for 'self.weight': the object that Affine is bound to is "
        "constant unless wrt names it.",
    ),
    (
        "not in wrt",
        adk.NotDifferentiatedError,
        lambda: adk.jacobian(product, wrt="x")(X, X).y,
        "jacobian(product): no block for 'y': not in wrt.",
    ),
    (
        "unknown, something near",
        adk.NotDifferentiatedError,
        lambda: adk.grad(quadratic)(X, {"a": X, "n": 1}).pp,
        "grad(quadratic): no argument 'pp'; did you mean 'p'?",
    ),
    (
        "unknown, nothing near",
        adk.NotDifferentiatedError,
        lambda: jacobian()["zzz"],
        "jacobian(model): no argument 'zzz'. There is 'x', 'params', 'n', 'scale', 'params.b', "
        "'params.name', 'params.steps', 'params.w'.",
    ),
    (
        "unknown part",
        adk.NotDifferentiatedError,
        lambda: adk.jacobian(model)(X, {"weight": X, "w": X}).wrt("params.wieght"),
        "jacobian(model): no argument 'params.wieght'; "
        "did you mean 'params.weight' or 'params.w' or 'params'?",
    ),
    (
        "position",
        adk.StructureError,
        lambda: jacobian()[0],
        "jacobian(model): blocks are reached by names, as in J['x'], not by 0; .to_jax() gives "
        "them by position.",
    ),
    (
        "slice",
        adk.StructureError,
        lambda: hessian()[:1],
        "hessian(quadratic): blocks are reached by names, as in J['x'], not by "
        "slice(None, 1, None); .to_jax() gives them by position.",
    ),
    (
        "output, something near",
        adk.NotDifferentiatedError,
        lambda: adk.jacobian(structured)(X).of("enrgy"),
        "jacobian(structured): no output 'enrgy'; did you mean 'energy'?",
    ),
    (
        "output that is an integer",
        adk.NotDifferentiatedError,
        lambda: adk.jacobian(structured)(X).of("count"),
        "jacobian(structured): no derivative of output 'count': held constant: int32[1].",
    ),
    (
        "output not in of",
        adk.NotDifferentiatedError,
        lambda: adk.jacobian(structured, of="energy")(X).of("forces"),
        "jacobian(structured): no derivative of output 'forces': not in of.",
    ),
    (
        "output of a single array",
        adk.NotDifferentiatedError,
        lambda: adk.jacobian(product)(X, X).of("a"),
        "jacobian(product): no output 'a'. The output is a single array without a name.",
    ),
    (
        "output by position",
        adk.StructureError,
        lambda: adk.jacobian(lambda x: (x, x))(X).of(0),
        "jacobian(<lambda>).of: outputs are reached by names, not by 0; write '0', '1' and so on "
        "for the entries of a list.",
    ),
    (
        "Hessian, unknown",
        adk.NotDifferentiatedError,
        lambda: hessian().q,
        "hessian(quadratic): no argument 'q'. There is 'x', 'p', 'p.a', 'p.n'.",
    ),
    (
        "Hessian, unknown second",
        adk.NotDifferentiatedError,
        lambda: hessian().x.q,
        "hessian(quadratic).x: no argument 'q'. There is 'x', 'p', 'p.a', 'p.n'.",
    ),
    (
        "Hessian, integer part",
        adk.NotDifferentiatedError,
        lambda: hessian().p["n"],
        "hessian(quadratic).p: no block for 'n': held constant: an int.",
    ),
    (
        "Hessian, unknown part",
        adk.NotDifferentiatedError,
        lambda: hessian().p["q"],
        "hessian(quadratic).p: no part and no argument 'q'. "
        "There is 'a', 'n', 'x', 'p', 'p.a', 'p.n'.",
    ),
    (
        "Hessian, first is an integer",
        adk.NotDifferentiatedError,
        lambda: hessian().wrt("p.n", "x"),
        "hessian(quadratic): no block for 'p.n': held constant: an int.",
    ),
    (
        "Hessian, second is an integer",
        adk.NotDifferentiatedError,
        lambda: hessian()["x", "p.n"],
        "hessian(quadratic).x: no block for 'p.n': held constant: an int.",
    ),
    (
        "Hessian, second by position",
        adk.StructureError,
        lambda: hessian().wrt("x", 0),
        "hessian(quadratic).x: blocks are reached by names, as in J['x'], not by 0; .to_jax() "
        "gives them by position.",
    ),
    (
        "gradient of an array",
        adk.NotDifferentiatedError,
        lambda: adk.hessian(product)(X, X).grad,
        "hessian(product).grad: the output is not one scalar, so there is no gradient; "
        "adk.jacobian(product) gives the first derivatives, and .of(path) selects one output.",
    ),
    (
        "gradient of a linear map",
        adk.NotDifferentiatedError,
        lambda: adk.linearize(product)(X, X).grad,
        "linearize(product) keeps no gradient; .rmv(1.0) pulls one back, and adk.grad or "
        "adk.hvp return it.",
    ),
    (
        "path of two leaves",
        adk.StructureError,
        lambda: adk.jacobian(lambda t: t["a.b"] * t["a"]["b"])({"a.b": X, "a": {"b": X}})["t.a.b"],
        "jacobian(<lambda>): 't.a.b' is the path of 2 leaves; use .tree instead.",
    ),
    (
        "position that there is not",
        adk.StructureError,
        lambda: adk.jacobian(product)(X, X).to_jax(2),
        "jacobian(product).to_jax: argnums=2 is not among the 2 positional arguments of the "
        "call (arguments passed by keyword have no position). Reach blocks by name, as in J['x'].",
    ),
    (
        "position of a keyword",
        adk.StructureError,
        lambda: adk.hessian(product)(X, y=X).to_jax((0, 1)),
        "hessian(product).to_jax: argnums=(0, 1) is not among the 1 positional argument of the "
        "call (arguments passed by keyword have no position). Reach blocks by name, as in J['x'].",
    ),
    (
        "name as a position",
        adk.StructureError,
        lambda: adk.jacobian(product)(X, X).to_jax("x"),
        "jacobian(product).to_jax: argnums='x' is not among the 2 positional arguments of the "
        "call (arguments passed by keyword have no position). Reach blocks by name, as in J['x'].",
    ),
    (
        "record, attribute",
        AttributeError,
        lambda: adk.Record(x=X, y=X).z,
        "this record has no argument 'z'; it holds x, y",
    ),
    ("record, item", KeyError, lambda: adk.Record(x=X)["z"], "'z'"),
    (
        "record, assignment",
        AttributeError,
        lambda: setattr(adk.Record(x=X), "x", 1),
        "a Record is immutable; cannot set 'x'. Make another one: adk.Record(...)",
    ),
)
def test_names_that_a_result_does_not_hold(kind, call, text):
    assert message(kind, call) == text


# Vectors ----------------------------------------------------------------------------------------


def pair() -> Any:
    return adk.jacobian(product)(X, X)


@table(
    (
        "twice",
        adk.StructureError,
        lambda: pair().mv(X, x=X),
        "jacobian(product).mv: the vector is given twice. Give it by position or by keyword, not "
        "both.",
    ),
    (
        "bare for several",
        adk.StructureError,
        lambda: pair() @ X,
        "jacobian(product).mv: several arguments were differentiated (x, y); name what the "
        "vector holds: (x=..., y=...), a dict by name, or an adk.Record.",
    ),
    (
        "shape",
        adk.StructureError,
        lambda: pair().mv(x=jnp.ones(3)),
        "jacobian(product).mv: 'x' should be float32[2]; got float32[3].",
    ),
    (
        "batch",
        adk.StructureError,
        lambda: pair().mv(x=jnp.ones((4, 2))),
        "jacobian(product).mv: 'x' should be float32[2]; got float32[4, 2]. A batch of vectors "
        "goes through jax.vmap.",
    ),
    (
        "complex",
        adk.StructureError,
        lambda: pair().mv(x=Z),
        "jacobian(product).mv: 'x' should be float32[2]; got complex64[2].",
    ),
    (
        "text",
        adk.StructureError,
        lambda: pair().mv({"x": "a"}),
        "jacobian(product).mv: 'x' should be float32[2]; got a str.",
    ),
    (
        "unknown name",
        adk.StructureError,
        lambda: adk.hvp(square_sum)(X).mv(z=X),
        "hvp(square_sum).mv: 'z' has no counterpart among the differentiated leaves. There is 'x'.",
    ),
    (
        "unknown name beside held leaves",
        adk.StructureError,
        lambda: hessian().mv(q=X),
        "hessian(quadratic).mv: 'q' has no counterpart among the differentiated leaves. "
        "There is 'x', 'p.a'.",
    ),
    (
        "held leaf",
        adk.StructureError,
        lambda: jacobian().mv(params={"steps": 1.0}),
        "jacobian(model).mv: 'params.steps' was not differentiated (an int); leave it out or "
        "give None.",
    ),
    (
        "bare vector of another shape",
        adk.StructureError,
        lambda: adk.linearize(sine)(X).mv(jnp.ones(3)),
        "linearize(sine).mv: 'x' should be float32[2]; got float32[3].",
    ),
    (
        "cotangent of another shape",
        adk.StructureError,
        lambda: pair().rmv(jnp.ones(3)),
        "jacobian(product).rmv: the vector should be float32[2]; got float32[3].",
    ),
    (
        "cotangent by another name",
        adk.StructureError,
        lambda: adk.jacobian(structured)(X).rmv({"enrgy": 1.0}),
        "jacobian(structured).rmv: 'enrgy' has no counterpart among the differentiated leaves; "
        "did you mean 'energy'?",
    ),
    (
        "a flat tangent in the place of a structure",
        adk.StructureError,
        lambda: adk.jacobian(quadratic, wrt="p")(X, {"a": X, "b": X}).mv(jnp.ones(6)),
        "jacobian(quadratic).mv: 'p' is float32[6], and should be a structure that holds 'p.a', "
        "'p.b'. Pass one; unravel(...) of the result makes it of a flat array of all entries.",
    ),
    (
        "a flat cotangent in the place of a structure",
        adk.StructureError,
        lambda: adk.jacobian(structured)(X).rmv(jnp.ones(3)),
        "jacobian(structured).rmv: the vector is float32[3], and should be a structure that holds "
        "'energy', 'forces.0', 'forces.1'. Pass one; unravel(...) of the result makes it of a flat "
        "array of all entries.",
    ),
    (
        "cotangent with a structure",
        adk.StructureError,
        lambda: pair().rmv({"a": X}),
        "jacobian(product).rmv: 'a' has no counterpart among the differentiated leaves. It is a "
        "single array.",
    ),
    (
        "transpose",
        adk.StructureError,
        lambda: pair().T.mv(jnp.ones(3)),
        "jacobian(product).T.mv: the vector should be float32[2]; got float32[3].",
    ),
)
def test_vectors_that_do_not_fit(kind, call, text):
    assert message(kind, call) == text


# Structures -------------------------------------------------------------------------------------


def test_batched_results_say_where_their_matrix_methods_belong():
    batch = jnp.ones((3, 2))
    assert message(adk.StructureError, jax.vmap(adk.jacobian(product))(batch, batch).as_matrix) == (
        "jacobian(product): this result has an array of shape [3, 2, 2] where its structure says "
        "[2, 2]. After jax.vmap it is still a pytree, but its matrix methods belong inside the "
        "function that is mapped; call them there."
    )
    L = jax.vmap(adk.linearize(product))(batch, batch)
    assert message(adk.StructureError, lambda: L.mv(x=X)) == (
        "linearize(product): this result has an array of shape [3, 2] where its structure says "
        "[2]. After jax.vmap it is still a pytree, but its matrix methods belong inside the "
        "function that is mapped; call them there."
    )


@pytest.mark.parametrize("transform", [adk.jacobian, adk.linearize])
def test_maps_between_real_and_complex_arrays_are_no_lineax_operators(transform):
    found = message(adk.StructureError, lambda: transform(shift)(X).as_lineax())
    assert found == (
        f"{transform.__name__}(shift).as_lineax: the map between real and complex arrays is "
        "only R-linear, so it has no matrix over one field. Use mv and rmv, or split the "
        "complex arrays into real and imaginary parts."
    )


def test_a_node_that_refuses_derivatives_says_so():
    J = adk.jacobian(lambda s: s.a * 2)(Strict(X))
    for access in (lambda: J.s, lambda: J.tree, J.to_jax):
        found = message(adk.StructureError, access)
        assert "PyTreeDef(CustomNode(Strict[None], [*]))" in found or "Record" in found
        assert found.endswith(
            " could not be rebuilt with derivatives as its leaves. A pytree node must accept any "
            "leaves, `None` among them, when JAX rebuilds it; this one raised TypeError: a "
            "vector, please. Reach the single blocks by their paths instead, as in "
            "J.wrt('a.b')."
        )
    np.testing.assert_allclose(J["s.a"], 2 * np.eye(2))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_dataclass_that_lineax_cannot_rebuild_says_so():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Vector:
        a: Any

        def __post_init__(self):
            if getattr(self.a, "ndim", 1) > 1:
                raise ValueError("a vector, please")

    J = adk.jacobian(lambda v: v.a * 2)(Vector(X))
    found = message(adk.StructureError, J.as_lineax)
    assert found.startswith(
        "jacobian(<lambda>).as_lineax: lineax rebuilds the pytrees with derivatives as their "
        "leaves, and one of them refuses: ValueError: a vector, please."
    )
    assert found.endswith(
        " A class that checks its fields can do so outside its constructor; .as_matrix() needs "
        "no pytree."
    )


# Memory -----------------------------------------------------------------------------------------

LARGE = 10**6


@pytest.fixture
def one_kibibyte(monkeypatch):
    monkeypatch.setattr(_memory, "available_bytes", lambda arrays: 1024)
    monkeypatch.setattr(_memory, "_SMALL", 0)


def test_a_hopeless_result_is_refused_before_any_sweep():
    x = jnp.zeros(LARGE)
    for refused in (
        lambda: adk.jacobian(sine)(x),
        lambda: adk.hessian(square_sum)(x),
        lambda: adk.linearize(sine)(x).as_matrix(),
        lambda: adk.hvp(square_sum)(x).as_matrix(),
    ):
        with pytest.raises(MemoryError) as caught:
            refused()
        assert type(caught.value) is adk.ResultTooLargeError
        assert "the result takes 3.6 TiB and " in str(caught.value)
        assert str(caught.value).splitlines()[-1].split()[:3] == ["x", "3.6", "TiB"]


def scaled(s, x, p):
    return x * s * p["a"]


@pytest.mark.usefixtures("one_kibibyte")
class TestRefusal:
    @table(
        (
            "Jacobian",
            adk.ResultTooLargeError,
            lambda: adk.jacobian(sine)(jnp.zeros(17)),
            "jacobian(sine): the result takes 1.1 KiB and 1.0 KiB are available. adk.linearize "
            "multiplies by the derivative without storing it.\n"
            "  x  1.1 KiB",
        ),
        (
            "of several arguments",
            adk.ResultTooLargeError,
            lambda: adk.jacobian(scaled)(2.0, jnp.zeros(32), {"a": 1.0, "b": jnp.zeros(2)}),
            "jacobian(scaled): the result takes 4.5 KiB and 1.0 KiB are available. "
            "wrt=('s', 'p') would fit. adk.linearize multiplies by the derivative without "
            "storing it.\n"
            "  s  128 bytes\n"
            "  x  4.0 KiB\n"
            "  p  384 bytes",
        ),
        (
            "Hessian",
            adk.ResultTooLargeError,
            lambda: adk.hessian(quadratic)(jnp.zeros(16), {"a": jnp.zeros(16), "n": 1}),
            "hessian(quadratic): the result takes 4.0 KiB and 1.0 KiB are available. wrt='x' "
            "would fit. adk.hvp multiplies by the Hessian without storing it.\n"
            "  argument  share    alone\n"
            "  x         2.0 KiB  1.0 KiB\n"
            "  p         2.0 KiB  1.0 KiB",
        ),
        (
            "matrix of a linear map",
            adk.ResultTooLargeError,
            lambda: adk.linearize(sine)(jnp.zeros(32)).as_matrix(),
            "linearize(sine).as_matrix: the result takes 4.0 KiB and 1.0 KiB are available. mv "
            "and rmv multiply without storing the matrix.\n"
            "  x  4.0 KiB",
        ),
        (
            "matrix of a Hessian-vector product",
            adk.ResultTooLargeError,
            lambda: adk.hvp(square_sum)(jnp.zeros(32)).as_matrix(),
            "hvp(square_sum).as_matrix: the result takes 4.0 KiB and 1.0 KiB are available. mv "
            "and rmv multiply without storing the matrix.\n"
            "  x  4.0 KiB",
        ),
    )
    def test_the_text(self, kind, call, text):
        assert message(kind, call) == text

    def test_the_selection_that_was_proposed_is_accepted(self):
        J = adk.jacobian(scaled, wrt=("s", "p"))(2.0, jnp.zeros(32), {"a": 1.0, "b": jnp.zeros(2)})
        assert J.s.shape == (32,)

    def test_what_fits_is_not_refused(self):
        assert adk.jacobian(sine)(jnp.zeros(16)).x.shape == (16, 16)

    def test_the_function_is_not_evaluated_again(self):
        calls = []

        def f(x):
            calls.append(x)
            return jnp.sin(x)

        with pytest.raises(adk.ResultTooLargeError):
            adk.jacobian(f)(jnp.zeros(17))
        assert len(calls) == 1

    def test_matrix_free_maps_and_plans_are_never_refused(self):
        x = jnp.zeros(LARGE)
        assert adk.linearize(sine)(x).mv(x).shape == (LARGE,)
        assert adk.hvp(square_sum)(x).mv(x).x.shape == (LARGE,)
        assert adk.jacobian(sine).plan(x).cut_size == LARGE
        assert adk.hessian(square_sum).plan(x).cut_size == LARGE
        assert adk.grad(square_sum)(jnp.zeros(4)).x.shape == (4,)

    def test_nothing_is_refused_under_a_trace(self):
        struct = jax.ShapeDtypeStruct((10**5,), "float32")
        for jit in (jax.jit, eqx.filter_jit):
            J = jax.eval_shape(jit(adk.jacobian(sine)), struct)
            assert J.x.shape == (10**5, 10**5)
        H = jax.eval_shape(adk.hessian(square_sum), struct)
        assert H.x.x.shape == (10**5, 10**5)
        # A block that nobody uses is never made.
        value = jax.jit(lambda x: adk.hessian(square_sum)(x).grad.x)(jnp.ones(100))
        np.testing.assert_allclose(value, 2)


def test_a_hessian_that_does_not_fit_one_gibibyte(monkeypatch):
    monkeypatch.setattr(_memory, "available_bytes", lambda arrays: 2**30)
    monkeypatch.setattr(_memory, "_SMALL", 0)
    assert message(adk.ResultTooLargeError, lambda: adk.hessian(square_sum)(jnp.zeros(10**5))) == (
        "hessian(square_sum): the result takes 37.3 GiB and 1.0 GiB are available. adk.hvp "
        "multiplies by the Hessian without storing it.\n"
        "  argument  share     alone\n"
        "  x         37.3 GiB  37.3 GiB"
    )


def test_nothing_is_refused_where_the_memory_is_unknown(monkeypatch):
    monkeypatch.setattr(_memory, "available_bytes", lambda arrays: None)
    monkeypatch.setattr(_memory, "_SMALL", 0)
    assert adk.jacobian(sine)(jnp.zeros(17)).x.shape == (17, 17)


# Calls of the transforms themselves ---------------------------------------------------------

ALL = [
    adk.jacobian,
    adk.grad,
    adk.hessian,
    adk.linearize,
    adk.hvp,
    adk.hessian_diagonal,
    adk.laplacian,
    adk.divergence,
    adk.curl,
    adk.directional_derivative,
    adk.check_derivatives,
    adk.find_nonfinite,
    adk.testing.assert_derivatives,
]


@pytest.mark.parametrize("transform", ALL, ids=lambda x: x.__name__)
def test_the_options_of_jax_are_told_what_they_are_here(transform):
    call = f"{transform.__name__}(product)"
    assert message(adk.SignatureError, lambda: transform(product, argnums=1)) == (
        f"{call}: there is no option 'argnums', because arguments are selected by name. Pass "
        "wrt='y'."
    )
    assert message(adk.SignatureError, lambda: transform(product, argnums=(0, -1))).endswith(
        "Pass wrt=('x', 'y')."
    )
    assert message(adk.SignatureError, lambda: transform(product, argnames="x")).endswith(
        "Pass wrt='x'."
    )
    unknown = "Pass wrt= with the name of the argument, or with a tuple of several."
    for call_of_it in (lambda: transform(argnums=0), lambda: transform(product, argnums=2)):
        assert message(adk.SignatureError, call_of_it).endswith(unknown)
    assert message(adk.SignatureError, lambda: transform(product, X, X)) == (
        f"{call[:-1]}, ...) takes no more than that by position. Write {call}(x, y) to call what "
        "it returns, and wrt= to select arguments by name."
    )
    assert f"Write {call}(x) " in message(adk.SignatureError, lambda: transform(product, 1))
    assert f"Write {call}(...) " in message(adk.SignatureError, lambda: transform(product, 1, 2, 3))
    assert message(adk.SignatureError, lambda: transform(product, y=X)) == (
        f"{call}: 'y' is an argument of the function and no option. Pass it to what "
        f"{transform.__name__} returns: {call}(y=...)."
    )
    assert message(adk.SignatureError, lambda: transform(product, wtr="x")) == (
        f"{call}: there is no option 'wtr'; did you mean 'wrt'?"
    )
    parameters = inspect.signature(transform).parameters
    assert "argnums" not in parameters
    assert {"wrt", "options"} & {*parameters}


def test_the_options_of_jax_are_told_what_they_are_with_two_functions():
    def told(call):
        return message(adk.SignatureError, call)

    assert told(lambda: adk.gauss_newton(product, square_sum, X, X)) == (
        "gauss_newton(product, square_sum, ...) takes no more than that by position. Write "
        "gauss_newton(product, square_sum)(x, y) to call what it returns, and wrt= to select "
        "arguments by name."
    )
    assert told(lambda: adk.fisher(product, "poisson", argnums=0)) == (
        "fisher(product, 'poisson'): there is no option 'argnums', because arguments are selected "
        "by name. Pass wrt='x'."
    )
    assert "Write jacobian(f)(...) " in told(lambda: adk.jacobian(3.0, X))


# First looks at a result --------------------------------------------------------------------


def test_the_name_of_an_output_says_how_to_reach_it():
    J = adk.jacobian(structured)(X)
    for call in (lambda: J["forces"], lambda: J.forces, lambda: J.wrt("forces")):
        assert message(adk.NotDifferentiatedError, call) == (
            "jacobian(structured): 'forces' is an output, and no argument. Take .of('forces') for "
            "the derivative of that output, and the names of arguments for its blocks."
        )
    assert ".of('forces.0')" in message(adk.NotDifferentiatedError, lambda: J["forces.0"])
    H = adk.hessian(structured)(X)
    assert ".of('energy')" in message(adk.NotDifferentiatedError, lambda: H.energy)
    G = adk.grad(structured, of="energy")(X)
    assert message(adk.NotDifferentiatedError, lambda: G["energy"]) == (
        "grad(structured): no argument 'energy'. There is 'x'."
    )


@pytest.mark.parametrize(
    "result", [adk.jacobian(product)(X, X), adk.grad(lambda x, y: jnp.sum(x * y))(X, X)]
)
def test_several_names_at_once_say_where_to_select_several(result):
    text = message(adk.StructureError, lambda: result["x", "y"])
    assert text.endswith(
        ": blocks are reached by one name, as in J['x'], and not by several at once; got "
        "('x', 'y'). Select several with wrt=('x', 'y') in the call of the transform."
    )


def test_of_a_hessian_two_names_are_a_block_and_three_are_not():
    H = adk.hessian(lambda x, y: jnp.sum(x * y))(X, X)
    np.testing.assert_allclose(H["x", "y"], np.eye(2))
    with pytest.raises(adk.StructureError, match="not by several at once"):
        H["x", "y", "x"]


def test_what_stores_no_blocks_says_how_to_draw_it():
    J, L = adk.jacobian(product)(X, X), adk.linearize(product)(X, X)
    for given in (L, 2 * J, J.T, L + L):
        text = message(adk.NotDifferentiatedError, lambda given=given: given.plot())
        assert "Draw it with .materialise().plot()" in text
    drawn = (2 * J).materialise().plot()
    assert drawn.images
    plt.close(drawn.figure)
    assert "plot" not in message(adk.NotDifferentiatedError, lambda: L.x)


@pytest.mark.parametrize("transform", [adk.grad, adk.hvp])
def test_a_loss_beside_other_data_is_told_of_has_aux(transform):
    def told(f):
        return message(adk.NotDifferentiableError, lambda: transform(f)(1.0))

    assert told(lambda x: (x**2, {"seen": x, "more": x})) == (
        f"{transform.__name__}(<lambda>): the output must be one scalar. Use adk.jacobian or "
        "adk.hessian, which take any, or choose one with of='...', or pass has_aux=True if the "
        "second is auxiliary data. The function returned:\n"
        "  0       float32[]\n  1.more  float32[]\n  1.seen  float32[]"
    )
    for other in (
        lambda x: (x, x, x),
        lambda x: [x, x],
        lambda x: {"0": x, "1": x},
        lambda x: (x * X, x),
        lambda x: ({"a": x}, x),
    ):
        assert "has_aux" not in told(other)
    with pytest.raises(adk.NotDifferentiableError) as caught:
        transform(lambda x: ((x, x), x), has_aux=True)(1.0)
    assert "has_aux" not in str(caught.value)


SHAPED = [
    lambda f: adk.jacobian(f).plan,
    lambda f: adk.jacobian(f).compile,
    lambda f: adk.laplacian(f).plan,
]


def test_a_predicate_takes_a_path_and_a_leaf():
    def is_weight(path):
        return path.endswith("w")

    with pytest.raises(adk.SelectionError) as caught:
        adk.grad(product, wrt=is_weight)
    assert str(caught.value) == (
        "grad(product): wrt=is_weight is called with a path and a leaf, and does not take them. "
        "Give an argument name, a path, a glob, a tuple of these, or a predicate (path, leaf) -> "
        "bool."
    )


class Spring:
    """A class that is no pytree."""

    def __init__(self, stiffness):
        self.stiffness = stiffness

    def energy(self, x):
        return self.stiffness * jnp.sum(x**2) / 2


@pytest.mark.parametrize("wrt", ["self", "self.stiffness"])
def test_a_class_that_is_no_pytree_is_told_how_to_be_one(wrt):
    with pytest.raises(adk.AutodiffError, match=r"such as an equinox\.Module, whose fields are"):
        adk.grad(Spring(3.0).energy, wrt=wrt)(X)
    with pytest.raises(adk.SelectionError) as caught:
        adk.grad(product, wrt="x.a")(X, X)
    assert "equinox" not in str(caught.value)


@pytest.mark.parametrize("ahead", SHAPED, ids=["plan", "compile", "operator"])
def test_a_tuple_in_the_place_of_a_structure_is_noted(ahead):
    def f(x, p):
        return jnp.sum((p @ x) ** 2)

    note = (
        "The argument 'x' is the tuple (2,). If an array of that shape is meant, pass "
        "jax.ShapeDtypeStruct((2,), jnp.float32)."
    )
    for args, kwargs in [(((2,), X), {}), ((), {"p": X, "x": (2,)})]:
        with pytest.raises(TypeError) as caught:
            ahead(f)(*args, **kwargs)
        assert note in caught.value.__notes__
    with pytest.raises(TypeError) as caught:
        ahead(f)((2,), (2, 2))
    assert {"The argument 'x'", "The argument 'p'"} <= {x[:16] for x in caught.value.__notes__}


def test_the_error_of_the_function_is_kept_beside_the_note():
    def f(x, shape):
        raise TypeError("its own")

    with pytest.raises(TypeError, match=r"^its own") as caught:
        adk.jacobian(f).plan(X, (2, 3))
    assert str(caught.value) == "its own"
    assert any("(2, 3)" in note for note in caught.value.__notes__)
    for other in ((2.0, 3), [2, 3], (), "x", (True,)):
        with pytest.raises(TypeError, match=r"^its own") as caught:
            adk.jacobian(f).plan(X, other)
        assert not any("shape" in note for note in getattr(caught.value, "__notes__", []))
    plan = adk.jacobian(lambda x, shape: jnp.reshape(x, shape)).plan(X, (2, 1))
    assert plan.mode in ("fwd", "rev", "mixed")
