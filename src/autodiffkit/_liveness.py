"""How many bytes a sweep holds at a time: the lives of its variables, counted, not measured."""

from collections.abc import Collection, Iterable
from typing import Any

import jax.extend.core as jex

from autodiffkit._cost import nbytes
from autodiffkit._fusion import is_fused, reads_fused
from autodiffkit._jaxprs import descendants
from autodiffkit._network import Network, Step


def live_bytes(network: Network, steps: Collection[int], mode: str) -> int:
    """The most bytes that a direction holds at once on its way through steps.

    What compilers compute where it is read is not stored, but keeps alive what it is computed
    from. The variables that a sweep ends at are written to the result, and count as long as they
    are computed.

    Args:
        network: The linear program.
        steps: The steps that are swept.
        mode: `"fwd"` to push, `"rev"` to pull.

    Returns:
        Bytes for each direction.
    """
    forward = mode == "fwd"
    order = sorted(steps, reverse=not forward)
    names = {i: network.program.jaxpr.eqns[network.steps[i].equation].primitive.name for i in order}
    makers: dict[int, list[str]] = {}
    readers: dict[int, list[int]] = {}
    for time, i in enumerate(order):
        before, after = _ends(network.steps[i], forward)
        for v in before:
            readers.setdefault(v, []).append(time)
        for v in after:
            makers.setdefault(v, []).append(names[i])

    def is_stored(v: int) -> bool:
        if not all(is_fused(name, mode) for name in makers.get(v, ())):
            return True
        return not all(reads_fused(names[order[time]]) for time in readers.get(v, ()))

    last: dict[int, int] = {}  # when each variable is read for the last time
    for time in range(len(order) - 1, -1, -1):
        before, after = _ends(network.steps[order[time]], forward)
        ahead = max((last.get(v, time) for v in after if not is_stored(v)), default=time)
        for v in before:
            last[v] = max(last.get(v, time), ahead)
    peak, held = 0, 0
    alive: set[int] = set()
    for time, i in enumerate(order):
        before, after = _ends(network.steps[i], forward)
        for v in (*before, *after):
            if v not in alive and is_stored(v):
                alive.add(v)
                held += nbytes(network.variables[v])
        inner = _inside(network.program.jaxpr.eqns[network.steps[i].equation], network)
        peak = max(peak, held + inner)
        for v in [v for v in alive if last.get(v, time) <= time]:
            alive.remove(v)
            held -= nbytes(network.variables[v])
    return peak


def _ends(step: Step, forward: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (step.inputs, step.outputs) if forward else (step.outputs, step.inputs)


def _inside(equation: Any, network: Network) -> int:
    """What the program that an equation holds needs at a time, at most."""
    linear = network.program.linear
    flags = [not isinstance(x, jex.Literal) and x in linear for x in equation.invars]
    return max((_body(x, flags) for x in jex.jaxprs_in_params(equation.params)), default=0)


def _body(jaxpr: Any, flags: Iterable[bool]) -> int:
    """The largest equation of a body, with what it reads and what it writes."""
    moving = [v for v, flag in zip(jaxpr.invars, flags, strict=False) if flag]
    inside = descendants(jaxpr, moving)
    sums = [
        sum(nbytes(x) for x in (*equation.invars, *equation.outvars) if _among(x, inside))
        for equation in jaxpr.eqns
    ]
    return max(sums, default=0)


def _among(atom: Any, variables: Collection[Any]) -> bool:
    return not isinstance(atom, jex.Literal) and atom in variables
