"""Where on a tape a value stops being finite.

An origin is a step that reads finite numbers and makes one that is not. Only those count that reach
the result that is asked about, through numbers that are not finite themselves: an infinity that a
mask or an exponential takes away again is none. Reach is followed array by array.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np

from autodiffkit._leaves import is_inexact
from autodiffkit._tape import Step, Tape

Kind = Literal["value", "forward", "reverse"]


@dataclasses.dataclass(frozen=True)
class Origin:
    """A step that made what is not finite.

    Attributes:
        kind: Of a value, a tangent or a cotangent.
        step: The step.
        trail: Its number, after those of the steps that it is inside of.
        loops: The iterations that it is part of.
        operands: What it read.
        results: What it wrote.
        made: What is not finite: a result, the tangent of a result, or what is pulled back to an
            operand.
        entries: Which of its entries it is about.
        position: Of that result or operand.
        given: The tangents of the operands, or the cotangents of the results; `None` is zero.
        after: What made an infinity into the NaN that arrived, if another step did.
        before: What made the operand infinite that a derivative was multiplied by, if any did.
        within: The line of a custom rule that did it.
    """

    kind: Kind
    step: Step
    trail: tuple[int, ...]
    loops: tuple[str, ...]
    operands: list[Any]
    results: list[Any]
    made: Any
    entries: Any
    position: int
    given: tuple[Any, ...] = ()
    after: "Origin | None" = None
    before: "Origin | None" = None
    within: Any = None
    is_constant: bool = False  # whether it only reads a constant that is not finite

    @property
    def reads_bad(self) -> bool:
        """Whether one of the operands is not finite."""
        return any(map(is_bad, self.operands))


# Which entries of an array.
Mask = Callable[[Any], Any]


def _numbers(x: Any) -> Any:
    if isinstance(x, (float, complex)):
        return np.asarray(x)
    return np.asarray(x) if is_inexact(getattr(x, "dtype", bool)) else np.zeros(())


def not_finite(x: Any) -> Any:
    """Which entries of an array are not finite; of anything but floating-point numbers none."""
    # In NumPy, so that nothing is compiled; its isfinite does not know every small dtype.
    found = _numbers(x)
    wide = found if found.dtype.kind in "fc" and found.itemsize > 1 else found.astype(np.float32)
    return ~np.isfinite(wide)


def is_bad(x: Any) -> bool:
    """Whether an entry is not finite."""
    return bool(np.any(not_finite(x)))


def _nan(x: Any) -> Any:
    found = _numbers(x)
    return found != found  # noqa: PLR0124  # NumPy's isnan does not know every small dtype


def _infinite(x: Any) -> Any:
    return not_finite(x) & ~_nan(x)


def _has(mask: Mask, x: Any) -> bool:
    return bool(np.any(mask(x)))


# Values -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Found:
    """The origins in order, and the inputs that were not finite to begin with."""

    origins: tuple[Origin, ...]
    inputs: tuple[int, ...] = ()


def value_origins(tape: Tape, outputs: Iterable[int]) -> Found:
    """What made these outputs of a tape infinite or NaN.

    Where a NaN was made of an infinity, that comes first: 1/0, and not the 0 * inf that follows.
    """
    return sources(tape, [tape.outputs[i] for i in outputs])


def sources(tape: Tape, targets: Sequence[int]) -> Found:
    """The same of any values of a tape, by their numbers."""
    inputs: list[int] = []
    constants: list[int] = []
    origins = _nan_origins(tape, targets, inputs, constants)
    origins += _infinity_origins(tape, targets, inputs, constants)
    # A constant that is not finite is made by nobody; the step that reads it brings it in.
    for step in tape.steps if constants and not origins else ():
        writes_one = any(is_bad(tape.values[i]) for i in step.writes)
        if writes_one and not set(constants).isdisjoint(step.reads):
            brings = _value_origin(tape, step, not_finite)
            origins.append(dataclasses.replace(brings, is_constant=True))
            break
    return Found(in_order(origins), tuple(dict.fromkeys(inputs)))


def _nan_origins(
    tape: Tape,
    targets: Sequence[int],
    inputs: list[int] | None = None,
    constants: list[int] | None = None,
) -> list[Origin]:
    """What made a NaN, or the infinity that it was made of.

    Of an input that is infinite, only its number is noted, where that is wanted.
    """
    origins: list[Origin] = []
    for creator in _creators(tape, targets, _nan, [] if inputs is None else inputs, constants):
        whole = _value_origin(tape, creator, _nan)
        found = [whole]
        if creator.inside is not None:
            inner = creator.inside(whole.operands)
            wanted = [inner.outputs[k] for k, x in enumerate(whole.results) if _has(_nan, x)]
            found = [nested(x, creator) for x in _nan_origins(inner, wanted)] or found
        infinite = [i for i in creator.reads if _has(_infinite, tape.values[i])]
        from_inputs: list[int] = []
        makers = _infinity_origins(tape, infinite, from_inputs)
        if inputs is None:
            from_inputs.clear()
        else:
            inputs += from_inputs
        last = found[0].after or found[0]
        origins += [dataclasses.replace(x, after=last) for x in makers]
        if not makers and not from_inputs:
            origins += found
    return origins


def _infinity_origins(
    tape: Tape, targets: Sequence[int], inputs: list[int], constants: list[int] | None = None
) -> list[Origin]:
    """What made an infinity of finite numbers."""
    origins: list[Origin] = []
    for creator in _creators(tape, targets, _infinite, inputs, constants):
        whole = _value_origin(tape, creator, _infinite)
        found = [whole]
        if creator.inside is not None:
            inner = creator.inside(whole.operands)
            wanted = [inner.outputs[k] for k, x in enumerate(whole.results) if _has(_infinite, x)]
            found = [nested(x, creator) for x in _infinity_origins(inner, wanted, [])] or found
        origins += found
    return origins


def _creators(
    tape: Tape,
    targets: Iterable[int],
    mask: Mask,
    inputs: list[int],
    constants: list[int] | None = None,
) -> list[Step]:
    """The steps that made this of the values: they read none like it, and all after them did."""
    pending = [i for i in targets if _has(mask, tape.values[i])]
    seen: set[int] = set()
    found: dict[int, Step] = {}
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        step = tape.writer.get(value)
        if step is None:
            if value in tape.inputs:
                inputs.append(tape.inputs.index(value))
            elif constants is not None:
                constants.append(value)
            continue
        reads = [i for i in step.reads if _has(mask, tape.values[i])]
        pending += reads
        if not reads:
            found[step.number] = step
    return first_of_each([found[number] for number in sorted(found)])


def first_of_each(steps: Iterable[Step]) -> list[Step]:
    """Of the iterations of a loop the first; other steps as they are."""
    found: dict[int, Step] = {}
    for step in steps:
        found.setdefault(-step.number - 1 if step.equation is None else id(step.equation), step)
    return list(found.values())


def _value_origin(tape: Tape, step: Step, mask: Mask) -> Origin:
    results = [tape.values[i] for i in step.writes]
    position = next(k for k, x in enumerate(results) if _has(mask, x))
    operands = [tape.values[i] for i in step.reads]
    trail, made = (step.number,), results[position]
    entries = mask(made)
    return Origin("value", step, trail, tape.loops, operands, results, made, entries, position)


def nested(origin: Origin, step: Step) -> Origin:
    """What was found inside of a step, as seen from outside."""
    return dataclasses.replace(origin, trail=(step.number, *origin.trail))


def in_order(origins: Iterable[Origin]) -> tuple[Origin, ...]:
    """Origins in the order of the program, each once."""
    distinct = {origin.trail: origin for origin in reversed(list(origins))}
    return tuple(distinct[trail] for trail in sorted(distinct))
