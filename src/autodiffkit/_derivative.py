"""What the transforms share: evaluate once, check, plan, sweep."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array

from autodiffkit._errors import (
    NotDifferentiableError,
    ResultTooLargeError,
    SelectionError,
    columns,
    listed,
    nearest,
)
from autodiffkit._jax_compat import is_staging
from autodiffkit._memory import available_bytes, show_bytes
from autodiffkit._plan import Plan, make_plan
from autodiffkit._program import Linear
from autodiffkit._signature import BoundCall, Inputs
from autodiffkit._sweeps import Blocks, Sweeps
from autodiffkit._trees import (
    LeafSpec,
    Tree,
    Values,
    all_parts,
    block_spec,
    component,
    describe_leaf,
    is_array,
    is_complex,
    is_inexact,
    is_numeric,
    leaf_spec,
    names_part,
    show,
)

_logger = logging.getLogger("autodiffkit")


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a transform, in hashable form."""

    wrt: Any = None
    of: Any = None
    mode: str = "auto"
    has_aux: bool = False
    holomorphic: bool = False
    scalar: bool = False  # whether the transform needs one scalar output


def is_eager(selected: Sequence[Any]) -> bool:
    """Whether nothing is being traced, as far as the arguments show."""
    return not is_staging() and not any(isinstance(x, jax.core.Tracer) for x in selected)


# The function, flat -----------------------------------------------------------


class FlatCall:
    """The bound call as a flat function; after it has run, the structure of its output."""

    outputs: Tree

    def __init__(self, call: str, name: str, bound: BoundCall, options: Options) -> None:
        self.call = call
        self.name = name
        self.inputs: Inputs = bound.inputs
        self.selected: Sequence[Any] = bound.selected
        self.holomorphic = options.holomorphic
        self.mode = options.mode
        self._bound = bound
        self._options = options
        self._eager = is_eager(bound.selected)
        self._passive: list[Any] = []  # leaves of value and aux that are no traced arrays
        self._treedefs: tuple[Any, Any] = (None, None)

    def __call__(self, *selected: Array) -> tuple[list[Array], list[Any]]:
        """Runs the user's function: the outputs to differentiate, and the other arrays."""
        out = self._bound.evaluate(selected)
        aux: Any = None
        if self._options.has_aux:
            if not isinstance(out, tuple) or len(out) != 2:  # pyright: ignore[reportUnknownArgumentType]  # a tuple of any kind
                raise NotDifferentiableError(
                    f"{self.call}: has_aux=True needs the function to return a pair "
                    f"(output, aux); it returned {describe_leaf(out)}."
                )
            out, aux = out  # pyright: ignore[reportUnknownVariableType]  # as above
        self.outputs, leaves = _flatten_output(self.call, out, self._options.of)
        self._check_outputs()
        aux_leaves, aux_treedef = jtu.tree_flatten(aux)
        self._treedefs = (self.outputs.treedef, aux_treedef)
        differentiated = [jnp.asarray(leaves[i]) for i in self.outputs.selected]
        for i in self.outputs.selected:
            leaves[i] = _Slot
        self._passive = [_Traced if is_array(x) else x for x in (*leaves, *aux_leaves)]
        rest = [x for x in (*leaves, *aux_leaves) if is_array(x)]
        return differentiated, rest

    def values(self, outs: Sequence[Any], rest: Sequence[Any]) -> tuple[Values, Values]:
        """The function's value and the auxiliary data, put together again."""
        outs_left, rest_left = iter(outs), iter(rest)
        leaves = [
            next(outs_left) if x is _Slot else next(rest_left) if x is _Traced else x
            for x in self._passive
        ]
        count = len(self.outputs.leaves)
        value_treedef, aux_treedef = self._treedefs
        return (
            Values(jtu.tree_unflatten(value_treedef, leaves[:count])),
            Values(jtu.tree_unflatten(aux_treedef, leaves[count:])),
        )

    @property
    def held(self) -> list[tuple[str, str]]:
        """What is held constant, for the plan."""
        rows: list[tuple[str, str]] = []
        for argument in self.inputs.arguments:
            if argument.held is not None:
                rows.append((argument.name, argument.held))
            rows += [(show(x.path), x.held) for x in argument.tree.leaves if x.held is not None]
        return rows

    def refuse_too_large(self, order: int) -> None:
        """Refuses, on an eager call, a derivative that does not fit the memory there is.

        Raises:
            ResultTooLargeError: With the bytes by argument.
        """
        # Under a trace the blocks that nobody uses are never made.
        if self._eager:
            available = available_bytes(self.selected)
            if available is not None:
                _refuse_too_large(self.call, self.inputs, self.outputs, order, available)

    def _check_outputs(self) -> None:
        """Refuses what has no derivative of the kind that was asked for."""
        if self._options.scalar:
            self._check_scalar()
        sources = [spec for spec in self.inputs.specs if is_complex(spec.dtype)]
        targets = [spec for spec in self.outputs.specs if is_complex(spec.dtype)]
        if self.holomorphic:
            real = [
                (f"{kind} {show(spec.path)}".rstrip(), str(spec))
                for kind, specs in (("input", self.inputs.specs), ("output", self.outputs.specs))
                for spec in specs
                if not is_complex(spec.dtype)
            ]
            if real:
                raise NotDifferentiableError(
                    f"{self.call}: holomorphic=True needs complex inputs and outputs. Convert "
                    "these to complex, or leave them out of wrt or of." + listed(columns(real))
                )
        elif sources and targets:
            rows = [("input " + show(spec.path), str(spec)) for spec in sources]
            rows += [(f"output {show(spec.path)}".rstrip(), str(spec)) for spec in targets]
            raise NotDifferentiableError(
                f"{self.call}: a complex output of a complex input has a derivative only where "
                "the function is holomorphic. Pass holomorphic=True if it is; otherwise "
                "differentiate real and imaginary parts." + listed(columns(rows))
            )


    def _check_scalar(self) -> None:
        specs = self.outputs.specs
        if len(specs) == 1 and specs[0].shape == ():
            if is_complex(specs[0].dtype) and not self.holomorphic:
                raise NotDifferentiableError(
                    f"{self.call}: a gradient needs a real output; the function returned "
                    f"{specs[0]}. adk.jacobian differentiates a complex output."
                )
            return
        rows = [(show(spec.path) or "output", str(spec)) for spec in specs]
        several = " or choose one with of=" if len(specs) > 1 else ""
        single = ""
        if len(specs) == 1 and specs[0].size == 1:
            single = ", or make the output a scalar with .squeeze()"
        raise NotDifferentiableError(
            f"{self.call}: this needs one scalar output, and the function returned the "
            f"following. Use adk.jacobian or adk.hessian, which take any{several}{single}."
            + listed(columns(rows))
        )


class _Slot:
    """Stands for an output that is differentiated."""


class _Traced:
    """Stands for an array that the function returned besides."""


def _flatten_output(call: str, out: Any, of: Any) -> tuple[Tree, list[Any]]:
    """The leaves of the output and which of them are differentiated."""
    keyed, treedef = jtu.tree_flatten_with_path(out)
    leaves: list[Any] = [leaf for _, leaf in keyed]
    specs: list[LeafSpec] = []
    for keys, leaf in keyed:
        path = tuple(map(component, keys))
        if not is_numeric(leaf):
            specs.append(LeafSpec(path, held=describe_leaf(leaf)))
            continue
        spec = leaf_spec(path, leaf)
        if not is_inexact(spec.dtype):
            spec = dataclasses.replace(spec, held=str(spec.dtype))
        specs.append(spec)
    if not any(spec.held is None for spec in specs):
        rows = [(show(spec.path) or "output", str(spec.held)) for spec in specs]
        what = "no array at all" if not any(spec.dtype is not None for spec in specs) else (
            "no floating-point array"
        )
        returned = "" if rows else f" It returned {out!r}."
        raise NotDifferentiableError(
            f"{call}: the function returned {what}, so there is nothing to differentiate."
            f"{returned}" + listed(columns(rows))
        )
    if of is not None:
        specs = _select_outputs(call, of, specs)
    return Tree(treedef, tuple(specs)), leaves


def _select_outputs(call: str, of: Any, specs: list[LeafSpec]) -> list[LeafSpec]:
    chosen: set[int] = set()
    for pattern in (of,) if isinstance(of, str) else of:
        matched = [i for i, spec in enumerate(specs) if names_part(pattern, spec.path)]
        if not matched:
            raise SelectionError(
                f"{call}: of={pattern!r} matches no output. "
                + nearest(
                    pattern,
                    all_parts(spec.path for spec in specs),
                    "The output is a single array without a name; leave of out.",
                )
            )
        usable = {i for i in matched if specs[i].held is None}
        if not usable:
            rows = [(show(specs[i].path), str(specs[i].held)) for i in matched]
            raise NotDifferentiableError(
                f"{call}: of={pattern!r} matches no output that can be differentiated:"
                + listed(columns(rows))
            )
        chosen |= usable
    return [
        spec if i in chosen or spec.held else dataclasses.replace(spec, held="not in of")
        for i, spec in enumerate(specs)
    ]


# First and second derivatives ---------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A function's value with its derivatives: blocks by output leaf and source."""

    value: Values
    aux: Values
    inputs: Inputs
    outputs: Tree
    first: Blocks
    second: Blocks


def first_derivative(flat: FlatCall) -> Evaluated:
    """The value and the first derivative; the function runs once."""
    sweeps, plan = plan_first(flat, flat.selected)
    _logger.debug("%s", plan.summary)
    outs, rest, blocks = sweeps.run(plan.mode)
    value, aux = flat.values(outs, rest)
    return Evaluated(value, aux, flat.inputs, flat.outputs, blocks, [])


def plan_first(flat: FlatCall, selected: Sequence[Any]) -> tuple[Sweeps, Plan]:
    """Evaluates or stages the function and plans its first derivative."""
    sweeps = Sweeps(flat, selected)
    flat.refuse_too_large(1)
    sources, targets = flat.inputs.specs, flat.outputs.specs
    sweeps.name(sources, targets, holomorphic=flat.holomorphic)
    plan = make_plan(
        flat.call,
        sources,
        targets,
        flat.mode,
        sweeps.obstacle,
        holomorphic=flat.holomorphic,
        held=flat.held,
    )
    return sweeps, plan


class FlatGradient:
    """The first derivative of a flat call as a flat function: the blocks, laid in a list.

    The value and the other arrays of the function are among the rest.
    """

    plan: Plan
    targets: tuple[LeafSpec, ...]

    def __init__(self, flat: FlatCall) -> None:
        self._flat = flat

    def __call__(self, *selected: Array) -> tuple[list[Array], list[Any]]:
        """Runs the function and sweeps its first derivative."""
        flat = self._flat
        sweeps = Sweeps(flat, selected)
        flat.refuse_too_large(2)
        if not flat.holomorphic:
            _refuse_complex_sources(flat)
        sources, targets = flat.inputs.specs, flat.outputs.specs
        sweeps.name(sources, targets, holomorphic=flat.holomorphic)
        self.plan = make_plan(
            flat.call, sources, targets, "auto", sweeps.obstacle, holomorphic=flat.holomorphic
        )
        outs, rest, blocks = sweeps.run(self.plan.mode)
        self.targets = flat.outputs.compose(flat.inputs.tree).specs
        return [block for row in blocks for block in row], [*outs, *rest]

    def evaluated(self, blocks: Sequence[Array], rest: Sequence[Any], second: Blocks) -> Evaluated:
        """The parts of the function's result, from the flat lists."""
        flat = self._flat
        count = len(flat.outputs.specs)
        value, aux = flat.values(rest[:count], rest[count:])
        columns_ = len(flat.inputs.specs)
        first = [list(blocks[i : i + columns_]) for i in range(0, len(blocks), columns_)]
        return Evaluated(value, aux, flat.inputs, flat.outputs, first, second)


def second_derivative(flat: FlatCall) -> Evaluated:
    """The value and both derivatives; the function runs once."""
    gradient, sweeps, plan = plan_second(flat, flat.selected)
    _logger.debug("%s", plan.summary)
    first, rest, second = sweeps.run(plan.mode)
    return gradient.evaluated(first, rest, second)


def plan_second(flat: FlatCall, selected: Sequence[Any]) -> tuple[FlatGradient, Sweeps, Plan]:
    """Evaluates or stages the first derivative and plans the second."""
    gradient = FlatGradient(flat)
    sweeps = Sweeps(gradient, selected)
    sources = flat.inputs.specs
    sweeps.name(sources, gradient.targets, holomorphic=flat.holomorphic)
    plan = make_plan(
        flat.call,
        sources,
        gradient.targets,
        flat.mode,
        sweeps.obstacle,
        holomorphic=flat.holomorphic,
        held=flat.held,
        gradient=gradient.plan,
    )
    return gradient, sweeps, plan


def linear_map(flat: FlatCall) -> tuple[Evaluated, Linear]:
    """The value and the tangent map; the function runs once."""
    outs, rest, linear = Sweeps(flat, flat.selected).linearized
    value, aux = flat.values(outs, rest)
    return Evaluated(value, aux, flat.inputs, flat.outputs, [], []), linear


def second_linear_map(flat: FlatCall) -> tuple[Evaluated, Linear]:
    """The value, the first derivative and its tangent map; the function runs once."""
    gradient = FlatGradient(flat)
    first, rest, linear = Sweeps(gradient, flat.selected).linearized
    return gradient.evaluated(first, rest, []), linear


def _refuse_complex_sources(flat: FlatCall) -> None:
    rows = [(show(s.path), str(s)) for s in flat.inputs.specs if is_complex(s.dtype)]
    if rows:
        raise NotDifferentiableError(
            f"{flat.call}: the gradient by a complex argument is not holomorphic, so its second "
            "derivative is not one array. Differentiate by real and imaginary parts, or pass "
            "holomorphic=True if the function is." + listed(columns(rows))
        )


# Size -------------------------------------------------------------------------


def result_bytes(targets: Sequence[LeafSpec], sources: Sequence[LeafSpec]) -> int:
    """The bytes of all blocks of a derivative."""
    return sum(
        block_spec(target, source).size * block_spec(target, source).dtype.itemsize
        for target in targets
        for source in sources
    )


def _refuse_too_large(
    call: str, inputs: Inputs, outputs: Tree, order: int, available: int
) -> None:
    """Refuses a result that is larger than the memory there is.

    Raises:
        ResultTooLargeError: With the bytes by argument, and the selection that would fit.
    """
    def rows(sources: Sequence[LeafSpec]) -> Sequence[LeafSpec]:
        if order == 1:
            return outputs.specs
        return [block_spec(target, source) for target in outputs.specs for source in sources]

    needed = result_bytes(rows(inputs.specs), inputs.specs)
    if needed <= available:
        return
    by_name: dict[str, list[LeafSpec]] = {}
    for spec in inputs.specs:
        by_name.setdefault(spec.path[0], []).append(spec)
    sizes = {name: result_bytes(rows(inputs.specs), specs) for name, specs in by_name.items()}
    fitting: list[LeafSpec] = []
    names: list[str] = []
    for name in sorted(by_name, key=lambda name: sum(spec.size for spec in by_name[name])):
        larger = [*fitting, *by_name[name]]
        if result_bytes(rows(larger), larger) <= available:
            fitting = larger
            names.append(name)
    selection = repr(names[0]) if len(names) == 1 else f"({', '.join(map(repr, names))})"
    free = "adk.linearize" if order == 1 else "adk.hvp"
    remedy = f"wrt={selection} would fit. " if names else ""
    raise ResultTooLargeError(
        f"{call}: the result takes {show_bytes(needed)} and {show_bytes(available)} are "
        f"available. {remedy}{free} multiplies by the derivative without storing it."
        + listed(columns([(name, show_bytes(size)) for name, size in sizes.items()]))
    )
