"""Where on a tape a tangent or a cotangent stops being finite.

Tangents are pushed through one step after the other, cotangents pulled, and walked back from what
is asked about to the steps that were given finite ones.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from autodiffkit._leaves import is_inexact
from autodiffkit._origins import (
    Origin,
    first_of_each,
    in_order,
    is_bad,
    nested,
    not_finite,
    sources,
    value_origins,
)
from autodiffkit._tape import Run, Step, Tape, record


def forward_origins(
    tape: Tape, tangents: Sequence[Any], outputs: Iterable[int]
) -> tuple[Origin, ...]:
    """What made the tangents of these outputs infinite or NaN, first in the order of the program.

    Args:
        tape: The tape.
        tangents: The finite tangent of each input, `None` for what does not move.
        outputs: The outputs.
    """
    found = {i: t for i, t in zip(tape.inputs, tangents, strict=True) if t is not None}
    for step in tape.steps:
        moving = [k for k, i in enumerate(step.reads) if i in found]
        if moving and not step.is_flat:
            operands = [tape.values[i] for i in step.reads]
            pushed = _push(tape, step, operands, moving, [found[step.reads[k]] for k in moving])
            found.update({step.writes[k]: t for k, t in pushed.items()})
    creators: dict[int, Step] = {}
    pending = [tape.outputs[i] for i in outputs]
    seen: set[int] = set()
    while pending:
        value = pending.pop()
        writer = tape.writer.get(value)
        if value in seen or writer is None or not is_bad(found.get(value)):
            continue
        seen.add(value)
        reads = [i for i in writer.reads if is_bad(found.get(i))]
        pending += reads
        if not reads:
            creators[writer.number] = writer
    origins: list[Origin] = []
    for step in first_of_each(creators[number] for number in sorted(creators)):
        given = [found.get(i) for i in step.reads]
        wanted = [k for k, i in enumerate(step.writes) if is_bad(found.get(i))]
        origins += _forward_inside(tape, step, given, wanted, found)
    return in_order(origins)


def _forward_inside(
    tape: Tape, step: Step, given: list[Any], wanted: list[int], found: dict[int, Any]
) -> list[Origin]:
    operands = [tape.values[i] for i in step.reads]
    if step.inside is not None and not step.by_rule:
        inner = forward_origins(step.inside(operands), given, wanted)
        if inner:
            return [nested(x, step) for x in inner]
    results = [tape.values[i] for i in step.writes]
    made, trail = found[step.writes[wanted[0]]], (step.number,)
    origin = Origin(
        "forward",
        step,
        trail,
        tape.loops,
        operands,
        results,
        made,
        not_finite(made),
        wanted[0],
        tuple(given),
    )

    def rule(*arrays: Any) -> list[Any]:
        moving = [k for k, t in enumerate(given) if t is not None]
        values, tangents = arrays[: len(operands)], arrays[len(operands) :]
        return list(_push(tape, step, values, moving, tangents).values())

    return [_completed(tape, origin, rule, [*operands, *(t for t in given if t is not None)])]


def _push(
    tape: Tape,
    step: Step,
    operands: Sequence[Any],
    moving: Sequence[int],
    tangents: Sequence[Any],
) -> dict[int, Any]:
    """The tangents of the floating-point results, by position."""
    kept = [k for k, i in enumerate(step.writes) if _floats(tape, i)]
    if not kept:
        return {}
    run, primals = _moved(step.run, operands, moving, kept)
    return dict(zip(kept, jax.jvp(run, primals, list(tangents))[1], strict=True))


def _moved(
    whole: Run, operands: Sequence[Any], moving: Sequence[int], kept: Sequence[int]
) -> tuple[Callable[..., list[Any]], list[Any]]:
    """The step as a function of the operands that move, to the results that are kept."""

    def run(*moved: Any) -> list[Any]:
        values = list(operands)
        for k, x in zip(moving, moved, strict=True):
            values[k] = x
        results = whole(*values)
        return [results[k] for k in kept]

    return run, [operands[k] for k in moving]


def reverse_origins(
    tape: Tape, cotangents: Sequence[Any], inputs: Iterable[int], moving: Sequence[int]
) -> tuple[Origin, ...]:
    """What made the cotangents of these inputs infinite or NaN, first in reverse order.

    Args:
        tape: The tape.
        cotangents: The finite cotangent of each output, `None` for what nothing is pulled from.
        inputs: The inputs that are asked about.
        moving: All inputs that are differentiated.
    """
    starts = [tape.inputs[k] for k in moving]
    moved = {i for i in tape.dependents(starts, differentiably=True) if _floats(tape, i)}
    total: dict[int, Any] = {}

    def collect(value: int, cotangent: Any) -> None:
        total[value] = cotangent if value not in total else total[value] + cotangent

    for i, cotangent in zip(tape.outputs, cotangents, strict=True):
        if cotangent is not None and i in moved:
            collect(i, cotangent)
    bad: dict[int, list[tuple[Step, int]]] = {}  # who pulled it there, by value
    pulled: dict[tuple[int, int], Any] = {}
    for step in reversed(tape.steps):
        given = {k: total[i] for k, i in enumerate(step.writes) if i in total}
        places = [k for k, i in enumerate(step.reads) if i in moved]
        if not given or not places or step.is_flat:
            continue
        operands = [tape.values[i] for i in step.reads]
        for k, x in _pull(step, operands, places, given).items():
            collect(step.reads[k], x)
            if is_bad(x):
                bad.setdefault(step.reads[k], []).append((step, k))
                pulled[step.number, k] = x
    creators: dict[int, tuple[Step, int]] = {}
    pending = [tape.inputs[k] for k in inputs]
    seen: set[int] = set()
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        for step, k in bad.get(value, ()):
            arrived = [i for i in step.writes if is_bad(total.get(i))]
            pending += arrived
            if not arrived:
                creators.setdefault(step.number, (step, k))
    origins: list[Origin] = []
    for step in first_of_each(creators[number][0] for number in sorted(creators, reverse=True)):
        k = creators[step.number][1]
        arriving = tuple(total.get(i) for i in step.writes)
        made = k, pulled[step.number, k]
        origins += _reverse_inside(tape, step, arriving, made, moved)
    return in_order(origins)[::-1]


def _reverse_inside(
    tape: Tape, step: Step, given: tuple[Any, ...], pulled: tuple[int, Any], moved: set[int]
) -> list[Origin]:
    k, made = pulled
    operands = [tape.values[i] for i in step.reads]
    places = [n for n, i in enumerate(step.reads) if i in moved]
    if step.inside is not None and not step.by_rule:
        inner = reverse_origins(step.inside(operands), given, [k], places)
        if inner:
            return [nested(x, step) for x in inner]
    results = [tape.values[i] for i in step.writes]
    trail, entries = (step.number,), not_finite(made)
    origin = Origin("reverse", step, trail, tape.loops, operands, results, made, entries, k, given)
    known = {n: x for n, x in enumerate(given) if x is not None}

    def rule(*arrays: Any) -> list[Any]:
        values, cotangents = arrays[: len(operands)], arrays[len(operands) :]
        pulled = _pull(step, values, places, dict(zip(known, cotangents, strict=True)))
        return list(pulled.values())

    return [_completed(tape, origin, rule, [*operands, *known.values()])]


def _pull(
    step: Step, operands: Sequence[Any], moving: Sequence[int], given: dict[int, Any]
) -> dict[int, Any]:
    """What is pulled back to the operands that move, by position."""
    run, primals = _moved(step.run_both_ways, operands, moving, list(given))
    _, pull = jax.vjp(run, *primals)
    return dict(zip(moving, pull(list(given.values())), strict=True))


def _floats(tape: Tape, number: int) -> bool:
    return is_inexact(getattr(tape.values[number], "dtype", bool))


def _completed(tape: Tape, origin: Origin, rule: Callable[..., Any], arguments: list[Any]) -> Any:
    """The origin with what made its operands infinite, and with the line of a rule."""
    step = origin.step
    read = [i for i in step.reads if is_bad(tape.values[i])]
    before = sources(tape, read).origins
    within = None
    if step.by_rule:
        inner = record(jax.make_jaxpr(rule)(*arguments), arguments)
        lines = value_origins(inner, range(len(inner.outputs))).origins
        within = lines[0].step.equation if lines else None
    return dataclasses.replace(origin, before=before[0] if before else None, within=within)
