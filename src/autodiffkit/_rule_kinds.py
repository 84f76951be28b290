"""What a rule says about a linear equation: how its axes belong together."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autodiffkit._maps import Kind, Map


@dataclasses.dataclass(frozen=True)
class Factor:
    """An equation, by one operand, as a map that is multiplied.

    Args:
        map: From the operand to the result. Its data stand for those of the constant operand.
        constant: The number of that operand, if there is one.
        kind: What is done with the data of what passes; whether the constant divides it, or is
            what it is selected by.
        selected: With `"select"`, the value of the constant that selects this operand.
        precision: That of a `dot_general`.
    """

    map: Map
    constant: int | None = None
    kind: Kind = "multiply"
    selected: int = 1
    precision: Any = None


@dataclasses.dataclass(frozen=True)
class Entrywise:
    """A function of each entry by itself, which does not depend on the place."""


@dataclasses.dataclass(frozen=True)
class Reshape:
    """The same entries in the same order."""


@dataclasses.dataclass(frozen=True)
class Line:
    """An axis along which an equation does the same to each entry, on its own.

    Args:
        operands: The axis of each moving operand, by the operand's number.
        results: The axis of each result, by number.
    """

    operands: Mapping[int, int]
    results: Mapping[int, int]


@dataclasses.dataclass(frozen=True)
class Lines:
    """An equation of which only these axes are known: all others are mixed.

    Args:
        lines: The axes.
        results: The results that depend on a moving operand; `None` if all do.
    """

    lines: tuple[Line, ...] = ()
    results: frozenset[int] | None = None

    def reaches(self, result: int) -> bool:
        """Whether a result depends on a moving operand."""
        return self.results is None or result in self.results


# By moving operand; or one for all of them together.
Rule = Mapping[int, Factor | Entrywise | Reshape] | Lines
DENSE = Lines()

# What finds the rule of an equation of whose operands some are moving.
RuleOf = Callable[[Any, Sequence[int]], Rule]
