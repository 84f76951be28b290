"""`wrt`: which leaves of the arguments are differentiated."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

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
from autodiffkit._function import as_function, name_of
from autodiffkit._leaves import LeafSpec
from autodiffkit._paths import Path, all_parts, is_glob, names_part, show, spellings

Predicate = Callable[[str, Any], bool]
Wrt = str | Sequence[str] | Predicate | None
Of = str | Sequence[str] | None
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
            raise SelectionError(f"{call}: {option}=() selects nothing; give {kinds}.")
        if all(isinstance(pattern, str) for pattern in patterns):
            return patterns
    elif predicates and callable(selection):
        try:
            as_function(selection).signature.bind(None, None)
        except TypeError:
            raise SelectionError(
                f"{call}: wrt={name_of(selection)} is called with a path and a leaf, and does not "
                f"take them. Give {kinds}."
            ) from None
        return selection
    hint = ""
    if isinstance(selection, (int, tuple, list)):
        hint = (
            " Arguments are selected by name here, not by position."
            if predicates
            else " Outputs are selected by path here; that of a tuple's first entry is '0'."
        )
    raise SelectionError(f"{call}: {option}={selection!r} is no selection. Give {kinds}.{hint}")


Blocks = Sequence[tuple[str, str]] | Literal["diagonal"] | None


def check_blocks(call: str, blocks: Any) -> Any:
    """The value of `blocks` in hashable form.

    Raises:
        SelectionError: If it is neither pairs of paths nor `"diagonal"`.
    """
    kinds = "pairs of paths or globs, [('w', 'b')], or 'diagonal'"
    if blocks is None or (isinstance(blocks, str) and blocks == "diagonal"):
        return blocks
    if isinstance(blocks, (list, tuple)):
        given: list[Any] = [*blocks]
        if not given:
            raise SelectionError(f"{call}: blocks={blocks!r} selects nothing; give {kinds}.")
        pairs = [(*pair,) for pair in given if isinstance(pair, (list, tuple))]
        if len(pairs) == len(given) and all(
            len(pair) == 2 and all(isinstance(x, str) for x in pair) for pair in pairs
        ):
            return tuple(pairs)
    raise SelectionError(f"{call}: blocks={blocks!r} is no selection. Give {kinds}.")


def select_blocks(call: str, blocks: Any, leaves: Sequence[LeafSpec]) -> frozenset[tuple[int, int]]:
    """The blocks that are wanted, as pairs of leaves by number.

    Raises:
        SelectionError: If a path is not among what is differentiated.
    """
    if blocks == "diagonal":
        numbers = range(len(leaves))
        return frozenset(
            (i, j) for i in numbers for j in numbers if leaves[i].path[0] == leaves[j].path[0]
        )
    found: set[tuple[int, int]] = set()
    for pair in blocks:
        ends = [_numbers(pattern, leaves) for pattern in pair]
        for pattern, matched in zip(pair, ends, strict=True):
            if not matched:
                names = all_parts(leaf.path for leaf in leaves)
                known = nearest(pattern, names, "Nothing is differentiated.")
                raise SelectionError(
                    f"{call}: blocks={pair!r}: {pattern!r} is not among what is "
                    f"differentiated{known}"
                )
        found.update((i, j) for i in ends[0] for j in ends[1])
    return frozenset(found)


def _numbers(pattern: str, leaves: Sequence[LeafSpec]) -> list[int]:
    found = ([i for i, x in enumerate(leaves) if names_part(p, x.path)] for p in spellings(pattern))
    return next((numbers for numbers in found if numbers), [])


def rectangles(
    pairs: frozenset[tuple[int, int]],
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Pairs as rows by columns: the columns with the same rows go together, or the reverse."""

    def grouped(side: int) -> dict[tuple[int, ...], list[int]]:
        ends: dict[int, list[int]] = {}
        for pair in sorted(pairs):
            ends.setdefault(pair[side], []).append(pair[1 - side])
        groups: dict[tuple[int, ...], list[int]] = {}
        for one, others in ends.items():
            groups.setdefault(tuple(others), []).append(one)
        return groups

    by_columns, by_rows = grouped(1), grouped(0)
    if len(by_columns) <= len(by_rows):
        return [(rows, tuple(sorted(columns))) for rows, columns in by_columns.items()]
    return [(tuple(sorted(rows)), columns) for columns, rows in by_rows.items()]


def names_argument(wrt: Selection, name: str) -> bool:
    """Whether `wrt` names this argument in so many words, not by a wildcard."""
    patterns = (x for pattern in _patterns(wrt) for x in spellings(pattern))
    return any(p == name or p.startswith(name + ".") for p in patterns)


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
                f"{some_of([show(path) for path, _ in able])}. Accept one of them, or leave wrt "
                "out."
            )
        return accepted
    chosen: set[Path] = set()
    for given in _patterns(wrt):
        pattern, matched = given, list[LeafSpec]()
        for spelling in spellings(given):
            found = [
                leaf
                for leaf, _ in leaves
                if names_part(spelling, leaf.path)
                and (leaf.path[0] not in reserved or names_argument(spelling, leaf.path[0]))
            ]
            if found:
                pattern, matched = spelling, found
                break
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


def _of_class(held: str | None) -> str:
    """What to do with an object that is no pytree, as far as its name says that it is one."""
    if held is None or re.fullmatch(r"an? [A-Z]\w*", held) is None:
        return ""
    return (
        " If it is a class of yours, make it a pytree, such as an equinox.Module, whose fields are "
        "its parts."
    )


def _none_able(call: str, pattern: str, matched: Sequence[LeafSpec]) -> NotDifferentiableError:
    if len(matched) == 1 and show(matched[0].path) == pattern:
        return NotDifferentiableError(
            f"{call}: wrt={pattern!r} cannot be differentiated: it is {matched[0].held}. Pass a "
            f"floating-point array or number, or leave it out of wrt.{_of_class(matched[0].held)}"
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
                f"parts: it is {what}. Leave out what follows its name.{_of_class(what)}"
            )
    names = [*arguments, *all_parts(leaf.path for leaf in leaves)]
    remedy = nearest(pattern, names, "The call passed no arguments.")
    hint = ""
    if is_glob(pattern) and reserved:
        hint = f" A glob does not reach {', '.join(map(repr, reserved))}; name it in words."
    return SelectionError(f"{call}: wrt={pattern!r} matches nothing{remedy}{hint}")
