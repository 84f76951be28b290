"""All ways to the derivatives of a call: JAX's, the package's own, and differences."""

from collections.abc import Sequence
from typing import Any

from autodiffkit._comparison import Compared
from autodiffkit._derivative import (
    first_derivative,
    linear_map,
    second_derivative,
    second_linear_map,
)
from autodiffkit._errors import AutodiffError, ModeError, listed
from autodiffkit._faults import Causes
from autodiffkit._first_order import first_order
from autodiffkit._flat_call import FlatCall
from autodiffkit._leaves import is_complex
from autodiffkit._products import weighted
from autodiffkit._program import reason
from autodiffkit._second_order import second_order
from autodiffkit._stored_products import (
    MappedHessian,
    MappedJacobian,
    StoredHessian,
    StoredJacobian,
)
from autodiffkit._subject import Subject

# More entries than these are not stored by default: a check should not cost what it checks.
_STORED = 1 << 22


class CountedCall(FlatCall):
    """A call that counts how many times the user's function runs."""

    def __init__(self, flat: FlatCall, runs: list[int] | None = None) -> None:
        super().__init__(flat.call, flat.name, flat._bound, flat._options)
        self.runs = [0] if runs is None else runs

    def __call__(self, *selected: Any) -> tuple[list[Any], list[Any]]:
        self.runs[0] += 1
        return super().__call__(*selected)

    def anew(self) -> "CountedCall":
        """The same call, which keeps the structure of its own output."""
        return CountedCall(self, self.runs)


def compare(
    flat: CountedCall, subject: Subject, causes: Causes | None, orders: Sequence[int]
) -> tuple[list[Compared], list[str]]:
    """Compares the derivatives of a call.

    Args:
        flat: The call, which has run.
        subject: The same.
        causes: Its program, if it has one.
        orders: Which derivatives.

    Returns:
        The blocks, and what there is to say of the ways.
    """
    ways = _Ways(flat, subject, causes)
    found = ways.first() if 1 in orders else []
    if 2 in orders:
        found += ways.second(found, alone=1 not in orders)
    hidden = sum(not (x.visible or x.undefined or x.breaks) for x in found)
    if hidden:
        ways.notes.append(
            f"the derivatives of {hidden} block{'s' * (hidden > 1)} are no larger than what "
            "rounding hides: a wider dtype would show them"
        )
    return found, ways.notes


class _Ways:
    """The comparison of a call's derivatives, with the package's own."""

    def __init__(self, flat: CountedCall, subject: Subject, causes: Causes | None) -> None:
        self.notes: list[str] = []
        self._flat = flat
        self._subject = subject
        self._causes = causes
        self._targets, self._sources = flat.outputs.specs, flat.inputs.specs

    # First order --------------------------------------------------------------------

    def first(self) -> list[Compared]:
        """Compares first derivatives."""
        stored = self._stored_first()
        found = first_order(self._subject, stored)
        doubtful = self._doubtful(found)
        if doubtful and self._causes is not None:
            smooth = self._smooth(self._causes)
            found = _replaced(found, first_order(smooth, stored), doubtful)
        return found

    def _stored_first(self) -> StoredJacobian | MappedJacobian:
        entries = self._flat.outputs.size * self._flat.inputs.tree.size
        if entries > _STORED and not self._subject.settings.full:
            self._too_many("Jacobian", entries, "adk.linearize")
            linear = linear_map(self._flat.anew())[1]
            return MappedJacobian(linear, self._targets, self._sources)
        found = first_derivative(self._flat.anew())
        if found.plan is not None:
            self.notes.append(f"the plan of the Jacobian: {found.plan.mode}, {found.plan.reason}")
        return StoredJacobian(found.first, self._targets, self._sources)

    # Second order -------------------------------------------------------------------

    def second(self, firsts: Sequence[Compared], *, alone: bool) -> list[Compared]:
        """Compares second derivatives, where there are any."""
        is_complex_by = any(is_complex(s.dtype) for s in self._sources)
        if is_complex_by and not self._flat.holomorphic and not alone:
            self.notes.append("second derivatives by complex arguments are no single array")
            return []
        pairs = [(x.block[0], x.block[1]) for x in firsts if not x.undefined and x.breaks is None]
        if alone:
            count = range(len(self._sources))
            pairs = [(i, j) for i in range(len(self._targets)) for j in count]
        elif len(pairs) < len(firsts):
            self.notes.append("second derivatives are compared where there are first ones")
        stored = self._stored_second(alone=alone)
        found = second_order(self._subject, pairs, stored, self._gradients)
        if alone and pairs and not found:
            raise ModeError(
                f"{self._flat.call}: no mode gives second derivatives of this function. Pass "
                "order=1 to check the first ones." + listed([*self._subject.notes.values()])
            )
        doubtful = self._doubtful(found)
        if doubtful and self._causes is not None:
            again = second_order(
                self._smooth(self._causes),
                [(block[0], j) for block in doubtful for j in block[1:]],
                stored,
                held=self._causes.held(stops=False),
            )
            found = _replaced(found, again, doubtful)
        return found

    def _stored_second(self, *, alone: bool) -> StoredHessian | MappedHessian | None:
        size = self._flat.inputs.tree.size
        entries = self._flat.outputs.size * size**2
        try:
            if entries <= _STORED or self._subject.settings.full:
                found = second_derivative(self._flat.anew())
                plan = found.plan
                if plan is not None:
                    self.notes.append(f"the plan of the Hessian: {plan.mode}, {plan.reason}")
                return StoredHessian(found.second, self._targets, self._sources)
            if entries // max(size, 1) <= _STORED:
                self._too_many("Hessian", entries, "adk.hvp")
                linear = second_linear_map(self._flat.anew())[1]
                return MappedHessian(linear, self._targets, self._sources)
        except AutodiffError as error:
            if alone:
                raise
            why = reason(error).removeprefix(f"{self._flat.call}: ")
            self.notes.append(f"the package gives no second derivatives: {why}")
            return None
        self._too_many("Hessian", entries, "")
        return None

    def _too_many(self, what: str, entries: int, instead: str) -> None:
        products = f"; products of {instead} are compared instead" if instead else ""
        self.notes.append(
            f"the {what} has {entries:,} entries, and that of the plan is not computed{products}. "
            "full=True compares all of it"
        )

    def _gradients(self, *leaves: Any) -> list[Any]:
        """The weighted outputs' gradients from the package's blocks, where JAX has none."""
        moved = self._flat.anew()
        moved.selected = leaves
        table = first_derivative(moved).first
        subject = self._subject
        return [
            weighted(weights.typed(target.dtype), table.block(i, j), leaf)
            for i, (weights, target) in enumerate(
                zip(subject.weights, subject.targets, strict=True)
            )
            for j, leaf in enumerate(leaves)
        ]

    # Kinks nearby -------------------------------------------------------------------

    def _doubtful(self, found: Sequence[Compared]) -> set[tuple[int, ...]]:
        """The blocks whose differences may cross kinks next to the point."""
        doubtful = {
            x.block
            for x in found
            if x.breaks is None
            and not x.undefined
            and not (x.agrees and x.settled and x.resolved and not x.asymmetric)
        }
        if not doubtful or self._causes is None or not self._causes.decides:
            return set()
        note = "differences keep to the side of the kinks nearby that the point is on"
        if note not in self.notes:
            self.notes.append(note)
        return doubtful

    def _smooth(self, causes: Causes) -> Subject:
        """The function with differences of what it is with its decisions held.

        It is the same function at the point, unless the point itself is at a kink; and that has
        been seen by then.
        """
        return Subject(
            self._subject.function,
            self._subject.point,
            self._subject.settings,
            reference=causes.held(stops=False),
            holomorphic=self._flat.holomorphic,
        )


def _replaced(
    found: Sequence[Compared], better: Sequence[Compared], which: set[tuple[int, ...]]
) -> list[Compared]:
    """The comparisons, some of them replaced."""
    by_block = {x.block: x for x in better if x.block in which}
    return [by_block.get(x.block, x) for x in found]
