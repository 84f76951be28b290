"""What the transforms share: evaluate once, plan, sweep."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import Array

from autodiffkit._errors import AutodiffError, ModeError, NotDifferentiableError, columns, listed
from autodiffkit._flat_call import FlatCall
from autodiffkit._inputs import Inputs
from autodiffkit._jax_compat import is_eager, is_staging
from autodiffkit._leaves import LeafSpec, is_complex
from autodiffkit._memory import refuse_too_large
from autodiffkit._paths import show
from autodiffkit._plan import Ends, Plan, make_plan, reason
from autodiffkit._program import FlatFunction, Linear
from autodiffkit._sweeps import Blocks, EagerSweeps, StagedSweeps, prepare
from autodiffkit._trees import Tree, Values

Sweeps = EagerSweeps | StagedSweeps

# What is no refusal of JAX to differentiate: ours, and what happens as the function runs.
_OWN_ERRORS = (AutodiffError, FloatingPointError, jax.errors.JaxRuntimeError)

_logger = logging.getLogger("autodiffkit")


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A function's value with its derivatives: blocks by output leaf and source."""

    value: Values
    aux: Values
    inputs: Inputs
    outputs: Tree
    first: Blocks
    second: Blocks


# First derivatives --------------------------------------------------------------


def first_derivative(flat: FlatCall) -> Evaluated:
    """The value and the first derivative; the function runs once."""
    sweeps, plan = plan_first(flat, flat.selected)
    _logger.debug("%s", plan.summary)
    if is_eager(flat.selected):  # under a trace, blocks that nobody uses are never made
        refuse_too_large(flat.call, flat.outputs.specs, flat.inputs.specs, flat.selected)
    outs, rest, blocks = sweeps.run(plan.mode)
    value, aux = flat.values(outs, rest)
    return Evaluated(value, aux, flat.inputs, flat.outputs, blocks, [])


def plan_first(flat: FlatCall, selected: Sequence[Any]) -> tuple[Sweeps, Plan]:
    """Evaluates or stages the function and plans its first derivative."""
    sweeps = _prepared(flat, flat, selected)
    sweeps.name(flat.ends)
    return sweeps, make_plan(flat.call, flat.ends, flat.mode, sweeps.obstacle, held=flat.held)


def linear_map(flat: FlatCall) -> tuple[Evaluated, Linear]:
    """The value and the tangent map; the function runs once."""
    outs, rest, linear = _linearized(flat, _prepared(flat, flat, flat.selected))
    value, aux = flat.values(outs, rest)
    return Evaluated(value, aux, flat.inputs, flat.outputs, [], []), linear


def _prepared(flat: FlatCall, function: FlatFunction, selected: Sequence[Any]) -> Sweeps:
    """Evaluates or stages a flat function.

    Where that fails, the user's function is evaluated once more, to tell its own errors from
    what JAX cannot differentiate.

    Raises:
        ModeError: If JAX can evaluate the function but not linearise it.
    """
    try:
        return prepare(function, selected)
    except _OWN_ERRORS:
        raise
    except Exception as error:
        try:
            # With the values, if there are any: a check of values fails here as it did there.
            jax.eval_shape(flat, *selected) if is_staging() else flat(*selected)
        except Exception:  # the function itself is at fault: its error is the user's
            raise error from None
        raise _not_differentiable(flat, error) from error


def _linearized(flat: FlatCall, sweeps: Sweeps) -> tuple[list[Array], list[Any], Linear]:
    try:
        return sweeps.linearized
    except _OWN_ERRORS:
        raise
    except Exception as error:  # the function has been staged: it can be evaluated
        raise _not_differentiable(flat, error) from error


def _not_differentiable(flat: FlatCall, error: Exception) -> ModeError:
    return ModeError(
        f"{flat.call}: JAX evaluates this function but cannot differentiate it in any mode. Hold "
        "constant what enters the operation that refuses (wrt=, jax.lax.stop_gradient), or give it "
        "a rule of its own (jax.custom_jvp)." + listed([reason(error)])
    )


# Second derivatives ---------------------------------------------------------------


class FlatGradient:
    """The first derivative of a flat call as a flat function: the blocks, laid in a list.

    The value and the other arrays of the function are among the rest.
    """

    plan: Plan
    targets: tuple[LeafSpec, ...]

    def __init__(self, flat: FlatCall, *, stored: bool) -> None:
        self._flat = flat
        self._stored = stored  # whether the second derivative is going to be

    def __call__(self, *selected: Array) -> tuple[list[Array], list[Any]]:
        """Runs the function and sweeps its first derivative."""
        flat = self._flat
        sweeps = _prepared(flat, flat, selected)
        if not flat.holomorphic:
            _refuse_complex_sources(flat)
        ends = flat.ends
        sweeps.name(ends)
        # A gradient by reverse mode, as in `jax.hessian`, unless the function is tall.
        self.plan = make_plan(flat.call, ends, "auto", sweeps.obstacle, tie="rev")
        if self._stored:
            instead = "adk.hvp multiplies by the Hessian without storing it."
            refuse_too_large(
                flat.call, ends.targets, ends.sources, flat.selected, order=2, instead=instead
            )
        outs, rest, blocks = sweeps.run(self.plan.mode)
        self.targets = flat.outputs.compose(flat.inputs.tree).specs
        return [block for row in blocks for block in row], [*outs, *rest]

    def evaluated(self, blocks: Sequence[Array], rest: Sequence[Any], second: Blocks) -> Evaluated:
        """The parts of the function's result, from the flat lists."""
        flat = self._flat
        count, width = len(flat.outputs.specs), len(flat.inputs.specs)
        value, aux = flat.values(rest[:count], rest[count:])
        first = [list(blocks[i : i + width]) for i in range(0, len(blocks), width)]
        return Evaluated(value, aux, flat.inputs, flat.outputs, first, second)


def second_derivative(flat: FlatCall) -> Evaluated:
    """The value and both derivatives; the function runs once."""
    gradient, sweeps, plan = plan_second(flat, flat.selected, stored=is_eager(flat.selected))
    _logger.debug("%s", plan.summary)
    first, rest, second = sweeps.run(plan.mode)
    return gradient.evaluated(first, rest, second)


def plan_second(
    flat: FlatCall, selected: Sequence[Any], *, stored: bool
) -> tuple[FlatGradient, Sweeps, Plan]:
    """Evaluates or stages the first derivative and plans the second."""
    gradient = FlatGradient(flat, stored=stored)
    sweeps = _prepared(flat, gradient, selected)
    ends = Ends(flat.inputs.specs, gradient.targets, flat.holomorphic)
    sweeps.name(ends)
    plan = make_plan(
        flat.call, ends, flat.mode, sweeps.obstacle, held=flat.held, gradient=gradient.plan
    )
    return gradient, sweeps, plan


def second_linear_map(flat: FlatCall) -> tuple[Evaluated, Linear]:
    """The value, the first derivative and its tangent map; the function runs once."""
    gradient = FlatGradient(flat, stored=False)
    first, rest, linear = _linearized(flat, _prepared(flat, gradient, flat.selected))
    return gradient.evaluated(first, rest, []), linear


def _refuse_complex_sources(flat: FlatCall) -> None:
    rows = [(show(s.path), str(s)) for s in flat.inputs.specs if is_complex(s.dtype)]
    if rows:
        raise NotDifferentiableError(
            f"{flat.call}: the gradient by a complex argument is not holomorphic, so its second "
            "derivative is not one array. Differentiate by real and imaginary parts, or pass "
            "holomorphic=True if the function is." + listed(columns(rows))
        )
