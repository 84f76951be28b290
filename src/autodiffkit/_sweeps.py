"""Running derivatives: directions pushed forward or pulled back, assembled into blocks.

Blocks are lists of rows: `blocks[i][j]` has the shape of output `i` followed by that of
source `j`. Where a map is only R-linear, a complex side takes two directions an entry:

- real to complex: pulling 1 gives the real part of the derivative, pulling -1j the
  imaginary one;
- complex to real: pushing 1 and 1j gives the derivatives by the real and the imaginary
  part, and the block is the first minus 1j times the second, as `jax.grad` defines it.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
from jaxtyping import Array

from autodiffkit._jax_compat import is_staging
from autodiffkit._leaves import LeafSpec, derivative_dtype, directions
from autodiffkit._plan import Ends
from autodiffkit._program import FlatFunction, Linear, Staged, linearize, without_traceback

Blocks = list[list[Array]]


class LinearSweeps:
    """The sweeps of a linear program in either direction."""

    def __init__(self, linear: Linear, ends: Ends) -> None:
        self._linear = linear
        self._ends = ends

    def obstacle(self, mode: str) -> Exception | None:
        """Why a mode is impossible for this program, `None` if it is possible."""
        return self._linear.push_obstacle() if mode == "fwd" else self._linear.pull_obstacle()

    def run(self, mode: str) -> Blocks:
        """The blocks, by a mode that has no obstacle."""
        ends = self._ends
        if mode == "fwd":

            def push(k: Array) -> list[Array]:
                return self._linear(*unit_direction(ends.sources, k, 1.0, ends.holomorphic))

            count = directions(ends.sources, ends.holomorphic)
            return assemble_forward(_batch(push, count, -1), ends)
        transposed = self._linear.transpose()

        def pull(k: Array) -> list[Array]:
            return transposed(*unit_direction(ends.targets, k, -1.0, ends.holomorphic))

        count = directions(ends.targets, ends.holomorphic)
        return assemble_reverse(_batch(pull, count, 0), ends)


class EagerSweeps:
    """A flat function that has run once, concretely, in `jax.linearize`."""

    def __init__(self, function: FlatFunction, primals: Sequence[Array]) -> None:
        self.linearized = linearize(function, primals)

    def name(self, ends: Ends) -> None:
        """Says what the inputs and outputs are, which is known once the function has run."""
        self._sweeps = LinearSweeps(self.linearized[2], ends)

    def obstacle(self, mode: str) -> Exception | None:
        """Why a mode is impossible for this function, `None` if it is possible."""
        return self._sweeps.obstacle(mode)

    def run(self, mode: str) -> tuple[list[Array], list[Any], Blocks]:
        """The outputs, the rest and the blocks, by a mode that has no obstacle."""
        outs, rest, _ = self.linearized
        return outs, rest, self._sweeps.run(mode)


class StagedSweeps:
    """A flat function that was traced, as part of a larger trace.

    A sweep is traced by itself first: what refuses does so there, and of what is tried only
    what is chosen becomes part of the larger trace.
    """

    def __init__(self, function: FlatFunction, primals: Sequence[Array]) -> None:
        self._primals = tuple(primals)
        self._staged = Staged(function, primals)

    def name(self, ends: Ends) -> None:
        """Says what the inputs and outputs are, which is known once the function is traced."""
        self._ends = ends

    @functools.cached_property
    def linearized(self) -> tuple[list[Array], list[Any], Linear]:
        """The outputs, the rest, and the tangent map as a linear program."""
        return linearize(self._staged, self._primals)

    def obstacle(self, mode: str) -> Exception | None:
        """Why a mode is impossible for this function, `None` if it is possible."""
        traced = self._fwd if mode == "fwd" else self._rev
        return traced if isinstance(traced, Exception) else None

    def run(self, mode: str) -> tuple[list[Array], list[Any], Blocks]:
        """The outputs, the rest and the blocks, by a mode that has no obstacle."""
        traced = self._fwd if mode == "fwd" else self._rev
        assert not isinstance(traced, Exception)
        return traced()

    @functools.cached_property
    def _fwd(self) -> Callable[[], Any] | Exception:
        return _traced(self._forward)

    @functools.cached_property
    def _rev(self) -> Callable[[], Any] | Exception:
        return _traced(self._reverse)

    def _forward(self) -> tuple[list[Array], list[Any], Blocks]:
        # Fused with the value: linearising would store what forward mode never needs.
        ends = self._ends

        def push(k: Array) -> tuple[list[Array], list[Any], list[Array]]:
            unit = unit_direction(ends.sources, k, 1.0, ends.holomorphic)
            outs, tangents, rest = jax.jvp(self._staged, self._primals, tuple(unit), has_aux=True)
            return outs, rest, tangents

        count = directions(ends.sources, ends.holomorphic)
        if count == 0:
            outs, rest = self._staged(*self._primals)
            return outs, rest, assemble_forward(None, ends)
        outs, rest, tangents = _batch(push, count, (None, None, -1))
        return outs, rest, assemble_forward(tangents, ends)

    def _reverse(self) -> tuple[list[Array], list[Any], Blocks]:
        outs, rest, linear = linearize(self._staged, self._primals)
        return outs, rest, LinearSweeps(linear, self._ends).run("rev")


def prepare(function: FlatFunction, primals: Sequence[Array]) -> EagerSweeps | StagedSweeps:
    """Evaluates a flat function once: traced where JAX is tracing, else with its values."""
    return (StagedSweeps if is_staging() else EagerSweeps)(function, primals)


def _traced(sweep: Callable[[], Any]) -> Callable[[], Any] | Exception:
    try:
        closed, shape = jax.make_jaxpr(sweep, return_shape=True)()
    except Exception as error:  # any equation may refuse, each in its own way
        return without_traceback(error)
    treedef = jax.tree.structure(shape)
    run = jax.extend.core.jaxpr_as_fun(closed)
    return lambda: jax.tree.unflatten(treedef, run())


# Directions and blocks ----------------------------------------------------------


def unit_direction(
    specs: Sequence[LeafSpec], k: Array, imaginary: float, holomorphic: bool
) -> list[Array]:
    """The `k`-th direction over all leaves, made where it is used.

    A complex leaf of an R-linear map takes its real directions first and then the imaginary
    ones, of which `imaginary` times 1j is the unit.
    """
    unit: list[Array] = []
    for spec, part in zip(specs, _parts(specs, holomorphic), strict=True):
        index = jax.lax.iota(jnp.int32, spec.size) + part.start
        hot = (index == k).astype(spec.dtype)
        if part.stop - part.start > spec.size:
            second = (index + spec.size == k).astype(hot.real.dtype)
            hot = jax.lax.complex(hot.real, second * jnp.asarray(imaginary, second.dtype))
        unit.append(hot.reshape(spec.shape))
    return unit


def _parts(specs: Sequence[LeafSpec], holomorphic: bool) -> list[slice]:
    """Which directions belong to each leaf."""
    parts: list[slice] = []
    start = 0
    for spec in specs:
        stop = start + directions([spec], holomorphic)
        parts.append(slice(start, stop))
        start = stop
    return parts


def _batch(function: Callable[[Array], Any], count: int, out_axes: Any) -> Any:
    """The function over all directions; a lone direction is not batched, none gives `None`."""
    if count == 0:
        return None
    if count > 1:
        return jax.vmap(function, out_axes=out_axes)(jnp.arange(count, dtype=jnp.int32))
    results = function(jnp.zeros((), jnp.int32))
    if isinstance(out_axes, tuple):
        return (*results[:-1], [jnp.expand_dims(x, -1) for x in results[-1]])
    return [jnp.expand_dims(x, out_axes) for x in results]


def assemble_forward(tangents: list[Array] | None, ends: Ends) -> Blocks:
    """Blocks from pushed directions: `tangents[i]` has axes [output i..., direction]."""
    parts = _parts(ends.sources, ends.holomorphic)
    return [
        [
            _block(None if tangents is None else tangents[i][..., part], target, source, -1)
            for source, part in zip(ends.sources, parts, strict=True)
        ]
        for i, target in enumerate(ends.targets)
    ]


def assemble_reverse(cotangents: list[Array] | None, ends: Ends) -> Blocks:
    """Blocks from pulled directions: `cotangents[j]` has axes [direction, source j...]."""
    parts = _parts(ends.targets, ends.holomorphic)
    return [
        [
            _block(None if cotangents is None else cotangents[j][part], target, source, 0)
            for j, source in enumerate(ends.sources)
        ]
        for target, part in zip(ends.targets, parts, strict=True)
    ]


def _block(swept: Array | None, target: LeafSpec, source: LeafSpec, axis: int) -> Array:
    """One block from the directions that belong to it, which lie along `axis`."""
    dtype = derivative_dtype(target, source)
    shape = target.shape + source.shape
    if swept is None or 0 in shape:
        return jnp.zeros(shape, dtype)
    if swept.size == 2 * math.prod(shape):
        # An R-linear map: the real directions and then the imaginary ones.
        first, second = jnp.split(swept, 2, axis=axis)
        part = jnp.finfo(dtype).dtype
        sign = -1 if axis == -1 else 1
        swept = jax.lax.complex(first.astype(part), sign * second.astype(part))
    return swept.reshape(shape).astype(dtype)
