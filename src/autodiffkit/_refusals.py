"""Which operation JAX refuses to differentiate, and on which line it is."""

import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.extend.core as jex
from jax.extend.core import primitives

from autodiffkit._errors import RefusalError
from autodiffkit._jax_compat import is_reference, scan_counts
from autodiffkit._jaxprs import among, is_floating
from autodiffkit._naming import describe, short_place
from autodiffkit._program import WRITTEN, reason
from autodiffkit._unseparated import moves, obstacle


def refusal(
    functions: Iterable[Callable[..., Any]], primals: Sequence[Any], error: Exception
) -> str:
    """What JAX refuses in a function of arrays that it cannot linearise.

    The function is traced once more, and each operation is asked by itself, also those in loops
    and branches. Where it cannot be traced, because it looks at values, the traceback has the
    line.

    Args:
        functions: The function; and its gradient, if that is what was to be linearised.
        primals: Where it was to be linearised: arrays or structs.
        error: What JAX raised.

    Returns:
        A line with the operation, its line of source, and the reason.
    """
    if isinstance(error, RefusalError):
        return reason(error)
    for function in functions:
        try:
            jaxpr = jax.make_jaxpr(function)(*primals).jaxpr
        except Exception:  # a function may raise anything where it has no values
            break
        found = _first(jaxpr, jaxpr.invars)
        if found is not None:
            equation, why = found
            return f"cannot push through {describe(equation)}: {reason(why)}"
    where = line_of_user(error)
    return f"cannot push through what {where} calls: {reason(error)}" if where else reason(error)


def _first(jaxpr: Any, moving: Sequence[Any]) -> tuple[Any, Exception] | None:
    """The first equation that cannot be pushed through, in the innermost program."""
    found = {x for x in moving if is_floating(x)}
    for equation in jaxpr.eqns:
        flags = among(equation.invars, found)
        if not any(flags):
            continue
        if moves(equation, flags):
            found.update(filter(is_floating, equation.outvars))
        if any(map(is_reference, equation.invars)):
            return equation, NotImplementedError(WRITTEN)
        why = obstacle(equation, flags)
        if why is None:
            continue
        inside = (_first(body, inputs) for body, inputs in _bodies(equation, flags))
        return next((x for x in inside if x is not None), (equation, why))
    return None


def _bodies(equation: Any, flags: Sequence[bool]) -> Iterator[tuple[Any, list[Any]]]:
    """The programs in an equation, each with those of its inputs that may move."""
    if equation.primitive in (primitives.custom_jvp_call_p, primitives.custom_vjp_call_p):
        return  # the rule refuses, and not what it is a rule for
    parameters = equation.params
    carry = range(0)
    for body in jex.jaxprs_in_params(parameters):
        skipped = len(equation.invars) - len(body.invars)
        match equation.primitive.name:
            case "scan":
                start, carried = scan_counts(equation)
                carry = range(start, start + carried)
            case "while":
                if len(body.outvars) != len(equation.outvars):
                    continue  # the condition, which is not differentiated
                skipped = parameters["cond_nconsts"]
                carry = range(parameters["body_nconsts"], len(body.invars))
            case _:
                pass
        if skipped < 0:
            yield body, list(body.invars)
            continue
        moves = list(flags[skipped:])
        while True:  # until what is carried moves no more of it
            moving = [x for x, flag in zip(body.invars, moves, strict=True) if flag]
            after = _moved(body, moving)
            more = [k for k, flag in zip(carry, after, strict=False) if flag and not moves[k]]
            if not more:
                break
            for k in more:
                moves[k] = True
        yield body, moving


def _moved(jaxpr: Any, moving: Sequence[Any]) -> list[bool]:
    """Which results depend on variables."""
    found = {x for x in moving if is_floating(x)}
    for equation in jaxpr.eqns:
        flags = among(equation.invars, found)
        if any(flags) and moves(equation, flags):
            found.update(filter(is_floating, equation.outvars))
    return among(jaxpr.outvars, found)


_OURS = (Path(jax.__file__).parent, Path(__file__).parent)
_STANDARD = Path(traceback.__file__).parent


def line_of_user(error: BaseException) -> str | None:
    """The innermost frame of a traceback that is not of Python, of JAX or of this package."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        path, name = Path(frame.f_code.co_filename), frame.f_code.co_name
        standard = path.is_relative_to(_STANDARD) and "site-packages" not in path.parts
        if not standard and not any(map(path.is_relative_to, _OURS)):
            return f"{short_place(str(path))}:{line} ({name})"
    return None
