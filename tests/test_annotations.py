"""Annotations of derivatives: what follows from those of the function, and where they show."""

import dataclasses
import functools
import inspect
import itertools
import os
import pickle
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict, get_args, get_origin

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from beartype import beartype
from beartype.door import is_bearable
from jaxtyping import Array, Float, Float16, Float32, Int, Num, PyTree, jaxtyped

import autodiffkit as adk
from autodiffkit._dims import dims_of

_RUN = int(os.environ["AUTODIFFKIT_TEST_SEED"])
X, W, M, N = jnp.array([1.0, 2.0, 3.0]), jnp.ones((3, 2)), jnp.ones(4), jnp.arange(3)
jac, hes, checked = adk.jacobian, adk.hessian, jaxtyped(typechecker=beartype)


def F(dims: str) -> Any:
    return Float[Array, dims]


def fn(value: Any, result: Any, /, **hints: Any) -> Any:
    """A function with these annotations that returns `value` times something of all arguments."""

    def function(*args: Any) -> Any:
        total = sum(jnp.sum(x).astype("float32") for x in jax.tree.leaves(args)) ** 3
        return jax.tree.map(lambda x: x * total.astype(jnp.asarray(x).dtype), value)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind, annotation=hint) for name, hint in hints.items()]
    function.__signature__ = inspect.Signature(parameters, return_annotation=result)
    return function


def several(x: F("n"), w: F("n k")) -> F("m"):
    return jnp.sum(x @ w) ** 2 * M


def energy(x: F("n"), w: F("n k")) -> F(""):
    return jnp.sum(x @ w) ** 2


def module(base: Any = eqx.Module, /, **fields: Any) -> Any:
    return type(base)("Some", (base,), {"__module__": __name__, "__annotations__": fields})


def plain(hint: Any) -> Any:
    """A hint as something that compares: jaxtyping makes a new class for each annotation."""
    if get_origin(hint) is not None:
        return get_origin(hint), *map(plain, get_args(hint))
    if hasattr(hint, "dim_str"):
        return hint.dtype, hint.array_type, hint.dim_str
    return (PyTree, plain(hint.leaftype)) if hasattr(hint, "leaftype") else hint


def table(transform: Any) -> dict[str, Any]:
    """The annotations by path, those of pairs as `x, y`."""
    keys = ((key if isinstance(key, str) else ", ".join(key), key) for key in transform.annotations)
    return {text: plain(transform.annotations[key]) for text, key in keys}


def shown(result: Any) -> list[Any]:
    """What stands in the column of annotations, evaluated; at most 24 rows."""
    texts = [re.search(r'\w+\[Array, ".*"\]$', row) for row in repr(result).splitlines()[2:26]]
    return [text and eval(text[0], {**vars(jaxtyping), "Array": Array}) for text in texts]


def assert_true(transform: Any, *args: Any) -> Any:
    """What `annotations` and the repr say holds for the blocks; returns the result's structure."""

    def run() -> Any:
        result = transform(*args)
        for hint, x in zip(shown(result), jax.tree.leaves(result.tree), strict=False):
            assert hint is None or isinstance(x, hint), result
        order = 2 if isinstance(result, adk.Hessian) else 1
        for key, hint in transform.annotations.items():
            path = (key,) if isinstance(key, str) else key
            part = result.of(path[0]) if len(path) > order else result
            assert is_bearable(part.wrt(*path[-order:]), hint), f"{key}: {hint} of {result}"
        return result

    return jax.eval_shape(run)


# What follows -----------------------------------------------------------------------

FIELDS = {"energy": F(""), "forces": F("k 3")}
Named = NamedTuple("Named", FIELDS.items())
Fields = jax.tree_util.register_dataclass(dataclasses.make_dataclass("Fields", FIELDS.items()))
Layer, Small = module(weight=F("out in"), bias=F("out")), module(w=F("n"))
Network, Smaller = module(first=Layer, second=Layer, scale=F("out")), module(Small)
Grown, Typed = module(a=F("n"), b=F("n+1")), TypedDict("Typed", FIELDS)
Outside = module(n=F("n"), inner=Grown)
Left, Right = TypedDict("Left", {"w": F("n")}), TypedDict("Right", {"v": F("n")})
LAYERS = Layer(W, X), Layer(jnp.ones((4, 5)), M)


class Model(eqx.Module):
    weight: F("m n")

    def __call__(self, x: F("n")) -> F("m"):
        return self.weight @ x

    @adk.jacobian
    def shifted(self, x: F("n")) -> F("m"):
        return self.weight @ (x + 1.0)


def fields(kind: Any) -> Any:
    return fn(kind(energy=1.0, forces=jnp.ones((2, 3))), kind, x=F("n"))


MODEL, pair = Model(W.T), fn((1.0, X), tuple[F(""), F("k")], x=F("n"))
chosen = fn(0.0, module(inner=Named, rest=F("m")), p=Fields, x=F("n"))
_PAIRS = {"x, x": "n n", "x, w": "n n k", "w, x": "n k n", "w, w": "n k n k"}
_SEVERAL = {"x": "m n", "w": "m n k"}, X, W
_FIELDS = {"energy, x": "n", "forces, x": "k 3 n"}, X
_FOLLOWS = {
    "jacobian": (jac(several), *_SEVERAL),
    "grad of a scalar": (adk.grad(energy), {"x": "n", "w": "n k"}, X, W),
    "hessian": (hes(several), {key: f"m {dims}" for key, dims in _PAIRS.items()}, X, W),
    "numpy": (jac(fn(X, Float[Any, "n"], x=Float[np.ndarray, "n"])), {"x": "n n"}, X),
    "strings": (jac(fn(X, "F('n')", x="Float[Array, 'n']")), {"x": "n n"}, X),
    "an optional one": (jac(fn(X, F("n"), x=F("n") | None)), {"x": "n n"}, X),
    "a scalar in the middle": (hes(fn(W, F("m k"), s=F(""), x=F("n"))),
        {"s, s": "m k", "s, x": "m k n", "x, s": "m k n", "x, x": "m k n n"}, 2.0, X),
    "spaces": (jac(fn(W, F(" m\n  k"), x=F("\n n\n k "))), {"x": "m k n k"}, W),
    "a tuple": (jac(fn(X, F("n"), p=tuple[F("n"), F("k")])), {"p.0": "n n", "p.1": "n k"}, (X, M)),
    "a tuple as output": (jac(pair), {"0, x": "n", "1, x": "k n"}, X),
    "has_aux": (jac(pair, has_aux=True), {"x": "n"}, X),
    "a named tuple": (jac(fields(Named)), *_FIELDS),
    "a dataclass": (jac(fields(Fields)), *_FIELDS),
    "a module": (jac(fields(module(**FIELDS))), *_FIELDS),
    "a typed dict": (jac(fields(Typed)), *_FIELDS),
    "grad of one": (adk.grad(fields(Typed), of="energy"), {"x": "n"}, X),
    "hessian of two": (hes(fields(Named)), {"energy, x, x": "n n", "forces, x, x": "k 3 n n"}, X),
    "wrt a glob": (jac(chosen, of="rest", wrt="p.f*"), {"rest, p.forces": "m k 3"}),
    "of a path and a glob": (jac(chosen, of=["inner.forces", "re?t"], wrt="p.energy"),
        {"inner.forces, p.energy": "k 3", "rest, p.energy": "m"}),
    "an object": (jac(fn(X, F("out"), p=Layer, x=F("in"))),
        {"p.weight": "out out in", "p.bias": "out out", "x": "out in"}, LAYERS[0], X[:2]),
    "two objects": (hes(fn(1.0, F(""), p=Small, q=Small)), {"p.w, p.w": "n n", "q.w, q.w": "n n"}),
    "typed dicts": (jac(fn({"v": X}, Right, p=Left)), {"v, p.w": "n n"}, {"w": X}),
    "objects in an object": (jac(fn(M, F("out"), p=Network)), {"p.scale": "out out"}),
    "a method": (MODEL.shifted, {"x": "m n"}, X),
    "an unbound method": (Model.shifted, {"x": "m n"}),
    "a bound method": (jac(MODEL.__call__), {"x": "m n"}, X),
    "a callable module": (jac(MODEL), {"x": "m n"}, X),
    "self": (jac(MODEL, wrt="self"), {"self.weight": "m m n"}, X),
    "jit": (jac(jax.jit(several)), *_SEVERAL),
    "filter_jit": (jac(eqx.filter_jit(several)), *_SEVERAL),
    "a function that checks itself": (jac(checked(several)), *_SEVERAL),
    "a partial": (jac(functools.partial(several, X)), {"w": "m n k"}, W),
    "nothing: no annotations": (jac(lambda x: x), {}, X),
    "nothing: a number": (jac(fn(1.0, F(""), x=float)), {}, 2.0),
    "nothing: two variadic axes": (jac(fn(X, F("... k"), x=F("*n"))), {}, X),
    "nothing: sizes by path": (jac(fn(1.0, F(""), x=PyTree[F("?n"), "T"])), {}, [X, M]),
    "nothing: names that come later": (jac(fn(X[1:], F("n-1"), x=F("n"))), {}, X),
    "nothing: values of arguments": (jac(fn(1.0, F(""), x=F("{k}"), k=int)), {}, X, 3),
    "nothing: integers": (jac(fn(X, F("n"), x=Any, i=Int[Array, "n"])), {}, X, N),
    "nothing: jax.vmap": (jac(jax.vmap(several)), {}, X[None], W[None]),
    "nothing: jax.jacrev": (jac(jax.jacrev(energy)), {}, X, W),
    "nothing: a transform": (jac(adk.grad(energy)), {}, X, W),
}  # fmt: skip


@pytest.mark.parametrize("name", _FOLLOWS)
def test_a_block_has_the_dimensions_of_the_output_and_then_of_the_arguments(name):
    transform, dims, *args = _FOLLOWS[name]
    assert table(transform) == {key: plain(F(text)) for key, text in dims.items()}
    if args:
        result = assert_true(transform, *args)
        assert ("annotation" in repr(result)) == bool(dims)
        assert not dims or None not in shown(result)


_CONTAINERS = {
    "dict": (lambda x: dict[str, x], {"a": X, "b": X}),
    "mapping": (lambda x: Mapping[int, x], {1: X, 2: X}),
    "tuple": (lambda x: tuple[x, ...], (X, X)),
    "nested": (lambda x: list[dict[str, PyTree[x]]], [{"a": X}, {"b": (X, X)}]),
    "pytree": (lambda x: PyTree[x], {"a": [X, X]}),
}


@pytest.mark.parametrize("name", _CONTAINERS)
def test_containers_are_kept(name):
    kind, value = _CONTAINERS[name]
    f, g = fn(W, F("n k"), p=kind(F("n"))), fn(value, kind(F("m")), x=F("n"))
    assert table(jac(f)) == {"p": plain(kind(F("n k n")))}
    assert table(hes(f)) == {"p, p": plain(kind(kind(F("n k n n"))))}
    assert table(jac(g)) == {"x": plain(kind(F("m n")))}
    assert None not in shown(assert_true(hes(f), value))
    assert None not in shown(assert_true(jac(g), X))


def test_variadic_arguments_are_containers():
    for hint in (F("n"), F("n") | None, list[F("n")], tuple[F("n"), ...], dict[int, F("n")]):

        def f(*args: hint, **kwargs: hint) -> F("m"): ...

        inner = jac(fn(M, F("m"), x=hint)).annotations["x"]
        expected = {"args": plain(tuple[inner, ...]), "kwargs": plain(dict[str, inner])}
        assert table(jac(f)) == expected


# What does not follow ---------------------------------------------------------------

H, _HALF = X.astype("float16"), Float16[Array, "n"]
_OTHERS = {
    "an object of the class": (fn(1.0, F(""), p=Layer, q=Layer), *LAYERS),
    "objects in an object": (fn(M, F("out"), p=Network), Network(*LAYERS, M)),
    "an optional object": (fn(1.0, F(""), p=Small, q=Small | None), Small(X), Small(M)),
    "one without annotation": (fn(1.0, F(""), p=Small, x=F("n"), q=Any), Small(X), X, Small(M)),
    "a subclass": (fn(1.0, F(""), p=Small, q=Smaller), Smaller(X), Smaller(M)),
    "an output of the class": (fn(Small(M), Small, p=Small), Small(X)),
    "a typed dict of the class": (fn(1.0, F(""), p=Left, q=Left), {"w": X}, {"w": M}),
    "an output that is a typed dict": (fn({"w": M}, Left, p=Left), {"w": X}),
    "an expression": (fn(M, F("n"), p=Outside), Outside(M, Grown(X[:2], X))),
    "an alternative": (fn(X, F("n"), x=F("2 n") | F("k n")), jnp.ones((4, 3))),
    "a number instead": (fn(X, F("n"), x=F("n") | float), 2.0),
    "a weak number": (fn(H, _HALF, s=Float32[Array, ""], y=_HALF), 2.0, H),
    "integers in a dict": (fn(1.0, F(""), p=dict[str, Num[Array, "n"]]), {"a": N, "b": X}),
    "outputs left out": (fn({"a": X, "b": X}, dict[str, F("n")], x=F("n")), X),
}  # fmt: skip


@pytest.mark.parametrize("transform", [jac, hes])
@pytest.mark.parametrize("name", _OTHERS)
def test_no_annotation_is_wrong_beside(name, transform):
    f, *args = _OTHERS[name]
    assert_true(transform(f, of="b" if name == "outputs left out" else None), *args)


def test_annotations_are_used_in_signatures():
    hints, J = jac(several).annotations, jac(several)(X, W)

    @checked
    def product(a: hints["x"], b: hints["w"], x: F("n")) -> F("m"):
        return a @ x + jnp.sum(b, (1, 2))

    assert product(J.x, J.w, X).shape == (4,)
    with pytest.raises(jaxtyping.TypeCheckError):
        product(J.x[:, :2], J.w, X)


def test_annotations_are_a_mapping_that_prints_as_a_table():
    first, second = jac(several).annotations, hes(several).annotations
    assert (len(first), list(first), isinstance(first, Mapping)) == (2, ["x", "w"], True)
    assert second["x.w"] is second["x", "w"]
    assert [key in first for key in ("x", "y", "x.w", ("x",), 0)] == [True] + [False] * 4
    with pytest.raises(KeyError, match="y"):
        first["y"]
    assert repr(jac(lambda x: x).annotations) == "annotations of blocks: none"
    assert '\n  x, w  Float[Array, "m n n k"]\n' in repr(second)
    one = jac(fn([M], list[F("m")], p=PyTree[F("k")], y=Float32[Array, ""])).annotations
    text = '  p  list[PyTree[Float[Array, "m k"]]]\n  y  list[Float[Array, "m"]]'
    assert repr(one) == f"annotations of blocks\n{text}"


# Dtypes -----------------------------------------------------------------------------

_RULES = """Float Float Float, Float32 Float32 Float32, Float32 Float64 Float64, Real Float32 Float,
Float Complex Complex, Complex64 Float32 Complex64, Float16 BFloat16 Float32, Num Float Inexact"""


def kind_of(output: Any, source: Any) -> Any:
    hints = jac(fn(X, output[Array, "m"], x=source[Array, "n"])).annotations
    return hints["x"].dtype if hints else None


@pytest.mark.parametrize("rule", _RULES.split(","), ids=str.split)
def test_dtypes_promote(rule):
    first, second, expected = (getattr(jaxtyping, name) for name in rule.split())
    assert kind_of(first, second) is kind_of(second, first) is expected


def test_a_dtype_is_the_narrowest_that_holds_all_blocks():
    dtypes = list(map(jnp.dtype, ["float16", "bfloat16", "f4", "f8", "complex64", "complex128"]))
    kinds = [kind for kind in vars(jaxtyping).values() if hasattr(kind, "dtypes")]
    held = {k: {d for d in dtypes if isinstance(np.empty(0, d), k[Any, "_"])} for k in kinds}
    for a, b in itertools.product(kinds, repeat=2):
        with jax.numpy_dtype_promotion("standard"):
            found = {jnp.promote_types(x, y) for x in held[a] for y in held[b]}
        narrowest = min((held[k] for k in kinds if found <= held[k]), key=len)
        assert held.get(kind_of(a, b), set()) == narrowest, (a, b)


# Text -------------------------------------------------------------------------------

_TEXT = """Jacobian of several, 4 by 9
  of      with respect to  block             annotation
  output  x                float32[4, 3]     Float[Array, "m n"]
  output  w                float32[4, 3, 2]  Float[Array, "m n k"]
Gradient of function, 1 by 5
  of      with respect to  block       annotation
  output  x                float32[3]  Float[Array, "n"]
  output  y                float32[2]
Hessian of function, 3 by 3
  of      by  then by  block          annotation
  output  x   x        float32[3, 3]  Float[Array, "n n"]"""


def test_reprs_show_annotations_also_under_jit():
    def results(x, w):
        f = fn(1.0, F(""), x=F("n"), y=Any)
        H = hes(f, wrt="x")(x, w[0])
        found = [jac(several)(x, w), adk.grad(f)(x, w[0]), H]
        assert "\n".join(map(repr, found)) == _TEXT
        assert repr(H.x) == repr(H).replace(", 3 by 3", ", its blocks by x")
        return found

    # Where there are values, those of small blocks are shown.
    found = "\n".join(map(repr, jax.jit(results)(X, W)))
    assert re.sub(r"  +(values|\[192.*)$", "", found, flags=re.MULTILINE) == _TEXT
    J = jac(checked(several))(X, W)
    assert repr(J) == repr(pickle.loads(pickle.dumps(J))) == _TEXT.partition("\nGrad")[0]


def test_what_is_not_checked_or_no_block_any_more_shows_none(monkeypatch):
    J = jac(several)(X, W)
    for change in (jnp.isnan, lambda x: x[None]):
        assert shown(jax.tree.map(change, J)) == [None, None]
    assert shown(jac(several, typecheck=False)(X, W)) == [None, None]
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    assert shown(jac(several)(X, W)) == [None, None]


def test_entries_that_are_not_finite_are_counted_where_there_are_values():
    def f(x: F("n")) -> F(""):
        return jnp.sum(jnp.log(x))

    inside: list[str] = []
    G = jax.jit(lambda x: [G := adk.grad(f)(x), inside.append(repr(G))][0])(0 * X)
    assert inside[0].endswith('  float32[3]  Float[Array, "n"]')
    shown = '  float32[3] (3 of 3 not finite)  Float[Array, "n"]  [inf, inf, inf]'
    assert repr(G).endswith(shown)
    assert " float32[3, 3] (1 of 9 not finite)  " in repr(hes(f)(X.at[1].set(0.0)).x)
    assert repr(hes(lambda p: jnp.log(sum(p)))([0.0] * 20)).count(" (1 of 1 not finite)") == 24
    G.x.delete()
    assert "float32[3]" in repr(G)


# Dimensions -------------------------------------------------------------------------

_DIMS = "n *n #n ?n *#n #*n ?#n *?n _ _n *_ *_n ... 3 #3 k=3 k=n k=* n+1 #n+1 {k}+n {k} max(n,m)"
_AXES = {"a": [2], "b": [3], "#a": [2, 1], "#b": [3, 1], "_": [4], "_k": [1], "4": [4], "c=2": [2]}
_MANY = [("*s", (2, 3)), ("...", ()), ("...", (5,)), ("*#t", (2, 3)), ("*#t", (1,)), ("*#t", ())]


@pytest.mark.parametrize("dim", _DIMS.split())
def test_dimensions_are_read_as_jaxtyping_reads_them(dim):
    ours, hint = dims_of(f"k  {dim}\n")[1], F(f"k {dim}")
    theirs = hint.dims[1]
    found = ours.text, ours.name, ours.is_broadcast, ours.is_by_path
    read = [getattr(theirs, x, None) or None for x in ("name", "broadcastable", "treepath")]
    assert found == (dim, read[0], bool(read[1]), bool(read[2]))
    kind = type(theirs).__name__
    assert (ours.is_variadic, ours.is_expression) == (hint.index_variadic == 1, "Symbolic" in kind)
    assert list(ours.reads) == (re.findall(r"\b[nm]\b", dim) if ours.is_expression else [])


def random_array(rng: Any, known: set[str]) -> tuple[list[str], Any, Any]:
    one = [(dim, (n,)) for dim, sizes in _AXES.items() for n in sizes]
    one += [(f"{dim}+1", (_AXES[dim][0] + 1,)) for dim in sorted(known)]
    picked = [one[rng.integers(len(one))] for _ in range(rng.integers(4))]
    if picked and rng.random() < 0.3:
        picked[rng.integers(len(picked))] = _MANY[rng.integers(len(_MANY))]
    dims, shape = [dim for dim, _ in picked], sum((shape for _, shape in picked), ())
    known |= {"a", "b"} & set(dims)
    kind, dtype = rng.choice([["Float32", "f4"], ["Float16", "f2"], ["Num", "f2"], ["Float", "f4"]])
    return dims, getattr(jaxtyping, kind)[Array, " ".join(dims)], jnp.ones(shape, str(dtype))


@pytest.mark.parametrize("transform", [jac, hes])
@pytest.mark.parametrize("seed", [*range(15), *range(_RUN, _RUN + 15)])
def test_random_functions_have_the_annotations_that_they_should(seed, transform):
    def is_valid(dims: list[str]) -> bool:
        late = (dim[1:] == "+1" and dim[0] not in dims[:i] for i, dim in enumerate(dims))
        return not any(late) and sum(dim in dict(_MANY) for dim in dims) <= 1

    rng, known = np.random.default_rng(seed), set()
    made = {name: random_array(rng, known) for name in "xyz"[: rng.integers(1, 4)]}
    out, result, value = random_array(rng, known)
    f = transform(fn(value, result, **{name: hint for name, (_, hint, _) in made.items()}))
    dims, args = [made[name][0] for name in made], [made[name][2] for name in made]
    keys = itertools.product(dims, repeat=2 if transform is hes else 1)
    valid = [is_valid(sum(key, start=out)) for key in keys]
    assert len(f.annotations) == sum(valid)
    assert [hint is not None for hint in shown(assert_true(f, *args))] == valid
