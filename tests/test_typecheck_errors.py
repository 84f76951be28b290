"""The check of jaxtyping annotations: which values fit, and the exact text where one does not."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, NewType, Optional, TypedDict, TypeVar, Unpack

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping as jt
import numpy as np
import pytest
from beartype.roar import BeartypeDoorHintViolation
from jaxtyping import Array, Float, PyTree

import autodiffkit as adk

Vector, Matrix = Float[Array, "n"], Float[Array, "m n"]


def a(*shape, dtype="float32"):
    return jnp.ones(shape, dtype)


X, WRONG, W = a(3), a(4), a(2, 3)


def refusal(f, *args, wrt=None, has_aux=False, **kwargs):
    with pytest.raises(adk.AnnotationError) as caught:
        adk.jacobian(f, wrt=wrt, has_aux=has_aux)(*args, **kwargs)
    assert str(caught.value).count("\n") < 9
    return caught.value


def hinted(**hints):
    """A function of `x`, `y` and `z`, as far as there are hints for them."""
    names = ", ".join(name for name in hints if name != "return")
    f = eval(f"lambda {names}: {names.partition(',')[0]}")
    f.__name__, f.__annotations__ = "f", hints
    return f


def beside(hint):
    return hinted(x=Vector, y=hint)


# Dimensions and dtypes ------------------------------------------------------------------------

DIMENSIONS = {
    "name": ("n", "n", (3,), (3,), (4,)),
    "names": ("m n", "n m", (2, 3), (3, 2), (2, 3)),
    "variadic": ("*batch n", "*batch", (2, 3, 4), (2, 3), (3,)),
    "ellipsis": ("n", "... n", (3,), (5, 6, 3), (3, 5)),
    "symbolic": ("n", "n+1", (3,), (4,), (3,)),
    "symbolic comes first": ("n+1", "n", (4,), (3,), (4,)),
    "symbolic of two names": ("m*n-1 k", "m n", (5, 1), (2, 3), (3, 3)),
    "broadcast": ("n", "#n", (3,), (1,), (2,)),
    "broadcast variadic": ("*b", "*#b", (2, 3), (1, 3), (2, 2)),
    "fixed": ("n", "3", (2,), (3,), (2,)),
    "anonymous": ("n", "_ n", (2,), (7, 2), (7, 3)),
    "scalar": ("n", "", (2,), (), (1,)),
    "twice": ("n", "n n", (2,), (2, 2), (2, 3)),
}


@pytest.mark.parametrize(("x", "y", "shape", "good", "bad"), DIMENSIONS.values(), ids=DIMENSIONS)
def test_dimensions(x, y, shape, good, bad):
    f = hinted(x=Float[Array, x], y=Float[Array, y])
    adk.jacobian(f)(a(*shape), a(*good))
    refusal(f, a(*shape), a(*bad))


def test_braces_read_the_value_of_an_argument():
    def f(x: Float[Array, "{size}"], size: int, y: Float[Array, "{size}+1"] = None):
        return x

    adk.jacobian(f)(X, 3, WRONG)
    refusal(f, X, 4)
    refusal(f, X, 3, X)


def test_an_expression_reads_what_is_left_out_from_its_default():
    def f(x: Float[Array, "{size} n"], size: int = 3):
        return x

    adk.jacobian(f)(a(3, 4))
    refusal(f, a(4, 4))


DTYPES = [
    (jt.Float, ["float16", "float32", "bfloat16"], ["int32", "complex64", "bool"]),
    (jt.Float32, ["float32"], ["float16", "int32"]),
    (jt.Float64, [], ["float32"]),
    (jt.Int, ["int32", "int8"], ["float32", "uint8"]),
    (jt.Bool, ["bool"], ["int32"]),
    (jt.Complex, ["complex64"], ["float32"]),
]


@pytest.mark.parametrize(("kind", "good", "bad"), DTYPES, ids=[row[0].__name__ for row in DTYPES])
def test_dtypes(kind, good, bad):
    f = beside(kind[Array, "n"])
    for name in good:
        adk.jacobian(f)(X, a(3, dtype=name))
    for name in bad:
        refusal(f, X, a(3, dtype=name))


SCALAR, SQUARE = Float[Array, ""], Float[Array, "k k"]
NUMBERS = {
    "scalar": (SCALAR, 2.0),
    "number or scalar": (float | SCALAR, 2.0),
    "number or matrix": (float | SQUARE, 2.0),
    "anything like a scalar": (jt.ScalarLike, 2.0),
    "array of numpy or matrix": (np.ndarray | SQUARE, np.ones(2, "float32")),
}


@pytest.mark.parametrize("wrt", ["x", "y"], ids=["held", "selected"])
@pytest.mark.parametrize(("hint", "value"), NUMBERS.values(), ids=NUMBERS)
def test_what_becomes_an_array_fits_as_what_it_was(hint, value, wrt):
    adk.jacobian(beside(hint), wrt=wrt)(X, value)


def test_a_python_number_has_a_dtype():
    adk.jacobian(beside(float | SCALAR))(X, 2)
    for hint, good, bad in [("Int", 2, 2.0), ("Bool", True, 2), ("Float", 2.0, 2)]:
        f = beside(getattr(jt, hint)[Array, ""])
        adk.jacobian(f)(X, good)
        refusal(f, X, bad)


@pytest.mark.parametrize("wrt", ["x", "y"], ids=["held", "selected"])
@pytest.mark.parametrize("kind", [Array, np.ndarray, Any], ids=["jax", "numpy", "any"])
@pytest.mark.parametrize("value", [X, np.ones(3, "float32")], ids=["of jax", "of numpy"])
def test_arrays_of_either_library_fit(kind, value, wrt):
    f = beside(Float[kind, "n"])
    adk.jacobian(f, wrt=wrt)(X, value)
    refusal(f, X, value[:2], wrt=wrt)


# Structures -----------------------------------------------------------------------------------


class Pair(NamedTuple):
    left: Vector
    right: Vector


class Options(TypedDict, total=False):
    gain: Vector
    shift: Vector


class Layer(eqx.Module):
    weight: Matrix
    bias: Float[Array, "m"]
    inner: "Layer | None" = None

    def __call__(self, x: Vector) -> Float[Array, "m"]:
        return self.weight @ x + self.bias

    def apply(self, x: Vector) -> Float[Array, "m"]:
        return self(x)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Params:
    weight: Matrix
    scale: "float | Float[Array, '']" = 1.0


BAD_LAYER = Layer(W, X)
LAYER, OTHER = Layer(W, a(2)), Layer(a(4, 5), a(4))

STRUCTURES = {
    "list": (list[Vector], [X, X], [X, WRONG], "y.1"),
    "tuple": (tuple[Vector, int], (X, 3), (WRONG, 3), "y.0"),
    "tuple of any length": (tuple[Vector, ...], (X, X), (X, WRONG), "y.1"),
    "tuple with a tail": (tuple[Vector, *tuple[Matrix, ...]], (X, W, W), (X, X), "y.1"),
    "dict": (dict[str, list[Vector]], {"a": [X]}, {"a": [X, WRONG]}, "y.a.1"),
    "sequence": (Sequence[Vector], (X, X), [X, WRONG], "y.1"),
    "mapping": (Mapping[str, Vector], {"a": X}, {"a": X, "b": WRONG}, "y.b"),
    "named tuple": (Pair, Pair(X, X), Pair(X, WRONG), "y.right"),
    "typed dict": (Options, {"gain": X}, {"gain": X, "shift": WRONG}, "y.shift"),
    "optional": (Optional[Vector], None, WRONG, "y"),  # noqa: UP045
    "union": (Matrix | Float[Array, "n n"], a(3, 3), a(3, 4), "y"),
    "union of containers": (list[Vector] | list[Matrix], [W], [a(2, 2, 2)], "y"),
    "union of what is bound": (list[Vector] | list[Float[Array, "k"]], [WRONG], [W], "y"),
    "annotated": (Annotated[Vector, "a word"], X, WRONG, "y"),
    "new type": (NewType("State", Vector), X, WRONG, "y"),
    "type variable": (TypeVar("T", bound=Vector), X, WRONG, "y"),
    "string": ("list[Float[Array, 'n']] | None", [X], [WRONG], "y.0"),
    "tree": (PyTree[Vector], {"a": [X], "b": (X,)}, {"a": [X, WRONG]}, "y.a.1"),
    "tree of modules": (PyTree[Layer], [LAYER, OTHER], [LAYER, BAD_LAYER], "y.1.bias"),
    "tree of tuples": (PyTree[tuple[Vector, ...]], [(X,), (X, X)], [(X, WRONG)], "y.0.1"),
    "tree of a union": (PyTree[Layer | Vector], [LAYER, X], [LAYER, WRONG], "y.1"),
    "module": (Layer, LAYER, Layer(a(2, 4), a(2)), "y.weight"),
    "module in a module": (Layer, Layer(W, a(2), OTHER), Layer(W, a(2), BAD_LAYER), "y.inner.bias"),
    "modules": (list[Layer], [LAYER, OTHER], [LAYER, BAD_LAYER], "y.1.bias"),
    "dataclass": (Params, Params(W), Params(W, X), "y.scale"),
}


@pytest.mark.parametrize(("hint", "good", "bad", "where"), STRUCTURES.values(), ids=STRUCTURES)
def test_structures(hint, good, bad, where):
    f = beside(hint)
    adk.jacobian(f)(X, good)
    first, *_ = str(refusal(f, X, bad)).splitlines()
    assert first == f"jacobian(f): argument {where!r} does not fit its annotation"


@pytest.mark.parametrize("place", [0, 57, 199])
@pytest.mark.parametrize("hint", [list[Vector], PyTree[Vector]], ids=["list", "tree"])
def test_every_item_of_a_long_list_is_checked(hint, place):
    items = [X] * 200
    items[place] = WRONG
    first, *_ = str(refusal(beside(hint), X, items, wrt="x")).splitlines()
    assert first == f"jacobian(f): argument 'y.{place}' does not fit its annotation"


ONE, TWO = (X,), {"a": X, "b": X}
BOTH = ({"a": X, "b": X},)
NAMES = {
    "the same": ("S", "T", "S", (X,), TWO),
    "composite": ("S", "T", "S T", BOTH, {"a": (X,), "b": (X,)}),
    "composite at the end": ("S", "T", "... T", [[TWO, TWO]], [TWO, X]),
    "composite at the start": ("S", "T", "T ...", {"a": [X], "b": X}, [X]),
}


@pytest.mark.parametrize(("x", "y", "z", "good", "bad"), NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("leaf", [Float[Array, "..."], Any], ids=["arrays", "anything"])
def test_structures_have_names(leaf, x, y, z, good, bad):
    f = hinted(x=PyTree[leaf, x], y=PyTree[leaf, y], z=PyTree[Float[Array, "..."], z])
    adk.jacobian(f)(ONE, TWO, good)
    refusal(f, ONE, TWO, bad)


def test_the_leaves_of_a_named_structure_may_be_containers():
    f = hinted(x=PyTree[tuple[Vector, ...], "S"], y=PyTree[Vector, "S"])
    adk.jacobian(f)([(X,), (X, X)], [X, X])
    refusal(f, [(X,), (X, X)], [X])


def test_a_dimension_may_be_another_one_for_each_leaf():
    f = hinted(x=PyTree[Float[Array, "?n"], "T"], y=PyTree[Float[Array, "?n"], "T"])
    adk.jacobian(f)([X, WRONG], [X, WRONG])
    refusal(f, [X, WRONG], [X, X])


# Objects --------------------------------------------------------------------------------------


def test_an_object_that_is_the_only_one_of_its_class_shares_names_with_the_function():
    for f in (hinted(p=Params, x=Vector), hinted(p=Params | None, x=Vector)):
        adk.jacobian(f)(Params(W), X)
        refusal(f, Params(W), WRONG)
    adk.jacobian(hinted(p=Params, q=Params, x=Vector))(Params(W), Params(a(7, 8)), WRONG)
    refusal(hinted(p=Pair, x=Vector), Pair(X, X), WRONG)


def test_a_typed_dict_shares_names_next_to_any_other_dict():
    refusal(hinted(p=Options, x=Vector), {"gain": X}, WRONG)
    refusal(hinted(p=Options, x=Vector, more=dict), {"gain": X}, WRONG, {})


def test_typed_keywords_are_checked_by_name():
    def f(x: Vector, **options: Unpack[Options]):
        return x

    adk.jacobian(f)(X, gain=X)
    refusal(f, X, gain=X, shift=WRONG)


def test_what_is_missing_in_an_object_is_skipped():
    dynamic, _ = eqx.partition(LAYER, lambda leaf: leaf is LAYER.bias)
    f = hinted(p=Layer, x=Float[Array, "m"])
    adk.jacobian(f)(dynamic, a(2))
    refusal(f, dynamic, X)


def test_a_module_shares_names_with_its_methods():
    for f in (LAYER, LAYER.apply):
        adk.jacobian(f)(X)
        assert "n = 3 is fixed by argument 'self.weight'" in str(refusal(f, WRONG))
    assert "argument 'self.bias'" in str(refusal(BAD_LAYER, X))
    refusal(Layer.apply, LAYER, W)


def test_braces_in_a_field_read_the_fields():
    class Sized(eqx.Module):
        size: int
        weight: Float[Array, "{size}"]

    adk.jacobian(hinted(p=Sized, q=Sized))(Sized(3, X), Sized(4, WRONG))
    adk.jacobian(hinted(p=Sized))(Sized(3, X))
    refusal(hinted(p=Sized), Sized(3, WRONG))


# Words ----------------------------------------------------------------------------------------


def shown(dims):
    return f'Float[Array, "{dims}"]'


def fixed(name, by="float32[3]"):
    return f"{name} is fixed by argument 'x' ({by})"


def returning(hint):
    """A function that returns its first argument, beside a vector `x`."""
    return hinted(y=Any, x=Vector, **{"return": hint})


VECTOR, UNION = shown("n"), f"{shown('n')} | {shown('k n')} | None"
S = PyTree[Float[Array, "..."], "S"]
LIBRARIES = Float[Array, "n"] | Float[np.ndarray, "n"]
N, ABC, MANY = fixed("n = 3"), Float[Array, "a b c d e f g"], a(1, 2, 3, 4, 5, 6, 7)
FIVE = [fixed(f"{c} = {i}", "float32[1, 2, 3, 4, 5, 6, 7]") for i, c in enumerate("abcde", 1)]
MANY_MORE = ["float32[7, 6, 5, 4, 3, 2, 1]", *FIVE, "... and 2 more"]
SIZE = ["float32[2, 3]", fixed("n = 4", "float32[4]")]
AT_ONCE = ["float32[2, 3]", "n is 2 and 3 at once"]
BATCH, B = Float[Array, "*b n"], Float[Array, "*b"]
FIXED_B = fixed("b = (2,)", "float32[2, 3]")
EITHER, SHOWN_LIBRARIES = Vector | Float[Array, "k n"] | None, f'{VECTOR} | Float[ndarray, "n"]'
SHOWN_S, FIXED_S = f'PyTree[{shown("...")}, "S"]', "S = {'a': *, 'b': *} is fixed by argument 'x'"

# The function and its arguments; what does not fit; its annotation, what came, and what else.
MISFITS = {
    "size": (hinted(x=Vector, p=Params), (WRONG, Params(W)), "p.weight", shown("m n"), *SIZE),
    "rank": (hinted(x=Vector), (W,), "x", VECTOR, "float32[2, 3]"),
    "rank and name": (beside(Matrix), (X, X), "y", shown("m n"), "float32[3]", N),
    "fixed": (beside(Float[Array, "a=2"]), (X, X), "y", shown("a=2"), "float32[3]"),
    "dtype": (beside(jt.Int[Array, "k"]), (X, X), "y", 'Int[Array, "k"]', "float32[3]"),
    "string": (beside(Float[Array, "k"]), (X, "abc"), "y", shown("k"), "a str"),
    "object": (beside(Float[Array, "k"]), (X, LAYER), "y", shown("k"), "a Layer"),
    "array for an object": (beside(Layer), (X, X), "y", "Layer", "float32[3]"),
    "leaf": (beside(PyTree[Vector]), (X, [{"a": W}]), "y.0.a", VECTOR, "float32[2, 3]", N),
    "structure": (hinted(x=S, y=S), (TWO, ONE), "y", SHOWN_S, "tuple of 1", FIXED_S),
    "union": (beside(EITHER), (X, W.T), "y", UNION, "float32[3, 2]", N),
    "libraries": (hinted(x=LIBRARIES), (W,), "x", SHOWN_LIBRARIES, "float32[2, 3]"),
    "container": (beside(list[Vector]), (X, (X, X)), "y", f"list[{VECTOR}]", "tuple of 2"),
    "length": (beside(tuple[Vector, int]), (X, (X,)), "y", f"tuple[{VECTOR}, int]", "tuple of 1"),
    "name twice": (hinted(x=Float[Array, "n n"]), (W,), "x", shown("n n"), *AT_ONCE),
    "variadic": (hinted(x=BATCH, y=B), (W, X), "y", shown("*b"), "float32[3]", FIXED_B),
    "symbolic": (beside(Float[Array, "n+1"]), (X, X), "y", shown("n+1"), "float32[3]", N),
    "many": (hinted(x=ABC, y=ABC), (MANY, MANY.T), "y", shown("a b c d e f g"), *MANY_MORE),
    "output": (returning(Vector), (WRONG, X), "the output", VECTOR, "float32[4]", N),
    "part": (returning(list[Vector]), ([WRONG], X), "output '0'", VECTOR, "float32[4]", N),
}


@pytest.mark.parametrize("case", MISFITS.values(), ids=MISFITS)
def test_what_is_said_of_a_misfit(case):
    f, args, where, annotated, received, *more = case
    place = where if "output" in where else f"argument {where!r}"
    first = f"jacobian(f): {place} does not fit its annotation"
    error = refusal(f, *args)
    rows = [first, f"annotated  {annotated}", f"received   {received}", *more]
    assert str(error) == "\n  ".join(rows)
    assert isinstance(error.__cause__, BeartypeDoorHintViolation)


def test_what_is_said_of_a_misfit_beside_the_output():
    f = returning(tuple[Vector, dict[str, Vector]])
    adk.jacobian(f, has_aux=True)((X, {"z": X}), X)
    where = {
        "the auxiliary data": (X, X),
        "the output": (WRONG, {}),
        "auxiliary data 'z'": (X, {"z": WRONG}),
    }
    for place, pair in where.items():
        text = str(refusal(f, pair, X, has_aux=True))
        assert text.startswith(f"jacobian(f): {place} does not fit its annotation\n")
    assert text.endswith(f"\n  annotated  {VECTOR}\n  received   float32[4]\n  {N}")


TWICE = "ValueError: Cannot use variadic specifiers (`*name` or `...`) more than once."
SYNTAX = "SyntaxError: invalid syntax (<string>, line 1)"
FAULTS = {
    "unreadable": ("Float[Array, '*a *b']", ValueError, TWICE),
    "syntax": (Float[Array, "n+"], SyntaxError, SYNTAX),
    "a name": (Float[Array, "k+1"], jt.AnnotationError, "'k+1' reads 'k'"),
    "names": (Float[Array, "i//j"], jt.AnnotationError, "'i//j' reads 'i' and 'j'"),
}


@pytest.mark.parametrize(("hint", "cause", "why"), FAULTS.values(), ids=FAULTS)
def test_what_is_said_of_an_annotation_at_fault(hint, cause, why):
    annotated = hint if isinstance(hint, str) else shown(hint.dim_str)
    why += ", which no argument fixes" if "reads" in why else ""
    error = refusal(beside(hint), X, X)
    first = "jacobian(f): the annotation of argument 'y' is at fault"
    assert str(error) == "\n  ".join([first, f"annotated  {annotated}", f"because    {why}"])
    assert type(error.__cause__) is cause


def test_a_dimension_by_leaf_needs_a_structure():
    text = str(refusal(hinted(x=PyTree[Float[Array, "?n"]]), [X]))
    assert text.startswith("jacobian(f): the annotation of argument 'x' is at fault\n")
