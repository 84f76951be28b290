"""Graphs drawn in layers from left to right: where nodes lie, and how edges get around them.

In the manner of Sugiyama, Tagawa and Toda (*Methods for visual understanding of hierarchical system
structures*, 1981): an edge that passes a layer has a place in it, layers are ordered by the
middle of what their nodes are joined to, and then moved there as far as there is room.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Edge = tuple[int, int]
Point = tuple[float, float]

_ROUNDS = 12
_GAP_ACROSS, _GAP_DOWN = 0.55, 0.22  # inches between nodes
_PASSING = 0.06  # the height of the place of an edge that passes


class Layout(NamedTuple):
    """Where everything is.

    Args:
        places: The middle of each node.
        routes: The points of each edge, from the right side of a node to the left one of another.
    """

    places: list[Point]
    routes: dict[Edge, list[Point]]


def layered(
    sizes: Sequence[Point],
    edges: Sequence[Edge],
    last: Sequence[int] = (),
    gap: float = _GAP_ACROSS,
) -> Layout:
    """Lays out a graph without cycles.

    Args:
        sizes: Width and height of each node.
        edges: Pairs of nodes, from left to right.
        last: Nodes that belong to the last layer, if nothing comes after them.
        gap: What is between layers, where there are arrows.

    Returns:
        Places with the origin in the middle of the left side, as x and y.
    """
    return _Layers(sizes, edges, last).layout(gap)


class _Layers:
    def __init__(self, sizes: Sequence[Point], edges: Sequence[Edge], last: Sequence[int]) -> None:
        self._sizes = list(sizes)
        self._edges = list(edges)
        self._level = _levels(len(sizes), edges, last)
        self._chains: dict[Edge, list[int]] = {}
        self._heights = [height for _, height in sizes]
        for a, b in self._edges:
            chain = [a]
            for level in range(self._level[a] + 1, self._level[b]):
                chain.append(len(self._level))
                self._level.append(level)
                self._heights.append(_PASSING)
            self._chains[a, b] = [*chain, b]
        count = len(self._level)
        self._before: list[list[int]] = [[] for _ in range(count)]
        self._after: list[list[int]] = [[] for _ in range(count)]
        for chain in self._chains.values():
            for a, b in itertools.pairwise(chain):
                self._after[a].append(b)
                self._before[b].append(a)
        self._rows: list[list[int]] = [[] for _ in range(max(self._level, default=-1) + 1)]
        for v, level in enumerate(self._level):
            self._rows[level].append(v)

    def layout(self, gap: float) -> Layout:
        self._order()
        height = self._settle()
        widths = [
            max((self._sizes[v][0] for v in row if v < len(self._sizes)), default=0.0)
            for row in self._rows
        ]
        middles: list[float] = []
        x = 0.0
        for width in widths:
            middles.append(x + width / 2)
            x += width + gap
        places = [(middles[self._level[v]], height[v]) for v in range(len(self._sizes))]
        routes: dict[Edge, list[Point]] = {}
        for edge, chain in self._chains.items():
            points: list[Point] = []
            for v in chain:
                level = self._level[v]
                half = (self._sizes[v][0] if v < len(self._sizes) else widths[level]) / 2
                sides = (middles[level] - half, height[v]), (middles[level] + half, height[v])
                points += sides[1:] if v == edge[0] else sides[:1] if v == edge[1] else sides
            routes[edge] = points
        return Layout(places, routes)

    def _order(self) -> None:
        """Sorts each layer by the middle of its neighbours', and keeps what crosses least."""
        best, least = [list(row) for row in self._rows], self._crossings()
        for number in range(_ROUNDS):
            forward = number % 2 == 0
            joined = self._before if forward else self._after
            rows = self._rows[1:] if forward else self._rows[-2::-1]
            for row in rows:
                places = self._places()
                row.sort(key=lambda v: _mean([places[w] for w in joined[v]], places[v]))
            crossings = self._crossings()
            if crossings < least:
                best, least = [list(row) for row in self._rows], crossings
        self._rows = [self._balanced(row) for row in best]

    def _balanced(self, row: Sequence[int]) -> list[int]:
        """A layer with inputs on both sides of what is read together with them."""
        found: list[int] = []
        for _, run in itertools.groupby(row, lambda v: sorted(self._after[v])):
            inputs: list[int] = []
            others: list[int] = []
            for v in run:
                (others if self._before[v] else inputs).append(v)
            half = (len(inputs) + 1) // 2 if others else len(inputs)
            found += [*inputs[:half], *others, *inputs[half:]]
        return found

    def _places(self) -> list[float]:
        """The place of each node in its layer, from 0 to 1."""
        found = [0.0] * len(self._level)
        for row in self._rows:
            for i, v in enumerate(row):
                found[v] = (i + 0.5) / len(row)
        return found

    def _crossings(self) -> int:
        places = self._places()
        count = 0
        for row in self._rows:
            pairs = sorted((places[v], places[w]) for v in row for w in self._after[v])
            count += sum(
                a[0] < b[0] and a[1] > b[1] for i, a in enumerate(pairs) for b in pairs[i + 1 :]
            )
        return count

    def _settle(self) -> list[float]:
        """Heights near to the middle of neighbours, in the order of the layers."""
        height = [0.0] * len(self._level)
        for row in self._rows:
            self._spread(row, dict.fromkeys(row, 0.0), height)
        for number in range(_ROUNDS):
            for row in self._rows if number % 2 == 0 else self._rows[::-1]:
                wanted = {v: self._wanted(v, height) for v in row}
                self._spread(row, wanted, height)
        return height

    def _wanted(self, v: int, height: Sequence[float]) -> float:
        """The middle of the neighbours, where inputs and outputs count little."""
        neighbours = [*self._before[v], *self._after[v]]
        inner = [w for w in neighbours if self._before[w] and self._after[w]]
        return _mean([height[w] for w in (*inner * 4, *neighbours)], height[v])

    def _spread(self, row: Sequence[int], wanted: Mapping[int, float], height: list[float]) -> None:
        """Puts nodes where they want to be, as near as the ones above and below let them.

        Neighbours that would overlap form a block that has the mean of what they want.
        """
        blocks: list[tuple[list[int], float]] = []  # nodes, and the height of the first
        for v in row:
            block, first = [v], wanted[v]
            while blocks and self._bottom(*blocks[-1]) < first + self._heights[block[0]] / 2:
                above, _ = blocks.pop()
                block = above + block
                offsets = self._offsets(block)
                first = _mean([wanted[w] - x for w, x in zip(block, offsets, strict=True)], 0.0)
            blocks.append((block, first))
        for block, first in blocks:
            for v, offset in zip(block, self._offsets(block), strict=True):
                height[v] = first + offset

    def _offsets(self, block: Sequence[int]) -> list[float]:
        """How much lower each node of a block is than the first one."""
        found = [0.0]
        for a, b in itertools.pairwise(block):
            gap = _GAP_DOWN if max(a, b) < len(self._sizes) else _GAP_DOWN / 2
            found.append(found[-1] - (self._heights[a] + self._heights[b]) / 2 - gap)
        return found

    def _bottom(self, block: Sequence[int], first: float) -> float:
        return first + self._offsets(block)[-1] - self._heights[block[-1]] / 2 - _GAP_DOWN


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _levels(count: int, edges: Sequence[Edge], last: Sequence[int]) -> list[int]:
    """The layer of each node: right of all that it reads, and inputs as near as they can be."""
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for a, b in edges:
        after[a].append(b)
        before[b].append(a)
    found = [0] * count
    missing = [len(x) for x in before]
    ready = [v for v in range(count) if not missing[v]]
    while ready:
        v = ready.pop()
        for w in after[v]:
            found[w] = max(found[w], found[v] + 1)
            missing[w] -= 1
            if not missing[w]:
                ready.append(w)
    end = max(found, default=0)
    for v in last:
        if not after[v] and before[v]:
            found[v] = end
    for v in range(count):
        if not before[v] and after[v]:
            found[v] = min(found[w] for w in after[v]) - 1
    return found
