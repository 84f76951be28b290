"""Chunks of directions, and a bar that shows how many of them are done."""

import functools
import threading
from typing import Any, NamedTuple

import jax
import tqdm


class Chunks(NamedTuple):
    """Sweeps in parts.

    Args:
        size: How many directions are swept together.
        label: What a bar that shows the progress is called; `None` for none.
    """

    size: int
    label: str | None = None


# Bars that are not full yet, by label and number of chunks.
_BARS: dict[tuple[str, int], Any] = {}
_LOCK = threading.Lock()


def show_progress(number: Any, total: int, label: str) -> None:
    """Moves a bar on whenever the program that is traced comes here.

    Args:
        number: That of the chunk, which may be traced.
        total: How many chunks there are.
        label: Of the bar.
    """
    jax.debug.callback(functools.partial(_advance, total, label), number)


def _advance(total: int, label: str, number: Any) -> None:
    del number  # it ties the call to the loop; chunks may be reported in any order
    with _LOCK:
        if (label, total) not in _BARS:
            _BARS[label, total] = tqdm.tqdm(total=total, desc=label, unit="chunk")
        bar = _BARS[label, total]
        bar.update()
        if bar.n >= total:
            bar.close()
            del _BARS[label, total]
