"""Operations that JAX can push a direction through, but not linearise.

To linearise is to separate what depends on a direction from what does not. An equation that holds
a program, such as a Pallas kernel or a `custom_vmap`, has no rule for that in JAX: pushed through,
it computes value and derivative in one. Here each of them is given a rule by which the value is
computed once more, without the derivative.
"""

from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any

import jax
import jax.extend.core as jex

from autodiffkit._effects import quiet, say
from autodiffkit._jax_compat import is_reference, struct_of
from autodiffkit._jaxprs import (
    alone,
    among,
    descendants,
    has_body,
    inlined,
    is_floating,
    make_jaxpr,
)
from autodiffkit._naming import calls_custom_rules
from autodiffkit._rewriting import of_some

Flat = Callable[..., list[Any]]


def separable(closed: Any, flags: Sequence[bool]) -> Flat | None:
    """The function of a program that JAX fails to linearise, made so that it can.

    Args:
        closed: The program.
        flags: By which of its inputs it is differentiated.

    Returns:
        A function with the same values, derivatives and calls; `None` where an equation cannot be
        pushed through either, or where there is nothing to do.
    """
    jaxpr, constants = inlined(closed)
    moving = set(compress(jaxpr.invars[len(constants) :], flags))
    parts: list[tuple[Flat, list[Any], list[Any]]] = []
    waiting: list[Any] = []
    has_changed = False
    for equation in jaxpr.eqns:
        given = among(equation.invars, moving)
        if any(given) and moves(equation, given):
            moving.update(filter(is_floating, equation.outvars))
        if not any(given) or any(map(is_reference, equation.invars)):
            waiting.append(equation)
            continue
        if obstacle(equation, given, _linearized) is None:
            waiting.append(equation)
            continue
        # With tangents for all operands JAX can batch more kernels.
        wide = list(map(is_floating, equation.invars))
        tangents = next((x for x in (wide, given) if obstacle(equation, x) is None), None)
        if tangents is None:
            return None
        if waiting:
            part, reads, writes = _part(waiting)
            parts.append((jex.jaxpr_as_fun(part), reads, writes))
        part, reads, writes = _part([equation])
        wanted = [tangents[equation.invars.index(x)] for x in reads]
        parts.append((_with_rule(part, wanted), reads, writes))
        waiting, has_changed = [], True
    if not has_changed:
        return None
    if waiting:
        part, reads, writes = _part(waiting)
        parts.append((jex.jaxpr_as_fun(part), reads, writes))

    def evaluate(*primals: Any) -> list[Any]:
        values = dict(zip(jaxpr.invars, [*constants, *primals], strict=True))
        for run, reads, writes in parts:
            values.update(zip(writes, run(*(values[x] for x in reads)), strict=True))
        return [x.val if isinstance(x, jex.Literal) else values[x] for x in jaxpr.outvars]

    return evaluate


def _part(equations: Sequence[Any]) -> tuple[Any, list[Any], list[Any]]:
    """Equations as a program, with the variables that it reads and those that it computes."""
    writes = [x for equation in equations for x in equation.outvars]
    computed = set(writes)
    reads = dict.fromkeys(
        x
        for equation in equations
        for x in equation.invars
        if not isinstance(x, jex.Literal) and x not in computed
    )
    writes = [x for x in writes if not isinstance(x, jex.DropVar)]
    closed = jex.ClosedJaxpr(make_jaxpr(list(reads), writes, equations), ())
    return closed, list(reads), writes


def _with_rule(closed: Any, flags: Sequence[bool]) -> Flat:
    """The function of a program with a rule, in which value and derivative are computed apart.

    Args:
        closed: The program.
        flags: Which of its inputs have tangents.
    """
    calls = bool(closed.effects) or calls_custom_rules(closed.jaxpr)
    run = quiet(closed) if calls else jex.jaxpr_as_fun(closed)

    @jax.custom_jvp
    def separated(*primals: Any) -> list[Any]:
        return run(*primals)

    def rule(primals: Any, tangents: Any) -> tuple[list[Any], list[Any]]:
        moving = list(compress(primals, flags))
        moved = list(compress(tangents, flags))
        return separated(*primals), jax.jvp(of_some(run, primals, flags), moving, moved)[1]

    separated.defjvp(rule)

    def evaluate(*primals: Any) -> list[Any]:
        if calls:
            say(closed, primals)
        return separated(*primals)

    return evaluate


def obstacle(
    equation: Any, flags: Sequence[bool], push: Callable[..., Any] = jax.jvp
) -> Exception | None:
    """Why an equation cannot be differentiated, found by tracing it alone.

    Args:
        equation: The equation.
        flags: Which of its operands move.
        push: What is tried: `jax.jvp`, or a function that is called as it is.
    """
    try:
        _tried(equation, flags, push)
    except Exception as error:  # any equation may refuse, each in its own way
        return error
    return None


def moves(equation: Any, flags: Sequence[bool]) -> bool:
    """Whether the results of an equation have tangents, if the operands with a flag have.

    Those of `stop_gradient`, of `floor` and the like have none.
    """
    if has_body(equation):
        return True
    try:
        pushed = _tried(equation, flags, _tangents)
    except Exception:  # as above; it is said where it matters
        return True
    tangents = pushed.invars[len(pushed.invars) - sum(flags) :]
    return any(among(pushed.outvars, descendants(pushed, tangents)))


def _tried(equation: Any, flags: Sequence[bool], push: Callable[..., Any]) -> Any:
    """The jaxpr of an equation pushed, whose last inputs are tangents of operands with a flag."""
    jaxpr, operands = alone(equation, is_floating)
    structs = [struct_of(x.aval) for x in jaxpr.invars]
    moving = [i for i, k in enumerate(operands) if flags[k]]

    def run(values: list[Any], tangents: list[Any]) -> Any:
        def evaluate(*moved: Any) -> Any:
            given = list(values)
            for i, value in zip(moving, moved, strict=True):
                given[i] = value
            return jex.jaxpr_as_fun(jex.ClosedJaxpr(jaxpr, ()))(*given)

        return push(evaluate, [values[i] for i in moving], tangents)

    return jax.make_jaxpr(run)(structs, [structs[i] for i in moving]).jaxpr


def _tangents(function: Flat, primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    return jax.jvp(function, primals, tangents)[1]


def _linearized(function: Flat, primals: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
    return jax.linearize(function, *primals)[1](*tangents)
