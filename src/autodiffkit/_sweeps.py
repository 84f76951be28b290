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
from autodiffkit._program import FlatFunction, Linear, Staged, linearize, reason
from autodiffkit._trees import LeafSpec, derivative_dtype, directions, is_complex

Blocks = list[list[Array]]


class LinearSweeps:
    """The sweeps of a linear program in either direction."""

    def __init__(
        self,
        linear: Linear,
        sources: Sequence[LeafSpec],
        targets: Sequence[LeafSpec],
        *,
        holomorphic: bool,
    ) -> None:
        self._linear = linear
        self._sources, self._targets = sources, targets
        self._holomorphic = holomorphic

    def obstacle(self, mode: str) -> str | None:
        """Why a mode is impossible for this program, `None` if it is possible."""
        return self._linear.push_obstacle() if mode == "fwd" else self._linear.pull_obstacle()

    def run(self, mode: str) -> Blocks:
        """The blocks, by a mode that has no obstacle."""
        if mode == "fwd":

            def push(k: Array) -> list[Array]:
                return self._linear(*unit_direction(self._sources, k, 1.0, self._holomorphic))

            tangents = _batch(push, directions(self._sources, self._holomorphic), -1)
            return assemble_forward(tangents, self._sources, self._targets, self._holomorphic)
        pull_map = self._linear.transpose()

        def pull(k: Array) -> list[Array]:
            return pull_map(*unit_direction(self._targets, k, -1.0, self._holomorphic))

        cotangents = _batch(pull, directions(self._targets, self._holomorphic), 0)
        return assemble_reverse(cotangents, self._sources, self._targets, self._holomorphic)


class Sweeps:
    """A flat function at a point, ready to be swept in either direction.

    Where JAX is recording operations, the function is staged once, so that a forward sweep
    can be fused with the value and store no residuals. Otherwise it runs concretely, once,
    in `jax.linearize`.
    """

    outs: list[Any]  # arrays; where the function is staged, their shapes and dtypes

    def __init__(self, function: FlatFunction, primals: Sequence[Array]) -> None:
        self._primals = tuple(primals)
        self._staged: Staged | None = None
        if is_staging():
            self._staged = Staged(function, primals)
            self.outs = self._staged.outs
        else:
            self.linearized = linearize(function, primals)
            self.outs = self.linearized[0]

    @functools.cached_property
    def linearized(self) -> tuple[list[Array], list[Any], Linear]:
        """The outputs, the rest, and the tangent map as a linear program."""
        assert self._staged is not None
        return linearize(self._staged, self._primals)

    def name(
        self, sources: Sequence[LeafSpec], targets: Sequence[LeafSpec], *, holomorphic: bool
    ) -> None:
        """Says what the inputs and outputs are, as far as blocks depend on it."""
        self._sources, self._targets = tuple(sources), tuple(targets)
        self._holomorphic = holomorphic

    @functools.cached_property
    def _linear_sweeps(self) -> LinearSweeps:
        return LinearSweeps(
            self.linearized[2], self._sources, self._targets, holomorphic=self._holomorphic
        )

    @functools.cached_property
    def _fused_forward(self) -> Callable[[], tuple[list[Array], list[Any], Blocks]] | str:
        """The forward sweep of the staged function, traced; or why it is impossible."""
        staged = self._staged
        assert staged is not None

        def push(k: Array) -> tuple[list[Array], list[Any], list[Array]]:
            unit = unit_direction(self._sources, k, 1.0, self._holomorphic)
            outs, tangents, rest = jax.jvp(staged, self._primals, tuple(unit), has_aux=True)
            return outs, rest, tangents

        def sweep() -> tuple[list[Array], list[Any], Blocks]:
            count = directions(self._sources, self._holomorphic)
            if count == 0:
                outs, rest = staged(*self._primals)
                tangents = None
            else:
                outs, rest, tangents = _batch(push, count, (None, None, -1))
            blocks = assemble_forward(tangents, self._sources, self._targets, self._holomorphic)
            return outs, rest, blocks

        try:
            closed, shape = jax.make_jaxpr(sweep, return_shape=True)()
        except Exception as error:  # any equation may refuse, each in its own way
            return reason(error)
        run = jax.extend.core.jaxpr_as_fun(closed)
        return lambda: jax.tree.unflatten(jax.tree.structure(shape), run())

    def obstacle(self, mode: str) -> str | None:
        """Why a mode is impossible for this function, `None` if it is possible."""
        if mode == "fwd" and self._staged is not None:
            return self._fused_forward if isinstance(self._fused_forward, str) else None
        return self._linear_sweeps.obstacle(mode)

    def run(self, mode: str) -> tuple[list[Array], list[Any], Blocks]:
        """The outputs, the rest and the blocks, by a mode that has no obstacle."""
        if mode == "fwd" and self._staged is not None:
            assert not isinstance(self._fused_forward, str)
            return self._fused_forward()
        outs, rest, _ = self.linearized
        return outs, rest, self._linear_sweeps.run(mode)


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


def assemble_forward(
    tangents: list[Array] | None,
    sources: Sequence[LeafSpec],
    targets: Sequence[LeafSpec],
    holomorphic: bool,
) -> Blocks:
    """Blocks from pushed directions: `tangents[i]` has axes [output i..., direction]."""
    parts = _parts(sources, holomorphic)
    return [
        [
            _block(None if tangents is None else tangents[i][..., part], target, source, -1)
            for source, part in zip(sources, parts, strict=True)
        ]
        for i, target in enumerate(targets)
    ]


def assemble_reverse(
    cotangents: list[Array] | None,
    sources: Sequence[LeafSpec],
    targets: Sequence[LeafSpec],
    holomorphic: bool,
) -> Blocks:
    """Blocks from pulled directions: `cotangents[j]` has axes [direction, source j...]."""
    parts = _parts(targets, holomorphic)
    return [
        [
            _block(None if cotangents is None else cotangents[j][part], target, source, 0)
            for j, source in enumerate(sources)
        ]
        for target, part in zip(targets, parts, strict=True)
    ]


def _block(swept: Array | None, target: LeafSpec, source: LeafSpec, axis: int) -> Array:
    """One block from the directions that belong to it, which lie along `axis`."""
    dtype = derivative_dtype(target, source)
    shape = target.shape + source.shape
    if swept is None or 0 in shape:
        return jnp.zeros(shape, dtype)
    if swept.size == 2 * math.prod(shape):
        # An R-linear map: the real directions and then the imaginary ones. The parts are
        # put together, not added with a factor 1j, which makes NaN of an infinity.
        first, second = jnp.split(swept, 2, axis=axis)
        part = jnp.finfo(dtype).dtype
        sign = -1 if axis == -1 else 1
        swept = jax.lax.complex(first.astype(part), sign * second.astype(part))
    return swept.reshape(shape).astype(dtype)
