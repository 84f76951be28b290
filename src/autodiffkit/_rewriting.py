"""Programs with derivative rules written out, or with the calls of rules done in another way."""

from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from typing import Any

import jax
import jax.extend.core as jex
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import primitives

from autodiffkit._interpret import bind, interpret, raw
from autodiffkit._jax_compat import Operation, struct_of
from autodiffkit._jaxprs import among, descendants, inlined, make_jaxpr
from autodiffkit._leaves import is_inexact


def of_some(
    function: Callable[..., Any], operands: Sequence[Any], flags: Sequence[bool]
) -> Callable[..., Any]:
    """A function of the operands that have a flag, where the others stay what they are."""

    def partial(*moving: Any) -> Any:
        given = iter(moving)
        every = [next(given) if flag else x for x, flag in zip(operands, flags, strict=True)]
        return function(*every)

    return partial


def pushed(closed: Any, operands: Sequence[Any], flags: Sequence[bool]) -> Any:
    """The program and its derivative by the inputs that have a flag, rules and all.

    Returns:
        A program of the inputs and the tangents of those, which gives the outputs and a tangent
        for each of them that is of floating-point numbers.
    """
    function = jex.jaxpr_as_fun(closed)

    def push(primals: Any, tangents: Any) -> Any:
        moving = list(compress(primals, flags))
        outs, pushes = jax.jvp(of_some(function, primals, flags), moving, tangents)
        return outs, [t for x, t in zip(outs, pushes, strict=True) if is_inexact(x.dtype)]

    moving = list(compress(operands, flags))
    return jax.make_jaxpr(push)(list(operands), moving)


def written_out(closed: Any, run: Callable[[Any, Sequence[Any], int], list[Any]]) -> Any:
    """The function of a program with a rule, in which those of the program are written out.

    Args:
        closed: The program.
        run: Evaluates it, or the program that `pushed` makes of it; takes operands, and how many
            of the last ones are tangents.

    Returns:
        The function; its rule is asked for what has a tangent alone.
    """

    @jax.custom_jvp
    def function(*primals: Any) -> Any:
        return run(closed, primals, 0)

    def rule(primals: Any, tangents: Any) -> Any:
        flags = [not isinstance(x, SymbolicZero) for x in tangents]
        moving = list(compress(tangents, flags))
        written = pushed(closed, primals, flags)
        results = run(written, [*primals, *moving], len(moving))
        count, jaxpr = len(closed.out_avals), written.jaxpr
        moved = among(jaxpr.outvars, descendants(jaxpr, jaxpr.invars[len(primals) :]))
        pushes = zip(results[count:], moved[count:], strict=True)
        return results[:count], [_tangent(x, pushes) for x in results[:count]]

    function.defjvp(rule, symbolic_zeros=True)
    return function


def _tangent(out: Any, pushes: Iterator[tuple[Any, bool]]) -> Any:
    """The tangent of an output, the next one of those that are for floating-point numbers."""
    if not is_inexact(out.dtype):
        return np.zeros(out.shape, jax.dtypes.float0)
    tangent, is_moved = next(pushes)
    return tangent if is_moved else SymbolicZero(jax.typeof(out))


def with_calls(
    closed: Any,
    operands: Sequence[Any],
    is_meant: Callable[[Any], bool],
    call: Callable[[Any, list[Any]], list[Any]],
) -> list[Any]:
    """Evaluates a program in which calls of `jax.custom_jvp` are done in another way.

    Args:
        closed: The program.
        operands: The values of its inputs.
        is_meant: Whether an equation is such a call, or holds one.
        call: Does the call; takes the equation and the values of its operands.

    Returns:
        The values of its outputs.
    """

    def change(closed: Any) -> Any:
        return traced(closed, lambda *xs: with_calls(closed, xs, is_meant, call))

    def apply(equation: Any, values: list[Any]) -> list[Any]:
        if equation.primitive is primitives.custom_jvp_call_p:
            return call(equation, values)
        return rebound(equation, values, change)

    return with_equations(closed, operands, is_meant, apply)


def with_equations(
    closed: Any,
    operands: Sequence[Any],
    is_meant: Callable[[Any], bool],
    run: Callable[[Any, list[Any]], list[Any]],
) -> list[Any]:
    """Evaluates a program some equations of which are done in another way.

    Args:
        closed: The program.
        operands: The values of its inputs.
        is_meant: Whether an equation is.
        run: Does the equation, with the values of its operands.

    Returns:
        The values of its outputs.
    """
    if not any(map(is_meant, closed.jaxpr.eqns)):
        return jex.jaxpr_as_fun(closed)(*operands)

    def apply(equation: Any, values: list[Any]) -> list[Any]:
        if is_meant(equation):
            return run(equation, values)
        return again(equation, raw(equation, values))

    def enter(equation: Any, values: list[Any], _: Any) -> list[Any]:
        return apply(equation, values)

    jaxpr, constants = inlined(closed)
    return interpret(jaxpr, [*constants, *operands], apply, enter)


def traced(closed: Any, function: Callable[..., list[Any]]) -> Any:
    """The program of a function of the same inputs."""
    return jax.make_jaxpr(function)(*(struct_of(x.aval) for x in closed.jaxpr.invars))


def rebound(equation: Any, values: Sequence[Any], change: Callable[[Any], Any]) -> list[Any]:
    """Evaluates an equation, or `Operation`, with other programs in it.

    Args:
        equation: The equation.
        values: Those of its operands.
        change: Gives the program to take for each.

    Returns:
        The values of its results.
    """
    if equation.primitive.name == "shard_map":
        return _on_devices(equation.params, values, change)
    if equation.primitive is not primitives.remat_p:
        return again(equation, values, **with_programs(equation, change))
    body, prevent_cse = equation.params["jaxpr"], equation.params["prevent_cse"]
    # Later versions of JAX have one class for both.
    changed = change(body if isinstance(body, jex.ClosedJaxpr) else jex.ClosedJaxpr(body, ()))
    if not changed.consts:
        return again(equation, values, jaxpr=changed.jaxpr)
    # Constants are operands there, which are said to be protected or not.
    jaxpr, constants = inlined(changed)
    if isinstance(prevent_cse, tuple):
        prevent_cse = (False,) * len(constants) + prevent_cse
    return again(equation, [*constants, *values], jaxpr=jaxpr, prevent_cse=prevent_cse)


def again(equation: Any, operands: Sequence[Any], **changes: Any) -> list[Any]:
    """Evaluates an equation, or `Operation`, with some of its parameters changed.

    What comes of an equation has its line of source; an operation is at its line already.

    Args:
        equation: The equation.
        operands: Those to take, literals as they are to stand.
        changes: The parameters.

    Returns:
        The values of its results.
    """
    if isinstance(equation, Operation):
        return bind(equation, list(operands), **changes)
    inputs = [jex.Var(jax.typeof(x)) for x in operands]
    own = equation.replace(invars=inputs, params=equation.params | changes)
    jaxpr = make_jaxpr(inputs, equation.outvars, [own])
    return list(jex.jaxpr_as_fun(jex.ClosedJaxpr(jaxpr, ()))(*operands))


def _on_devices(
    params: dict[str, Any], operands: Sequence[Any], change: Callable[[Any], Any]
) -> list[Any]:
    """Evaluates a `jax.shard_map` with another program in it, which is made where its axes are."""

    def function(*operands: Any) -> tuple[Any, ...]:
        changed = change(jex.ClosedJaxpr(params["jaxpr"], ()))
        return tuple(jex.jaxpr_as_fun(changed)(*operands))

    run = jax.shard_map(
        function,
        mesh=params["mesh"],
        in_specs=params["in_specs"],
        out_specs=params["out_specs"],
        axis_names=set(params["newly_manual_axes"]),
        check_vma=params["check_vma"],
    )
    return list(run(*operands))


def with_programs(equation: Any, change: Callable[[Any], Any]) -> dict[str, Any]:
    """The parameters of an equation that hold programs, changed; parts on devices stay."""
    if equation.primitive.name == "shard_map":
        return {}

    def is_program(x: Any) -> bool:
        return isinstance(x, jex.ClosedJaxpr)

    def changed(x: Any) -> Any:
        return change(x) if is_program(x) else x

    return {
        name: jax.tree.map(changed, value, is_leaf=is_program)  # a tuple of them may have names
        for name, value in equation.params.items()
        if is_program(value) or (isinstance(value, tuple) and any(map(is_program, value)))
    }
