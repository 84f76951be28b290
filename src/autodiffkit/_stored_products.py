"""Products with derivatives that the package has computed, stored or as a linear map."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from autodiffkit._block_table import BlockTable
from autodiffkit._leaves import LeafSpec, is_complex
from autodiffkit._products import Directions, numbers, real
from autodiffkit._program import Linear


class StoredJacobian:
    """First derivatives in blocks."""

    name = "plan"

    def __init__(
        self, table: BlockTable, targets: Sequence[LeafSpec], sources: Sequence[LeafSpec]
    ) -> None:
        self._table, self._targets, self._sources = table, targets, sources

    def _block(self, i: int, j: int) -> np.ndarray:
        """Axes [output entry, input entry]."""
        block = numbers(self._table.block(i, j))
        return block.reshape(self._targets[i].size, self._sources[j].size)

    def along(self, i: int, j: int, directions: Directions) -> np.ndarray:
        """Axes [direction, output entry]."""
        return _like(directions.flat @ self._block(i, j).T, self._targets[i])

    def against(self, i: int, j: int, weights: Directions) -> np.ndarray:
        """Axes [weight, input entry]."""
        return _like(weights.flat @ self._block(i, j), self._sources[j])

    def spread(self, i: int, j: int, directions: Directions) -> np.ndarray:
        """The products of absolute values, axes [direction, output entry]."""
        return np.abs(directions.flat) @ np.abs(self._block(i, j)).T


class StoredHessian:
    """Second derivatives in blocks."""

    name = "plan"

    def __init__(
        self, table: BlockTable, targets: Sequence[LeafSpec], sources: Sequence[LeafSpec]
    ) -> None:
        self._table, self._targets, self._sources = table, targets, sources

    def _product(
        self, axes: str, block: tuple[int, int, int], weights: Directions, directions: Directions
    ) -> np.ndarray:
        i, a, b = block
        sizes = (self._targets[i].size, self._sources[a].size, self._sources[b].size)
        found = numbers(self._table.block(i * len(self._sources) + a, b)).reshape(sizes)
        return np.einsum(axes, weights.flat, found, directions.flat, optimize=True)

    def along(
        self, block: tuple[int, int, int], weights: Directions, directions: Directions
    ) -> np.ndarray:
        """Axes [direction, weight, entry of the first source]."""
        product = self._product("wi,iab,kb->kwa", block, weights, directions)
        return _like(product, self._sources[block[1]])

    def across(
        self, block: tuple[int, int, int], weights: Directions, directions: Directions
    ) -> np.ndarray:
        """The same of the block with its sources exchanged."""
        i, a, b = block
        product = self._product("wi,iba,kb->kwa", (i, b, a), weights, directions)
        return _like(product, self._sources[a])


class MappedJacobian:
    """First derivatives as a linear map, where their blocks would be too large."""

    name = "linear map"

    def __init__(
        self, linear: Linear, targets: Sequence[LeafSpec], sources: Sequence[LeafSpec]
    ) -> None:
        self._linear, self._targets, self._sources = linear, targets, sources

    def along(self, i: int, j: int, directions: Directions) -> np.ndarray | None:
        """Axes [direction, output entry]; `None` if the map cannot be applied."""
        if self._linear.push_obstacle() is not None:
            return None
        rows: list[np.ndarray] = []
        for direction in directions.typed(self._sources[j].dtype):
            tangents = [jnp.zeros(s.shape, s.dtype) for s in self._sources]
            tangents[j] = direction
            rows.append(numbers(self._linear(*tangents)[i]).reshape(-1))
        return np.stack(rows)

    def against(self, i: int, j: int, weights: Directions) -> np.ndarray | None:
        """Axes [weight, input entry]; `None` if the map cannot be transposed."""
        if self._linear.pull_obstacle() is not None:
            return None
        rows: list[np.ndarray] = []
        for weight in weights.typed(self._targets[i].dtype):
            cotangents = [jnp.zeros(t.shape, t.dtype) for t in self._targets]
            cotangents[i] = weight
            rows.append(numbers(self._linear.pull(*cotangents)[j]).reshape(-1))
        return np.stack(rows)

    def spread(self, i: int, j: int, directions: Directions) -> None:
        """Not known."""


class MappedHessian:
    """Second derivatives as the linear map of the gradient."""

    name = "linear map"

    def __init__(
        self, linear: Linear, targets: Sequence[LeafSpec], sources: Sequence[LeafSpec]
    ) -> None:
        composed = [t for t in targets for _ in sources]
        self._map = MappedJacobian(linear, composed, sources)
        self._targets, self._sources = targets, sources

    def along(
        self, block: tuple[int, int, int], weights: Directions, directions: Directions
    ) -> np.ndarray | None:
        """Axes [direction, weight, entry of the first source]."""
        i, a, b = block
        found = self._map.along(i * len(self._sources) + a, b, directions)
        if found is None:
            return None
        shape = (len(directions), self._targets[i].size, self._sources[a].size)
        product = np.einsum("wi,kia->kwa", weights.flat, found.reshape(shape))
        return _like(product, self._sources[a])

    def across(
        self, block: tuple[int, int, int], weights: Directions, directions: Directions
    ) -> None:
        """Not known: the map goes one way."""


def _like(product: np.ndarray, spec: LeafSpec) -> np.ndarray:
    """The product in the kind of numbers of a leaf: JAX keeps the real part where that is real."""
    return product if is_complex(spec.dtype) else real(product)
