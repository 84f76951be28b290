"""The search for the operation where a value or a derivative stops being finite.

Whether anything is wrong is asked of the whole function first: its value, its blocks in JAX's plain
modes. Where one is not finite, a direction that shows it is pushed or pulled again, step by step,
with what each step read at hand.
"""

import contextlib
import functools
import io
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, overload

import jax
import jax.extend.core as jex
import jax.numpy as jnp

from autodiffkit._derivative import first_derivative, linear_at
from autodiffkit._derivative_origins import forward_origins, reverse_origins
from autodiffkit._errors import SignatureError, shown_of
from autodiffkit._findings import finding_of, of_input, of_running
from autodiffkit._flat_call import FlatCall
from autodiffkit._jax_compat import is_eager
from autodiffkit._nonfinite_report import NonfiniteFinding, NonfiniteReport, Pairs
from autodiffkit._origins import Origin, is_bad, value_origins
from autodiffkit._paths import show
from autodiffkit._plain_modes import Block, is_exact, pulled_blocks, pushed_blocks
from autodiffkit._program import reason
from autodiffkit._staging import Staged
from autodiffkit._tape import record
from autodiffkit._taylor import NO_VALUES
from autodiffkit._transforms import Transform

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")

# The Jacobian is looked at up to this size.
_ENTRIES = 1 << 24
# So many blocks are followed to where they stop being finite.
_FOLLOWED = 24


class NonfiniteTransform(Transform[P, R]):
    """What `adk.find_nonfinite` returns."""

    _verb = "find_nonfinite"
    _has_blocks = False

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: Any = None) -> Self: ...
        @overload
        def __get__(
            self: "NonfiniteTransform[Concatenate[Any, Q], R]", instance: object, owner: Any = None
        ) -> "NonfiniteTransform[Q, R]": ...
        def __get__(self, instance: Any, owner: Any = None) -> Any: ...

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> NonfiniteReport:
        # What is looked for would otherwise be raised where it is looked for.
        with jax.debug_nans(False), jax.debug_infs(False), jax.disable_jit(False):
            flat = self._flat(args, kwargs)
            _refuse_tracers(flat, flat.selected)
            return _Search(flat).report()

    @property
    def annotations(self) -> Mapping[str | tuple[str, ...], Any]:
        """None: a report has no blocks."""
        return MappingProxyType({})

    @property
    def compile(self) -> Any:
        """There is none: a report is about values.

        Raises:
            SignatureError: Always.
        """
        raise SignatureError(
            f"{self._verb}: a report is about the values of a call, so it cannot be compiled. "
            "Call it with the arrays."
        )


def _refuse_tracers(flat: FlatCall, arrays: Iterable[Any]) -> None:
    if not is_eager(arrays):
        raise SignatureError(
            f"{flat.call}: a report is about values, and under jax.jit, jax.vmap or another "
            "transformation there are none. Call it outside of them, with the arrays of one call."
        )


class _Search:
    """A call that is looked into."""

    def __init__(self, flat: FlatCall) -> None:
        self._flat = flat
        self._notes: list[str] = []
        self._obstacles: dict[str, str] = {}
        self._found: dict[
            tuple[str, tuple[int, ...]], tuple[Origin, list[tuple[int, int | None]]]
        ] = {}
        self._is_linear = False
        try:
            staged = Staged(flat, flat.selected)
        except NO_VALUES:
            self._follow_linear_program("decides by values in Python")
            return
        _refuse_tracers(flat, staged.closed.consts)
        self._primals = list(flat.selected)
        try:
            self._tape = record(staged.closed, self._primals)
        except Exception as error:  # an operation may be more than its equation says
            self._follow_linear_program(f"does not run operation by operation ({reason(error)})")
            return
        self._outputs = [self._tape.values[i] for i in self._tape.outputs[: staged.count]]
        # Not the program as one: in a rule, what is traced first decides whose lines it has.
        self._function: Callable[..., list[Any]] = self._replayed

    def _follow_linear_program(self, why: str) -> None:
        """Looks into the tangent map instead."""
        flat = self._flat
        self._outputs, _, linear = linear_at(flat)
        self._is_linear, self._function = True, linear
        self._primals = [jnp.zeros_like(x) for x in flat.selected]
        closed = jex.ClosedJaxpr(linear.program.jaxpr, ())
        self._tape = record(closed, [*linear.residuals, *self._primals])
        del self._tape.inputs[: len(linear.residuals)]
        self._notes.append(
            f"The function {why}, so its linear program was followed: the lines are the user's, "
            "the operations those of the derivative."
        )

    def report(self) -> NonfiniteReport:
        """What was found."""
        value = [i for i, x in enumerate(self._outputs) if is_bad(x)]
        for i in value if not self._is_linear else ():
            for origin in value_origins(self._tape, [i]).origins:
                self._add(origin, [(i, j) for j in self._sources(origin)] or [(i, None)])
        forward, reverse = self._plain_modes()
        jacobian = self._jacobian()
        is_finite = not (value or forward or reverse or jacobian)
        findings: list[NonfiniteFinding] = []
        if not is_finite:
            findings += [of_input(spec, leaf) for spec, leaf in self._flat.leaves if is_bad(leaf)]
            findings += self._findings(has_inputs=bool(findings))
            if value and self._is_linear:
                findings = [*_by_running(self._flat, self._output_paths(value)), *findings]
            if not findings:
                self._notes.append("No single operation was found that makes it.")
        return NonfiniteReport(
            self._flat.name,
            tuple(findings),
            self._output_paths(value),
            forward,
            reverse,
            jacobian,
            self._obstacles,
            tuple(self._notes),
        )

    # The whole function ---------------------------------------------------------------

    def _plain_modes(self) -> tuple[Pairs | None, Pairs | None]:
        """The pairs that are not finite in each mode, followed to where that begins."""
        holomorphic = self._flat.holomorphic
        if not is_exact(self._primals):
            self._notes.append("There are many inputs: the mean of all directions was pushed.")
        if not is_exact(self._outputs):
            self._notes.append("There are many outputs: the mean of all directions was pulled.")
        found: dict[str, list[Block] | None] = {}
        for mode, blocks in (("forward", pushed_blocks), ("reverse", pulled_blocks)):
            found[mode] = self._tried(mode, blocks, self._function, holomorphic)
        if found["forward"] is None and found["reverse"] is None and not self._is_linear:
            # A loop that has run can be pulled through, as many times as it ran.
            reasons = dict(self._obstacles)
            bounded = functools.partial(self._replayed, bounded=True)
            found["reverse"] = self._tried("reverse", pulled_blocks, bounded, holomorphic)
            if found["reverse"] is not None:
                self._notes.append(
                    f"JAX cannot pull through this function ({reasons['reverse']}); what was "
                    "pulled through are its loops as often as they ran."
                )
        self._follow(found["forward"] or (), self._pushed)
        self._follow(found["reverse"] or (), self._pulled)
        return self._named(found["forward"]), self._named(found["reverse"])

    def _tried(
        self, mode: str, blocks: Callable[..., list[Block]], function: Any, holomorphic: bool
    ) -> list[Block] | None:
        try:
            found = blocks(function, self._primals, holomorphic=holomorphic)
        except Exception as error:  # any operation may refuse, each in its own way
            self._obstacles[mode] = reason(error)
            return None
        self._obstacles.pop(mode, None)
        return found

    def _replayed(self, *inputs: Any, bounded: bool = False) -> list[Any]:
        return self._tape.replay(*inputs, bounded=bounded)[: len(self._outputs)]

    def _jacobian(self) -> Pairs | None:
        flat = self._flat
        targets, sources = flat.outputs.specs, flat.inputs.specs
        entries = flat.outputs.size * flat.inputs.tree.size
        if entries > _ENTRIES:
            self._obstacles["jacobian"] = f"it has {entries:,} entries"
            return None
        try:
            blocks = first_derivative(flat).first
        except Exception as error:  # as above
            self._obstacles["jacobian"] = reason(error)
            return None
        pairs = [(i, j) for i in range(len(targets)) for j in range(len(sources))]
        return self._pairs((i, j) for i, j in pairs if is_bad(blocks[i][j]))

    # Step by step -----------------------------------------------------------------------

    def _follow(self, blocks: Sequence[Block], by: Callable[[Block], Iterable[Origin]]) -> None:
        count = shown_of(len(blocks), _FOLLOWED)
        for block in blocks[:count]:
            try:
                origins = by(block)
            except Exception as error:  # a step alone may refuse what the whole does without
                self._notes.append(f"A block could not be followed: {reason(error)}.")
                continue
            for origin in origins:
                self._add(origin, [(block.output, block.source)])
        if len(blocks) > count:
            self._notes.append(f"Only the first {count} of {len(blocks)} blocks were followed.")

    def _pushed(self, block: Block) -> Iterable[Origin]:
        tangents: list[Any] = [None] * len(self._tape.inputs)
        tangents[block.source] = block.direction
        return forward_origins(self._tape, tangents, [block.output])

    def _pulled(self, block: Block) -> Iterable[Origin]:
        cotangents: list[Any] = [None] * len(self._tape.outputs)
        cotangents[block.output] = block.direction
        return reverse_origins(self._tape, cotangents, [block.source], [block.source])

    def _add(self, origin: Origin, pairs: Sequence[tuple[int, int | None]]) -> None:
        _, known = self._found.setdefault((origin.kind, origin.trail), (origin, []))
        known += pairs

    def _sources(self, origin: Origin) -> list[int]:
        """The inputs that the step depends on."""
        reads = self._tape.steps[origin.trail[0]].reads
        found = ((j, self._tape.dependents([i])) for j, i in enumerate(self._tape.inputs))
        return [j for j, moved in found if not moved.isdisjoint(reads)]

    def _findings(self, *, has_inputs: bool) -> list[NonfiniteFinding]:
        values = {trail for kind, trail in self._found if kind == "value"}

        def is_told(origin: Origin) -> bool:
            """Whether it only follows from what is told already."""
            if origin.kind == "value":
                return origin.is_constant and has_inputs
            if any(trail[: len(origin.trail)] == origin.trail for trail in values):
                return True
            before = origin.before
            return origin.reads_bad and (has_inputs if before is None else before.trail in values)

        order = {"value": 0, "forward": 1, "reverse": 2}
        found: list[NonfiniteFinding] = []
        for kind in order:
            trails = sorted(trail for k, trail in self._found if k == kind)
            for trail in reversed(trails) if kind == "reverse" else trails:
                origin, pairs = self._found[kind, trail]
                if not is_told(origin):
                    outputs = self._output_paths(dict.fromkeys(i for i, _ in pairs))
                    sources = dict.fromkeys(j for _, j in pairs if j is not None)
                    inputs = tuple(show(self._flat.inputs.specs[j].path) for j in sources)
                    found.append(finding_of(origin, outputs, inputs, linear=self._is_linear))
        return found

    # Names --------------------------------------------------------------------------------

    def _output_paths(self, numbers: Iterable[int]) -> tuple[str, ...]:
        return tuple(show(self._flat.outputs.specs[i].path) or "output" for i in numbers)

    def _pairs(self, pairs: Iterable[tuple[int, int]]) -> Pairs:
        inputs = self._flat.inputs.specs
        return tuple((self._output_paths([i])[0], show(inputs[j].path)) for i, j in pairs)

    def _named(self, blocks: Sequence[Block] | None) -> Pairs | None:
        return None if blocks is None else self._pairs((b.output, b.source) for b in blocks)


def _by_running(flat: FlatCall, outputs: tuple[str, ...]) -> list[NonfiniteFinding]:
    """The first operation that JAX says makes a NaN, or an infinity, as the function runs."""
    found: list[NonfiniteFinding] = []
    for check in (jax.debug_nans, jax.debug_infs):
        # JAX prints that it looks closer.
        with check(True), contextlib.redirect_stdout(io.StringIO()):
            try:
                jax.block_until_ready(flat(*flat.selected))
            except FloatingPointError as error:
                frames = traceback.extract_tb(error.__traceback__)
                users = [frame for frame in frames if not _is_inside(frame.filename)]
                found.append(of_running(str(error), users[-1] if users else None, outputs))
    return found


def _is_inside(filename: str) -> bool:
    """Whether a file is one of JAX or of this package."""
    parents = (Path(jax.__file__).parent, Path(__file__).parent)
    return any(Path(filename).is_relative_to(parent) for parent in parents)
