"""Blocks from sweeps of maps with named axes, and from their products at a cut."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from autodiffkit._algebra import added, aligned, compose
from autodiffkit._arrays import matrix_of
from autodiffkit._compact import Shared, compact_of
from autodiffkit._equations import EquationArrays
from autodiffkit._leaves import LeafSpec, derivative_dtype, is_complex, promote
from autodiffkit._maps import ONE, Data, Map, Part
from autodiffkit._network import Network
from autodiffkit._program import Linear
from autodiffkit._schedule import Split
from autodiffkit._structured import Sweeper


class SweptMaps:
    """What was swept as maps: for each variable, the maps of its units.

    A complex variable has two units where the map is only R-linear: 1 and 1j to push from, 1 and
    -1j to pull from, as for directions.
    """

    def __init__(self, linear: Linear, network: Network, split: Split) -> None:
        self._arithmetic = EquationArrays(linear)
        self._network = network
        self._split = split
        sweeper = Sweeper(self._arithmetic, network)
        single = Sweeper(EquationArrays(linear, keeps_factors=False), network)
        stops = (*split.middle, *split.pulled)
        apart = (*stops, *split.pushed)
        self._pushed = {
            v: [
                (single if network.sizes[v] == 1 else sweeper).push(
                    v, unit, split.steps_of(v, forward=True)
                )
                for unit in self._units(v, 1j)
            ]
            for v in (*split.pushed, *split.middle)
            if v in split.maps
        }
        self._pulled = {
            v: [
                (single if network.sizes[v] == 1 else sweeper).pull(
                    v, unit, split.steps_of(v, forward=False), apart
                )
                for unit in self._units(v, -1j)
            ]
            for v in stops
            if v in split.maps
        }

    def _units(self, variable: int, imaginary: complex) -> list[Data]:
        dtype = self._network.variables[variable].aval.dtype
        if not is_complex(dtype) or self._network.complex_directions == 1:
            return [ONE]
        return [Data((Part(np.asarray(unit, dtype), ()),)) for unit in (1, imaginary)]

    def maps(self, t: int, s: int) -> list[Map]:
        """The maps from a source to a target variable, to add up; not those of two units."""
        found: list[Map] = []
        for v in self._split.middle:
            if v not in self._split.maps:
                continue
            for rows, columns in zip(self._pushed[v], self._pulled[v], strict=True):
                if t in rows and s in columns:
                    found.append(self._product(rows[t], columns[s]))
        for one_end, swept, other_end in ((s, self._pushed, t), (t, self._pulled, s)):
            if one_end in swept and one_end not in self._split.middle:
                units = swept[one_end]
                if len(units) == 1 and other_end in units[0]:
                    found.append(units[0][other_end])
        return found

    def pairs(self, t: int, s: int) -> list[tuple[Map, Map, int]]:
        """The maps of both units of a complex end, with the sign of the imaginary one."""
        found: list[tuple[Map, Map, int]] = []
        for one_end, swept, other_end, sign in ((s, self._pushed, t, -1), (t, self._pulled, s, 1)):
            units = swept.get(one_end, [])
            if one_end not in self._split.middle and len(units) == 2 and other_end in units[0]:
                found.append((units[0][other_end], units[1][other_end], sign))
        return found

    def blocks(self, t: int, s: int, target: LeafSpec, source: LeafSpec) -> list[Array]:
        """The block in parts to add up, none if nothing of it was swept as maps."""
        shape, dtype = target.shape + source.shape, derivative_dtype(target, source)
        maps = self.maps(t, s)
        terms: list[Array] = []
        if maps:
            terms.append(matrix_of(self._arithmetic, self._total(maps), shape, dtype))
        part = jnp.finfo(dtype).dtype
        for first, second, sign in self.pairs(t, s):
            real, imaginary = (matrix_of(self._arithmetic, x, shape, part) for x in (first, second))
            terms.append(jax.lax.complex(real, sign * imaginary))
        return terms

    def compact_block(
        self, t: int, s: int, target: LeafSpec, source: LeafSpec
    ) -> tuple[Array, Shared]:
        """The block with shared axes first, and which these are."""
        shapes, dtype = (target.shape, source.shape), derivative_dtype(target, source)
        maps = self.maps(t, s)
        if maps:
            return compact_of(self._total(maps), *shapes, dtype)
        ((first, second, sign),) = self.pairs(t, s)
        axes = [(i, i) for i in range(len(first.outs))]
        units = aligned(self._arithmetic, first, second, axes)
        part = jnp.finfo(dtype).dtype
        (real, shared), (imaginary, _) = (compact_of(x, *shapes, part) for x in units)
        return jax.lax.complex(real, sign * imaginary), shared

    def _total(self, maps: Sequence[Map]) -> Map:
        return added(self._arithmetic, maps)

    def _product(self, row: Map, column: Map) -> Map:
        """A product of the highest precision; low-precision dtypes accumulate in float32."""
        dtype = promote([row.dtype, column.dtype])
        return compose(
            self._arithmetic,
            row,
            column,
            promote([dtype, jnp.float32]),
            constant_first=False,
            precision=jax.lax.Precision.HIGHEST,
        )


def without(variables: Sequence[int], split: Split) -> list[int]:
    """Those that are swept in one batch."""
    return [v for v in variables if v not in split.maps]
