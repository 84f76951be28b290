"""A function that has been evaluated or staged, and the running of its sweeps."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex
from jaxtyping import Array

from autodiffkit._block_table import BlockTable
from autodiffkit._blocks import pushed_blocks, sweep
from autodiffkit._directions import batch, unit_directions
from autodiffkit._jax_compat import is_staging
from autodiffkit._leaves import Ends
from autodiffkit._program import (
    FlatFunction,
    Linear,
    Program,
    Staged,
    linearize,
    without_traceback,
)
from autodiffkit._schedule import Schedule


class LinearSweeps:
    """A linear map that is at hand."""

    kept = 0  # bytes of residuals that plain forward mode would do without

    def __init__(self, linear: Linear, ends: Ends) -> None:
        self._linear = linear
        self.ends = ends
        self.program = linear.program
        self.residuals = linear.residuals

    def obstacle(self, schedule: Schedule) -> Exception | None:
        """Why sweeps are impossible, `None` if they are possible; found by tracing them."""

        def run(residuals: list[Array]) -> BlockTable:
            return self._blocks(Linear(residuals, self.program), schedule)

        try:
            jax.eval_shape(run, self._linear.residuals)
        except Exception as error:  # any equation may refuse, each in its own way
            return without_traceback(error)
        return None

    def run(self, schedule: Schedule) -> BlockTable:
        """The blocks, by sweeps without an obstacle."""
        return self._blocks(self._linear, schedule)

    def _blocks(self, linear: Linear, schedule: Schedule) -> BlockTable:
        return sweep(linear, schedule.network, schedule.sweeps, self.ends)


class EagerSweeps:
    """A flat function that has run once, concretely, in `jax.linearize`."""

    has_rules = True  # as far as one knows: what has run cannot be looked into

    def __init__(self, function: FlatFunction, primals: Sequence[Array]) -> None:
        self.linearized = linearize(function, primals)
        if self.linearized[2].program.asks_of_tangents:
            raise NotImplementedError(
                "a rule asks whether a tangent is zero, which can be followed under jax.jit only"
            )

    def name(self, ends: Ends) -> "EagerSweeps":
        """Says what the inputs and outputs are, which is known once the function has run."""
        self.ends = ends
        self._sweeps = LinearSweeps(self.linearized[2], ends)
        return self

    @property
    def program(self) -> Program:
        """The linear program."""
        return self._sweeps.program

    kept = 0  # the residuals exist already

    def obstacle(self, schedule: Schedule) -> Exception | None:
        """Why sweeps are impossible for this function, `None` if they are possible."""
        return self._sweeps.obstacle(schedule)

    def run(self, schedule: Schedule) -> tuple[list[Array], list[Any], BlockTable]:
        """The outputs, the rest and the blocks, by sweeps without an obstacle."""
        outs, rest, _ = self.linearized
        return outs, rest, self._sweeps.run(schedule)


class TracedSweeps:
    """A flat function whose linear program is all that is wanted: it is planned, not swept."""

    def __init__(self, function: FlatFunction, primals: Sequence[Array]) -> None:
        self._staged = Staged(function, primals)

    @property
    def has_rules(self) -> bool:
        """Whether derivatives may come from rules of the user's own: as for `EagerSweeps`."""
        return True

    def name(self, ends: Ends) -> "TracedSweeps":
        """Says what the inputs and outputs are, which is known once the function is traced."""
        self.ends = ends
        return self

    @property
    def program(self) -> Program:
        """The linear program; nothing is evaluated."""
        return self._staged.linearization.program

    @property
    def kept(self) -> int:
        """The bytes of residuals that plain forward mode, fused with the value, never stores."""
        return self._staged.linearization.kept

    def obstacle(self, schedule: Schedule) -> Exception | None:
        """None is looked for: of a plan alone, each equation is asked."""


class StagedSweeps(TracedSweeps):
    """A flat function that was traced, as part of a larger trace.

    What may be refused is traced by itself first: only what is chosen becomes part of the
    larger trace.
    """

    def __init__(self, function: FlatFunction, primals: Sequence[Array]) -> None:
        super().__init__(function, primals)
        self._primals = tuple(primals)
        self._tried: dict[Schedule, Callable[[], Any] | Exception] = {}

    @property
    def has_rules(self) -> bool:
        """Whether derivatives come from rules of the user's own."""
        return self._staged.has_rules

    @functools.cached_property
    def linearized(self) -> tuple[list[Array], list[Any], Linear]:
        """The outputs, the rest, and the tangent map as a linear program."""
        return self._staged.linearization(*self._primals)

    def obstacle(self, schedule: Schedule) -> Exception | None:
        """Why sweeps are impossible for this function, `None` if they are possible."""
        traced = self._traced(schedule)
        return traced if isinstance(traced, Exception) else None

    def run(self, schedule: Schedule) -> tuple[list[Array], list[Any], BlockTable]:
        """The outputs, the rest and the blocks, by sweeps without an obstacle."""
        traced = self._tried.get(schedule)
        assert not isinstance(traced, Exception)
        return self._sweep(schedule) if traced is None else traced()

    def _traced(self, schedule: Schedule) -> Callable[[], Any] | Exception:
        if schedule not in self._tried:
            self._tried[schedule] = _traced(functools.partial(self._sweep, schedule))
        return self._tried[schedule]

    def _sweep(self, schedule: Schedule) -> tuple[list[Array], list[Any], BlockTable]:
        linearization = self._staged.linearization
        if schedule.is_forward and not linearization.is_separated:
            return self._forward(schedule)
        outs, rest, linear = linearization(*self._primals)
        return outs, rest, LinearSweeps(linear, self.ends).run(schedule)

    def _forward(self, schedule: Schedule) -> tuple[list[Array], list[Any], BlockTable]:
        # Fused with the value: linearising a loop would store what forward mode never needs.
        ends, network = self.ends, schedule.network
        live = [j for j, variable in enumerate(network.sources) if variable is not None]
        if not live:
            outs, rest = self._staged(*self._primals)
            return outs, rest, pushed_blocks([None] * len(ends.targets), ends, network)

        def evaluate(*moving: Array) -> tuple[list[Array], list[Any]]:
            primals = list(self._primals)
            for j, primal in zip(live, moving, strict=True):
                primals[j] = primal
            return self._staged(*primals)

        def push(unit: list[Array]) -> tuple[list[Array], list[Any], list[Array]]:
            primals = [self._primals[j] for j in live]
            outs, tangents, rest = jax.jvp(evaluate, primals, unit, has_aux=True)
            return outs, rest, tangents

        axis = network.direction_axis(range(len(network.steps)))
        structs = [ends.sources[j].struct for j in live]
        units = unit_directions(structs, 1.0, network.complex_directions, axis)
        outs, rest, tangents = batch(push, units, axis, (None, None, -1))
        return outs, rest, pushed_blocks(tangents, ends, network)


def prepare(function: FlatFunction, primals: Sequence[Array]) -> EagerSweeps | StagedSweeps:
    """Evaluates a flat function once: traced where JAX is tracing, else with its values."""
    return (StagedSweeps if is_staging() else EagerSweeps)(function, primals)


def prepare_plan(function: FlatFunction, primals: Sequence[Array]) -> EagerSweeps | TracedSweeps:
    """The same for a function that is only planned."""
    return (TracedSweeps if is_staging() else EagerSweeps)(function, primals)


def _traced(run: Callable[[], Any]) -> Callable[[], Any] | Exception:
    try:
        closed, shape = jax.make_jaxpr(run, return_shape=True)()
    except Exception as error:  # any equation may refuse, each in its own way
        return without_traceback(error)
    treedef = jax.tree.structure(shape)
    evaluate = jex.jaxpr_as_fun(closed)
    return lambda: jax.tree.unflatten(treedef, evaluate())
