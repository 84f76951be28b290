"""A program that has run with its values, and the steps that it took.

What holds a program is one step at first. It is taken apart into a tape of its own where that is
asked for: the branch that was taken, the iterations that a loop made. A long loop is taken apart
into stretches, and these again, so that a bad iteration among many is found in few steps.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import primitives

from autodiffkit._jax_compat import bind_equation, scan_counts
from autodiffkit._jaxprs import inlined, make_jaxpr
from autodiffkit._naming import describe

# A longer loop is taken apart into so many stretches.
_STRETCHES = 32

Run = Callable[..., Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class Step:
    """One step: an equation, or what a loop does between its iterations.

    `reads` and `writes` are numbers of values of the tape. `inside` takes the values that are read,
    and gives the tape of what the step does; `None` where nothing is known of that. `by_rule` says
    that its derivative is that of a rule and not of what it does. `bounded` runs a `while` as often
    as it ran, which can be pulled through.
    """

    number: int
    equation: Any
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    run: Run
    inside: "Callable[[Sequence[Any]], Tape] | None" = None
    by_rule: bool = False
    bounded: Run | None = None

    @property
    def is_flat(self) -> bool:
        """Whether JAX takes the derivative for zero, so that nothing is pushed or pulled."""
        return self.equation is not None and self.equation.primitive.name in _FLAT

    @property
    def run_both_ways(self) -> Run:
        """The same, where it has to be pulled through."""
        return self.bounded or self.run


# Their tangents are symbols for zero, and not zeros that make NaN where they meet infinities.
_FLAT = {"bitcast_convert_type", "ceil", "floor", "nextafter", "round", "sign", "stop_gradient"}


class Tape:
    """Steps in order, and the values that they read and wrote.

    Args:
        loops: The iterations that this is part of, for people.
    """

    def __init__(self, loops: tuple[str, ...] = ()) -> None:
        self.loops = loops
        self.values: list[Any] = []
        self.steps: list[Step] = []
        self.inputs: list[int] = []
        self.outputs: list[int] = []
        self.writer: dict[int, Step] = {}

    def add(self, value: Any) -> int:
        """The number of a new value."""
        self.values.append(value if hasattr(value, "dtype") else jnp.asarray(value))
        return len(self.values) - 1

    def take(self, reads: Sequence[int], run: Run, equation: Any = None, **more: Any) -> list[int]:
        """Takes a step, and gives the numbers of what it wrote."""
        results = run(*(self.values[i] for i in reads))
        writes = [self.add(x) for x in results]
        step = Step(len(self.steps), equation, tuple(reads), tuple(writes), run, **more)
        self.steps.append(step)
        self.writer.update(dict.fromkeys(writes, step))
        return writes

    def replay(self, *inputs: Any, bounded: bool = False) -> list[Any]:
        """The outputs for other inputs, by the same steps.

        Args:
            *inputs: The inputs.
            bounded: Whether each `while` makes as many iterations as it made.
        """
        values = list(self.values)
        for i, x in zip(self.inputs, inputs, strict=True):
            values[i] = x
        moved = self.dependents(self.inputs)
        for step in self.steps:
            if moved.isdisjoint(step.reads):
                continue
            run = step.run_both_ways if bounded else step.run
            results = run(*(values[i] for i in step.reads))
            for i, x in zip(step.writes, results, strict=True):
                values[i] = x
        return [values[i] for i in self.outputs]

    def dependents(self, inputs: Sequence[int], *, differentiably: bool = False) -> set[int]:
        """The numbers of these values and of all that are computed from them."""
        found = set(inputs)
        for step in self.steps:
            if not found.isdisjoint(step.reads) and not (differentiably and step.is_flat):
                found.update(step.writes)
        return found


def record(closed: Any, arguments: Sequence[Any], loops: tuple[str, ...] = ()) -> Tape:
    """Runs a closed jaxpr with these arguments, equation by equation."""
    jaxpr, constants = inlined(closed)
    tape = Tape(loops)
    numbers = {
        variable: tape.add(x)
        for variable, x in zip(jaxpr.invars, [*constants, *arguments], strict=True)
    }
    tape.inputs = [numbers[x] for x in jaxpr.invars[len(constants) :]]

    def number(atom: Any) -> int:
        if isinstance(atom, jex.Literal):
            return tape.add(jnp.asarray(atom.val, getattr(atom.aval, "dtype", None)))
        return numbers[atom]

    for equation in jaxpr.eqns:
        reads = [number(x) for x in equation.invars]
        run = _run(equation)
        more: dict[str, Any] = {}
        kind = equation.primitive
        if kind is primitives.while_p:
            loop = _while(equation, [tape.values[i] for i in reads])
            more = {"inside": _inside(loop.taken_apart, loops), "bounded": jax.jit(loop.run)}
        elif kind is primitives.scan_p:
            more = {"inside": _inside(_scan(equation).taken_apart, loops)}
        elif kind is primitives.cond_p:
            more = {"inside": _inside(_branch(equation), loops)}
        elif (body := _body(equation)) is not None:
            by_rule = kind in _RULES
            more = {"inside": _inside(_program(body), loops), "by_rule": by_rule}
        written = tape.take(reads, run, equation, **more)
        numbers.update(zip(equation.outvars, written, strict=True))
    tape.outputs = [number(x) for x in jaxpr.outvars]
    return tape


_RULES = (primitives.custom_jvp_call_p, primitives.custom_vjp_call_p)

Inside = Callable[[Sequence[Any], tuple[str, ...]], Tape]


def _inside(make: Inside, loops: tuple[str, ...]) -> Callable[[Sequence[Any]], Tape]:
    return lambda operands: make(operands, loops)


def _run(equation: Any) -> Run:
    """An equation as a function of all its operands."""
    if equation.primitive in _RULES:
        # Directly: what a rule does then has the lines of the rule, and not that of the call.
        return functools.partial(bind_equation, equation)
    inputs = [jex.Var(x.aval) for x in equation.invars]
    results = [jex.Var(x.aval) for x in equation.outvars]
    own = equation.replace(invars=inputs, outvars=results)
    return jex.jaxpr_as_fun(jex.ClosedJaxpr(make_jaxpr(inputs, results, [own]), ()))


def _closed(program: Any) -> Any:
    return program if isinstance(program, jex.ClosedJaxpr) else jex.ClosedJaxpr(program, ())


def _body(equation: Any) -> Any:
    """The program that an equation calls with its own operands, if that is all that it does."""
    if equation.primitive.name not in _CALLS:
        return None
    names = ("jaxpr", "call_jaxpr")
    return next(_closed(equation.params[name]) for name in names if name in equation.params)


_CALLS = {
    "checkpoint",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "jit",
    "remat2",
}


def _program(closed: Any) -> Inside:
    return lambda operands, loops: record(closed, operands, loops)


def _branch(equation: Any) -> Inside:
    """The branch of a `cond` that is taken."""

    def taken(operands: Sequence[Any], loops: tuple[str, ...]) -> Tape:
        branches = equation.params["branches"]
        index = int(np.clip(int(operands[0]), 0, len(branches) - 1))
        tape = record(branches[index], operands[1:], loops)
        tape.inputs.insert(0, tape.add(operands[0]))
        return tape

    return taken


# Loops --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Loop:
    """Iterations of a body that takes constants, a carry and an item of each array in `xs`.

    `start` is the number of its first iteration among `total`.
    """

    equation: Any
    body: Any
    constants: int
    carries: int
    length: int
    start: int
    total: int
    reverse: bool = False
    unread: int = 0  # operands that come first and are not the body's

    def run(self, *operands: Any) -> list[Any]:
        """All iterations."""
        constants, carry, xs = self._divided(operands)
        body = jex.jaxpr_as_fun(self.body)

        def step(carry: list[Any], x: list[Any]) -> tuple[list[Any], list[Any]]:
            results = body(*constants, *carry, *x)
            return results[: self.carries], results[self.carries :]

        carry, ys = lax.scan(step, carry, xs, length=self.length, reverse=self.reverse)
        return [*carry, *ys]

    def _divided(self, operands: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        own = list(operands[self.unread :])
        end = self.constants + self.carries
        return own[: self.constants], own[self.constants : end], own[end:]

    def taken_apart(self, operands: Sequence[Any], loops: tuple[str, ...]) -> Tape:
        """The iterations one by one, or in stretches where there are many."""
        tape = Tape(loops)
        tape.inputs = [tape.add(x) for x in operands]
        constants, carry, xs = self._divided(tape.inputs)
        width = -(-self.length // _STRETCHES) if self.length > _STRETCHES else 1
        starts = range(0, self.length, width)
        stretches: list[list[int]] = []
        once = jax.jit(jex.jaxpr_as_fun(self.body))
        # Compiled once for each length, of which there are two at most.
        runs: dict[int, Run] = {}
        for start in reversed(starts) if self.reverse else starts:
            stop = min(start + width, self.length)
            part = slice(start, stop) if width > 1 else start
            items = [tape.take([x], _part(part))[0] for x in xs]
            reads = [*constants, *carry, *items]
            if width > 1:
                loop = dataclasses.replace(
                    self, length=stop - start, start=self.start + start, unread=0
                )
                run = runs.setdefault(loop.length, jax.jit(loop.run))
                inside = _inside(loop.taken_apart, loops)
            else:
                number = self.start + start
                # Counted as the items are.
                name = f"iteration {number} of {self.total} (from 0) of {describe(self.equation)}"
                run, inside = once, _inside(_program(self.body), (*loops, name))
            written = tape.take(reads, run, self.equation, inside=inside)
            carry = written[: self.carries]
            stretches.append(written[self.carries :])
        if self.reverse:
            stretches.reverse()
        join = jnp.concatenate if width > 1 else jnp.stack
        ys = [tape.take(y, _joined(join))[0] for y in zip(*stretches, strict=True)]
        tape.outputs = [*carry, *ys]
        return tape


def _part(part: Any) -> Run:
    return lambda x: [x[part]]


def _joined(join: Callable[[Any], Any]) -> Run:
    return lambda *parts: [join(parts)]


def _scan(equation: Any) -> _Loop:
    p = equation.params
    length = p["length"]
    return _Loop(
        equation,
        p["jaxpr"],
        *scan_counts(equation),
        length,
        start=0,
        total=length,
        reverse=p["reverse"],
    )


def _while(equation: Any, operands: Sequence[Any]) -> _Loop:
    """The iterations that a `while` makes with these operands."""
    p = equation.params
    condition, body = jex.jaxpr_as_fun(p["cond_jaxpr"]), jex.jaxpr_as_fun(p["body_jaxpr"])
    first, constants = p["cond_nconsts"], p["body_nconsts"]
    start = first + constants

    def step(*reads: Any) -> list[Any]:
        # Of a batch, those that are done stay as they are.
        goes_on = condition(*reads[:first], *reads[start:])[0]
        old, new = reads[start:], body(*reads[first:])
        axes = [range(goes_on.ndim, x.ndim) for x in old]
        return [
            jnp.where(jnp.expand_dims(goes_on, tuple(axis)), b, a)
            for axis, a, b in zip(axes, old, new, strict=True)
        ]

    def is_left(state: Any) -> Any:
        return jnp.any(condition(*operands[:first], *state[1:])[0])

    def advance(state: Any) -> Any:
        return state[0] + 1, *step(*operands[:start], *state[1:])

    total = int(lax.while_loop(is_left, advance, (jnp.int32(0), *operands[start:]))[0])
    is_batched = p["cond_jaxpr"].jaxpr.outvars[0].aval.shape != ()
    closed = jax.make_jaxpr(step)(*operands) if is_batched else p["body_jaxpr"]
    unread = 0 if is_batched else first
    held = start if is_batched else constants
    return _Loop(equation, closed, held, len(operands) - start, total, 0, total, unread=unread)
