"""The plans of differential operators and of diagonals, for people."""

import dataclasses
from collections.abc import Sequence

from autodiffkit._cost import Work
from autodiffkit._display import Displayed
from autodiffkit._display_text import Display, plain_table
from autodiffkit._leaves import LeafSpec
from autodiffkit._paths import legible
from autodiffkit._plan import amounts


@dataclasses.dataclass(frozen=True)
class Way:
    """How the diagonal by one leaf is computed.

    Args:
        spec: The leaf.
        kind: `"zero"` if there is no path, `"apart"` by a map whose axes stay apart, `"waist"` by a
            product of two maps, `"pushed"` or `"pulled"` by a direction for each entry, `"block"`
            by the whole block, `"line"` by derivatives along lines.
        note: What it is, for people.
        work: What it is estimated to take, if that is known.
        plain: What a direction for each entry would take.
        waist: The variable between the two maps.
    """

    spec: LeafSpec
    kind: str
    note: str
    work: Work | None = None
    plain: Work | None = None
    waist: int | None = None


@dataclasses.dataclass(frozen=True, repr=False)
class OperatorPlan(Displayed):
    """How a differential operator, or the diagonal of a Hessian, is computed, leaf by leaf.

    `print(plan)` explains it to a person.

    Attributes:
        flops: Floating-point operations that the sweeps are estimated to take; `None` of
            derivatives along lines, which run with the function itself.
        bytes_moved: Bytes that they are estimated to read and write, `None` likewise.
    """

    flops: float | None
    bytes_moved: float | None
    _call: str
    _ways: tuple[Way, ...]

    def _display(self) -> Display:
        rows: list[tuple[str, ...]] = []
        for way in self._ways:
            name = legible(way.spec.path) or "input"
            rows.append((name, str(way.spec), way.note))
            if way.work is not None and way.kind != "zero":
                rows.append(("", "", ", ".join(amounts(way.work))))
            if way.plain is not None and way.kind in {"apart", "waist", "block"}:
                shown = ", ".join(amounts(way.plain))
                rows.append(("", "", f"(with a direction for each entry {shown})"))
        return Display(f"Plan of {self._call}", (plain_table(rows, "name", "fixed", "note"),))


def directions(count: int) -> str:
    """`1 direction`, `3 directions`."""
    return f"{count} direction{'' if count == 1 else 's'}"


def plan_of(call: str, ways: Sequence[Way]) -> OperatorPlan:
    """The ways of all leaves together."""
    known = [way.work for way in ways if way.work is not None]
    if len(known) < len(ways):
        return OperatorPlan(None, None, call, tuple(ways))
    flops, moved = (sum(work[k] for work in known) for k in (0, 1))
    return OperatorPlan(flops, moved, call, tuple(ways))
