"""Which rows of a matrix share a pixel, and where they are drawn; of columns the same.

Blocks of few rows would be thinner than the lines beside them, so they have pixels of their own,
each of which is drawn several times.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST = 0.25  # by how much a side may become longer


class Pixels:
    """Entries of one side of a matrix in pixels.

    Attributes:
        step: The entries of a pixel, but for those at the end of a run of blocks.
        repeats: How many times each pixel is drawn.
    """

    step: int
    repeats: NDArray[Any]

    def __init__(self, sizes: Sequence[int], limit: int, least: float = 0.0) -> None:
        """Divides a side.

        Args:
            sizes: The entries of the blocks.
            limit: How many pixels there may be, but for those of thin blocks.
            least: The part of the side that each block has at least.
        """
        count = sum(sizes)
        self.step = max(1, -(-count // limit))
        starts = np.arange(0, count, self.step)
        self.repeats = np.ones(len(starts), int)
        self._edges = self._places = np.array([0, count])
        # Of blocks without entries there is nothing to see.
        thin = [0 < size < least * count for size in sizes]
        if any(thin):
            runs = _runs(sizes, thin)
            parts = [np.arange(start, stop, self.step) for start, stop, _ in runs]
            wanted = least * count / self.step
            repeats = [
                np.full(len(part), max(1, int(np.ceil(wanted / len(part)))) if is_thin else 1)
                for part, (*_, is_thin) in zip(parts, runs, strict=True)
            ]
            if sum(map(np.sum, repeats)) <= (1 + _MOST) * len(starts) + 1:
                starts, self.repeats = np.concatenate(parts), np.concatenate(repeats)
                self._edges = np.append(starts, count)
                self._places = self.step * np.append(0, np.cumsum(self.repeats))
        self.starts = starts

    def __len__(self) -> int:
        return len(self.starts)

    def of(self, entries: Any) -> Any:
        """The pixel of an entry, or of each of an array of them."""
        if len(self._edges) == 2:
            return entries // self.step
        return np.searchsorted(self.starts, entries, side="right") - 1

    def within(self, start: int, count: int) -> NDArray[Any]:
        """Where pixels begin among `count` entries from `start` on: at the first one, and then."""
        first, last = np.searchsorted(self.starts, [start + 1, start + count])
        return np.append(0, self.starts[first:last] - start)

    def place(self, edge: float) -> float:
        """Where an edge between entries is drawn; `edge` itself if no block is thin."""
        return float(np.interp(edge, self._edges, self._places))

    @property
    def middles(self) -> NDArray[Any]:
        """The middle of each pixel as it is drawn."""
        ends = self.step * np.cumsum(self.repeats)
        return ends - self.step * self.repeats / 2


def _runs(sizes: Sequence[int], thin: Sequence[bool]) -> list[tuple[int, int, bool]]:
    """First and last entry of each thin block, and of what is between two of them."""
    runs: list[tuple[int, int, bool]] = []
    start = 0
    for size, is_thin in zip(sizes, thin, strict=True):
        if not size:
            continue
        if runs and not is_thin and not runs[-1][2]:
            runs[-1] = runs[-1][0], start + size, False
        else:
            runs.append((start, start + size, is_thin))
        start += size
    return runs
