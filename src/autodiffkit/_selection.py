"""`wrt`: which leaves of the arguments are differentiated."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from autodiffkit._errors import (
    NotDifferentiableError,
    SelectionError,
    columns,
    listed,
    nearest,
    some_of,
)
from autodiffkit._leaves import LeafSpec
from autodiffkit._paths import Path, all_parts, is_glob, names_part, show

Predicate = Callable[[str, Any], bool]
Selection = None | str | tuple[str, ...] | Predicate


def check_selection(call: str, option: str, selection: Any) -> Any:
    """The value of `wrt` or `of` in hashable form.

    Args:
        call: The transform and the function, for messages.
        option: `"wrt"`, which may be a predicate, or `"of"`.
        selection: What the user gave.

    Returns:
        The selection, a list made a tuple.

    Raises:
        SelectionError: If it is not of a kind that the option takes.
    """
    predicates = option == "wrt"
    kinds = "a path, a glob or a tuple of these"
    if predicates:
        kinds = (
            "an argument name, a path, a glob, a tuple of these, "
            "or a predicate (path, leaf) -> bool"
        )
    if selection is None or isinstance(selection, str):
        return selection
    if isinstance(selection, (tuple, list)):
        patterns: tuple[Any, ...] = (*selection,)
        if not patterns:
            raise SelectionError(f"{call}: {option}=() selects nothing; {option} takes {kinds}.")
        if all(isinstance(pattern, str) for pattern in patterns):
            return patterns
    elif predicates and callable(selection):
        return selection
    hint = ""
    if isinstance(selection, (int, tuple, list)):
        hint = (
            " Arguments are selected by name here, not by position."
            if predicates
            else " Outputs are selected by path here; that of a tuple's first entry is '0'."
        )
    raise SelectionError(f"{call}: {option}={selection!r} is not {kinds}.{hint}")


def names_argument(wrt: Selection, name: str) -> bool:
    """Whether `wrt` names this argument in so many words, not by a wildcard."""
    return any(p == name or p.startswith(name + ".") for p in _patterns(wrt))


def _patterns(wrt: Selection) -> tuple[str, ...]:
    if isinstance(wrt, str):
        return (wrt,)
    return wrt if isinstance(wrt, tuple) else ()


def select(
    call: str,
    wrt: Selection,
    leaves: Sequence[tuple[LeafSpec, Any]],
    arguments: Sequence[str],
    reserved: Sequence[str],
) -> set[Path]:
    """The paths of the leaves that are differentiated.

    Args:
        call: The transform and the function, for messages.
        wrt: The selection.
        leaves: All leaves with their values; those that cannot be differentiated are held.
        arguments: The names of all arguments.
        reserved: Those which only a pattern that names them reaches.

    Returns:
        The paths.

    Raises:
        SelectionError: If a pattern matches nothing, or the predicate accepts nothing.
        NotDifferentiableError: If what a pattern matches cannot be differentiated.
    """
    able = [(leaf.path, value) for leaf, value in leaves if leaf.held is None]
    if wrt is None:
        return {path for path, _ in able}
    if callable(wrt):
        accepted = {path for path, value in able if _ask(call, wrt, path, value)}
        if able and not accepted:
            raise SelectionError(
                f"{call}: the predicate wrt accepted none of the differentiable leaves: "
                f"{some_of([show(path) for path, _ in able])}."
            )
        return accepted
    chosen: set[Path] = set()
    for pattern in _patterns(wrt):
        matched = [
            leaf
            for leaf, _ in leaves
            if names_part(pattern, leaf.path)
            and (leaf.path[0] not in reserved or names_argument(pattern, leaf.path[0]))
        ]
        if not matched:
            raise _no_match(call, pattern, [leaf for leaf, _ in leaves], arguments, reserved)
        if all(leaf.held is not None for leaf in matched):
            raise _none_able(call, pattern, matched)
        chosen |= {leaf.path for leaf in matched if leaf.held is None}
        exact = [leaf for leaf in matched if show(leaf.path) == pattern]
        if exact and exact[0].held is not None:
            raise _none_able(call, pattern, exact)
    return chosen


def _ask(call: str, predicate: Predicate, path: Path, leaf: Any) -> bool:
    array = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jnp.asarray(leaf)
    try:
        return bool(predicate(show(path), array))
    except jax.errors.ConcretizationTypeError as error:
        raise SelectionError(
            f"{call}: the predicate wrt looked at the value of {show(path)!r}, which is not "
            "known while JAX traces. Decide by the path, the shape and the dtype."
        ) from error


def _none_able(call: str, pattern: str, matched: Sequence[LeafSpec]) -> NotDifferentiableError:
    if len(matched) == 1 and show(matched[0].path) == pattern:
        return NotDifferentiableError(
            f"{call}: wrt={pattern!r} cannot be differentiated: it is {matched[0].held}. Pass a "
            "floating-point array or number, or leave it out of wrt."
        )
    rows = [(show(leaf.path), str(leaf.held)) for leaf in matched]
    return NotDifferentiableError(
        f"{call}: wrt={pattern!r} matches nothing that can be differentiated. Pass floating-point "
        "arrays or numbers, or leave it out of wrt." + listed(columns(rows))
    )


def _no_match(
    call: str,
    pattern: str,
    leaves: Sequence[LeafSpec],
    arguments: Sequence[str],
    reserved: Sequence[str],
) -> SelectionError:
    if pattern in arguments:
        return SelectionError(
            f"{call}: wrt={pattern!r} names an argument without leaves: it is None or empty. Pass "
            "a floating-point array or number, or leave it out of wrt."
        )
    for leaf in leaves:
        if pattern.startswith(show(leaf.path) + "."):
            what = leaf.held if leaf.held is not None else str(leaf)
            return SelectionError(
                f"{call}: wrt={pattern!r} matches nothing, because {show(leaf.path)!r} has no "
                f"parts: it is {what}."
            )
    names = [*arguments, *all_parts(leaf.path for leaf in leaves)]
    remedy = nearest(pattern, names, "The call passed no arguments.")
    hint = ""
    if is_glob(pattern) and reserved:
        hint = f" A glob does not reach {', '.join(map(repr, reserved))}; name it in words."
    return SelectionError(f"{call}: wrt={pattern!r} matches nothing{remedy}{hint}")
