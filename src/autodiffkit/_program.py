"""The tangent map of a function as a linear program.

A flat function takes arrays and returns two lists of arrays: the outputs to differentiate,
and the rest (integer outputs, auxiliary data), which only passes through.
"""

import functools
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

import equinox as eqx
import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jaxtyping import Array

from autodiffkit._devices import local
from autodiffkit._jax_compat import is_explicit, is_reference, struct_of, typed, varying
from autodiffkit._jaxprs import (
    among,
    descendants,
    has_body,
    inlined,
    is_complex_linear,
    is_self_contained,
    jaxpr_key,
    make_jaxpr,
    piece,
)
from autodiffkit._leaves import is_inexact
from autodiffkit._linearizable import linearizable
from autodiffkit._naming import calls_custom_rules
from autodiffkit._silencing import silenced
from autodiffkit._unused import without_unused_rules

WRITTEN = (
    "what depends on the inputs is written to a jax.new_ref, or read from one that was made in "
    "the function"
)

FlatFunction = Callable[..., tuple[list[Array], list[Any]]]


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

    def pull(self, *cotangents: Array) -> list[Array]:
        """Applies the transpose (not conjugated).

        Raises:
            Exception: Whatever JAX raises for an equation that it cannot transpose.
        """
        return self.program.pull(self.residuals, cotangents)

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
    jaxpr, constants = inlined(jax.make_jaxpr(function)(*sources))
    if any(is_reference(x) for equation in jaxpr.eqns for x in equation.invars):
        raise NotImplementedError(WRITTEN)  # the line is looked for where it is reported
    jaxpr = silenced(local(jaxpr, len(sources)), len(sources))
    return Linear(constants, Program(jaxpr, len(sources)))


def linearize(
    function: FlatFunction, primals: Sequence[Array]
) -> tuple[list[Array], list[Any], Linear]:
    """Evaluates a flat function once, for its results and its tangent map there."""

    @without_unused_rules
    def separate(*primals: Array) -> Any:
        return jax.linearize(linearizable(function), *primals, has_aux=True)

    outs, tangent_map, rest = separate(*primals)

    # By a name of its own: JAX asks for that of what it traces, and prints this map, all of it.
    def push(*tangents: Array) -> list[Array]:
        return tangent_map(*tangents)

    return outs, rest, as_linear(push, [struct_of(x) for x in primals])


def without_traceback(error: Exception) -> Exception:
    """The error without the frames of a trace that is over, which would keep its tracers alive."""
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def reason(error: Exception) -> str:
    """What JAX, or a rule of the user's, says first.

    Advice that follows in JAX's message is left out: the plan is the way out.
    """
    line = str(error).strip().split("\n", 1)[0]
    return line.split(". ")[0].removesuffix(".") or type(error).__name__


def as_arrays(results: Iterable[Any]) -> list[Any]:
    """The results of a program, whose constants may be numbers."""
    return [x if isinstance(x, jax.Array) else jnp.asarray(x, x.dtype) for x in results]


class Obstacles(NamedTuple):
    """Why a part can be neither pushed nor pulled through; `None` where it can."""

    push: Exception | None
    pull: Exception | None


_FREE = Obstacles(None, None)
_UNOBSTRUCTED: set[tuple[Any, ...]] = set()
_REMEMBERED = 4096  # more than there are primitives of so many operands


class Program:
    """A jaxpr without constants that is linear in its last inputs; the others are residuals.

    It equals another one of the same text, so that results of two calls have equal
    structures. What has no text is compared by identity, as is the function that is the
    backward rule of a `jax.custom_vjp`.
    """

    def __init__(self, jaxpr: Any, arity: int) -> None:
        self.jaxpr = jaxpr
        structs = [struct_of(variable.aval) for variable in jaxpr.invars]
        count = len(structs) - arity
        self.residuals, self.sources = structs[:count], structs[count:]
        self.targets = [struct_of(variable.aval) for variable in jaxpr.outvars]

    def evaluate(self, residuals: Sequence[Any], tangents: Sequence[Any]) -> list[Array]:
        """Runs the program."""
        closed = jex.ClosedJaxpr(self.jaxpr, [])
        given = map(typed, tangents, self.sources)
        return as_arrays(jex.jaxpr_as_fun(closed)(*residuals, *given))

    @functools.cached_property
    def linear(self) -> set[Any]:
        """The variables that depend on the tangents."""
        return descendants(self.jaxpr, self.jaxpr.invars[len(self.residuals) :])

    @property
    def asks_of_tangents(self) -> bool:
        """Whether an equation makes a boolean or an integer of a tangent, and another reads it.

        A rule of the user's may ask whether a tangent is zero. Parts of such a program do not
        add up.
        """
        asked = {
            variable
            for equation in self.jaxpr.eqns
            if any(among(equation.invars, self.linear)) and not has_body(equation)
            for variable in equation.outvars
            if not is_inexact(getattr(variable.aval, "dtype", float))
        }
        return any(any(among(equation.invars, asked)) for equation in self.jaxpr.eqns)

    @functools.cached_property
    def has_rules(self) -> bool:
        """Whether a `jax.custom_vjp` is in it, whose rule may not be linear."""
        return calls_custom_rules(self.jaxpr)

    @functools.cached_property
    def is_self_contained(self) -> bool:
        """Whether its text says all that its sweeps depend on, besides the residuals."""
        return is_self_contained(self.jaxpr)

    @functools.cached_property
    def is_placed(self) -> bool:
        """Whether types say where arrays are: inside `jax.shard_map`, or on an explicit mesh.

        Then what is joined has to be placed alike, which JAX's own rules see to.
        """
        inside = (x for equation in self.jaxpr.eqns for x in equation.outvars)
        return any(varying(x.aval) or is_explicit(x.aval) for x in (*self.jaxpr.invars, *inside))

    @functools.cached_property
    def is_complex_linear(self) -> bool:
        """Whether it is certainly linear over the complex numbers: no real part, no conjugate."""
        return is_complex_linear(self.jaxpr, self.linear)

    def piece(
        self,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        keep: Container[int],
        apart: Container[Any] = (),
    ) -> tuple["Program", list[int]]:
        """The part between variables: a program from the inputs, and then what is absent.

        Args:
            inputs: The variables that it begins with.
            outputs: Those that it ends with.
            keep: The numbers of the linear equations that may belong to it.
            apart: Variables that count as zero where they are read.

        Returns:
            The program, and which of the residuals it needs.
        """
        residuals, seeds, absent, equations = piece(
            self.jaxpr, self.linear, inputs, outputs, keep=keep, apart=apart
        )
        numbers = {variable: i for i, variable in enumerate(self.jaxpr.invars)}
        jaxpr = make_jaxpr([*residuals, *seeds, *absent], outputs, equations)
        program = Program(jaxpr, len(seeds) + len(absent))
        return program, [numbers[variable] for variable in residuals]

    def pull(self, residuals: Sequence[Any], cotangents: Sequence[Any]) -> list[Array]:
        """Runs the transposed program."""

        def push(*tangents: Array) -> list[Array]:
            return self.evaluate(residuals, tangents)

        given = list(map(typed, cotangents, self.targets))
        return list(jax.linear_transpose(push, *self.sources)(given))

    @functools.cached_property
    def transposed(self) -> tuple["Program", list[Any]]:
        """The transposed program, and constants that go before the residuals."""
        closed = jax.make_jaxpr(self.pull)(self.residuals, self.targets)
        jaxpr, constants = inlined(closed)
        return Program(jaxpr, len(self.targets)), constants

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

    def equation_obstacles(self, number: int) -> Obstacles:
        """Why one equation cannot be pushed or pulled through, found by tracing it alone.

        A primitive without a body that can be is not asked again: that does not depend on
        shapes.
        """
        equation = self.jaxpr.eqns[number]
        linear = among(equation.invars, self.linear)
        key = (equation.primitive, tuple(linear))
        if key in _UNOBSTRUCTED and not has_body(equation):
            return _FREE
        inputs = dict.fromkeys(x for x, flag in zip(equation.invars, linear, strict=True) if flag)
        outputs = [v for v in equation.outvars if is_inexact(v.aval.dtype)]
        alone = self.piece(list(inputs), outputs, {number})[0]
        pull = alone.pull_obstacle
        if pull is None:
            pull = alone.transposed[0].push_obstacle
        found = Obstacles(alone.push_obstacle, pull)
        if found == _FREE and len(_UNOBSTRUCTED) < _REMEMBERED:
            _UNOBSTRUCTED.add(key)
        return found

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
        return len(self.sources), jaxpr_key(self.jaxpr)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and (self is other or self._key == other._key)

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self._key)  # which is long, and asked for at each call of a compiled function

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"<linear program of {len(self.jaxpr.eqns)} equations>"
