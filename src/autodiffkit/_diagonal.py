"""Diagonals of square blocks of a linear map, without the blocks where that is cheaper.

Four ways lead to a diagonal. Where axes stay apart, the map of a block has them once, and the
diagonal is what its factors are where output and input have the same labels. At a variable that
all paths cross, the block is a product of two maps, of which only the diagonal is summed. There
is a direction for each entry, a few at a time, of which one entry each is kept. And there is the
block itself, which may take fewer directions, where it is small.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from autodiffkit._arrays import matrix_of
from autodiffkit._batches import pull, push
from autodiffkit._blocks import sweep
from autodiffkit._cost import Work, total
from autodiffkit._counts import written_entries
from autodiffkit._equations import EquationArrays
from autodiffkit._errors import ModeError, listed
from autodiffkit._fusion import fused_costs
from autodiffkit._jax_compat import gathered
from autodiffkit._leaves import Ends, derivative_dtype, is_complex, promote
from autodiffkit._maps import ONE, Label, Map, product
from autodiffkit._naming import describe
from autodiffkit._network import Network
from autodiffkit._operator_plan import Way, directions
from autodiffkit._plan import NAMES
from autodiffkit._planning import make_plan
from autodiffkit._program import Linear, reason
from autodiffkit._schedule import Schedule, Sketch
from autodiffkit._sketch import sketch
from autodiffkit._structured import Sweeper
from autodiffkit._sweeps import LinearSweeps

# Bytes of an array that a few directions lead to, or that a map is, at most.
_CHUNK = 1 << 24

# What a product has to save to be worth it.
_TIE = 1.25

# So many operations an entry are done where an array is read.
_READ = 4

# So many variables that all paths cross are looked at.
_WAISTS = 12


class Diagonal:
    """The diagonal of one square block of a linear map.

    Args:
        call: The call, for messages.
        linear: The map.
        ends: One source and one target of the same shape.
    """

    def __init__(self, call: str, linear: Linear, ends: Ends) -> None:
        self._linear = linear
        self._ends = ends
        (self._source,), (self._target,) = ends.sources, ends.targets
        self._network = Network(linear.program, 1, columns=ends.columns, rows=ends.rows)
        self._schedule: Schedule | None = None  # of the whole block, where that was planned
        self.way = self._choose(call)

    # What it takes ------------------------------------------------------------------

    def _choose(self, call: str) -> Way:
        """The cheapest way of those that are possible."""
        network, spec = self._network, self._source
        if not network.connected(0, 0):
            return Way(spec, "zero", "no path", Work())
        asked = [
            (step.equation, self._linear.program.equation_obstacles(step.equation))
            for step in network.steps
        ]
        pushes = next((x for x in asked if x[1].push is not None), None)
        pulls = next((x for x in asked if x[1].pull is not None), None)
        ways: list[Way] = []
        for kind, mode, obstacle in (("pushed", "fwd", pushes), ("pulled", "rev", pulls)):
            if obstacle is None:
                costs = fused_costs(network, mode)
                work = total(costs[step.number] for step in network.steps).batch(spec.size)
                note = f"{directions(spec.size)}, one for each entry" + (
                    f", {self._chunk} at a time" if self._chunk < spec.size else ""
                )
                ways.append(Way(spec, kind, note, work, work))
        program = self._linear.program
        by_axes = not (program.asks_of_tangents or program.is_placed)
        plain = min((way.work for way in ways if way.work), key=Work.time, default=None)
        if pushes is None and pulls is None and by_axes:
            for way in self._structured():
                assert way.work is not None
                # However much is computed where it is read, the diagonal is written.
                least = float(spec.size * self._target.dtype.itemsize)
                work = way.work._replace(moved=max(way.work.moved, least))
                ways.append(dataclasses.replace(way, work=work, plain=plain))
        if not any(way.kind in {"apart", "waist"} for way in ways) and self._block_is_small:
            ways.append(self._by_block(call, plain))
        if not ways:
            equation, found = next(x for x in asked if x[1].push is not None)
            assert found.push is not None
            raise ModeError(
                f"{call}: neither mode can sweep all of the function, and a diagonal of so many "
                "entries takes one that can. adk.hessian joins both, and so does this by fewer "
                "entries (wrt=)."
                + listed([
                    f"cannot push through {describe(self._linear.program.jaxpr.eqns[equation])}: "
                    f"{reason(found.push)}"
                ])
            ) from found.push
        # Of about equals, what multiplies nothing.
        return min(
            ways,
            key=lambda way: (
                math.inf
                if way.work is None
                else way.work.time() * _TIE ** (way.kind in {"waist", "block"})
            ),
        )

    @property
    def _block_is_small(self) -> bool:
        spec = self._source
        return not is_complex(spec.dtype) and spec.size**2 * spec.dtype.itemsize <= _CHUNK

    def _by_block(self, call: str, plain: Work | None) -> Way:
        """The whole block by its own plan, which may cut where a diagonal cannot."""
        plan, self._schedule = make_plan(call, LinearSweeps(self._linear, self._ends), "auto")
        count = plan.forward_sweeps + plan.reverse_sweeps
        note = f"the whole block by {NAMES[plan.mode]} mode, {directions(count)}"
        return Way(self._source, "block", note, plan._choice.chosen.work, plain)

    def _structured(self) -> Iterable[Way]:
        """The ways that follow the axes."""
        network, spec = self._network, self._source
        (start,), (stop,) = network.ends
        everything = range(len(network.steps))
        whole = sketch(network, start, everything, written=False)
        if stop in whole.maps and whole.maps[stop].shared and self._is_small(whole, stop):
            found = joined_labels([whole.maps[stop]])
            if found is not None:
                size = product(found.labels())
                work = whole.work.plus(Work(float(size), 4.0 * size))
                count = whole.directions
                note = f"{directions(count)}: axes are kept apart"
                yield Way(spec, "apart", note, work)
        # Some rules clip what they pull: from between, they would pull something else.
        for waist in () if self._linear.program.has_rules else self._waists():
            left = sketch(network, waist, network.after([waist]), written=False)
            right = sketch(network, waist, network.toward([waist]), forward=False, written=False)
            if stop not in left.maps or start not in right.maps:
                continue
            if not (self._is_small(left, stop) and self._is_small(right, start)):
                continue
            found = joined_labels([left.maps[stop], right.maps[start]])
            if found is None:
                continue
            size = product(found.labels())
            work = left.work.plus(right.work).plus(Work(2.0 * size, 4.0 * size))
            equation = next(x.equation for x in network.steps if waist in x.outputs)
            place = describe(network.program.jaxpr.eqns[equation])
            note = f"by a product over {network.sizes[waist]} at {place}"
            yield Way(spec, "waist", note, work, waist=waist)

    def _waists(self) -> list[int]:
        """Variables that all paths cross, the first and the last of each run of one shape."""
        network = self._network
        last = dict[int, int]()
        for step in network.steps:
            for v in step.inputs:
                last[v] = step.number
        found: list[int] = []
        open_now = {*network.ends[0]}
        for step in network.steps:
            open_now |= {*step.outputs}
            open_now = {
                v for v in open_now if last.get(v, -1) > step.number or v in network.ends[1]
            }
            if len(open_now) == 1:
                found += open_now
        ends = {*network.ends[0], *network.ends[1]}
        # Between real variables a map of complex ones is only R-linear: no product of two maps.
        avals = {v: network.variables[v].aval for v in dict.fromkeys(found)}
        found = [v for v, x in avals.items() if v not in ends and not is_complex(x.dtype)]
        shapes = [avals[v].shape for v in found]
        edges = [
            v
            for i, v in enumerate(found)
            if not (0 < i < len(found) - 1 and shapes[i - 1] == shapes[i] == shapes[i + 1])
        ]
        return sorted(edges, key=lambda v: network.sizes[v])[:_WAISTS]

    @property
    def _chunk(self) -> int:
        widest = max(self._network.sizes, default=1)
        return max(1, min(self._source.size, _CHUNK // max(1, 4 * widest)))

    def _is_small(self, swept: Sketch, end: int) -> bool:
        """Whether what is computed of a map takes little memory.

        A map that has taken a few operations an entry is a constant, which exists already, or is
        computed where it is read.
        """
        entries = sum(map(written_entries, swept.maps[end].data.parts))
        return 4 * entries <= _CHUNK or swept.work.flops <= _READ * entries

    # The entries --------------------------------------------------------------------

    def compute(self) -> Array:
        """The diagonal, in the shape of the leaf."""
        dtype = derivative_dtype(self._target, self._source)
        found = self._computed()
        return gathered(found).reshape(self._source.shape).astype(dtype)

    def _computed(self) -> Array:
        way, network = self.way, self._network
        if way.kind == "zero":
            return jnp.zeros(self._source.shape, derivative_dtype(self._target, self._source))
        (start,), (stop,) = network.ends
        if way.kind == "block":
            assert self._schedule is not None
            size = self._source.size
            block = sweep(self._linear, self._schedule, self._ends).block(0, 0)
            return jnp.diagonal(gathered(block).reshape(size, size))
        if way.kind in {"pushed", "pulled"}:
            return self._by_directions(start, stop, forward=way.kind == "pushed")
        arithmetic = EquationArrays(self._linear)
        sweeper = Sweeper(arithmetic, network)
        if way.waist is None:
            maps = [sweeper.push(start, ONE, range(len(network.steps)))[stop]]
        else:
            left = sweeper.push(way.waist, ONE, network.after([way.waist]))
            right = sweeper.pull(way.waist, ONE, network.toward([way.waist]))
            maps = [left[stop], right[start]]
        return diagonal_of(arithmetic, maps, self._source.shape)

    def _by_directions(self, start: int, stop: int, *, forward: bool) -> Array:
        """One entry of each direction, a few directions at a time."""
        steps = range(len(self._network.steps))
        size, shape = self._source.size, self._source.shape
        if self._chunk >= size:
            if forward:
                swept = push(self._linear, self._network, [start], [stop], steps)[stop]
            else:
                swept = pull(self._linear, self._network, [start], [stop], steps)[start]
            return jnp.diagonal(gathered(swept).reshape(size, size))
        spec = self._source if forward else self._target

        def entry(number: Array) -> Array:
            unit = jnp.zeros(size, spec.dtype).at[number].set(1).reshape(shape)
            swept = self._swept(unit, start, stop, forward=forward)
            return gathered(swept).reshape(-1)[number]

        return jax.lax.map(entry, jnp.arange(size), batch_size=self._chunk)

    def _swept(self, unit: Array, start: int, stop: int, *, forward: bool) -> Array:
        names = self._network.variables
        equations = {step.equation for step in self._network.steps}
        program, needed = self._linear.program.piece([names[start]], [names[stop]], equations)
        part = Linear([self._linear.residuals[i] for i in needed], program)
        if not forward:
            return part.pull(unit)[0]
        absent = program.sources[1:]
        return part(unit, *(jnp.zeros(x.shape, x.dtype) for x in absent))[0]


# Labels -------------------------------------------------------------------------


class JoinedLabels:
    """Labels of maps that are the same on the diagonal of their product."""

    def __init__(self) -> None:
        self._parents: dict[Label, Label] = {}
        self.outs: list[Label] = []
        self.all: list[Label] = []

    def root(self, label: Label) -> Label:
        """The one that stands for all that are the same."""
        while label in self._parents:
            label = self._parents[label]
        return label

    def join(self, first: Label, second: Label) -> None:
        """Makes two labels the same."""
        one, other = self.root(first), self.root(second)
        if one is not other:
            self._parents[one] = other

    def labels(self) -> list[Label]:
        """Those that stand for all."""
        return list(dict.fromkeys(map(self.root, self.all)))


def joined_labels(maps: Sequence[Map]) -> JoinedLabels | None:
    """The labels on the diagonal of a product of maps, the left one first.

    Returns:
        The labels; `None` where axes are divided differently, or the diagonal has zeros that no
        label tells.
    """
    found = JoinedLabels()
    following = [*maps[1:], maps[0]]
    for left, right in zip(maps, following, strict=True):
        for one, other in zip(left.ins, right.outs, strict=True):
            if [x.size for x in one] != [x.size for x in other]:
                return None
            for a, b in zip(one, other, strict=True):
                found.join(a, b)
    for given in maps:
        for axis in (*given.outs, *given.ins):
            found.all += axis
    outs = [label for axis in maps[0].outs for label in axis]
    found.outs = [found.root(label) for label in outs]
    return found if len({*found.outs}) == len(found.outs) else None


def diagonal_of(arithmetic: EquationArrays, maps: Sequence[Map], shape: Sequence[int]) -> Array:
    """The diagonal of a product of maps; only its entries are summed."""
    found = joined_labels(maps)
    if found is None:
        return _diagonal_of_dense(arithmetic, maps, shape)
    numbers = {label: i for i, label in enumerate(found.labels())}
    operands: list[Any] = []
    present: set[Label] = set()
    dtype = promote(given.dtype for given in maps)
    for given in maps:
        for part in given.data.parts:
            axes = [found.root(label) for label in part.axes]
            present.update(axes)
            operands += [jnp.asarray(part.array).astype(dtype), [numbers[x] for x in axes]]
    kept = [label for label in found.outs if label in present]
    if operands:
        whole = jnp.einsum(
            *operands, [numbers[x] for x in kept], precision=jax.lax.Precision.HIGHEST
        )
    else:
        whole = jnp.ones((), dtype)
    absent = [x for x in found.labels() if x not in present and x not in found.outs]
    whole = whole * jnp.asarray(product(absent), whole.dtype)
    dimensions = [found.outs.index(label) for label in kept]
    sizes = [label.size for label in found.outs]
    return jax.lax.broadcast_in_dim(whole, sizes, dimensions).reshape(shape)


def _diagonal_of_dense(
    arithmetic: EquationArrays, maps: Sequence[Map], shape: Sequence[int]
) -> Array:
    size = product(Label(n) for n in shape)
    first, *rest = (
        matrix_of(
            arithmetic,
            given,
            (_size(given.outs), _size(given.ins)),
            given.dtype,
        )
        for given in maps
    )
    if not rest:
        return jnp.diagonal(first).reshape(shape)
    (second,) = rest
    return jnp.einsum("ij,ji->i", first, second, precision=jax.lax.Precision.HIGHEST).reshape(
        shape if size else (0,)
    )


def _size(axes: Sequence[Sequence[Label]]) -> int:
    return product(label for axis in axes for label in axis)
