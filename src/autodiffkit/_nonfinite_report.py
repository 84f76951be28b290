"""What was found where a value or a derivative is not finite."""

import dataclasses
import re
from typing import Any, Literal

from autodiffkit._display import Displayed
from autodiffkit._display_text import Display, as_text, plain_table
from autodiffkit._errors import some_of
from autodiffkit._fitting import terminal_width
from autodiffkit._leaves import describe_array

Pairs = tuple[tuple[str, str], ...]

_KINDS = {
    "input": "input",
    "value": "value",
    "forward": "forward derivative",
    "reverse": "reverse derivative",
}
_PLACE = re.compile(r"(?P<file>.*):(?P<line>\d+):\d+ \((?P<function>.*)\)")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class NonfiniteFinding(Displayed):
    """One place where a number stops being finite.

    Attributes:
        kind: `"value"`, or `"forward"` and `"reverse"` of a derivative that is pushed or pulled;
            `"input"` for an argument that is not finite itself.
        primitive: The operation of JAX that made the number, `"sqrt"`; of an input its path.
        source: The user's line, `"model.py:12:9 (loss)"`; empty if it is not known.
        shape: Of what the operation wrote, or of the input; `None` if it is not known.
        dtype: Of the same.
        index: Of the first number that is not finite.
        made: That number.
        operands: The numbers that it was made of, as far as they are single ones, else `None`.
        loops: The iterations that it happened in, outermost first.
        outputs: The paths of the outputs that it reaches; a single output without a name is
            `"output"`.
        inputs: The paths of the inputs that it depends on.
        cause: The name of the usual cause, `"root at zero"`.
        what: What happened, in a line.
        problem: What is wrong with it.
        remedy: What usually helps.
        notes: What else is known: where a NaN was made of this infinity, and the like.
    """

    kind: Literal["input", "value", "forward", "reverse"]
    primitive: str
    source: str
    shape: tuple[int, ...] | None
    dtype: Any
    index: tuple[int, ...]
    made: Any
    operands: tuple[Any, ...]
    loops: tuple[str, ...]
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    cause: str
    what: str
    problem: str
    remedy: str
    notes: tuple[str, ...] = ()

    @property
    def line(self) -> int | None:
        """The number of the user's line."""
        found = _PLACE.fullmatch(self.source)
        return None if found is None else int(found["line"])

    @property
    def file(self) -> str | None:
        """The user's file."""
        found = _PLACE.fullmatch(self.source)
        return None if found is None else found["file"]

    def __str__(self) -> str:
        return as_text(self._display(), terminal_width())

    def _display(self) -> Display:
        return self._told("", self.remedy)

    def _told(self, number: str, remedy: str) -> Display:
        where = f" at {self.source}" if self.source else ""
        array = "" if self.shape is None else f"  {describe_array(self.shape, self.dtype)}"
        rows = [("what", self.what), *(("in", loop) for loop in self.loops)]
        rows += [("problem", self.problem), *(("note", note) for note in self.notes)]
        if self.outputs:
            rows.append(("reaches", some_of(self.outputs)))
        if self.inputs and self.kind != "input":
            rows.append(("depends on", some_of(self.inputs)))
        rows.append(("remedy", remedy))
        title = f"{number}{_KINDS[self.kind]}: {self.primitive}{where}{array}"
        return Display(title, (plain_table(rows, "fixed", "text"),))

    def __repr__(self) -> str:
        return f"<{self.kind} of {self.primitive} at {self.source or 'an unknown line'}>"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class NonfiniteReport(Displayed):
    """Where a value or a derivative is not finite; `bool(report)` is `True` if all are.

    Attributes:
        function: The name of the function.
        findings: What was found, in order: inputs, values in the order of the program, forward
            derivatives in the same order, reverse derivatives from the output on. What only follows
            from a value that was found is left out.
        value: The paths of the outputs whose values are not finite.
        forward: Pairs of output and input whose block is not finite where it is pushed forward, as
            by `jax.jacfwd`; `None` if the function cannot be.
        reverse: The same where it is pulled back, as by `jax.jacrev`.
        jacobian: The same of what `adk.jacobian` returns; `None` if it was not computed.
        obstacles: Why one of these is `None`, by name.
        notes: What else there is to know about the search.
    """

    function: str
    findings: tuple[NonfiniteFinding, ...]
    value: tuple[str, ...]
    forward: Pairs | None
    reverse: Pairs | None
    jacobian: Pairs | None
    obstacles: dict[str, str]
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not (self.findings or self.value or self.forward or self.reverse or self.jacobian)

    @property
    def first(self) -> NonfiniteFinding | None:
        """The first finding; `None` if there is none."""
        return self.findings[0] if self.findings else None

    def _display(self) -> Display:
        rows = [("value", f"not finite: {some_of(self.value)}" if self.value else "finite")]
        for name, what in (
            ("forward", "forward mode"),
            ("reverse", "reverse mode"),
            ("jacobian", "adk.jacobian"),
        ):
            rows.append((what, self._blocks(name)))
        head = f"find_nonfinite({self.function}): {'all finite' if self else 'not finite'}"
        told: dict[str, int] = {}
        findings: list[Display] = []
        for number, finding in enumerate(self.findings, 1):
            first = told.setdefault(finding.remedy, number)
            remedy = finding.remedy if first == number else f"as of {first}"
            findings.append(finding._told(f"{number}. ", remedy))
        table = plain_table(rows, "fixed", "text")
        return Display(head, (table, *self.notes), more=tuple(findings))

    def _blocks(self, name: str) -> str:
        pairs: Pairs | None = getattr(self, name)
        if pairs is None:
            return f"not computed: {self.obstacles[name]}"
        if not pairs:
            return "finite"
        return "not finite: " + some_of([f"{output} by {source}" for output, source in pairs])
