"""A function that has been evaluated or staged, and the running of its sweeps."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex
from jaxtyping import Array

from autodiffkit._block_table import BlockTable
from autodiffkit._blocks import completed, pushed_blocks, sweep
from autodiffkit._directions import Directions, batch
from autodiffkit._errors import RefusalError
from autodiffkit._jax_compat import directions_at, is_staging, struct_of
from autodiffkit._leaves import Ends
from autodiffkit._program import FlatFunction, Linear, Program, linearize, without_traceback
from autodiffkit._schedule import Schedule
from autodiffkit._staging import Staged


class LinearSweeps:
    """A linear map that is at hand."""

    kept = 0  # bytes of residuals that plain forward mode would do without

    def __init__(self, linear: Linear, ends: Ends) -> None:
        self._linear = linear
        self.ends = ends
        self.program = linear.program
        self.residuals = linear.residuals
        self._compiled: dict[Schedule, CompiledSweeps] = {}

    def obstacle(self, schedule: Schedule) -> Exception | None:
        """Why sweeps are impossible, `None` if they are possible; found by tracing them."""
        try:
            jax.eval_shape(self.compiled(schedule), self.residuals)
        except Exception as error:  # any equation may refuse, each in its own way
            return without_traceback(error)
        return None

    def run(self, schedule: Schedule) -> BlockTable:
        """The blocks, by sweeps without an obstacle."""
        if schedule in self._compiled and not is_staging():
            return self._compiled[schedule](self.residuals)
        return sweep(self._linear, schedule, self.ends)

    def compiled(self, schedule: Schedule) -> "CompiledSweeps":
        """The sweeps as a compiled function of the residuals, which holds none of these."""
        if schedule not in self._compiled:
            self._compiled[schedule] = compiled_sweeps(self.program, schedule, self.ends)
        return self._compiled[schedule]

    def temporaries(self, schedule: Schedule) -> int | None:
        """The bytes of temporaries of the compiled sweeps; `None` if the backend does not say."""
        run: Any = self.compiled(schedule)
        analysis = run.lower(self.residuals).compile().memory_analysis()
        return None if analysis is None else int(analysis.temp_size_in_bytes)

    def known(self, schedule: Schedule, compiled: "CompiledSweeps") -> None:
        """Says that sweeps have been compiled before."""
        self._compiled[schedule] = compiled


# From the residuals to the blocks.
CompiledSweeps = Callable[[Sequence[Any]], BlockTable]


def compiled_sweeps(program: Program, schedule: Schedule, ends: Ends) -> CompiledSweeps:
    """The sweeps of a program as a compiled function of its residuals."""

    def sweeps(residuals: Sequence[Any]) -> BlockTable:
        return sweep(Linear(list(residuals), program), schedule, ends)

    return jax.jit(sweeps)


class EagerSweeps:
    """A flat function that has run once, concretely, in `jax.linearize`."""

    has_rules = True  # as far as one knows: what has run cannot be looked into

    def __init__(self, function: FlatFunction, primals: Sequence[Array]) -> None:
        self.linearized = linearize(function, primals)
        if self.linearized[2].program.asks_of_tangents:
            raise RefusalError(
                "a rule asks whether a tangent is zero, which can be followed under jax.jit only"
            )

    def name(self, ends: Ends) -> "EagerSweeps":
        """Says what the inputs and outputs are, which is known once the function has run."""
        self.ends = ends
        self.sweeps = LinearSweeps(self.linearized[2], ends)
        return self

    @property
    def program(self) -> Program:
        """The linear program."""
        return self.sweeps.program

    kept = 0  # the residuals exist already

    def obstacle(self, schedule: Schedule) -> Exception | None:
        """Why sweeps are impossible for this function, `None` if they are possible."""
        return self.sweeps.obstacle(schedule)

    def run(self, schedule: Schedule) -> tuple[list[Array], list[Any], BlockTable]:
        """The outputs, the rest and the blocks, by sweeps without an obstacle."""
        outs, rest, _ = self.linearized
        return outs, rest, self.sweeps.run(schedule)


class TracedSweeps:
    """A flat function whose linear program is all that is wanted: it is planned, not swept."""

    def __init__(self, function: FlatFunction, primals: Sequence[Array]) -> None:
        self.staged = Staged(function, primals)

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
        return self.staged.linearization.program

    @property
    def kept(self) -> int:
        """The bytes of residuals that plain forward mode, fused with the value, never stores."""
        return self.staged.linearization.kept

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
        return self.staged.has_rules

    @functools.cached_property
    def linearized(self) -> tuple[list[Array], list[Any], Linear]:
        """The outputs, the rest, and the tangent map as a linear program."""
        return self.staged.linearization(*self._primals)

    def obstacle(self, schedule: Schedule) -> Exception | None:
        """Why sweeps are impossible for this function, `None` if they are possible."""
        traced = self._traced(schedule)
        return traced if isinstance(traced, Exception) else None

    def run(self, schedule: Schedule) -> tuple[list[Array], list[Any], BlockTable]:
        """The outputs, the rest and the blocks, by sweeps without an obstacle."""
        is_fused = self._is_fused(schedule)
        may_refuse = is_fused and self.has_rules
        traced = self._traced(schedule) if may_refuse else self._tried.get(schedule)
        assert not isinstance(traced, Exception)
        if traced is not None:
            return traced()
        return (self._forward if is_fused else self._sweep)(schedule, self._primals)

    def _is_fused(self, schedule: Schedule) -> bool:
        staged = self.staged
        is_separated = staged.linearization.is_separated
        return schedule.is_forward and not (is_separated or staged.has_ordered_effects)

    def _traced(self, schedule: Schedule) -> Callable[[], Any] | Exception:
        if schedule not in self._tried:
            traced: Any = None
            if self._is_fused(schedule):
                traced = _traced(functools.partial(self._forward, schedule), self._primals)
            # The function may hold a rule that cannot be pushed through in what nothing reads, or
            # in what is not differentiated. The linear program does not.
            if traced is None or isinstance(traced, Exception):
                traced = _traced(functools.partial(self._sweep, schedule), self._primals)
            self._tried[schedule] = traced
        return self._tried[schedule]

    def _sweep(
        self, schedule: Schedule, primals: Sequence[Array]
    ) -> tuple[list[Array], list[Any], BlockTable]:
        outs, rest, linear = self.staged.linearization(*primals)
        return outs, rest, sweep(linear, schedule, self.ends)

    def _forward(
        self, schedule: Schedule, given: Sequence[Array]
    ) -> tuple[list[Array], list[Any], BlockTable]:
        # Fused with the value: linearising a loop would store what forward mode never needs.
        ends, network = self.ends, schedule.network
        live = [j for j, variable in enumerate(network.sources) if variable is not None]
        if not live:
            outs, rest = self.staged(*given)
            blocks = pushed_blocks([None] * len(ends.targets), ends, network)
            return outs, rest, completed(blocks, schedule, ends)

        def evaluate(*moving: Array) -> tuple[list[Array], list[Any]]:
            primals = list(given)
            for j, primal in zip(live, moving, strict=True):
                primals[j] = primal
            return self.staged(*primals)

        def push(unit: list[Array]) -> tuple[list[Array], list[Any], list[Array]]:
            primals = [given[j] for j in live]
            tangents = directions_at(primals, unit)
            outs, tangents, rest = jax.jvp(evaluate, primals, tangents, has_aux=True)
            return outs, rest, tangents

        axis = network.direction_axis(range(len(network.steps)))
        structs = [ends.sources[j].struct for j in live]
        directions = Directions(structs, 1.0, network.complex_directions, axis)
        outs, rest, tangents = batch(push, directions, (None, None, -1))
        blocks = pushed_blocks(tangents, ends, network)
        return outs, rest, completed(blocks, schedule, ends)


def prepare(function: FlatFunction, primals: Sequence[Array]) -> EagerSweeps | StagedSweeps:
    """Evaluates a flat function once: traced where JAX is tracing, else with its values."""
    return (StagedSweeps if is_staging() else EagerSweeps)(function, primals)


def prepare_plan(function: FlatFunction, primals: Sequence[Array]) -> EagerSweeps | TracedSweeps:
    """The same for a function that is only planned."""
    return (TracedSweeps if is_staging() else EagerSweeps)(function, primals)


def _traced(
    run: Callable[[Sequence[Any]], Any], primals: Sequence[Any]
) -> Callable[[], Any] | Exception:
    # As a function of the primals: an attempt that fails keeps alive what it closes over.
    try:
        closed, shape = jax.make_jaxpr(run, return_shape=True)([struct_of(x) for x in primals])
    except Exception as error:  # any equation may refuse, each in its own way
        return without_traceback(error)
    treedef = jax.tree.structure(shape)
    evaluate = jex.jaxpr_as_fun(closed)
    return lambda: jax.tree.unflatten(treedef, evaluate(*primals))
