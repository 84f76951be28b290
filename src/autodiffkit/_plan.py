"""Which sweeps compute a derivative, decided from shapes alone."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Literal

from autodiffkit._errors import ModeError, columns, listed
from autodiffkit._leaves import LeafSpec, directions
from autodiffkit._paths import show

Mode = Literal["auto", "fwd", "rev"]
MODES: tuple[Mode, ...] = ("auto", "fwd", "rev")

# Sweeps in the two directions cost about the same, reverse ones somewhat more, for the
# residuals that they read; within this ratio of their numbers they count as equal.
_TIE = 1.25

_NAMES = {"fwd": "forward", "rev": "reverse"}


@dataclasses.dataclass(frozen=True)
class Ends:
    """What is swept from and to: the leaves, and whether complex ones take one direction."""

    sources: tuple[LeafSpec, ...]
    targets: tuple[LeafSpec, ...]
    holomorphic: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """The sweeps that compute a derivative, and why these.

    `print(plan)` explains it to a person; the fields are for programs.

    Attributes:
        mode: `"fwd"` or `"rev"`.
        forward_sweeps: How many directions are pushed forward.
        reverse_sweeps: How many directions are pulled back.
        cut_size: The capacity of the cut that the sweeps start from: the number of entries
            of the inputs in forward mode and of the outputs in reverse mode, a complex one
            counting twice unless the function is holomorphic.
        reason: Why this mode was chosen, in a sentence.
        gradient: For second derivatives, the plan of the first derivative, whose program
            is the one that this plan sweeps.
    """

    mode: Literal["fwd", "rev", "mixed"]
    forward_sweeps: int
    reverse_sweeps: int
    cut_size: int
    reason: str
    gradient: "Plan | None" = None
    _call: str = ""
    _sources: tuple[LeafSpec, ...] = ()
    _targets: tuple[LeafSpec, ...] = ()
    _held: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        forward = self.mode == "fwd"
        ends = self._sources if forward else self._targets
        count = self.forward_sweeps + self.reverse_sweeps
        moved = "pushed forward from" if forward else "pulled back from"
        lines = [
            f"why     {self.reason}",
            f"sweeps  {count} {'direction' if count == 1 else 'directions'} {moved}",
            *(f"          {line}" for line in _table(ends, "" if forward else "output")),
            f"{'to' if forward else 'onto':8}{self._other_end(forward)}",
        ]
        heads = itertools.chain(["held"], itertools.repeat(""))
        lines += [f"{head:8}{line}" for head, line in zip(heads, self._held_lines(), strict=False)]
        if self.gradient is not None:
            first = self.gradient
            lines.append(
                f"of      the first derivative, itself by {_NAMES.get(first.mode, first.mode)} "
                f"mode ({first.forward_sweeps} forward, {first.reverse_sweeps} reverse)"
            )
        name = _NAMES.get(self.mode, self.mode)
        return f"Plan of {self._call}: {name} mode" + listed(lines)

    def _other_end(self, forward: bool) -> str:
        specs = self._targets if forward else self._sources
        entries = sum(spec.size for spec in specs)
        what = "output" if forward else "input"
        plural = "entry" if entries == 1 else "entries"
        return (
            f"{entries} {what} {plural} in {len(specs)} {'leaf' if len(specs) == 1 else 'leaves'}"
        )

    def _held_lines(self) -> list[str]:
        """What is held constant, by reason."""
        by_reason: dict[str, list[str]] = {}
        for name, why in self._held:
            by_reason.setdefault(why, []).append(name)
        return [
            f"{why}: {', '.join(names[:4])}" + (f", ... ({len(names)})" if len(names) > 4 else "")
            for why, names in by_reason.items()
        ]

    @property
    def summary(self) -> str:
        """One line for the log."""
        return (
            f"{self._call}: {_NAMES.get(self.mode, self.mode)} mode, {self.forward_sweeps} forward "
            f"and {self.reverse_sweeps} reverse sweeps; {self.reason}"
            + (f"; of the first derivative, {self.gradient.summary}" if self.gradient else "")
        )


def _table(specs: Sequence[LeafSpec], bare: str) -> list[str]:
    rows = [(show(spec.path) or bare, str(spec)) for spec in specs[:12]]
    more = [f"and {len(specs) - 12} more leaves"] if len(specs) > 12 else []
    return columns(rows) + more


def check_mode(call: str, mode: str) -> None:
    """Refuses a mode that there is not.

    Raises:
        ModeError: Naming the modes there are.
    """
    if mode not in MODES:
        raise ModeError(f"{call}: there is no mode {mode!r}; it is one of 'auto', 'fwd', 'rev'.")


def make_plan(
    call: str,
    ends: Ends,
    mode: str,
    obstacle: Callable[[str], Exception | None],
    *,
    tie: Literal["fwd", "rev"] = "fwd",
    held: Sequence[tuple[str, str]] = (),
    gradient: Plan | None = None,
) -> Plan:
    """Chooses the cheaper plain mode, or the one that is possible.

    Args:
        call: The call, for messages.
        ends: The differentiated input and output leaves.
        mode: What the user asked for.
        obstacle: Says why a mode is impossible; asked only for what is considered.
        tie: The mode to take when the numbers of directions are about equal.
        held: Names of what is held constant, with the reasons.
        gradient: The plan of the first derivative, when this one is of a second.

    Returns:
        The plan.

    Raises:
        ModeError: If the mode is impossible, or with `"auto"` both are.
    """
    counts = {
        "fwd": directions(ends.sources, ends.holomorphic),
        "rev": directions(ends.targets, ends.holomorphic),
    }
    chosen, why = mode, f"{counts['fwd']} forward against {counts['rev']} reverse directions"
    if mode == "auto":
        other = "rev" if tie == "fwd" else "fwd"
        chosen = tie if counts[tie] <= _TIE * counts[other] else other
    blocked = obstacle(chosen)
    if blocked is not None:
        other = "rev" if chosen == "fwd" else "fwd"
        blocked_too = obstacle(other)
        if mode != "auto" or blocked_too is not None:
            error = _impossible(call, mode, {chosen: blocked, other: blocked_too})
            raise error from blocked
        # Without the advice that follows in JAX's message: the plan is the way out.
        why = f"{_NAMES[chosen]} mode is impossible: {reason(blocked).split('. ')[0]}"
        chosen = other
    elif mode != "auto":
        why = f"mode={mode!r} was asked for ({why})"
    forward = chosen == "fwd"
    return Plan(
        mode="fwd" if forward else "rev",
        forward_sweeps=counts["fwd"] if forward else 0,
        reverse_sweeps=0 if forward else counts["rev"],
        cut_size=counts[chosen],
        reason=why,
        gradient=gradient,
        _call=call,
        _sources=ends.sources,
        _targets=ends.targets,
        _held=tuple(held),
    )


def _impossible(call: str, mode: str, blocked: dict[str, Exception | None]) -> ModeError:
    lines = [f"{_NAMES[m]}: {reason(e)}" for m, e in blocked.items() if e is not None]
    if len(lines) == len(blocked):
        return ModeError(
            f"{call}: neither mode can differentiate this function. Differentiate its parts "
            "separately, or give the part that blocks one mode a rule that serves both "
            "(jax.custom_jvp)." + listed(lines)
        )
    other = next(m for m, e in blocked.items() if e is None)
    return ModeError(
        f"{call}: mode={mode!r} is impossible for this function. Use mode='auto' or "
        f"mode={other!r}." + listed(lines)
    )


def reason(error: Exception) -> str:
    """The first line of what JAX, or a rule of the user's, says."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
