"""The function as a program: traced once, with the linear program of its tangent map."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex
from jaxtyping import Array

from autodiffkit._cost import nbytes
from autodiffkit._devices import local
from autodiffkit._jax_compat import is_ordered, is_reference, struct_of
from autodiffkit._jaxprs import inlined, is_repetitive, separated
from autodiffkit._naming import calls_custom_rules
from autodiffkit._program import (
    FlatFunction,
    Linear,
    Program,
    as_arrays,
    linearize,
)


class Staged:
    """A flat function, traced once; calling it evaluates the trace."""

    def __init__(self, function: FlatFunction, primals: Sequence[Any]) -> None:
        self._structs = [struct_of(x) for x in primals]
        self.closed, (outs, _) = jax.make_jaxpr(function, return_shape=True)(*primals)
        self.count = len(outs)

    @functools.cached_property
    def has_rules(self) -> bool:
        """Whether it calls a `jax.custom_jvp` or `jax.custom_vjp` that is not JAX's own."""
        return calls_custom_rules(self.closed.jaxpr)

    def __call__(self, *primals: Array) -> tuple[list[Array], list[Any]]:
        results = as_arrays(jex.jaxpr_as_fun(self.closed)(*primals))
        return results[: self.count], results[self.count :]

    @property
    def has_ordered_effects(self) -> bool:
        """Whether callbacks in it come in an order, which JAX keeps under no `vmap`."""
        return any(map(is_ordered, self.closed.jaxpr.effects))

    @functools.cached_property
    def linearization(self) -> "Linearization":
        """The function with its residuals, and the linear program; nothing is evaluated."""
        return self._separated() or self._linearized()

    def _separated(self) -> "Linearization | None":
        """Finds the linear program in the trace of a pushed tangent, which is quick.

        What depends on the tangent is linear in it. But an equation that holds a program, such
        as a `scan`, computes both what does and what does not; then the answer is `None`.
        """
        if is_repetitive(self.closed.jaxpr):  # written out, it takes long to lower
            return None

        def push(primals: list[Array], tangents: list[Array]) -> Any:
            outs, tangents, rest = jax.jvp(self, primals, tangents, has_aux=True)
            return tangents, outs, rest

        structs = self._structs
        jaxpr, constants = inlined(jax.make_jaxpr(push)(structs, structs))
        parts = separated(jaxpr, len(structs), self.count)
        if parts is None:
            return None
        first, second = parts
        if any(is_reference(x) for equation in first.eqns for x in equation.outvars):
            return None
        evaluate = functools.partial(jex.jaxpr_as_fun(jex.ClosedJaxpr(first, ())), *constants)
        program = Program(local(second, len(structs)), len(structs))
        return Linearization(evaluate, self.count, first, program, True)

    def _linearized(self) -> "Linearization":
        programs: list[Program] = []

        def evaluate(*primals: Array) -> Any:
            outs, rest, linear = linearize(self, primals)
            programs.append(linear.program)
            return outs, rest, linear.residuals

        closed = jax.make_jaxpr(evaluate)(*self._structs)
        return Linearization(jex.jaxpr_as_fun(closed), self.count, closed.jaxpr, programs[0], False)


@dataclasses.dataclass(frozen=True)
class Linearization:
    """A function that returns its residuals, too, and the program that they belong to."""

    _evaluate: Callable[..., list[Any]]
    _count: int
    _jaxpr: Any
    program: Program
    is_separated: bool  # whether each equation is part of one of the two alone

    def __call__(self, *primals: Array) -> tuple[list[Array], list[Any], Linear]:
        """The outputs, the rest, and the tangent map."""
        results = as_arrays(self._evaluate(*primals))
        end = len(results) - len(self.program.residuals)
        linear = Linear(results[end:], self.program)
        return results[: self._count], results[self._count : end], linear

    @property
    def kept(self) -> int:
        """The bytes of residuals that are computed."""
        computed = {v for equation in self._jaxpr.eqns for v in equation.outvars}
        residuals = self._jaxpr.outvars[len(self._jaxpr.outvars) - len(self.program.residuals) :]
        return sum(nbytes(v) for v in residuals if not isinstance(v, jex.Literal) and v in computed)
