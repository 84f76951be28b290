"""The annotations of derivatives, from those of the function alone."""

import dataclasses
import functools
import itertools
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import PyTree

from autodiffkit._dims import Annotation, accepts, derivative_of, is_differentiable
from autodiffkit._display import Displayed
from autodiffkit._display_text import Display, plain_table
from autodiffkit._function_hints import FunctionHints
from autodiffkit._hints import (
    ArrayHint,
    FieldsHint,
    ItemsHint,
    MappingHint,
    Node,
    TreeHint,
    TupleHint,
    UnionHint,
    describe,
    fields_of,
)
from autodiffkit._paths import Path, names_part, show
from autodiffkit._selection import names_argument
from autodiffkit._walk import meaning

Key = str | tuple[str, ...]


class Annotations(Displayed, Mapping[Key, Any]):
    """Annotations of blocks by path: `a["x"]`; of second derivatives `a["x", "y"]`.

    Where the function returns several arrays, the path of the output comes first:
    `a["energy", "x"]`. A key may also be written with dots, `a["x.y"]`.
    """

    def __init__(self, found: Mapping[Key, Any]) -> None:
        self._found = dict(found)

    def __getitem__(self, key: Key) -> Any:
        if key in self._found:
            return self._found[key]
        if isinstance(key, str):
            for known, hint in self._found.items():
                if not isinstance(known, str) and ".".join(known) == key:
                    return hint
        raise KeyError(key)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def _display(self) -> Display:
        rows = [
            (key if isinstance(key, str) else ", ".join(key), describe(hint))
            for key, hint in self._found.items()
        ]
        if not rows:
            return Display("annotations of blocks: none")
        return Display("annotations of blocks", (plain_table(rows, "name", "note"),))


# A part of an argument or of the output: an array, or a container of such, however many. A
# container is a function that puts the annotation of a block in the place of its leaf's.
@dataclasses.dataclass(frozen=True)
class _Part:
    path: Path
    leaf: Annotation
    around: tuple[Callable[[Any], Any], ...] = ()  # from the outside inwards


# Alternatives to an array that are differentiated, too, and have no axes.
_NUMBERS = (float, complex, np.ndarray)


def annotations_of_blocks(
    hints: FunctionHints,
    bound: str | None,
    result: Node | None,
    *,
    order: int,
    wrt: Any,
    of: Any,
    scalar: bool,
) -> Annotations:
    """The annotations of the blocks of a derivative.

    Args:
        hints: What the function's annotations say.
        bound: The name of the object that the function is bound to, which is constant unless
            `wrt` names it.
        result: The node of what is differentiated.
        order: 1 or 2.
        wrt: Names, paths or globs of inputs, `None` for all; a predicate counts as all.
        of: The same of outputs.
        scalar: Whether the transform takes one output only.

    Returns:
        The annotations that there are.
    """
    sources = [
        part
        for name, node in hints.parameters.items()
        for part in _parts(node, (name,), shared=hints.is_alone(name))
        if _is_wanted(wrt, part) and (name != bound or names_argument(wrt, name))
    ]
    returned = hints.is_new(result)
    targets = [
        part for part in _parts(result, (), shared=returned, root="output") if _is_wanted(of, part)
    ]
    found: dict[Key, Any] = {}
    blocks: Iterator[tuple[_Part, ...]] = itertools.product(targets, *[sources] * order)
    for target, *by in blocks:
        block = derivative_of(target.leaf, *(part.leaf for part in by))
        if block is None:
            continue
        wrappers = itertools.chain(target.around, *(part.around for part in by))
        hint = functools.reduce(lambda hint, wrap: wrap(hint), reversed(list(wrappers)), block)
        parts = [target, *by] if target.path and not scalar else by
        key = tuple(show(part.path) for part in parts)
        found[key[0] if len(key) == 1 else key] = hint
    return Annotations(found)


def _is_wanted(patterns: Any, part: "_Part") -> bool:
    """Whether a part is selected; of a container, whether it is as a whole."""
    if patterns is None:
        return True
    if callable(patterns) or (part.around and not part.path):
        return not part.around
    every = (patterns,) if isinstance(patterns, str) else patterns
    return not part.path or any(names_part(pattern, part.path) for pattern in every)


def _parts(
    node: Node | None,
    path: Path,
    *,
    shared: bool,
    scope: Path = (),
    root: str = "argument",
    seen: tuple[Any, ...] = (),
) -> Iterator[_Part]:
    """The arrays of a hint, as far as it says what they are called."""
    match node:
        case ArrayHint(hint=hint) if is_differentiable(hint):
            yield _Part(path, Annotation(hint, scope))
        case UnionHint(alternatives=alternatives):
            nodes = [x for _, x in alternatives if x is not None]
            numbers = any(x in _NUMBERS for x, _ in alternatives)
            is_clear = not numbers or not any(x.dims for x in nodes if isinstance(x, ArrayHint))
            if len(set(map(meaning, nodes))) == 1 and is_clear:
                yield from _parts(nodes[0], path, shared=shared, scope=scope, root=root, seen=seen)
        case FieldsHint(hint=kind) if kind not in seen:
            scope = scope if shared else (root, *path)
            for name, field in fields_of(kind).items():
                here = (*path, name)
                yield from _parts(
                    field, here, shared=False, scope=scope, root=root, seen=(*seen, kind)
                )
        case TupleHint(items=items):
            for i, item in enumerate(items):
                yield from _parts(
                    item, (*path, str(i)), shared=False, scope=scope, root=root, seen=seen
                )
        case TreeHint(leaf=leaf):
            yield from _inside(lambda x: PyTree[x], leaf, path, scope, root)
        case ItemsHint(kind=kind, item=item):
            generic: Any = kind
            wrap = (lambda x: generic[x, ...]) if kind is tuple else (lambda x: generic[x])
            yield from _inside(wrap, item, path, scope, root)
        case MappingHint(hint=hint, kind=kind, value=value):
            generic, (key, _) = kind, typing.get_args(hint) or (str, None)
            yield from _inside(lambda x: generic[key, x], value, path, scope, root)
        case _:
            return


def _inside(
    wrap: Callable[[Any], Any], node: Node | None, path: Path, scope: Path, root: str
) -> Iterator[_Part]:
    """What is in a container of unknown size, if its parts have no names of their own."""
    for part in _parts(node, path, shared=False, scope=scope, root=root):
        # Where integers may be among the parts, those are held, and have no block.
        if part.path == path and not accepts(part.leaf.hint.dtype, np.dtype("int32")):
            yield dataclasses.replace(part, around=(wrap, *part.around))
