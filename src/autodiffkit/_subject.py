"""A function at a point, and the directions and weights that its derivatives are seen by."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autodiffkit._products import (
    Directions,
    Flat,
    Reference,
    compiled,
    directions_of,
    gradient,
    roundoff,
    unit_directions_of,
    unit_weights_of,
    weights_of,
)
from autodiffkit._program import reason

# The relative tolerance is so many times the square root of the rounding of the dtype:
# derivatives of an ill-conditioned operation may differ by more than rounding, and be as good.
_RTOL = 3.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """How derivatives are compared.

    Args:
        full: Whether along each entry and not along random directions.
        count: The number of random directions of each leaf, and of weights of each output.
        rtol: The relative tolerance; `None` means one that depends on dtypes.
        atol: The absolute one.
        seed: Of the random numbers.
    """

    full: bool
    count: int
    rtol: float | None
    atol: float
    seed: int


class Subject:
    """A function at a point, with the directions and weights that its derivatives are seen by.

    Args:
        function: The flat function.
        point: The point.
        settings: How it is compared.
        reference: What differences are taken of, if not of the function itself.
        outs: Its value there, if it has been computed.
        program: That as a program, if it can be had and looked into.
        traceable: Whether the function is one program whatever the values are.
        holomorphic: Whether it is holomorphic.
    """

    def __init__(
        self,
        function: Flat,
        point: Sequence[Any],
        settings: Settings,
        *,
        reference: Flat | None = None,
        outs: Sequence[Any] | None = None,
        program: tuple[Any, list[Any]] | None = None,
        traceable: bool = True,
        holomorphic: bool = False,
    ) -> None:
        self.traceable = traceable
        self.function = function
        self.point = list(point)
        self.settings = settings
        self.notes: dict[str, str] = {}  # ways that are impossible, and why
        self.run = compiled(reference or function, traceable=traceable)
        self.targets = list(self.run(*point)) if outs is None else list(outs)
        self.reference = Reference(self.run, point, self.targets, program)
        random = np.random.default_rng(settings.seed)
        self.directions = [self._directions(x, random, holomorphic=holomorphic) for x in point]
        self.holomorphic = holomorphic
        self.weights = [
            unit_weights_of(x, holomorphic=holomorphic)
            if settings.full
            else weights_of(x, settings.count, random)
            for x in self.targets
        ]
        self.gradient = compiled(gradient(function, self.weights), traceable=traceable)

    @functools.cached_property
    def gradients(self) -> list[Any] | None:
        """The weighted outputs' gradients by reverse mode, if it is possible."""
        return self.attempt("reverse", lambda: self.gradient(*self.point))

    def _directions(
        self, leaf: Any, random: np.random.Generator, *, holomorphic: bool
    ) -> Directions:
        if self.settings.full:
            return unit_directions_of(leaf, holomorphic=holomorphic)
        return directions_of(leaf, self.settings.count, random)

    def value(self, i: int) -> np.ndarray:
        """The entries of an output."""
        return self.reference.middle[self.reference.parts[i]]

    def tolerances(self, i: int, *sources: int) -> tuple[float, float]:
        """The relative tolerance of a block, and the rounding of its dtypes."""
        dtypes = [self.targets[i].dtype, *(self.point[j].dtype for j in sources)]
        epsilon = max(map(roundoff, dtypes))
        rtol = self.settings.rtol
        return _RTOL * math.sqrt(epsilon) if rtol is None else rtol, epsilon

    def attempt(self, way: str, run: Callable[[], Any]) -> Any:
        """What a way gives; `None`, with a note, if JAX refuses."""
        try:
            return run()
        except Exception as error:  # any equation may refuse, each in its own way
            self.notes[way] = reason(error)
            return None
