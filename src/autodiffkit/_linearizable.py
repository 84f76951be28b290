"""Functions as JAX can linearise them: what it refuses or loses is done in another way."""

from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any

import jax
import jax.core
import jax.extend.core as jex
import jax.extend.source_info_util as source_info
from jax.extend.core import primitives

from autodiffkit._effects import (
    calls_in_scan,
    followed,
    has_callback_in_scan,
    is_answered,
    keeps_calls,
    may_call_in_scan,
    quiet,
    say,
    say_known,
)
from autodiffkit._errors import NOT_REFUSALS, RefusalError
from autodiffkit._jax_compat import Operation, divided, is_reference, is_staging, with_operations
from autodiffkit._jaxprs import called_by
from autodiffkit._kept_rules import is_forgotten, keeping_rules
from autodiffkit._naming import comes_from_jax, describe, place_of
from autodiffkit._rewriting import of_some, pushed
from autodiffkit._silencing import callbacks, silenced
from autodiffkit._unseparated import separable


def linearizable(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function with the same values, derivatives and calls, for `jax.linearize` alone.

    What a `scan` computes is divided by JAX into what is the same in each turn, what is known and
    what is linear. An `io_callback` whose results nothing needs is left out of all three, and a
    call for debugging happens once, or in two of them. Here an operation with such a `scan` in it
    runs once on values that are held constant, for what it says, and once more without its
    callbacks, to be differentiated. One that must not run twice is refused, unless JAX makes the
    same calls of it.

    What JAX pushes through but cannot linearise is given a rule.

    Returns:
        The function; it does this wherever it is called while JAX linearises it.
    """
    return with_operations(function, _may_lose, _kept, _rescued, _within)


def _may_lose(operation: Operation) -> bool:
    """Whether JAX may lose what an operation says, or a rule that it calls."""
    return _may_call(operation) or is_forgotten(operation)


def _may_call(operation: Operation) -> bool:
    """Whether an operation holds a callback, or calls a rule that may hold a `scan` with one."""
    bodies = jex.jaxprs_in_params(operation.params)
    is_scan = operation.primitive is primitives.scan_p
    return any(body.effects or may_call_in_scan(body, is_scan) for body in bodies)


def _kept(operation: Operation) -> list[Any]:
    """The results of an operation, with its rules, and its calls as often as it makes them."""
    flags = followed(operation.operands)
    kept = operation
    if any(flags) and is_forgotten(operation):
        kept = keeping_rules(operation)
    return _called(kept, flags) if _may_call(operation) else _entered(kept, is_lossy=False)


def _called(operation: Operation, flags: Sequence[bool]) -> list[Any]:
    """The results of an operation, and its calls as often as it makes them."""
    operands = operation.operands
    program = called_by(operation)
    if program is not None:
        return _entered(operation, calls_in_scan(program, operands, flags))
    closed = _traced(operation)
    is_lossy = calls_in_scan(closed, operands, flags)
    equation, *others = closed.jaxpr.eqns
    if others:  # of a `jit` that JAX writes out
        return _entered(operation, is_lossy)
    # JAX may have made calls when it fails, so it is not left to try.
    again = separable(closed, flags) if any(flags) else None
    if again is not None:
        return again(*operands)
    writes = any(map(is_reference, equation.invars))  # what does is divided in any case
    if not is_lossy or not (writes or any(flags)):
        return operation.bind(*operands)
    if not (writes or is_answered(equation)):
        say(closed, operands)
        return quiet(closed)(*operands)
    if keeps_calls(closed, operands, flags):
        return operation.bind(*operands)
    raise _runs_once(equation)


def _runs_once(equation: Any) -> RefusalError:
    return RefusalError(
        f"JAX would lose or repeat a callback in {describe(equation)}, which cannot run a second "
        "time for it because it needs what an io_callback returns or uses a jax.new_ref; "
        "take the one or the other out of the loop"
    )


def _entered(operation: Operation, is_lossy: bool) -> list[Any]:
    """The results of an operation; in a `jit`, one may do what another may not."""
    if is_lossy:
        function = jex.jaxpr_as_fun(operation.params["jaxpr"])
        return linearizable(function)(*operation.operands)
    try:
        return operation.bind(*operation.operands)
    except Exception as error:  # which has been found before anything ran
        results = _rescued(operation, error)
        if results is None:
            raise
        return results


def _within(origin: str, operands: Sequence[Any]) -> Callable[[Operation], list[Any]] | None:
    """What to do with operations of a rule that call back; rules of JAX do not."""
    if comes_from_jax(origin) or not any(isinstance(x, jax.core.Tracer) for x in operands):
        return None
    # While nothing is recorded, what is not differentiated is no tracer.
    return None if is_staging() and not any(followed(operands)) else _called_by_rule


def _called_by_rule(operation: Operation) -> list[Any]:
    """The same of an operation in a rule, some operands of which depend on tangents."""
    division = divided(operation.operands)
    if division is None:
        return operation.bind(*operation.operands)
    outside, operands, flags = division
    if not any(flags):
        with jex.set_current_trace(outside):
            return operation.bind(*operands)
    moving = list(compress(operands, flags))
    closed = _trace(of_some(operation.bind, operands, flags), moving)
    lossy = [x for x in closed.jaxpr.eqns if has_callback_in_scan(x)]
    if not lossy:
        return operation.bind(*operation.operands)
    for equation in lossy:
        if is_answered(equation) or any(map(is_reference, equation.invars)):
            raise _runs_once(equation)
    with jex.set_current_trace(outside):
        say_known(closed)
    quiet = jex.ClosedJaxpr(silenced(closed.jaxpr, len(moving)), closed.consts)
    return jex.jaxpr_as_fun(quiet)(*moving)


def _traced(operation: Operation) -> Any:
    """The operation as a program of one equation, or of those of an inlined `jit`."""
    return _trace(operation.bind, operation.operands)


def _trace(function: Callable[..., Any], operands: Sequence[Any]) -> Any:
    here = source_info.current()  # a trace sees no lines outside of it
    closed = jax.make_jaxpr(function)(*operands)
    equations = [x if place_of(x) else x.replace(source_info=here) for x in closed.jaxpr.eqns]
    return jex.ClosedJaxpr(closed.jaxpr.replace(eqns=equations), closed.consts)


def _rescued(operation: Operation, error: Exception) -> list[Any] | None:
    """The results of an operation that JAX fails to linearise, `None` if nothing helps."""
    if isinstance(error, (RefusalError, *NOT_REFUSALS)):
        return None
    flags = followed(operation.operands)
    if not any(flags):
        return None
    closed = _traced(operation)
    if operation.primitive is primitives.custom_jvp_call_p:
        _refuse_calls(closed, operation.operands, flags)
    again = separable(closed, flags)
    return None if again is None else linearizable(again)(*operation.operands)


def _refuse_calls(closed: Any, operands: Sequence[Any], flags: Sequence[bool]) -> None:
    """Refuses a rule that calls back; when JAX fails at it, it has made some of its calls."""
    if next(callbacks(pushed(closed, operands, flags).jaxpr), None) is not None:
        raise RefusalError(
            f"JAX cannot linearise {describe(closed.jaxpr.eqns[0])}, whose rule calls back and "
            "must not run once more; take the callback out of the rule"
        )
