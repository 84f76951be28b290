"""The limits that a user sets to sweeps: directions at a time, bytes, and whether to show them."""

import numbers
import re
from typing import Any, NamedTuple

from autodiffkit._errors import SelectionError
from autodiffkit._leaves import describe_leaf

_UNITS = {
    "": 1,
    "b": 1,
    **{f"{prefix}b": 1000**i for i, prefix in enumerate("kmgtp", 1)},
    **{f"{prefix}ib": 1024**i for i, prefix in enumerate("kmgtp", 1)},
}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]*)\s*")


class Limits(NamedTuple):
    """What sweeps may take.

    Args:
        chunk_size: At most so many directions in one batch.
        memory_limit: The bytes of temporaries that they may use; until it has been checked, what
            the user wrote.
        progress: Whether chunks are shown as they are done.
    """

    chunk_size: int | None = None
    memory_limit: Any = None
    progress: bool = False


NO_LIMITS = Limits()


def check_limits(call: str, limits: Limits, layout: str) -> Limits:
    """The limits as numbers.

    Args:
        call: The transform and the function, for messages.
        limits: As the user gave them: a positive whole number of directions or `None`, and a
            positive number of bytes, text with a unit as in `"512MiB"`, or `None`.
        layout: The layout that was asked for.

    Returns:
        The limits.

    Raises:
        SelectionError: If one of them is no such thing, or the layout has no chunks.
    """
    chunk_size: Any = limits.chunk_size
    memory_limit, progress = limits.memory_limit, limits.progress
    if chunk_size is not None:
        is_whole = isinstance(chunk_size, numbers.Integral) and chunk_size is not True
        if not is_whole or int(chunk_size) < 1:
            raise SelectionError(
                f"{call}: chunk_size is the number of directions that are swept together, 1 or "
                f"more; got {_shown(chunk_size)}. Pass a whole number, or leave it out for no "
                "limit."
            )
        chunk_size = int(chunk_size)
    if memory_limit is not None:
        memory_limit = _bytes(call, memory_limit)
    if layout != "dense" and (chunk_size is not None or memory_limit is not None):
        given = "chunk_size" if chunk_size is not None else "memory_limit"
        raise SelectionError(
            f"{call}: {given} and layout={layout!r} exclude each other: what keeps axes apart is "
            f"swept at once. Leave {given} out, or use layout='dense'."
        )
    return Limits(chunk_size, memory_limit, progress)


def _bytes(call: str, limit: Any) -> int:
    found: float | None = None
    if isinstance(limit, str):
        match = _AMOUNT.fullmatch(limit)
        if match is not None and match[2].lower() in _UNITS:
            found = float(match[1]) * _UNITS[match[2].lower()]
    elif isinstance(limit, numbers.Real) and limit is not True:
        found = float(limit)
    if found is None or not 1 <= found < float("inf"):
        raise SelectionError(
            f"{call}: memory_limit={_shown(limit)} is no number of bytes. Pass a positive number, "
            "or text with a unit such as '512MiB' or '2GB'."
        )
    return int(found)


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, (str, int, float)) else describe_leaf(value)
