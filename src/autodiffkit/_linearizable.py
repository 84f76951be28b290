"""Functions as JAX can linearise them: what it refuses or loses is done in another way."""

from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core as jex
import jax.extend.source_info_util as source_info
from jax.extend.core import primitives

from autodiffkit._effects import (
    followed,
    has_callback_in_scan,
    is_answered,
    keeps_calls,
    quiet,
    say,
)
from autodiffkit._errors import NOT_REFUSALS, RefusalError
from autodiffkit._jax_compat import Operation, is_reference, with_operations
from autodiffkit._jaxprs import called_by
from autodiffkit._naming import describe
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
    return with_operations(function, _may_call, _called, _rescued)


def _may_call(operation: Operation) -> bool:
    return any(body.effects for body in jex.jaxprs_in_params(operation.parameters))


def _called(operation: Operation) -> list[Any]:
    """The results of an operation, and its calls as often as the function makes them."""
    operands = operation.operands
    closed = _traced(operation)
    equation, *others = closed.jaxpr.eqns
    if others or called_by(equation) is not None:
        return _entered(operation, any(map(has_callback_in_scan, closed.jaxpr.eqns)))
    flags = followed(operands)
    # JAX may have made calls when it fails, so it is not left to try.
    again = separable(closed, flags, has_run=False) if any(flags) else None
    if again is not None:
        return again(*operands)
    writes = any(map(is_reference, equation.invars))  # what does is divided in any case
    if not has_callback_in_scan(equation) or not (writes or any(flags)):
        return operation.bind(*operands)
    if not (writes or is_answered(equation)):
        say(closed, operands)
        return quiet(closed)(*operands)
    if keeps_calls(closed, operands, flags):
        return operation.bind(*operands)
    raise RefusalError(
        f"JAX would lose or repeat a callback in {describe(equation)}, which cannot run a second "
        "time for it because it needs what an io_callback returns or writes to a jax.new_ref; "
        "take the one or the other out of the loop"
    )


def _entered(operation: Operation, is_lossy: bool) -> list[Any]:
    """The results of a `jit`; one operation in it may do what another may not."""
    if is_lossy:
        function = jex.jaxpr_as_fun(operation.parameters["jaxpr"])
        return linearizable(function)(*operation.operands)
    try:
        return operation.bind(*operation.operands)
    except Exception as error:  # which has been found before anything ran
        results = _rescued(operation, error)
        if results is None:
            raise
        return results


def _traced(operation: Operation) -> Any:
    """The operation as a program of one equation, or of those of an inlined `jit`."""
    here = source_info.current()  # a trace sees no lines outside of it
    closed = jax.make_jaxpr(operation.bind)(*operation.operands)
    if len(closed.jaxpr.eqns) > 1:
        return closed
    equations = [equation.replace(source_info=here) for equation in closed.jaxpr.eqns]
    return jex.ClosedJaxpr(closed.jaxpr.replace(eqns=equations), closed.consts)


def _rescued(operation: Operation, error: Exception) -> list[Any] | None:
    """The results of an operation that JAX fails to linearise, `None` if nothing helps."""
    if isinstance(error, (RefusalError, *NOT_REFUSALS)):
        return None
    flags = followed(operation.operands)
    if not any(flags):
        return None
    # A rule has run when JAX finds that it cannot linearise what that does.
    has_run = operation.primitive is primitives.custom_jvp_call_p
    again = separable(_traced(operation), flags, has_run)
    return None if again is None else linearizable(again)(*operation.operands)
