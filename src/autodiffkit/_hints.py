"""What annotations say about arrays: hints taken apart, and those of the fields of classes.

A hint becomes a tree of nodes where something of jaxtyping is in it, and `None` where not:
such a hint is left alone.
"""

import collections.abc
import dataclasses
import inspect
import re
import sys
import types
import typing
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, Union

import jax
import jaxtyping
import numpy as np
from jaxtyping import AbstractArray, PyTree

from autodiffkit._dims import ArrayType, Dim, describe_array_type, dims_of

# Nodes --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ArrayHint:
    """An array type; `check` is the same for arrays of any library."""

    hint: ArrayType
    check: Any

    @property
    def dims(self) -> tuple[Dim, ...]:
        """The dimensions."""
        return dims_of(self.hint.dim_str)


@dataclasses.dataclass(frozen=True)
class UnionHint:
    """Alternatives: each with its node, or `None` for one without arrays."""

    hint: Any
    alternatives: tuple[tuple[Any, "Node | None"], ...]


@dataclasses.dataclass(frozen=True)
class TreeHint:
    """A pytree of leaves, whose structure may have a name."""

    hint: Any
    leaf: "Node | None"
    structure: str | None


@dataclasses.dataclass(frozen=True)
class ItemsHint:
    """A sequence of any length, all of one hint."""

    hint: Any
    kind: type
    item: "Node | None"


@dataclasses.dataclass(frozen=True)
class TupleHint:
    """A tuple with a hint for each entry, and perhaps one for all that follow."""

    hint: Any
    items: tuple["Node | None", ...]
    tail: "Node | None" = None
    has_tail: bool = False


@dataclasses.dataclass(frozen=True)
class MappingHint:
    """A mapping whose values have one hint."""

    hint: Any
    kind: type
    value: "Node | None"


@dataclasses.dataclass(frozen=True)
class FieldsHint:
    """A dataclass, a module, a named tuple or a typed dict with annotated fields."""

    hint: Any


@dataclasses.dataclass(frozen=True)
class FlawedHint:
    """An annotation that cannot be read."""

    hint: str
    error: Exception


Node = (
    ArrayHint | UnionHint | TreeHint | ItemsHint | TupleHint | MappingHint | FieldsHint | FlawedHint
)

_QUALIFIERS = (typing.Annotated, typing.Required, typing.NotRequired, typing.Final, typing.Unpack)


def parse(hint: Any) -> Node | None:
    """The node of a hint, `None` if there is nothing of jaxtyping in it."""
    return _pruned(_parse(hint))


def _parse(hint: Any) -> Node | None:  # noqa: PLR0911  # a return for each kind
    """The same for all that may have something in it: classes are looked into later."""
    if isinstance(hint, FlawedHint):
        return hint
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if is_unpacked(hint):
        return None
    if origin in {Union, types.UnionType}:
        return UnionHint(hint, tuple((x, _parse(x)) for x in arguments))
    if origin in _QUALIFIERS:
        return _parse(arguments[0])
    if origin is not None:
        return _parse_generic(hint, origin, arguments)
    if isinstance(hint, type):
        return _parse_class(hint)
    names = ("__supertype__", "__value__", "__bound__")  # NewType, an alias, a TypeVar
    inner = next((getattr(hint, name) for name in names if hasattr(hint, name)), None)
    return None if inner is None else _parse(inner)


def is_unpacked(hint: Any) -> bool:
    """Whether a hint stands for several, as `*tuple[int, ...]` does."""
    if typing.get_origin(hint) is typing.Unpack:
        return not any(map(typing.is_typeddict, typing.get_args(hint)))
    return getattr(hint, "__unpacked__", False)


def _parse_generic(hint: Any, origin: Any, arguments: tuple[Any, ...]) -> Node | None:
    if origin is tuple and arguments and arguments[1:] != (...,):
        return _parse_tuple(hint, arguments)
    if not isinstance(origin, type):
        return None
    if issubclass(origin, collections.abc.Mapping) and len(arguments) == 2:
        return MappingHint(hint, origin, _parse(arguments[1]))
    if issubclass(origin, collections.abc.Collection) and (len(arguments) == 1 or origin is tuple):
        return ItemsHint(hint, origin, _parse(arguments[0]))
    return _parse_class(origin)


def _parse_tuple(hint: Any, arguments: tuple[Any, ...]) -> Node | None:
    *first, last = arguments
    if any(map(is_unpacked, first)):  # `tuple[*tuple[int, ...], str]`
        return None
    if not is_unpacked(last):
        return TupleHint(hint, tuple(map(_parse, arguments)))
    inner = typing.get_args(typing.get_args(last)[0]) or typing.get_args(last)
    if inner[1:] != (...,):
        return None
    return TupleHint(hint, tuple(map(_parse, first)), _parse(inner[0]), True)


def _parse_class(hint: type) -> Node | None:
    if issubclass(hint, AbstractArray):
        # A transform turns NumPy's arrays into JAX's: an annotation cannot insist on one.
        is_known = hint.array_type in {jax.Array, np.ndarray}
        return ArrayHint(hint, hint.dtype[Any, hint.dim_str] if is_known else hint)
    if issubclass(hint, PyTree):
        leaf = getattr(hint, "leaftype", Any)
        return TreeHint(hint, _parse(leaf), getattr(hint, "structure", None))
    return FieldsHint(hint) if _has_fields(hint) else None


def _pruned(node: Node | None) -> Node | None:  # noqa: PLR0911  # as above
    """The node without what has nothing of jaxtyping in it."""
    if node is None or not _has_arrays(node, set()):
        return None
    match node:
        case UnionHint(hint=hint, alternatives=alternatives):
            return UnionHint(hint, tuple((x, _pruned(part)) for x, part in alternatives))
        case TupleHint(hint=hint, items=items, tail=tail, has_tail=has_tail):
            return TupleHint(hint, tuple(map(_pruned, items)), _pruned(tail), has_tail)
        case TreeHint(hint=hint, leaf=leaf, structure=structure):
            return TreeHint(hint, _pruned(leaf), structure)
        case ItemsHint(hint=hint, kind=kind, item=item):
            return ItemsHint(hint, kind, _pruned(item))
        case MappingHint(hint=hint, kind=kind, value=value):
            return MappingHint(hint, kind, _pruned(value))
        case _:
            return node


def _has_arrays(node: Node | None, seen: set[Any]) -> bool:
    """Whether something of jaxtyping is in a node; a class may have fields of its own kind."""
    match node:
        case None:
            return False
        case ArrayHint() | FlawedHint():
            return True
        case TreeHint(structure=str()):
            return True
        case FieldsHint(hint=kind):
            parts = [] if kind in seen else list(_raw_fields(kind).values())
            seen.add(kind)
        case _:
            parts = parts_of(node)
    return any(_has_arrays(part, seen) for part in parts)


def parts_of(node: Node) -> list[Node | None]:
    """The nodes of alternatives and of what is in a container; of a class, none."""
    match node:
        case UnionHint(alternatives=alternatives):
            return [part for _, part in alternatives]
        case TupleHint(items=items, tail=tail):
            return [*items, tail]
        case TreeHint(leaf=part) | ItemsHint(item=part) | MappingHint(value=part):
            return [part]
        case _:
            return []


def describe(hint: Any) -> str:  # noqa: PLR0911  # as above
    """A hint as it is written."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is type(None):
        return "None"
    if origin in {Union, types.UnionType}:
        return " | ".join(dict.fromkeys(map(describe, arguments)))
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin is not None and arguments:
        name = getattr(origin, "__name__", str(origin))
        return f"{name}[{', '.join('...' if x is ... else describe(x) for x in arguments)}]"
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return describe_array_type(hint)
    if isinstance(hint, type) and issubclass(hint, PyTree) and hasattr(hint, "leaftype"):
        structure = getattr(hint, "structure", None)
        name = "" if structure is None else f', "{structure}"'
        return f"PyTree[{describe(getattr(hint, 'leaftype', Any))}{name}]"
    return getattr(hint, "__name__", None) or str(hint)


# Classes ------------------------------------------------------------------------

Fields = Mapping[str, Node | None]

_RAW_FIELDS: weakref.WeakKeyDictionary[type, Fields] = weakref.WeakKeyDictionary()
_FIELDS: weakref.WeakKeyDictionary[type, Fields] = weakref.WeakKeyDictionary()


def has_annotated_fields(kind: type) -> bool:
    """Whether a class has fields, and one with something of jaxtyping in it."""
    return any(fields_of(kind).values())


def fields_of(kind: type) -> Fields:
    """The fields of a class with their nodes; of a class without fields, none."""
    if kind not in _FIELDS:
        _FIELDS[kind] = {name: _pruned(node) for name, node in _raw_fields(kind).items()}
    return _FIELDS[kind]


def _raw_fields(kind: type) -> Fields:
    if kind not in _RAW_FIELDS:
        _RAW_FIELDS[kind] = {name: _parse(hint) for name, hint in _field_hints(kind)}
    return _RAW_FIELDS[kind]


def _has_fields(kind: type) -> bool:
    if getattr(kind, "_is_protocol", False):
        return False
    is_named_tuple = issubclass(kind, tuple) and hasattr(kind, "_fields")
    return dataclasses.is_dataclass(kind) or typing.is_typeddict(kind) or is_named_tuple


def _field_hints(kind: type) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    elif typing.is_typeddict(kind):
        names = list(kind.__annotations__)
    else:
        names = list(getattr(kind, "_fields", ())) if issubclass(kind, tuple) else []
    for name in names:
        for base in kind.__mro__:
            annotations = inspect.get_annotations(base)
            if name in annotations:
                module = sys.modules.get(base.__module__)
                yield name, resolved(annotations[name], vars(module) if module else {}, vars(base))
                break


# Strings ------------------------------------------------------------------------


class _Unknown:
    """Stands for a hint with a name that is not there, as of imports for type checkers only."""


UNKNOWN = _Unknown()
_OF_JAXTYPING = "|".join(
    name
    for name, value in vars(jaxtyping).items()
    if isinstance(value, type) and issubclass(value, jaxtyping.AbstractDtype)
)
_MENTIONS_ARRAYS = re.compile(rf"\b({_OF_JAXTYPING}|PyTree)\s*\[")


def resolved(annotation: Any, namespace: Mapping[str, Any], local: Mapping[str, Any]) -> Any:
    """An annotation with its strings evaluated."""
    holder = type("Holder", (), {"__annotations__": {"hint": annotation}})
    try:
        return typing.get_type_hints(holder, dict(namespace), dict(local), include_extras=True)[
            "hint"
        ]
    except NameError:
        return UNKNOWN
    except Exception as error:  # whatever a string holds
        text = str(annotation)
        error = error.with_traceback(None)
        return FlawedHint(text, error) if _MENTIONS_ARRAYS.search(text) else UNKNOWN
