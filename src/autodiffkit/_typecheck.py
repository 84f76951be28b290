"""The check of a function's annotations, whenever it runs or is traced.

jaxtyping and beartype decide what fits. This module walks through the structures, so that
each leaf is checked and has a path, and says what fixed each name.
"""

import typing
from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from beartype import BeartypeConf
from beartype.door import die_if_unbearable, is_bearable
from jaxtyping import PyTree, config

from autodiffkit._dims import Dim, sizes
from autodiffkit._errors import AnnotationError, columns, listed, shown_of
from autodiffkit._function_hints import FunctionHints
from autodiffkit._hints import (
    ArrayHint,
    FieldsHint,
    FlawedHint,
    ItemsHint,
    Node,
    TreeHint,
    TupleHint,
    UnionHint,
    describe,
    fields_of,
)
from autodiffkit._leaves import describe_leaf, with_article
from autodiffkit._scopes import Fixed, Place, Scope, Waiting
from autodiffkit._walk import (
    arrays_of,
    checkable,
    children,
    for_any_library,
    leaves,
    may_fit,
    node_of,
    reads_fields,
    stand_in,
)

T = TypeVar("T")

# As for static checkers, an `int` will do where a `float` is asked for.
_CONF = BeartypeConf(is_pep484_tower=True)

_NAMES_SHOWN = 5
_STRUCTURE_SHOWN = 60  # characters


def is_enabled() -> bool:
    """Whether jaxtyping checks at all: `JAXTYPING_DISABLE` is for everybody."""
    return not config.jaxtyping_disable


def checked(
    call: str,
    hints: FunctionHints,
    arguments: Mapping[str, Any],
    run: Callable[[], T],
    *,
    defaults: Mapping[str, Any],
    has_aux: bool,
) -> T:
    """Runs a function between the checks of what goes in and of what comes out.

    Names of dimensions mean one thing before and after. While the function runs, no context of
    jaxtyping's is open: what it asks by `isinstance` is answered as without the check.

    Args:
        call: The transform and the function, for messages.
        hints: The annotations of the function.
        arguments: The arguments that were passed, by name.
        run: Calls the function with them.
        defaults: What was left out, by name, for expressions that read it.
        has_aux: Whether the function returns a pair, of which the second is auxiliary.

    Returns:
        What the function returned.

    Raises:
        AnnotationError: If something does not fit its annotation.
    """
    check = _Check(call)
    scope = Scope({**defaults, **arguments}, hints.is_partial)

    def before() -> None:
        for name, value in arguments.items():
            node, place = hints.parameters.get(name), Place("argument", (name,))
            check.value(node, value, place, scope, shared=hints.is_alone(name))
        check.what_waits(scope)

    def after(out: T) -> None:
        scope.waiting = []
        for kind, node, part in _results(hints.result, out, has_aux=has_aux):
            check.value(node, part, Place(kind), scope, shared=hints.is_new(node))
        check.what_waits(scope)

    if any(hints.parameters.get(name) is not None for name in arguments):
        scope.inside(before)
    out = run()
    if hints.result is not None:
        scope.inside(lambda: after(out))
    return out


def _results(node: Node | None, out: Any, *, has_aux: bool) -> list[tuple[str, Node | None, Any]]:
    """What a function returned, in one or two parts."""
    if not has_aux:
        return [("output", node, out)]
    if not isinstance(out, tuple) or len(cast("Sized", out)) != 2:
        return []
    return list(zip(("output", "auxiliary data"), _pair(node), out, strict=True))


def _pair(node: Node | None) -> tuple[Node | None, Node | None]:
    """The nodes of a function that returns a pair."""
    match node:
        case TupleHint(items=(first, second)):
            return first, second
        case ItemsHint(item=item):
            return item, item
        case FieldsHint(hint=kind) if len(fields_of(kind)) == 2:
            first, second = fields_of(kind).values()
            return first, second
        case _:
            return None, None


def result_node(hints: FunctionHints, *, has_aux: bool) -> Node | None:
    """The node of what is differentiated."""
    return _pair(hints.result)[0] if has_aux else hints.result


class _Check:
    """The checks of one call."""

    def __init__(self, call: str) -> None:
        self._call = call

    def value(
        self, node: Node | None, value: Any, place: Place, scope: Scope, *, shared: bool = False
    ) -> None:
        """Checks a value; `shared` says whether an object's names are those of the scope."""
        node = node_of(value, node)
        match node:
            case None:
                pass
            case FlawedHint(hint=hint, error=error):
                raise self._fault(place, hint, _first_sentence(error)) from error
            case ArrayHint():
                self._array(node, value, place, scope)
            case UnionHint():
                self._union(node, value, place, scope, shared=shared)
            case TreeHint():
                self._tree(node, value, place, scope)
            case _:
                parts = children(node, value)
                if parts is None:
                    raise self._misfit(place, node, value, scope)
                if isinstance(node, FieldsHint) and not (shared and not reads_fields(node)):
                    self._apart(parts, place)
                else:
                    self._parts(parts, place, scope)

    def _parts(self, parts: list[tuple[str, Node | None, Any]], place: Place, scope: Scope) -> None:
        for name, node, value in parts:
            self.value(node, value, place.at((name,)), scope)

    def _apart(self, parts: list[tuple[str, Node | None, Any]], place: Place) -> None:
        """Checks the fields of an object whose names are its own."""
        scope = Scope({name: value for name, _, value in parts})

        def body() -> None:
            self._parts(parts, place, scope)
            self.what_waits(scope)

        scope.inside(body)

    def what_waits(self, scope: Scope) -> None:
        """Checks what had to wait until the names that it reads were fixed."""
        count = 0
        while scope.waiting and len(scope.waiting) != count:
            waiting, scope.waiting = scope.waiting, []
            count = len(waiting)
            self._waited(waiting, scope)
        waiting, scope.waiting = scope.waiting or [], None
        self._waited(waiting, scope)

    def _waited(self, waiting: Iterable[Waiting], scope: Scope) -> None:
        for node, value, place, shared in waiting:
            self.value(node, value, place, scope, shared=shared)

    def _array(self, node: ArrayHint, value: Any, place: Place, scope: Scope) -> None:
        if any(dim.is_by_path for dim in node.dims):  # has no meaning by itself
            return
        if scope.puts_aside(node.dims, (node, value, place, False)):
            return
        if not self._fits(value, place, node, scope):
            raise self._misfit(place, node, value, scope, node.dims)
        self._fix(node, value, place, scope)

    def _fix(self, node: ArrayHint, value: Any, place: Place, scope: Scope) -> None:
        """Remembers what an array that fits has fixed."""
        struct = stand_in(value)
        if any(dim.is_broadcast or dim.name not in scope.sizes for dim in node.dims if dim.name):
            scope.passed.append((struct, node.check))
        for name, found in sizes(node.dims, struct.shape):
            by = f"{place} ({describe_leaf(value)})"
            scope.sizes.setdefault(name, Fixed(found, by))

    def _fits(self, value: Any, place: Place, node: ArrayHint, scope: Scope) -> bool:
        fits = self._asked(checkable(value), node.check, place, node, scope)
        if not fits and isinstance(value, np.ndarray):  # it may be passed on as it is
            return self._asked(value, node.check, place, node, scope)
        return fits

    def _asked(
        self, value: Any, check: Any, place: Place, node: ArrayHint | TreeHint, scope: Scope
    ) -> bool:
        try:
            return is_bearable(value, check, conf=_CONF)
        except Exception as error:  # an expression of names may raise anything at all
            if scope.is_partly_known:
                return True
            dims = node.dims if isinstance(node, ArrayHint) else ()
            raise self._fault(place, describe(node.hint), _why(error, dims, scope)) from error

    def _union(
        self, node: UnionHint, value: Any, place: Place, scope: Scope, *, shared: bool
    ) -> None:
        arrays = arrays_of(node)
        dims = [dim for array in arrays for dim in array.dims]
        if scope.puts_aside(dims, (node, value, place, shared)):
            return
        others = [hint for hint, x in node.alternatives if x is None]
        if any(_is_left_alone(value, hint) for hint in others):
            return
        for array in arrays:
            if self._fits(value, place, array, scope):
                self._fix(array, value, place, scope)
                return
        containers = [
            x
            for _, x in node.alternatives
            if x is not None and not isinstance(x, ArrayHint) and may_fit(x, value)
        ]
        cause: BaseException | None = None
        for container in containers:
            error = self._trial(container, value, place, scope) if len(containers) > 1 else None
            if error is None:
                self.value(container, value, place, scope, shared=shared)
                return
            cause = error.__cause__
        error = self._misfit(place, node, value, scope, dims)
        error.__cause__ = error.__cause__ or cause
        raise error

    def _trial(self, node: Node, value: Any, place: Place, scope: Scope) -> AnnotationError | None:
        """Why a value does not fit; nothing is fixed by it."""
        copied = scope.copied()

        def body() -> None:
            self.value(node, value, place, copied, shared=True)
            self.what_waits(copied)

        try:
            copied.inside(body)
        except AnnotationError as error:
            return error
        return None

    def _tree(self, node: TreeHint, value: Any, place: Place, scope: Scope) -> None:
        leaf, name = node.leaf, node.structure
        dims = [dim for array in arrays_of(leaf) for dim in array.dims]
        try:
            found, structure = leaves(node, value)
        except Exception:  # keys that cannot be sorted, or a node that raises
            raise self._misfit(place, node, value, scope) from None
        if any(dim.is_by_path for dim in dims):
            outline, check = jax.tree.map(stand_in, value), for_any_library(node)
            if not self._asked(outline, check, place, node, scope):
                raise self._misfit(place, node, value, scope, dims)
            scope.passed.append((outline, check))
            return
        if name is not None:
            outline, check = jax.tree.unflatten(structure, [0] * len(found)), PyTree[Any, name]
            if not self._asked(outline, check, place, node, scope):
                raise self._misfit(place, node, value, scope, structures=name.split())
            scope.passed.append((outline, check))
            if name.isidentifier():
                fixed = Fixed(_outline(structure), str(place))
                scope.structures.setdefault(name, fixed)
        for path, x in found:
            self.value(leaf, x, place.at(path), scope)

    # Words

    def _misfit(
        self,
        place: Place,
        node: Node,
        value: Any,
        scope: Scope,
        dims: Iterable[Dim] = (),
        *,
        structures: Iterable[str] = (),
    ) -> AnnotationError:
        rows = [("annotated", describe(node.hint)), ("received", _describe(value))]
        read = (name for dim in dims for name in (dim.name, *dim.reads))
        lines = [f"{x} = {scope.sizes[x]}" for x in dict.fromkeys(read) if x in scope.sizes]
        lines += [f"{x} = {scope.structures[x]}" for x in structures if x in scope.structures]
        shown = shown_of(len(lines), _NAMES_SHOWN)
        if len(lines) > shown:
            lines[shown:] = [f"... and {len(lines) - shown} more"]
        if not lines and isinstance(node, ArrayHint):
            lines = _at_once(node.dims, value)
        error = AnnotationError(
            f"{self._call}: {place} does not fit its annotation" + listed([*columns(rows), *lines]),
            remedy="Pass what the annotation says, or mend the annotation. typecheck=False leaves "
            "all of them unchecked.",
        )
        error.__cause__ = _original(value, getattr(node, "check", node.hint))
        return error

    def _fault(self, place: Place, hint: str, why: str) -> AnnotationError:
        rows = [("annotated", hint), ("because", why)]
        return AnnotationError(
            f"{self._call}: the annotation of {place} is at fault" + listed(columns(rows)),
            remedy="Mend the annotation. typecheck=False leaves all of them unchecked.",
        )


def _is_left_alone(value: Any, hint: Any) -> bool:
    """Whether a value fits a hint without arrays, as far as beartype knows such hints.

    A Python number that is differentiated is an array, as is an array of NumPy's.
    """
    if isinstance(value, jax.Array):
        if hint is np.ndarray or typing.get_origin(hint) is np.ndarray:
            return True
        if isinstance(hint, type) and issubclass(hint, np.generic):
            return value.shape == () and jnp.issubdtype(value.dtype, np.inexact)
    try:
        return is_bearable(jax.tree.map(_number, value), hint, conf=_CONF)
    except Exception:  # a hint that beartype cannot check says nothing
        return True


def _number(leaf: Any) -> Any:
    """A Python number of the kind of a scalar, and anything else as it is."""
    if not (isinstance(leaf, (jax.Array, np.generic)) and leaf.shape == ()):
        return leaf
    return np.zeros((), leaf.dtype).item() if leaf.dtype.kind in "biufc" else leaf


def _why(error: Exception, dims: Iterable[Dim], scope: Scope) -> str:
    """What is wrong with an annotation that cannot be checked."""
    for dim in dims:
        unknown = [repr(name) for name in dim.reads if name not in scope.sizes]
        if unknown:
            return f"{dim.text!r} reads {' and '.join(unknown)}, which no argument fixes"
    return _first_sentence(error)


def _at_once(dims: Iterable[Dim], value: Any) -> list[str]:
    """Names that one array gives two sizes."""
    shape = getattr(checkable(value), "shape", ())
    found: dict[str, Any] = {}
    return [
        f"{name} is {found[name]} and {part} at once"
        for name, part in sizes(tuple(dims), shape)
        if found.setdefault(name, part) != part
    ]


def _original(value: Any, check: Any) -> Exception | None:
    """What beartype says of it."""
    try:
        die_if_unbearable(jax.tree.map(checkable, value), check, conf=_CONF)
    except Exception as error:
        return error
    return None


def _describe(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, (list, tuple, dict)):
        return f"{type(value).__name__} of {len(cast('Sized', value))}"
    if not jax.tree_util.all_leaves([value]):
        return with_article(type(value).__name__)
    return describe_leaf(value)


def _outline(structure: Any) -> str:
    text = str(structure).removeprefix("PyTreeDef(").removesuffix(")")
    return text if len(text) <= _STRUCTURE_SHOWN else text[:_STRUCTURE_SHOWN] + "..."


def _first_sentence(error: Exception) -> str:
    text = str(error).partition("\n")[0].partition(". ")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
