"""What the transforms share: evaluate once, plan, sweep."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
from jaxtyping import Array

from autodiffkit._again import plan_again
from autodiffkit._block_table import BlockTable, Zeros, from_function, partial_table
from autodiffkit._compact import Shared
from autodiffkit._errors import (
    NOT_REFUSALS,
    ModeError,
    NotDifferentiableError,
    RefusalError,
    SelectionError,
    columns,
    listed,
)
from autodiffkit._flat_call import FlatCall
from autodiffkit._inputs import Inputs
from autodiffkit._jax_compat import is_eager, is_staging, lacks_mesh
from autodiffkit._leaves import Ends, LeafSpec, is_complex
from autodiffkit._memory import refuse_too_large
from autodiffkit._paths import show
from autodiffkit._plan import Plan, joined_plans, log
from autodiffkit._planning import Sweepable
from autodiffkit._program import FlatFunction, Linear, linearize, reason
from autodiffkit._refusals import line_of_user, refusal
from autodiffkit._schedule import Schedule
from autodiffkit._selection import rectangles, select_blocks
from autodiffkit._sweeps import (
    EagerSweeps,
    LinearSweeps,
    StagedSweeps,
    TracedSweeps,
    prepare,
    prepare_plan,
)
from autodiffkit._taylor import NO_VALUES, along, as_staged
from autodiffkit._trees import Tree, Values

Sweeps = EagerSweeps | StagedSweeps
T = TypeVar("T")

_NONE = BlockTable((), (), ())


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A function's value with its derivatives: blocks by output leaf and source."""

    value: Values
    aux: Values
    inputs: Inputs
    outputs: Tree
    first: BlockTable
    second: BlockTable
    plan: Plan | None = None  # of the last of them


# First derivatives --------------------------------------------------------------


def first_derivative(flat: FlatCall) -> Evaluated:
    """The value and the first derivative; the function runs once."""
    sweeps = _prepared(flat, flat, flat.selected, prepare)
    sweeps.name(flat.ends)
    plan, schedule = _planned(flat, sweeps, flat.mode, held=flat.held)
    log(plan)
    # Under a trace, blocks that nobody uses are never made; and compact ones are small.
    if is_eager(flat.selected) and not flat.is_compact:
        refuse_too_large(flat.call, flat.outputs.specs, flat.inputs.specs, flat.selected)
    outs, rest, blocks = sweeps.run(schedule)
    if flat.is_compact:
        _refuse_unshared(flat, blocks, plan, schedule)
    value, aux = flat.values(outs, rest)
    return Evaluated(value, aux, flat.inputs, flat.outputs, blocks, _NONE, plan)


def plan_first(flat: FlatCall, selected: Sequence[Any]) -> Plan:
    """The plan of the first derivative, which is not computed."""
    sweeps = _prepared(flat, flat, selected, prepare_plan)
    sweeps.name(flat.ends)
    return _planned(flat, sweeps, flat.mode, held=flat.held, abstract=True)[0]


def _planned(flat: FlatCall, sweeps: Sweepable, mode: str, **options: Any) -> tuple[Plan, Schedule]:
    options.setdefault("limits", flat.limits)
    try:
        return plan_again(flat.call, sweeps, mode, **options)
    except NOT_REFUSALS:
        raise
    except Exception as error:  # linearising a function that has been staged
        raise _not_differentiable(flat, error, getattr(sweeps, "staged", None)) from error


def _refuse_unshared(flat: FlatCall, blocks: BlockTable, plan: Plan, schedule: Schedule) -> None:
    """Refuses a compact layout where output and input share nothing.

    Raises:
        SelectionError: Naming the equations that mix the axes.
    """
    connected = schedule.network.connected
    width = len(flat.inputs.specs)
    pairs = [(i, j) for i in range(len(blocks)) for j in range(width) if connected(i, j)]
    if pairs and not any(blocks.shared(i, j) for i, j in pairs):
        raise SelectionError(
            f"{flat.call}: layout='compact' needs an axis along which output and input are "
            "independent element by element, and there is none. Use layout='dense'."
            + listed(plan.mixing)
        )


def linear_map(flat: FlatCall, selected: Sequence[Any] | None = None) -> tuple[Evaluated, Linear]:
    """The value and the tangent map; the function runs once."""
    selected = flat.selected if selected is None else selected
    outs, rest, linear = _linearized(flat, _prepared(flat, flat, selected, prepare))
    value, aux = flat.values(outs, rest)
    return Evaluated(value, aux, flat.inputs, flat.outputs, _NONE, _NONE), linear


def linear_at(flat: FlatCall) -> tuple[list[Array], list[Any], Linear]:
    """The outputs, the rest and the tangent map, of a call that runs with its values."""
    return _prepared(flat, flat, flat.selected, linearize)


def staged(flat: FlatCall, selected: Sequence[Any], order: int) -> FlatFunction:
    """The call as a program, where that is how it runs; then what it returns is known."""
    return _prepared(flat, flat, selected, functools.partial(as_staged, order=order))


def along_lines(
    flat: FlatCall,
    function: FlatFunction,
    selected: Sequence[Any],
    directions: Sequence[Array],
    order: int,
) -> tuple[Values, Values, list[Array]]:
    """The value, the auxiliary data and derivatives along lines; the function runs once.

    Args:
        flat: The call.
        function: The same as it is evaluated.
        selected: Where.
        directions: For each leaf an array of directions along the first axis.
        order: Of the derivatives.

    Returns:
        The value, the auxiliary data, and for each output an array of derivatives along the first
        axis.
    """

    def run(function: FlatFunction, primals: Sequence[Any]) -> Any:
        def one(*direction: Array) -> Any:
            return along(function, primals, direction, order)

        return jax.vmap(one, out_axes=(None, None, 0))(*directions)

    try:
        outs, rest, found = _prepared(flat, function, selected, run)
    except ModeError as error:
        cause: Any = error.__cause__
        raise ModeError(
            f"{flat.call}: derivatives along lines are pushed forward, and this function cannot "
            "be. adk.grad, adk.hessian and adk.hessian_diagonal may go round what refuses."
            + listed([reason(error if cause is None else cause)])
        ) from error
    value, aux = flat.values(outs, rest)
    return value, aux, found


def _prepared(
    flat: FlatCall,
    function: FlatFunction,
    selected: Sequence[Any],
    make: Callable[[FlatFunction, Sequence[Any]], T],
) -> T:
    """Evaluates or stages a flat function.

    Where that fails, the user's function is evaluated once more, to tell its own errors from
    what JAX cannot differentiate.

    Raises:
        ModeError: If JAX can evaluate the function but not linearise it.
    """
    try:
        return make(function, selected)
    except NOT_REFUSALS:
        raise
    except RefusalError as error:
        raise _not_differentiable(flat, error, function, selected) from error
    except Exception as error:
        try:
            # With the values, if there are any: a check of values fails here as it did there.
            jax.eval_shape(flat, *selected) if is_staging() else flat(*selected)
        except Exception:  # the function itself is at fault: its error is the user's
            raise error from None
        raise _not_differentiable(flat, error, function, selected) from error


def _linearized(flat: FlatCall, sweeps: Sweeps) -> tuple[list[Array], list[Any], Linear]:
    try:
        return sweeps.linearized
    except NOT_REFUSALS:
        raise
    except Exception as error:  # the function has been staged: it can be evaluated
        raise _not_differentiable(flat, error, getattr(sweeps, "staged", None)) from error


def _not_differentiable(
    flat: FlatCall,
    error: Exception,
    function: FlatFunction | None = None,
    selected: Sequence[Any] | None = None,
) -> ModeError:
    if isinstance(error, NO_VALUES):  # the function runs, but not with tangents
        return without_values(flat.call, error, "hold the argument constant (wrt=)")
    for spec, leaf in zip(flat.inputs.specs, flat.selected, strict=True):
        if lacks_mesh(leaf):
            return ModeError(
                f"{flat.call}: {show(spec.path)} is on a mesh with explicit axes, which is not in "
                "use. Make the call inside of jax.set_mesh(mesh)." + listed([reason(error)])
            )
    functions = dict.fromkeys([flat, function or flat])
    why = refusal(functions, flat.selected if selected is None else selected, error)
    return ModeError(
        f"{flat.call}: JAX evaluates this function but cannot differentiate it in any mode. Hold "
        "constant what enters the operation that refuses (wrt=, jax.lax.stop_gradient), or give it "
        "a rule of its own (jax.custom_jvp, jax.custom_vjp)." + listed([why])
    )


def without_values(call: str, error: Exception, otherwise: str) -> ModeError:
    """What to raise where a function asks for values that there are none of while it is pushed.

    Args:
        call: The call.
        error: One of `NO_VALUES`.
        otherwise: What helps but for another way to write the function.

    Returns:
        The exception.
    """
    return ModeError(
        f"{call}: a value that depends on what is differentiated becomes a number of Python or an "
        f"array of NumPy{_at(error)}, and no derivative passes there. Use jax.numpy instead of "
        f"math and numpy, and x.astype(...) instead of float(x), or {otherwise}."
    )


def _at(error: Exception) -> str:
    where = line_of_user(error)
    return f" at {where}" if where else ""


# Second derivatives ---------------------------------------------------------------


class FlatGradient:
    """The first derivative of a flat call as a flat function: the blocks, laid in a list.

    The value and the other arrays of the function are among the rest.
    """

    plan: Plan
    targets: tuple[LeafSpec, ...]
    symmetric: bool  # whether no rule of the user's can make mixed derivatives unequal
    zeros: Zeros  # blocks of the first derivative

    def __init__(
        self, flat: FlatCall, *, stored: bool, function: FlatFunction | None = None
    ) -> None:
        self._flat = flat
        self._function = flat if function is None else function
        self._stored = stored  # whether the second derivative is going to be

    def __call__(self, *selected: Array) -> tuple[list[Array], list[Any]]:
        """Runs the function and sweeps its first derivative."""
        flat = self._flat
        sweeps = _prepared(flat, self._function, selected, prepare)
        if not flat.holomorphic:
            _refuse_complex_sources(flat)
        ends = dataclasses.replace(flat.ends, compact=False)
        sweeps.name(ends)
        # A gradient by reverse mode, as in `jax.hessian`, unless the function is tall.
        # Only the chunks of what is wanted are shown.
        limits = flat.limits._replace(progress=False)
        self.plan, schedule = _planned(flat, sweeps, "auto", tie="rev", limits=limits)
        self.symmetric = not sweeps.has_rules
        if self._stored:
            instead = "adk.hvp multiplies by the Hessian without storing it."
            refuse_too_large(
                flat.call, ends.targets, ends.sources, flat.selected, order=2, instead=instead
            )
        outs, rest, blocks = sweeps.run(schedule)
        self.zeros = blocks.zeros
        self.targets = flat.outputs.compose(flat.inputs.tree).specs
        return [block for row in blocks for block in row], [*outs, *rest]

    def evaluated(
        self, blocks: Sequence[Array], rest: Sequence[Any], second: BlockTable
    ) -> Evaluated:
        """The parts of the function's result, from the flat lists."""
        flat = self._flat
        targets, sources = flat.outputs.specs, flat.inputs.specs
        value, aux = flat.values(rest[: len(targets)], rest[len(targets) :])
        first = from_function(lambda i, j: blocks[i * len(sources) + j], targets, sources)
        first = first.with_zeros(self.zeros)
        return Evaluated(value, aux, flat.inputs, flat.outputs, first, second)


def second_derivative(flat: FlatCall) -> Evaluated:
    """The value and both derivatives; the function runs once."""
    is_whole = not flat.is_compact and flat.blocks is None
    gradient = FlatGradient(flat, stored=is_eager(flat.selected) and is_whole)
    sweeps = _prepared(flat, gradient, flat.selected, prepare)
    if flat.blocks is not None:
        return _selected_blocks(flat, gradient, sweeps)
    plan, schedule = _plan_of_gradient(flat, gradient, sweeps)
    log(plan)
    first, rest, second = sweeps.run(schedule)
    if flat.is_compact:
        _refuse_unshared(flat, second, plan, schedule)
    return dataclasses.replace(gradient.evaluated(first, rest, second), plan=plan)


def plan_second(flat: FlatCall, selected: Sequence[Any]) -> Plan:
    """The plan of the second derivative, which is not computed."""
    gradient = FlatGradient(flat, stored=False)
    sweeps = _prepared(flat, gradient, selected, prepare_plan)
    if flat.blocks is not None:
        parts = _parts_of_gradient(flat, gradient)
        plans = [
            _plan_of_gradient(flat, gradient, sweeps, part, abstract=True)[0] for part in parts
        ]
        return joined_plans(plans)
    return _plan_of_gradient(flat, gradient, sweeps, abstract=True)[0]


def _selected_blocks(
    flat: FlatCall, gradient: FlatGradient, sweeps: EagerSweeps | StagedSweeps
) -> Evaluated:
    """The blocks that were asked for, rectangle by rectangle."""
    first, rest, linear = _linearized(flat, sweeps)
    found: dict[tuple[int, int], tuple[Array, Shared]] = {}
    plans: list[Plan] = []
    zeros: set[tuple[int, int]] = set()
    for part in _parts_of_gradient(flat, gradient):
        assert part.rows is not None
        assert part.columns is not None
        if is_eager(flat.selected) and not flat.is_compact:
            refuse_too_large(flat.call, part.targets, part.sources, flat.selected)
        swept = LinearSweeps(linear, part)
        plan, schedule = _plan_of_gradient(flat, gradient, swept, part)
        plans.append(plan)
        table = swept.run(schedule)
        for i, row in enumerate(part.rows):
            for j, column in enumerate(part.columns):
                found[row, column] = table.block(i, j), table.shared(i, j)
        zeros |= {(part.rows[i], part.columns[j]) for i, j in table.zeros}
    log(joined_plans(plans))
    table = partial_table(found, gradient.targets, flat.inputs.specs, compact=flat.is_compact)
    return gradient.evaluated(first, rest, table.with_zeros(zeros))


def _parts_of_gradient(flat: FlatCall, gradient: FlatGradient) -> list[Ends]:
    """The rectangles of blocks that were asked for."""
    sources = flat.inputs.specs
    ends = Ends(sources, gradient.targets, flat.holomorphic, flat.is_compact)
    pairs = select_blocks(flat.call, flat.blocks, sources)
    starts = range(0, len(gradient.targets), len(sources))
    return [
        ends.only([start + i for start in starts for i in rows], columns)
        for rows, columns in rectangles(pairs)
    ]


def _plan_of_gradient(
    flat: FlatCall,
    gradient: FlatGradient,
    sweeps: EagerSweeps | TracedSweeps | LinearSweeps,
    part: Ends | None = None,
    *,
    abstract: bool = False,
) -> tuple[Plan, Schedule]:
    symmetric = gradient.symmetric and not flat.is_compact
    if part is None:
        part = Ends(flat.inputs.specs, gradient.targets, flat.holomorphic, flat.is_compact)
    else:  # of each output, as many rows as columns, and the same
        assert part.rows is not None
        assert part.columns is not None
        count = len(gradient.targets) // len(flat.inputs.specs)
        symmetric &= part.rows[: len(part.rows) // count] == part.columns
    if not isinstance(sweeps, LinearSweeps):
        sweeps.name(part)
    return _planned(
        flat,
        sweeps,
        flat.mode,
        held=flat.held,
        gradient=gradient.plan,
        symmetric=symmetric,
        abstract=abstract,
    )


def second_linear_map(
    flat: FlatCall,
    selected: Sequence[Any] | None = None,
    function: FlatFunction | None = None,
) -> tuple[Evaluated, Linear]:
    """The value, the first derivative and its tangent map; the function runs once."""
    selected = flat.selected if selected is None else selected
    gradient = FlatGradient(flat, stored=False, function=function)
    first, rest, linear = _linearized(flat, _prepared(flat, gradient, selected, prepare))
    return gradient.evaluated(first, rest, _NONE), linear


def _refuse_complex_sources(flat: FlatCall) -> None:
    rows = [(show(s.path), str(s)) for s in flat.inputs.specs if is_complex(s.dtype)]
    if rows:
        raise NotDifferentiableError(
            f"{flat.call}: the gradient by a complex argument is not holomorphic, so its second "
            "derivative is not one array. Differentiate by real and imaginary parts"
            + (", or pass holomorphic=True if the function is." if flat.may_be_holomorphic else ".")
            + listed(columns(rows))
        )
