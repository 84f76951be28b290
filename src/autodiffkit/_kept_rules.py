"""Derivative rules in a `scan`, kept where JAX forgets them.

JAX 0.10 and 0.11 divide a `scan` that is linearised by evaluating its body, where a call of a
`jax.custom_jvp` becomes one of the function alone. Derivatives of the value are then those of the
function, whatever its rule says. A `jax.checkpoint` is left as it is there, so each call that a
rule makes is put into one here; into several, since some are evaluated before.
"""

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.extend.core as jex
from jax.extend.core import primitives

from autodiffkit._jax_compat import (
    Operation,
    forgets_rules,
    is_reference,
    with_operations,
)
from autodiffkit._jaxprs import alone
from autodiffkit._rewriting import (
    again,
    rebound,
    traced,
    with_equations,
    with_programs,
    written_out,
)


def with_rules_kept(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, for JAX to pull back; derivatives of the gradient follow the rules in it."""

    def run(operation: Operation) -> list[Any]:
        return keeping_rules(operation).bind(*operation.operands)

    return with_operations(function, is_forgotten, run) if forgets_rules() else function


def is_forgotten(operation: Operation) -> bool:
    """Whether JAX would forget a rule that is called in an operation."""
    return forgets_rules() and _calls_in_scan(operation, 0)


def keeping_rules(operation: Operation) -> Operation:
    """The operation, with derivatives of any order that follow the rules in it."""
    if any(is_reference(x) for x in operation.operands if hasattr(x, "aval")):
        return operation  # which goes into no rule

    def change(closed: Any) -> Any:
        return _kept(closed, _depth_in(operation, 0))

    return operation._replace(
        params=operation.params | with_programs(operation, change),
        bind=lambda *operands: rebound(operation, operands, change),
    )


_RULE_CALLS = (primitives.custom_jvp_call_p, primitives.custom_vjp_call_p)

# Of programs, as long as JAX keeps them, by the number of scans that they are in.
_CALLS: WeakKeyDictionary[Any, dict[bool, bool]] = WeakKeyDictionary()
_KEPT: WeakKeyDictionary[Any, dict[int, Any]] = WeakKeyDictionary()


def _depth_in(equation: Any, depth: int) -> int:
    return depth + (equation.primitive is primitives.scan_p)


def _calls_in_scan(equation: Any, depth: int) -> bool:
    if depth and equation.primitive in _RULE_CALLS:
        return True
    depth = _depth_in(equation, depth)
    return any(_has_call(body, depth) for body in jex.jaxprs_in_params(equation.params))


def _has_call(jaxpr: Any, depth: int) -> bool:
    known, key = _CALLS.setdefault(jaxpr, {}), depth > 0
    if key not in known:
        known[key] = any(_calls_in_scan(x, depth) for x in jaxpr.eqns)
    return known[key]


def _kept(closed: Any, depth: int) -> Any:
    """The program, in which the rules that are called in a `scan` are kept."""
    if not _has_call(closed.jaxpr, depth):
        return closed
    known = _KEPT.setdefault(closed.jaxpr, {})
    if depth not in known:  # so that what is compiled is found again
        known[depth] = traced(closed, lambda *xs: _run(closed, xs, depth, _with_rule))
    return known[depth]


def _run(
    closed: Any, operands: Sequence[Any], depth: int, call: Callable[[Any, list[Any], int], Any]
) -> list[Any]:
    """Evaluates a program in which rules in a `scan` are called in another way."""

    def change(equation: Any, values: list[Any]) -> list[Any]:
        if equation.primitive in _RULE_CALLS:
            return list(call(equation, values, depth))
        inside = _depth_in(equation, depth)
        if call is _with_rule:
            return rebound(equation, values, lambda x: _kept(x, inside))
        return rebound(equation, values, lambda x: traced(x, lambda *xs: _run(x, xs, inside, call)))

    return with_equations(closed, operands, lambda x: _calls_in_scan(x, depth), change)


def _with_rule(equation: Any, operands: Sequence[Any], depth: int) -> list[Any]:
    """Calls a rule, in which the calls that it makes are kept."""
    jaxpr, places = alone(equation, lambda _: True)
    closed = jex.ClosedJaxpr(jaxpr, ())

    def run(closed: Any, operands: Sequence[Any], _: int) -> list[Any]:
        # Where nothing has a tangent yet, the call itself is one that JAX would forget.
        return _run(closed, operands, depth, _sealed)

    return written_out(closed, run)(*(operands[k] for k in places))


def _sealed(equation: Any, operands: Sequence[Any], depth: int) -> list[Any]:
    """Calls a rule, such that JAX keeps the call."""

    def call(*operands: Any) -> list[Any]:
        return again(equation, operands)

    # JAX evaluates one where it asks what is known, and one for each scan that it is taken out of.
    for _ in range(1 + depth):
        policy = jax.checkpoint_policies.everything_saveable
        call = jax.checkpoint(call, prevent_cse=False, policy=policy)
    return call(*operands)
