"""Which fault it is, of a block whose derivatives do not agree, in words."""

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from autodiffkit._check_report import CheckedBlock, Finding
from autodiffkit._comparison import Compared
from autodiffkit._errors import shown_of
from autodiffkit._faults import Causes, Cuts, Rule
from autodiffkit._first_order import first_order
from autodiffkit._leaves import LeafSpec
from autodiffkit._paths import legible, show
from autodiffkit._products import numbers
from autodiffkit._second_order import second_order
from autodiffkit._subject import Settings, Subject

_SOME = 3  # places that a sentence names
_ROUNDINGS = 4.0  # that a value may change by without a change


class Diagnosis:
    """Tells what is behind each comparison of a function's derivatives.

    Args:
        subject: The function.
        causes: Its program; `None` if it cannot be traced.
        targets: The output leaves.
        sources: The input leaves.
        settings: How derivatives were compared.
    """

    def __init__(
        self,
        subject: Subject,
        causes: Causes | None,
        targets: Sequence[LeafSpec],
        sources: Sequence[LeafSpec],
        settings: Settings,
    ) -> None:
        self._subject = subject
        self._causes = causes
        self._targets = targets
        self._sources = sources
        self._settings = settings

    def block(self, found: Compared) -> CheckedBlock:
        """The comparison in words."""
        i, *sources = found.block
        finding, text = self._finding(found)
        target, *wrt = (self._targets[i].path, *(self._sources[j].path for j in sources))
        return CheckedBlock(
            len(sources),
            show(target),
            tuple(map(show, wrt)),
            finding,
            self._entry(found),
            found.error,
            found.tolerance,
            found.values,
            text,
            (legible(target), *map(legible, wrt)),
        )

    def of_gradients(self, found: Sequence[Compared], blocks: Sequence[CheckedBlock]) -> list[str]:
        """What second derivatives that agree do not show: whether the gradient itself is right.

        Args:
            found: All comparisons.
            blocks: The same in words.

        Returns:
            What there is to say of it.
        """
        pairs = [*zip(found, blocks, strict=True)]
        seconds = [x.block for x, said in pairs if said.order == 2 and said.passed]
        firsts = {x.block: said for x, said in pairs if said.order == 1}
        differences = "second derivatives are compared with differences of the gradient"
        if not seconds:
            return []
        if firsts:
            used = [(i, j) for i, *sources in seconds for j in sources]
            wrong = [block for block in dict.fromkeys(used) if not firsts[block].passed]
            if not wrong:
                return []
            names = _several([self._between(*block) for block in wrong])
            return [
                f"{differences}, and that of {names} fails its own check; that they agree says "
                "nothing about the function"
            ]
        if self._causes is None:
            return [f"{differences}, whose own rules are not known; order=1 checks it"]
        given = [self._causes.given(i) for i in dict.fromkeys(i for i, *_ in seconds)]
        rules = list(dict.fromkeys(rule for rules in given for rule in rules))
        if not rules:
            return []
        them = "that rule" if len(rules) == 1 else "these rules"
        return [f"{differences}, which goes through {_several(rules)}; order=1 checks {them}"]

    def _finding(self, found: Compared) -> tuple[Finding, str]:
        """The first that applies of all there is to be said."""
        first = len(found.block) == 2
        reasons = (
            self._undefined,
            *((self._zero,) if first else ()),
            self._break if first else self._break_of_gradient,
            self._agreement,
            self._stopped,
            self._unlike_halves,
            self._ruled,
            self._unresolved,
        )
        what = self._what(found)
        said = next((text for text in (say(found, what) for say in reasons) if text), None)
        return ("disagrees", self._disagreement(found, what)) if said is None else said

    def _what(self, found: Compared) -> str:
        return self._between(*found.block)

    def _between(self, i: int, *sources: int) -> str:
        return f"{self._target(i)} by {' and '.join(map(self._source, sources))}"

    # What it may be -------------------------------------------------------------------

    def _undefined(self, found: Compared, what: str) -> tuple[Finding, str] | None:
        if not found.undefined:
            return None
        ways = _listed(found.undefined)
        verb = "is" if len(found.undefined) == 1 else "are"
        text = f"the derivative of {what} is not finite: {ways} {verb} not."
        if not np.all(np.isfinite(self._subject.value(found.block[0]))):
            text = f"{self._target(found.block[0])} is not finite itself, so {what} is not."
        elif found.breaks is not None:
            kind, left, right, _ = found.breaks
            seen = "an infinite slope" if kind == "vertical" else f"a {kind}"
            text += f" Differences see {seen}: {_slopes(left, right)}."
        return "not finite", text + " adk.find_nonfinite names the operation."

    def _zero(self, found: Compared, what: str) -> tuple[Finding, str] | None:
        """Whether the derivative is zero although the output depends on the input, and why."""
        i, j = found.block
        cuts = self._cuts(i, j)
        if cuts is None or not found.zero or not cuts.reached or not cuts.free:
            return None
        if cuts.smooth:
            if not cuts.inside or not self._changes(i, j):
                return None
            return "zero", (
                f"the derivative of {what} is zero, but {self._target(i)} changes over larger "
                f"steps: there is "
                f"{_several(cuts.inside)} on the way."
            )
        changes = self._changes(i, j)
        if not cuts.rounding and not changes:
            return None
        beyond = f", but {self._target(i)} changes over larger steps" if changes else ""
        return "zero", (
            f"the derivative of {what} is zero{beyond}: all that there is between them passes "
            f"{_several(cuts.rounding or cuts.comparisons)}, whose derivative is zero."
        )

    def _changes(self, i: int, j: int) -> bool:
        """Whether an output changes over steps as large as the input."""
        reference = self._subject.reference

        def value(change: np.ndarray) -> np.ndarray:
            return numbers(reference.displaced(j, change)[i])

        # In the same way and dtype as the others: what is compiled otherwise may round otherwise.
        before = value(np.zeros(()))
        rounding = _ROUNDINGS * reference.roundoff
        directions = self._subject.directions[j].arrays[:1]
        for change in (*directions, *-directions):
            with contextlib.suppress(Exception):  # the user's function may refuse it
                if not np.allclose(value(change), before, rtol=rounding, atol=0, equal_nan=True):
                    return True
        return False

    def _break(self, found: Compared, what: str) -> tuple[Finding, str] | None:
        if found.breaks is None:
            return None
        kind, left, right, _ = found.breaks
        at = self._place(found)
        if kind == "jump":
            return "jump", f"{what}: the function jumps here, and has no derivative.{at}"
        if kind == "vertical":
            return "kink", f"{what}: the slope is infinite here.{at}"
        return "kink", (
            f"{what} has a kink here, and no derivative: {self._along} the slope is "
            f"{_slopes(left, right)}.{at}"
        )

    def _break_of_gradient(self, found: Compared, what: str) -> tuple[Finding, str] | None:
        if found.breaks is None:
            return None
        kind, left, right, _ = found.breaks
        seen = f"has a kink here; {self._along} its slope is {_slopes(left, right)}"
        if kind == "jump":
            seen = "jumps here"
        return "kink", f"{what}: the first derivative {seen}.{self._place(found)}"

    @property
    def _along(self) -> str:
        return "by that entry" if self._settings.full else "along a random direction"

    def _place(self, found: Compared) -> str:
        """Where in the program a break is, as a sentence."""
        if self._causes is None or found.breaks is None:
            return ""
        j, number = found.block[-1], found.breaks[-1]
        places = self._causes.choices(j, self._subject.directions[j].arrays[number])
        return f" It is at {_several(places)}." if places else ""

    def _agreement(self, found: Compared, _: str) -> tuple[Finding, str] | None:
        agrees = found.agrees and not found.asymmetric and found.resolved
        return ("agrees", "") if agrees else None

    def _stopped(self, found: Compared, what: str) -> tuple[Finding, str] | None:
        i, *sources = found.block
        cuts = [self._cuts(i, j) for j in sources]
        stops = list(dict.fromkeys(stop for x in cuts if x is not None for stop in x.stops))
        # What JAX's own functions stop makes no difference to differences.
        if self._subject.reference.name not in found.pair and not found.asymmetric:
            return None
        if not stops or not self._agrees_frozen(found.block):
            return None
        return "stop_gradient", (
            f"the derivative of {what} holds constant what passes {_several(stops)}, as is asked "
            "for there. With that held constant, differences agree."
        )

    def _unlike_halves(self, found: Compared, what: str) -> tuple[Finding, str] | None:
        if not found.asymmetric:
            return None
        rules = self._guilty(found)
        blame = f" {_rules(rules)[0].upper()}{_rules(rules)[1:]}." if rules else ""
        return "asymmetric", f"{what}: the two halves of the Hessian differ.{blame}"

    def _ruled(self, found: Compared, what: str) -> tuple[Finding, str] | None:
        rules = self._guilty(found)
        return ("custom rule", f"{what}: {_rules(rules)}.") if rules else None

    def _guilty(self, found: Compared) -> list[Rule]:
        if self._causes is None:
            return []
        causes, i = self._causes, found.block[0]
        tried = (causes.guilty(i, order, self._settings) for order in range(1, len(found.block)))
        return next((rules for rules in tried if rules), [])

    def _unresolved(self, found: Compared, what: str) -> tuple[Finding, str] | None:
        if found.resolved:
            return None
        error = self._subject.reference.failure
        text = "has no finite values"
        if error is not None:
            first = str(error).strip().split("\n", 1)[0]
            text = f"raises {type(error).__name__}{f': {first}' if first else ''}"
        return "not compared", f"{what}: next to the point, the function {text}"

    def _disagreement(self, found: Compared, what: str) -> str:
        text = f"{what}: {_versus(found)}."
        if self._causes is None:
            return text + " The function cannot be traced, so its operations are not known."
        suspects = self._causes.suspects(found.block[0])
        return f"{text} On the way there is {_several(suspects)}." if suspects else text

    def _cuts(self, i: int, j: int) -> Cuts | None:
        return None if self._causes is None else self._causes.cuts(i, j)

    # Stopped gradients ----------------------------------------------------------------

    def _agrees_frozen(self, block: tuple[int, ...]) -> bool:
        found = (self._frozen_first if len(block) == 2 else self._frozen_second).get(block)
        if found is None or found.asymmetric:
            return False
        return found.agrees and found.resolved and found.breaks is None

    @functools.cached_property
    def _frozen_subject(self) -> Subject:
        assert self._causes is not None
        subject = self._subject
        return Subject(
            subject.function,
            subject.point,
            self._settings,
            reference=self._causes.held(stops=True),
            holomorphic=subject.holomorphic,
        )

    @functools.cached_property
    def _frozen_first(self) -> dict[tuple[int, ...], Compared]:
        return {x.block: x for x in first_order(self._frozen_subject)}

    @functools.cached_property
    def _frozen_second(self) -> dict[tuple[int, ...], Compared]:
        assert self._causes is not None
        usable = [(x[0], x[1]) for x in self._frozen_first]
        found = second_order(self._frozen_subject, usable, held=self._causes.held(stops=True))
        return {x.block: x for x in found}

    # Names ------------------------------------------------------------------------------

    def _target(self, i: int) -> str:
        return show(self._targets[i].path) or "the output"

    def _source(self, j: int) -> str:
        return show(self._sources[j].path)

    def _entry(self, found: Compared) -> str:
        """The worst entry, by the axes that it was compared along."""
        i, *sources = found.block
        target, last = self._targets[i], self._sources[sources[-1]]
        direction, weight, entry = found.entry
        out = show(target.path) or "output"
        name = show(last.path)
        full = self._settings.full
        parts: list[str] = []
        if len(sources) == 2:
            if entry is not None:
                first = self._sources[sources[0]]
                parts = [_indexed(show(first.path), first, entry)]
                if full and direction is not None:
                    parts.append(_indexed(name, last, direction % max(last.size, 1)))
                if full and weight is not None and target.shape:
                    parts.insert(0, _indexed(out, target, weight % max(target.size, 1)))
        elif found.source and entry is not None:
            parts = [_indexed(name, last, entry)]
            if full and weight is not None:
                parts.insert(0, _indexed(out, target, weight % max(target.size, 1)))
        elif entry is not None or weight is not None:
            number = entry if entry is not None else weight if full else None
            parts = [] if number is None else [_indexed(out, target, number % max(target.size, 1))]
            if full and direction is not None:
                parts.append(_indexed(name, last, direction % max(last.size, 1)))
        return ", ".join(parts)


def _indexed(name: str, spec: LeafSpec, number: int) -> str:
    if not spec.shape:
        return name
    return f"{name}[{', '.join(map(str, np.unravel_index(number, spec.shape)))}]"


def _versus(found: Compared) -> str:
    one, two = found.pair
    return f"{one} gives {_number(found.values[one])}, {two} {_number(found.values[two])}"


def _slopes(left: Any, right: Any) -> str:
    return f"{_number(left)} before and {_number(right)} after"


def _number(value: Any) -> str:
    return f"{complex(value):.4g}" if isinstance(value, complex) else f"{float(value):.4g}"


def _rules(rules: Sequence[Rule]) -> str:
    said = {
        0: "returns another value than the function that it belongs to",
        1: "is not the derivative of its function",
        2: "has the first derivative of its function but not the second",
    }
    return "; ".join(f"{x.name}, {said[x.order]}" for x in rules)


def _several(texts: Sequence[str]) -> str:
    shown = shown_of(len(texts), _SOME)
    if len(texts) == shown:
        return _listed(texts)
    return f"{', '.join(texts[:shown])} and {len(texts) - shown} more"


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(texts[:-1]) + " and " + texts[-1] if len(texts) > 1 else texts[0]
