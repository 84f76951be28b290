"""Plans and compiled sweeps, found again by the linear program that they belong to.

A call that is not traced runs the user's function each time, but what follows is pure: the same
linear program has the same plan, and its sweeps depend on the residuals alone. They are compiled
with these as arguments, so that a function made anew, or a new value of a number, compiles nothing.
"""

import collections
import dataclasses
import threading
from collections.abc import Hashable, Sequence
from typing import Generic, Literal, NamedTuple, TypeVar

from autodiffkit._jax_compat import is_eager, is_staging
from autodiffkit._limits import NO_LIMITS, Limits
from autodiffkit._memory import too_little
from autodiffkit._plan import Plan
from autodiffkit._planning import Sweepable, make_plan
from autodiffkit._progress import Chunks
from autodiffkit._schedule import Schedule
from autodiffkit._sweeps import CompiledSweeps, EagerSweeps, LinearSweeps

T = TypeVar("T")

# How many programs are remembered, each with its compiled sweeps; the one that was not used for
# the longest time is forgotten first.
KEPT = 128

# How often sweeps are compiled to find chunks that fit; each time these are half as large.
_TRIALS = 40


class Recent(Generic[T]):
    """A bounded dictionary of what was used last; several threads may use it.

    Args:
        bound: How many entries it keeps.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._entries: collections.OrderedDict[Hashable, T] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> T | None:
        """The entry, `None` if there is none."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
            return found

    def add(self, key: Hashable, entry: T) -> T:
        """Keeps an entry; of two for the same key, the one that came first."""
        with self._lock:
            entry = self._entries.setdefault(key, entry)
            self._entries.move_to_end(key)
            while len(self._entries) > self._bound:
                self._entries.popitem(last=False)
            return entry


class Known(NamedTuple):
    """What is remembered of a program: its plan, and its sweeps as a compiled function."""

    plan: Plan
    schedule: Schedule
    run: CompiledSweeps


KNOWN: Recent[Known] = Recent(KEPT)


def plan_again(
    call: str,
    sweeps: Sweepable,
    mode: str,
    *,
    tie: Literal["fwd", "rev"] = "fwd",
    held: Sequence[tuple[str, str]] = (),
    gradient: Plan | None = None,
    symmetric: bool = False,
    abstract: bool = False,
    limits: Limits = NO_LIMITS,
) -> tuple[Plan, Schedule]:
    """As `make_plan`; of a program that was planned before, the plan is found again.

    It is, outside of traces, where the program is all that its sweeps depend on. Then they are
    compiled, too, and what they hold is measured where it is limited.

    Args:
        call: As for `make_plan`, and so are all others.
        sweeps: What is planned.
        mode: What the user asked for.
        tie: The plain mode to take when both cost about the same.
        held: What is held constant.
        gradient: The plan of the first derivative.
        symmetric: Whether blocks form symmetric matrices.
        abstract: Whether the plan is all that is wanted.
        limits: What the sweeps may take.

    Returns:
        The plan for people, and the schedule to run.
    """

    def plan() -> tuple[Plan, Schedule]:
        return make_plan(
            call,
            sweeps,
            mode,
            tie=tie,
            held=held,
            gradient=gradient,
            symmetric=symmetric,
            abstract=abstract,
            limits=limits,
        )

    linear = sweeps.sweeps if isinstance(sweeps, EagerSweeps) else sweeps
    if (
        abstract
        or is_staging()
        or not isinstance(linear, LinearSweeps)
        or not linear.program.is_self_contained
    ):
        return plan()
    key = (call, linear.program, linear.ends, mode, tie, tuple(held), symmetric, limits)
    known = KNOWN.get(key)
    if known is None:
        found, schedule = plan()
        if limits.memory_limit is not None and is_eager(linear.residuals):
            found, schedule = _measured(found, schedule, linear, limits.memory_limit)
        known = KNOWN.add(key, Known(found, schedule, linear.compiled(schedule)))
    linear.known(known.schedule, known.run)
    return dataclasses.replace(known.plan, gradient=gradient), known.schedule


def _measured(
    plan: Plan, schedule: Schedule, linear: LinearSweeps, limit: int
) -> tuple[Plan, Schedule]:
    """The schedule in chunks such that what the compiled sweeps hold is below a limit.

    Returns:
        The plan and the schedule.

    Raises:
        too_little: If a single direction holds more.
    """
    size = schedule.directions if schedule.chunks is None else schedule.chunks.size
    for _ in range(_TRIALS):
        held = linear.temporaries(schedule)
        if held is None:  # this backend does not say
            return plan, schedule
        plan = dataclasses.replace(plan, chunk_size=size, temporaries=held, _schedule=schedule)
        if held <= limit:
            return plan, schedule
        if size <= 1:
            break
        size = max(1, min(size // 2, int(size * limit / held)))
        label = None if schedule.chunks is None else schedule.chunks.label
        schedule = dataclasses.replace(schedule, chunks=Chunks(size, label))
    raise too_little(plan._call, plan.temporaries, limit)
