"""Findings for people, made of where something stopped being finite."""

import re
from traceback import FrameSummary
from typing import Any

import jax.numpy as jnp
import numpy as np

from autodiffkit._causes import case_of, cause_of, describe_case, number, short, values_of
from autodiffkit._leaves import LeafSpec
from autodiffkit._naming import describe, name_of_primitive, place_of
from autodiffkit._nonfinite_report import NonfiniteFinding
from autodiffkit._origins import Origin, not_finite
from autodiffkit._paths import show
from autodiffkit._remedies import LINEAR


def finding_of(
    origin: Origin, outputs: tuple[str, ...], inputs: tuple[str, ...], *, linear: bool
) -> NonfiniteFinding:
    """A finding.

    Args:
        origin: Where it stopped being finite.
        outputs: The paths of what it reaches.
        inputs: The paths of what it depends on.
        linear: Whether the step is one of the linear program and not of the function.
    """
    case, equation = case_of(origin), origin.step.equation
    cause = LINEAR if linear else cause_of(case)
    notes: list[str] = []
    if origin.after is not None:
        after = case_of(origin.after)
        notes.append(f"then {describe_case(after)}, by {describe(origin.after.step.equation)}")
    if origin.before is not None:
        before = case_of(origin.before)
        notes.append(f"before, {describe_case(before)}, by {describe(origin.before.step.equation)}")
    if values := values_of(case):
        notes.append(values)
    shown = origin.operands[origin.position] if origin.kind == "reverse" else origin.made
    result = origin.results[0] if origin.kind == "reverse" and origin.results else shown
    return NonfiniteFinding(
        origin.kind,
        name_of_primitive(equation),
        place_of(equation),
        tuple(result.shape),
        result.dtype,
        case.index,
        case.made,
        () if linear else case.operands,
        origin.loops,
        outputs,
        inputs,
        cause.name,
        _linear_case(case.made) if linear else describe_case(case),
        cause.problem,
        cause.remedy,
        tuple(notes),
    )


def _linear_case(made: Any) -> str:
    return f"a derivative is multiplied by what is not finite, which gives {short(made)}"


def of_input(spec: LeafSpec, leaf: Any) -> NonfiniteFinding:
    """An argument that is not finite itself."""
    array = np.asarray(leaf) if hasattr(leaf, "dtype") else np.asarray(jnp.asarray(leaf))
    found = not_finite(array)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(found)), found.shape))
    count, path = int(found.sum()), show(spec.path)
    made = number(array[index])
    where = f" at index {index}" if index else ""
    more = f"; {count} of {array.size} entries are not finite" if array.size > 1 else ""
    return NonfiniteFinding(
        "input",
        path,
        "",
        tuple(array.shape),
        array.dtype,
        index,
        made,
        (),
        (),
        (),
        (path,),
        "input",
        f"{path} is {short(made)}{where}{more}",
        "the argument was not finite before the function ran",
        "Look at where it was made; drop or mask missing data before the call.",
    )


_ENCOUNTERED = re.compile(r"encountered in (?P<name>\w+)")


def of_running(
    message: str, frame: FrameSummary | None, outputs: tuple[str, ...]
) -> NonfiniteFinding:
    """What JAX said when it stopped at a NaN or an infinity, which is all that is known."""
    found = _ENCOUNTERED.search(message)
    source = ""
    if frame is not None:
        source = f"{frame.filename}:{frame.lineno}:{frame.colno or 0} ({frame.name})"
    made = float("nan") if "(nan)" in message else float("inf")
    return NonfiniteFinding(
        "value",
        found["name"] if found else "operation",
        source,
        None,
        None,
        (),
        made,
        (),
        (),
        outputs,
        (),
        "undefined",
        message.split("\n", 1)[0],
        "the operation has no finite value there",
        "Look at what it reads; keep its arguments where it is defined and away from overflow.",
    )
