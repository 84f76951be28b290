"""Everything the package raises, and the wording that the messages share."""

import difflib
from collections.abc import Iterable, Sequence

import jax
import numpy as np


class AutodiffError(Exception):
    """Base of every exception that autodiffkit raises on its own account.

    Attributes:
        remedy: What to do, where the message itself does not say it. A traceback shows it below
            the message, as a note.
    """

    remedy: str | None

    def __init__(self, *args: object, remedy: str | None = None) -> None:
        super().__init__(*args)
        self.remedy = remedy
        if remedy is not None:
            self.add_note(remedy)


class SignatureError(AutodiffError, TypeError):
    """The arguments do not fit the function's signature, or no function was given."""


class SelectionError(AutodiffError, ValueError):
    """An option does not make sense here: `wrt`, `of` or another one."""


class NotDifferentiableError(AutodiffError, TypeError):
    """The selected inputs or outputs have no derivative of the kind that was asked for."""


class AnnotationError(AutodiffError, TypeError):
    """An argument or an output does not fit its annotation, or the annotation is at fault."""


class ModeError(AutodiffError, ValueError):
    """The mode is unknown, or the function cannot be differentiated in it."""


class ResultTooLargeError(AutodiffError, MemoryError):
    """The derivative, or a sweep of it, does not fit in memory or a limit; nothing was swept."""


class StructureError(AutodiffError, ValueError):
    """A vector, a path or a batched result does not fit the derivative's structure."""


class OperandError(StructureError, TypeError):
    """A derivative stands where only arrays, numbers or tuples can: in arithmetic, or unpacked."""


class MatrixError(AutodiffError, np.linalg.LinAlgError):
    """A matrix is singular, indefinite or not square where the method needs it otherwise."""


class MissingPackageError(AutodiffError, ImportError):
    """A package that only some calls need is not installed, such as matplotlib for plots."""


class RefusalError(NotImplementedError):
    """What the package does not differentiate, said in words; a `ModeError` passes them on."""


class NotDifferentiatedError(AutodiffError, AttributeError, KeyError):
    """The derivative holds no block under this name; the message says why.

    It is an `AttributeError` and a `KeyError`, because names are reached as
    attributes (`J.x`) and as items (`J["x"]`).
    """

    # `KeyError` shows the repr of its argument, which would escape the line breaks.
    __str__ = Exception.__str__


# What is no refusal of JAX to differentiate: ours, and what happens as a function runs.
NOT_REFUSALS = (AutodiffError, FloatingPointError, jax.errors.JaxRuntimeError)


def listed(lines: Iterable[str]) -> str:
    """Indented lines below the first line of a message."""
    return "".join(f"\n  {line}" for line in lines)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Left-aligned columns, two spaces apart."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def nearest(name: str, names: Iterable[str], otherwise: str) -> str:
    """How a message goes on: with the names most like `name`, or with a few of all of them."""
    known = list(dict.fromkeys(names))
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    if not known:
        return f". {otherwise}"
    return f". There is {some_of(list(map(repr, known)))}."


def some_of(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = shown_of(len(names), 8)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def shown_of(count: int, most: int) -> int:
    """How many of a list are shown: all where only one would be left out, which saves nothing."""
    return count if count <= most + 1 else most
