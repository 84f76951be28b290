"""What planning costs beyond the tracing that any derivative needs."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from problem import Draw
from problems import long_program

import autodiffkit as adk


class PlanningTime(NamedTuple):
    """Equations of the linear program; milliseconds of its trace, of the plan, and beyond."""

    equations: int
    trace: float
    plan: float
    beyond: float


def measure_planning(repeats: int | None = None) -> PlanningTime:
    """Times `.plan()` and the trace of the linear program, in turn."""
    _, f, arguments, *_ = long_program(Draw(0))
    transform = adk.jacobian(f)

    def trace() -> Any:
        return jax.make_jaxpr(lambda *a: jax.linearize(f, *a)[1])(*arguments)

    def plan() -> Any:
        return transform.plan(*arguments)

    linear = jax.make_jaxpr(jax.linearize(f, *arguments)[1])(*arguments)
    plan()
    trace()
    pairs = [(_milliseconds(trace), _milliseconds(plan)) for _ in range(repeats or 9)]
    traces, plans = zip(*pairs, strict=True)
    return PlanningTime(
        equations=len(linear.eqns),
        trace=statistics.median(traces),
        plan=statistics.median(plans),
        beyond=statistics.median(b - a for a, b in pairs),
    )


def _milliseconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3
