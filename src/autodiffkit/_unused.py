"""Rules of which nothing needs the results, left out of what JAX computes beside a linear program.

JAX computes the value of a `while_loop` by the loop that computes value and derivative together,
without the outputs of the derivative but with all that leads to them. What it reads is computed
once more in the linear program. Differentiated again, rules in either would say what they say.
"""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import jax.extend.core as jex

from autodiffkit._jax_compat import Operation, is_executing, with_operations, without_unused
from autodiffkit._naming import calls_custom_rules, is_custom_rule
from autodiffkit._rewriting import rebound, with_programs


def without_unused_rules(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls `jax.linearize`, in which what JAX computes calls no rule in vain.

    Outside of other transformations nothing is differentiated again, and nothing is done.
    """
    return function if is_executing() else with_operations(function, _calls_rules, _trimmed)


def _calls_rules(operation: Operation) -> bool:
    return any(map(calls_custom_rules, jex.jaxprs_in_params(operation.params)))


def _trimmed(operation: Operation) -> list[Any]:
    return rebound(operation, operation.operands, _without_unused)


_TRIMMED: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def _without_unused(closed: Any) -> Any:
    """The program; the same one where each rule in it is needed."""
    if closed.jaxpr not in _TRIMMED:
        jaxpr = without_unused(closed.jaxpr)
        # JAX 0.10 does not enter a `while_loop` for that.
        jaxpr = jaxpr.replace(eqns=list(map(_entered, jaxpr.eqns)))
        is_less = _count(jaxpr) < _count(closed.jaxpr)
        _TRIMMED[closed.jaxpr] = jaxpr if is_less else None
    trimmed = _TRIMMED[closed.jaxpr]
    return closed if trimmed is None else jex.ClosedJaxpr(trimmed, closed.consts)


def _entered(equation: Any) -> Any:
    if is_custom_rule(equation) or not _count_in(equation):
        return equation
    return equation.replace(params=equation.params | with_programs(equation, _without_unused))


def _count(jaxpr: Any) -> int:
    """How many calls of rules there are in a program."""
    return sum(is_custom_rule(x) + _count_in(x) for x in jaxpr.eqns)


def _count_in(equation: Any) -> int:
    return sum(map(_count, jex.jaxprs_in_params(equation.params)))
