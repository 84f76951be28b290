"""The function as a program and its tangent map as a linear one.

A flat function takes arrays and returns two lists of arrays: the outputs to differentiate,
and the rest (integer outputs, auxiliary data), which only passes through.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.extend
import numpy as np
from jaxtyping import Array

from autodiffkit._jax_compat import rule_key

FlatFunction = Callable[..., tuple[list[Array], list[Any]]]


# Staging ----------------------------------------------------------------------


class Staged:
    """A flat function, traced once; calling it evaluates the trace."""

    def __init__(self, function: FlatFunction, primals: Sequence[Any]) -> None:
        self._jaxpr, (outs, _) = jax.make_jaxpr(function, return_shape=True)(*primals)
        self._count = len(outs)

    def __call__(self, *primals: Array) -> tuple[list[Array], list[Any]]:
        results = list(jax.extend.core.jaxpr_as_fun(self._jaxpr)(*primals))
        return results[: self._count], results[self._count :]


# The linear program -----------------------------------------------------------


class Linear(eqx.Module):
    """A linear map between lists of arrays: a program, and the residuals that it needs.

    It is a pytree whose leaves are the residuals; the program is static.
    """

    residuals: list[Any]
    program: "Program" = eqx.field(static=True)

    def __call__(self, *tangents: Array) -> list[Array]:
        """Applies the map."""
        return self.program.evaluate(self.residuals, tangents)

    def transpose(self) -> "Linear":
        """The transposed map (not conjugated).

        Raises:
            Exception: Whatever JAX raises for an equation that it cannot transpose.
        """
        program, constants = self.program.transposed
        return Linear([*constants, *self.residuals], program)

    def push_obstacle(self) -> Exception | None:
        """Why the map cannot be applied, `None` if it can.

        A `jax.custom_vjp` leaves an equation that is only meant to be transposed.
        """
        return self.program.push_obstacle

    def pull_obstacle(self) -> Exception | None:
        """Why the map cannot be transposed, `None` if it can."""
        return self.program.pull_obstacle


def as_linear(function: Callable[..., list[Array]], sources: Sequence[Any]) -> Linear:
    """Traces a linear function; what it closes over becomes its residuals."""
    closed = jax.make_jaxpr(function)(*sources)
    return Linear(list(closed.consts), Program(closed.jaxpr, len(sources)))


def linearize(
    function: FlatFunction, primals: Sequence[Array]
) -> tuple[list[Array], list[Any], Linear]:
    """Evaluates a flat function once, for its results and its tangent map there."""
    outs, tangent_map, rest = jax.linearize(function, *primals, has_aux=True)
    return outs, rest, as_linear(tangent_map, [_struct(x) for x in primals])


def without_traceback(error: Exception) -> Exception:
    """The error without the frames of a trace that is over, which would keep its tracers alive."""
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def _struct(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


class Program:
    """A jaxpr that is linear in its last inputs; those before them are residuals.

    It equals another one of the same text, so that results of two calls have equal
    structures. What has no text is compared by identity, as is the function that is the
    backward rule of a `jax.custom_vjp`.
    """

    def __init__(self, jaxpr: Any, arity: int) -> None:
        self._jaxpr = jaxpr
        variables = [*jaxpr.constvars, *jaxpr.invars]
        structs = [_struct(variable.aval) for variable in variables]
        count = len(structs) - arity
        self.residuals, self.sources = structs[:count], structs[count:]
        self.targets = [_struct(variable.aval) for variable in jaxpr.outvars]

    def evaluate(self, residuals: Sequence[Any], tangents: Sequence[Any]) -> list[Array]:
        """Runs the program."""
        count = len(self._jaxpr.constvars)
        closed = jax.extend.core.ClosedJaxpr(self._jaxpr, list(residuals[:count]))
        return list(jax.extend.core.jaxpr_as_fun(closed)(*residuals[count:], *tangents))

    @functools.cached_property
    def transposed(self) -> tuple["Program", list[Any]]:
        """The transposed program, and constants that go before the residuals."""

        def pull(residuals: list[Array], cotangents: list[Array]) -> list[Array]:
            def push(*tangents: Array) -> list[Array]:
                return self.evaluate(residuals, tangents)

            return list(jax.linear_transpose(push, *self.sources)(cotangents))

        closed = jax.make_jaxpr(pull)(self.residuals, self.targets)
        return Program(closed.jaxpr, len(self.targets)), list(closed.consts)

    @functools.cached_property
    def push_obstacle(self) -> Exception | None:
        """Why the program cannot be run, found by tracing a batch of it."""

        def push(residuals: list[Array], tangents: list[Array]) -> list[Array]:
            return jax.vmap(lambda t: self.evaluate(residuals, t), axis_size=1)(tangents)

        batch = [jax.ShapeDtypeStruct((1, *s.shape), s.dtype) for s in self.sources]
        try:
            # Batched, because some rules refuse only when they are batched or compiled.
            jax.eval_shape(push, self.residuals, batch)
        except Exception as error:  # any equation may refuse, each in its own way
            return without_traceback(error)
        return None

    @functools.cached_property
    def pull_obstacle(self) -> Exception | None:
        """Why the program cannot be transposed."""
        try:
            _ = self.transposed
        except Exception as error:  # any equation may refuse, each in its own way
            return without_traceback(error)
        return None

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a linear map holds a program, which cannot be pickled; pickle its .as_matrix(), or "
            "the result of adk.jacobian or adk.hessian"
        )

    def __copy__(self) -> "Program":
        return self  # a program does not change

    def __deepcopy__(self, memo: dict[int, Any]) -> "Program":
        return self

    @functools.cached_property
    def _key(self) -> Any:
        return len(self.sources), _jaxpr_key(self._jaxpr)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and (self is other or self._key == other._key)

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"<linear program of {len(self._jaxpr.eqns)} equations>"


def _jaxpr_key(jaxpr: Any) -> Any:
    numbers: dict[Any, int] = {}

    def atom(x: Any) -> Any:
        if isinstance(x, jax.extend.core.Literal):
            value = np.asarray(x.val)
            return ("literal", str(x.aval), value.tobytes())
        return numbers.setdefault(x, len(numbers))

    heads = [(atom(var), str(var.aval)) for var in (*jaxpr.constvars, *jaxpr.invars)]
    equations = [
        (
            equation.primitive,
            tuple(map(atom, equation.invars)),
            tuple((atom(var), str(var.aval)) for var in equation.outvars),
            tuple((name, _param_key(value)) for name, value in sorted(equation.params.items())),
        )
        for equation in jaxpr.eqns
    ]
    return tuple(heads), tuple(equations), tuple(map(atom, jaxpr.outvars))


def _param_key(value: Any) -> Any:
    match value:
        case jax.extend.core.ClosedJaxpr():
            return _jaxpr_key(value.jaxpr), tuple(map(id, value.consts))
        case jax.extend.core.Jaxpr():
            return _jaxpr_key(value)
        case tuple() | list():
            return tuple(map(_param_key, value))
        case dict():
            return tuple((key, _param_key(item)) for key, item in value.items())
        case _:
            key = rule_key(value) or (type(value), value)
            try:
                hash(key)
            except TypeError:
                return ("object", id(value))
            return key
