"""What the annotations of a function say about arrays, and which wrappers are looked through."""

import dataclasses
import functools
import inspect
import types
import typing
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax

from autodiffkit._function import Function
from autodiffkit._hints import (
    FieldsHint,
    ItemsHint,
    MappingHint,
    Node,
    UnionHint,
    has_annotated_fields,
    is_unpacked,
    parse,
    parts_of,
    resolved,
)


@dataclasses.dataclass(frozen=True)
class FunctionHints:
    """The nodes of a function's parameters and of what it returns.

    `is_checked` says whether the function checks itself: it is decorated with `jaxtyped`,
    or its module was imported under jaxtyping's import hook.
    """

    parameters: Mapping[str, Node | None] = dataclasses.field(default_factory=dict)
    result: Node | None = None
    is_checked: bool = False
    is_partial: bool = False  # whether arguments are hidden in what is called

    def is_alone(self, name: str) -> bool:
        """Whether no other parameter takes objects.

        The names in the annotations of such an object are those of the function. Where there
        are several objects, each has sizes of its own, as has one of Equinox, which is a
        library.
        """
        others = (node for other, node in self.parameters.items() if other != name)
        return not any(map(_classes, others)) and not any(
            map(_is_of_equinox, _classes(self.parameters.get(name)))
        )

    def is_new(self, result: Node | None) -> bool:
        """The same for what is returned: whether no parameter takes objects of its class."""
        return not _have_a_class_in_common([result], self.parameters.values())


def _have_a_class_in_common(nodes: Iterable[Node | None], others: Iterable[Node | None]) -> bool:
    ours = [kind for node in nodes for kind in _classes(node)]
    theirs = [kind for node in others for kind in _classes(node)]
    return any(a in b.__mro__ or b in a.__mro__ for a in ours for b in theirs)


def _classes(node: Node | None) -> list[type]:
    """The classes of objects in a hint."""
    if node is None:
        return []
    if isinstance(node, FieldsHint):
        return [node.hint]
    return [kind for part in parts_of(node) for kind in _classes(part)]


def _is_of_equinox(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "equinox"


_FUNCTIONS: weakref.WeakKeyDictionary[Any, FunctionHints] = weakref.WeakKeyDictionary()


def hints_of(function: Function) -> FunctionHints:
    """What the annotations of a function say about arrays; nothing of what is no function.

    Wrappers that change neither arguments nor results are looked through. Others, such as
    `jax.vmap`, have no hints: what they were given is annotated, and not what they take.

    Returns:
        The hints, with those of the object that the function is bound to.
    """
    found = _hints_of(function.source if _is_transparent(function.source) else function.call)
    if function.bound is None or not has_annotated_fields(type(function.bound[1])):
        return found
    name, instance = function.bound
    parameters = {name: FieldsHint(type(instance)), **found.parameters}
    return dataclasses.replace(found, parameters=parameters)


def _hints_of(call: Any) -> FunctionHints:
    chain = list(_unwrapped(call))
    inner = chain[-1]
    if not inspect.isfunction(inner) or _module_of(inner) in _OPAQUE:
        return FunctionHints()
    if any(getattr(f, "__no_type_check__", False) for f in chain):
        return FunctionHints()
    hints = _FUNCTIONS.get(inner)
    if hints is None:
        hints = _FUNCTIONS[inner] = _function_hints(inner)
    return dataclasses.replace(
        hints,
        is_checked=any(_module_of(f) == "jaxtyping" for f in chain),
        is_partial=any(isinstance(f, (functools.partial, eqx.Partial)) for f in chain),
    )


def _function_hints(function: types.FunctionType) -> FunctionHints:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    local: dict[str, Any] = {}
    for name, cell in cells:
        try:
            local[name] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    signature = inspect.signature(function, follow_wrapped=False)
    annotations = {name: p.annotation for name, p in signature.parameters.items()}
    annotations["return"] = signature.return_annotation
    hints = {
        name: resolved(annotation, function.__globals__, local)
        for name, annotation in annotations.items()
        if annotation is not inspect.Parameter.empty
    }
    nodes = {name: parse(hint) for name, hint in hints.items()}
    result = nodes.pop("return", None)
    for name, parameter in signature.parameters.items():
        hint, node = hints.get(name), nodes.get(name)
        if parameter.kind is parameter.VAR_POSITIONAL:
            if is_unpacked(hint):  # as in `*args: *tuple[int, str]`
                inner = typing.get_args(hint)
                whole = inner[0] if typing.get_origin(hint) is typing.Unpack else None
                nodes[name] = parse(whole or types.GenericAlias(tuple, inner))
            elif node is not None:
                nodes[name] = ItemsHint(types.GenericAlias(tuple, (hint, ...)), tuple, node)
        elif parameter.default is None and node is not None:  # and may be passed as such
            nodes[name] = UnionHint(typing.Optional[hint], ((hint, node), (type(None), None)))  # noqa: UP045
        elif parameter.kind is parameter.VAR_KEYWORD and node is not None:
            is_whole = typing.get_origin(hint) is typing.Unpack
            mapping = types.GenericAlias(dict, (str, hint))
            nodes[name] = node if is_whole else MappingHint(mapping, dict, node)
    return FunctionHints(nodes, result)


def _unwrapped(f: Any) -> Iterator[Any]:
    """A callable, and what it wraps without changing what goes in and comes out."""
    for _ in range(100):  # a wrapper may wrap itself
        yield f
        if isinstance(f, (functools.partial, eqx.Partial)):
            f = f.func
        elif hasattr(f, "__func__"):
            f = f.__func__
        elif _is_transparent(f):
            f = f.__wrapped__
        elif not inspect.isroutine(f) and inspect.isfunction(type(f).__call__):
            f = type(f).__call__
        else:
            return


def _is_transparent(wrapper: Any) -> bool:
    if not hasattr(wrapper, "__wrapped__"):
        return False
    if isinstance(wrapper, _TRANSPARENT):
        return True
    return inspect.isfunction(wrapper) and _module_of(wrapper) not in _OPAQUE


def _module_of(f: Any) -> str:
    """The package that the code of a function is in, whatever its `__module__` says."""
    return getattr(f, "__globals__", {}).get("__name__", "").partition(".")[0]


def _example() -> None:
    """Something to wrap."""


# Wrappers of these packages change what goes in or comes out, but for a few.
_OPAQUE = ("jax", "equinox", "autodiffkit")
_TRANSPARENT: tuple[type, ...] = (
    *(type(jax.jit(_example)), type(eqx.filter_jit(_example))),
    *(jax.custom_jvp, jax.custom_vjp),
)
