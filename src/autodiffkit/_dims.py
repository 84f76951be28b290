"""Array annotations of jaxtyping: their dimensions, and the annotation of a derivative."""

import ast
import dataclasses
import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
from jaxtyping import AbstractArray, Array

from autodiffkit._leaves import is_inexact, promote

ArrayType = type[AbstractArray]


@dataclasses.dataclass(frozen=True)
class Dim:
    """One dimension as it is written: `n`, `*batch`, `#n`, `?n`, `n+1`, `3`, `_`, `...`.

    Args:
        text: The dimension, with its modifiers.
        name: What it binds, if it binds a name.
        reads: The names that an expression reads.
        is_expression: Whether it is an expression.
        is_variadic: Whether it stands for several axes.
        is_broadcast: Whether an axis of size 1 fits, too.
        is_by_path: Whether the name is another one for each leaf of a pytree.
    """

    text: str
    name: str | None = None
    reads: tuple[str, ...] = ()
    is_expression: bool = False
    is_variadic: bool = False
    is_broadcast: bool = False
    is_by_path: bool = False


@functools.lru_cache(maxsize=4096)
def dims_of(dim_str: str) -> tuple[Dim, ...]:
    """The dimensions of an annotation that jaxtyping has accepted."""
    return tuple(map(_dim, dim_str.split()))


def _dim(text: str) -> Dim:
    if text == "...":
        return Dim(text, is_variadic=True)
    modifiers, rest = set[str](), text
    while rest:
        if rest[0] in "#*_?":
            modifiers.add(rest[0])
            rest = rest[1:]
        elif rest.count("=") == 1:  # as in `rows=3`
            rest = rest.partition("=")[2]
        else:
            break
    is_expression = not (rest.isidentifier() or rest.isdecimal() or not rest)
    return Dim(
        text,
        name=rest if rest.isidentifier() and "_" not in modifiers else None,
        reads=_names_in(rest) if is_expression else (),
        is_expression=is_expression,
        is_variadic="*" in modifiers,
        is_broadcast="#" in modifiers,
        is_by_path="?" in modifiers,
    )


def _names_in(expression: str) -> tuple[str, ...]:
    """The names that an expression reads; what is in braces is none of a dimension."""
    try:
        tree = ast.parse(re.sub(r"\{[^}]*\}", "0", expression), mode="eval")
    except SyntaxError:
        return ()
    called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = (n for n in ast.walk(tree) if isinstance(n, ast.Name) and n not in called)
    return tuple(dict.fromkeys(node.id for node in names))


def sizes(dims: Sequence[Dim], shape: Sequence[int]) -> Iterable[tuple[str, int | tuple[int, ...]]]:
    """The names that an array of this shape fixes; nothing if the number of axes is wrong."""
    several = next((i for i, dim in enumerate(dims) if dim.is_variadic), None)
    if several is None:
        parts: list[Any] = list(shape)
    else:
        end = len(shape) - (len(dims) - several - 1)
        parts = [*shape[:several], tuple(shape[several:end]), *shape[end:]]
    if len(parts) != len(dims):
        return
    for dim, part in zip(dims, parts, strict=True):
        if dim.name is not None and not (dim.is_broadcast and part == 1):
            yield dim.name, part


def describe_array_type(hint: ArrayType) -> str:
    """`Float[Array, "m n"]`."""
    kind = getattr(hint.array_type, "__name__", str(hint.array_type)).rpartition(".")[2]
    return f'{hint.dtype.__name__}[{kind}, "{hint.dim_str}"]'


# Derivatives ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Annotation:
    """The annotation of one leaf.

    Args:
        hint: The array type.
        scope: Whose names its dimensions are: those of the function, or of an object by path.
    """

    hint: ArrayType
    scope: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:  # jaxtyping's own way names JAX's class in private
        kind = None if self.hint.array_type is Array else self.hint.array_type
        return _restored, (self.hint.dtype, kind, self.hint.dim_str, self.scope)


def _restored(dtype: Any, kind: Any, dim_str: str, scope: tuple[str, ...]) -> Annotation:
    return Annotation(dtype[Array if kind is None else kind, dim_str], scope)


def derivative_of(output: Annotation | None, *sources: Annotation | None) -> ArrayType | None:
    """The annotation of a block: the dimensions of the output, then those of the sources.

    Returns:
        An array type that can be used by itself, or `None` if there is none: with two
        variadic dimensions, dimensions by path, expressions of names that come later, or the
        same name in two meanings.
    """
    found = [annotation for annotation in (output, *sources) if annotation is not None]
    if len(found) <= len(sources):
        return None
    dims = [dims_of(annotation.hint.dim_str) for annotation in found]
    every = list(itertools.chain(*dims))
    if not _is_valid(every) or not _is_unambiguous(found, dims):
        return None
    kind = _kind([annotation.hint for annotation in found])
    if kind is None:
        return None
    return kind[Array, " ".join(dim.text for dim in every)]


def _is_valid(dims: Sequence[Dim]) -> bool:
    """Whether an annotation of these dimensions can be checked by itself."""
    bound: set[str] = set()
    for dim in dims:
        if dim.is_by_path or "{" in dim.text or not bound.issuperset(dim.reads):
            return False
        if dim.name is not None and not dim.is_variadic and not dim.is_broadcast:
            bound.add(dim.name)
    return sum(dim.is_variadic for dim in dims) <= 1


def _is_unambiguous(annotations: Sequence[Annotation], dims: Sequence[Sequence[Dim]]) -> bool:
    """Whether no name belongs to two scopes."""
    owners: dict[str, tuple[str, ...]] = {}
    return all(
        owners.setdefault(name, annotation.scope) == annotation.scope
        for annotation, own in zip(annotations, dims, strict=True)
        for dim in own
        for name in (dim.name, *dim.reads)
        if name is not None
    )


# From the narrowest to the widest.
_KINDS: tuple[Any, ...] = (
    *(jaxtyping.Float16, jaxtyping.BFloat16, jaxtyping.Float32, jaxtyping.Float64),
    *(jaxtyping.Complex64, jaxtyping.Complex128, jaxtyping.Float, jaxtyping.Complex),
    jaxtyping.Inexact,
)
_DTYPES = tuple(
    jnp.dtype(x) for x in ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
)


def _kind(hints: Sequence[ArrayType]) -> Any:
    """The narrowest dtype of jaxtyping for blocks of these; `None` where there are none."""
    accepted = [[dtype for dtype in _DTYPES if accepts(hint.dtype, dtype)] for hint in hints]
    # What may be a Python number has a dtype that does not widen.
    wide = [dtypes for dtypes, hint in zip(accepted, hints, strict=True) if _has_axes(hint)]
    results = {
        str(promote(dtypes))
        for choices in (accepted, wide or accepted)
        for dtypes in itertools.product(*choices)
    }
    if not results:
        return None
    return next(kind for kind in _KINDS if results.issubset(kind.dtypes))


def _has_axes(hint: ArrayType) -> bool:
    return any(not dim.is_variadic for dim in dims_of(hint.dim_str))


@functools.lru_cache(maxsize=4096)
def accepts(kind: Any, dtype: Any) -> bool:
    """Whether a dtype of jaxtyping stands for this one."""
    anything: Any = kind[Any, "..."]
    return isinstance(jax.ShapeDtypeStruct((), dtype), anything)


def may_have(hint: ArrayType, shape: Sequence[int], dtype: Any) -> bool:
    """Whether an array of this dtype and number of axes may fit."""
    dims = dims_of(hint.dim_str)
    fewest = sum(not dim.is_variadic for dim in dims)
    fits = len(shape) >= fewest if len(dims) > fewest else len(shape) == fewest
    return fits and accepts(hint.dtype, dtype)


def is_differentiable(hint: ArrayType) -> bool:
    """Whether arrays of this type have derivatives."""
    return any(is_inexact(dtype) and accepts(hint.dtype, dtype) for dtype in _DTYPES)
