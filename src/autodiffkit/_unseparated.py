"""Operations that JAX can push a direction through, but not linearise.

To linearise is to separate what depends on a direction from what does not. An equation that holds
a program, such as a Pallas kernel or a `custom_vmap`, has no rule for that in JAX: pushed through,
it computes value and derivative in one. Here each of them is given a rule by which the value is
computed once more, without the derivative.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex

from autodiffkit._jaxprs import alone, among, inlined, make_jaxpr
from autodiffkit._leaves import is_inexact

Flat = Callable[..., list[Any]]


def separable(function: Callable[..., Any], primals: Sequence[Any]) -> Callable[..., Any] | None:
    """A function with the same values and derivatives, which can be linearised.

    Args:
        function: A function of arrays that JAX fails to linearise.
        primals: Where: arrays or structs.

    Returns:
        The function, which is traced once and evaluates that trace; `None` where it cannot be
        traced, where an equation cannot be pushed through either, or where there is nothing to do.
    """
    try:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*primals)
    except Exception:  # a function may raise anything where it has no values
        return None
    jaxpr, constants = inlined(closed)
    moving = {x for x in jaxpr.invars[len(constants) :] if is_floating(x)}
    parts: list[tuple[Flat, list[Any], list[Any]]] = []
    waiting: list[Any] = []
    has_changed = False
    for equation in jaxpr.eqns:
        flags = among(equation.invars, moving)
        if any(flags):
            moving.update(filter(is_floating, equation.outvars))
            if obstacle(equation, flags, _linearized) is not None:
                if obstacle(equation, flags, jax.jvp) is not None:
                    return None
                if waiting:
                    parts.append(_part(waiting))
                run, reads, writes = _part([equation])
                parts.append((_with_rule(run), reads, writes))
                waiting, has_changed = [], True
                continue
        waiting.append(equation)
    if not has_changed:
        return None
    if waiting:
        parts.append(_part(waiting))
    treedef = jax.tree.structure(shape)

    def evaluate(*primals: Any) -> Any:
        values = dict(zip(jaxpr.invars, [*constants, *primals], strict=True))
        for run, reads, writes in parts:
            values.update(zip(writes, run(*(values[x] for x in reads)), strict=True))
        outs = [x.val if isinstance(x, jex.Literal) else values[x] for x in jaxpr.outvars]
        return jax.tree.unflatten(treedef, outs)

    return evaluate


def _part(equations: Sequence[Any]) -> tuple[Flat, list[Any], list[Any]]:
    """Equations as a function, with the variables that it reads and those that it computes."""
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
    return jex.jaxpr_as_fun(closed), list(reads), writes


def _with_rule(run: Flat) -> Flat:
    """The same with a rule, in which value and derivative are computed apart."""

    def evaluate(*primals: Any) -> list[Any]:
        return run(*primals)

    separated: Any = jax.custom_jvp(evaluate)

    def rule(primals: Any, tangents: Any) -> tuple[list[Any], list[Any]]:
        return separated(*primals), jax.jvp(evaluate, primals, tangents)[1]

    separated.defjvp(rule)
    return separated


def is_floating(variable: Any) -> bool:
    """Whether a variable of a jaxpr can have a tangent."""
    return is_inexact(getattr(variable.aval, "dtype", bool))


def obstacle(
    equation: Any, flags: Sequence[bool], push: Callable[..., Any] = jax.jvp
) -> Exception | None:
    """Why an equation cannot be differentiated, found by tracing it alone.

    Args:
        equation: The equation.
        flags: Which of its operands move.
        push: What is tried: `jax.jvp`, or a function that is called as it is.
    """
    jaxpr, operands = alone(equation, is_floating)
    structs = [jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in jaxpr.invars]
    moving = [i for i, k in enumerate(operands) if flags[k]]

    def run(values: list[Any], tangents: list[Any]) -> Any:
        def evaluate(*moved: Any) -> Any:
            given = list(values)
            for i, value in zip(moving, moved, strict=True):
                given[i] = value
            return jex.jaxpr_as_fun(jex.ClosedJaxpr(jaxpr, ()))(*given)

        return push(evaluate, [values[i] for i in moving], tangents)

    try:
        jax.eval_shape(run, structs, [structs[i] for i in moving])
    except Exception as error:  # any equation may refuse, each in its own way
        return error
    return None


def _linearized(function: Flat, primals: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
    return jax.linearize(function, *primals)[1](*tangents)
