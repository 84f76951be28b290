"""What is known of the axes of linear equations: a table of rules, one for each primitive.

A rule says how an equation depends on each of its moving operands. It is told once and serves
pushing and pulling, with arrays and without. What has no rule is dense.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from autodiffkit._body_rules import BODIES, called
from autodiffkit._jaxprs import has_program
from autodiffkit._maps import ONE, Axis, Data, Kind, Map, Part, axes_of
from autodiffkit._rule_kinds import DENSE, Entrywise, Factor, Line, Lines, Reshape, Rule


def rule_of(equation: Any, moving: Sequence[int]) -> Rule:
    """What is known of an equation of whose operands these are moving."""
    rule = RULES.get(equation.primitive.name)
    if rule is not None:
        return rule(equation, moving)
    body = BODIES.get(equation.primitive.name, called)
    return body(equation, moving, rule_of) if has_program(equation) else DENSE


# Entry by entry -------------------------------------------------------------------


def _entrywise(_: Any, moving: Sequence[int]) -> Rule:
    return dict.fromkeys(moving, Entrywise())


def _same_axes(equation: Any, operand: int) -> Map:
    """The map of an operand to a result of the same shape, or one that it is broadcast to."""
    out = equation.outvars[0].aval
    outs = axes_of(out.shape)
    return Map(outs, _subaxes(equation.invars[operand].aval.shape, outs), ONE, out.dtype)


def _subaxes(shape: Sequence[int], axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """The axes of an array that is broadcast to these: a scalar, or of as many axes."""
    return tuple(axis if n != 1 else () for n, axis in zip(shape, axes, strict=False))


def _constant(labels: Axis) -> Data:
    """What stands for the data of a constant operand."""
    return Data((Part(True, labels),))


def _add(equation: Any, moving: Sequence[int]) -> Rule:
    return {k: Factor(_same_axes(equation, k)) for k in moving}


def _subtract(equation: Any, moving: Sequence[int]) -> Rule:
    factors = {k: Factor(_same_axes(equation, k)) for k in moving}
    if 1 in factors:
        given = factors[1].map
        minus = Data((Part(-1, ()),))
        factors[1] = Factor(dataclasses.replace(given, data=minus))
    return factors


def _by_constant(kind: Kind, equation: Any, operand: int, constant: int) -> Factor:
    given = _same_axes(equation, operand)
    axes = _subaxes(equation.invars[constant].aval.shape, given.outs)
    labels = tuple(label for axis in axes for label in axis)
    return Factor(dataclasses.replace(given, data=_constant(labels)), constant, kind)


def _multiply(equation: Any, moving: Sequence[int]) -> Rule:
    if len(moving) != 1:
        return DENSE
    (k,) = moving
    return {k: _by_constant("multiply", equation, k, 1 - k)}


def _divide(equation: Any, moving: Sequence[int]) -> Rule:
    return {0: _by_constant("divide", equation, 0, 1)} if tuple(moving) == (0,) else DENSE


def _select(equation: Any, moving: Sequence[int]) -> Rule:
    if 0 in moving:
        return DENSE
    factors = {k: _by_constant("select", equation, k, 0) for k in moving}
    return {k: dataclasses.replace(factor, selected=k - 1) for k, factor in factors.items()}


# Products, sums and shapes -----------------------------------------------------------


def _dot_general(equation: Any, moving: Sequence[int]) -> Rule:
    if len(moving) != 1:
        return DENSE
    contracting, batch = equation.params["dimension_numbers"]
    axes = [list(axes_of(x.aval.shape)) for x in equation.invars]
    for pairs in (contracting, batch):
        for i, j in zip(*pairs, strict=True):
            axes[1][j] = axes[0][i]
    outs = [axes[0][i] for i in batch[0]]
    for own, inner, along in zip(axes, contracting, batch, strict=True):
        outs += [axis for i, axis in enumerate(own) if i not in (*inner, *along)]
    (k,) = moving
    labels = tuple(label for axis in axes[1 - k] for label in axis)
    given = Map(tuple(outs), tuple(axes[k]), _constant(labels), equation.outvars[0].aval.dtype)
    return {k: Factor(given, 1 - k, precision=equation.params["precision"])}


def _reduce_sum(equation: Any, moving: Sequence[int]) -> Rule:
    ins = axes_of(equation.invars[0].aval.shape)
    outs = tuple(axis for i, axis in enumerate(ins) if i not in equation.params["axes"])
    return {k: Factor(Map(outs, ins, ONE, equation.outvars[0].aval.dtype)) for k in moving}


def _broadcast(equation: Any, moving: Sequence[int]) -> Rule:
    if tuple(moving) != (0,):
        return DENSE
    out = equation.outvars[0].aval
    outs = axes_of(out.shape)
    shape = equation.invars[0].aval.shape
    dimensions = equation.params["broadcast_dimensions"]
    ins = _subaxes(shape, [outs[i] for i in dimensions])
    return {0: Factor(Map(outs, ins, ONE, out.dtype))}


def _transpose(equation: Any, moving: Sequence[int]) -> Rule:
    ins = axes_of(equation.invars[0].aval.shape)
    outs = tuple(ins[i] for i in equation.params["permutation"])
    return {k: Factor(Map(outs, ins, ONE, equation.outvars[0].aval.dtype)) for k in moving}


def _reshape(equation: Any, moving: Sequence[int]) -> Rule:
    if equation.params.get("dimensions") is not None and equation.primitive.name == "reshape":
        return DENSE  # it transposes first
    return {0: Reshape()} if tuple(moving) == (0,) else DENSE


# Along the other axes ---------------------------------------------------------------


def lines(moving: Sequence[int], results: int, pairs: Sequence[tuple[int, int]]) -> Lines:
    """Lines that all moving operands have on one axis, and all results on another."""
    return Lines(
        tuple(Line(dict.fromkeys(moving, i), dict.fromkeys(range(results), j)) for i, j in pairs)
    )


def _all_but(equation: Any, moving: Sequence[int], mixed: Sequence[int]) -> Rule:
    """All axes but these, which operands and results have in the same place."""
    rank = equation.outvars[0].aval.ndim
    kept = [(i, i) for i in range(rank) if i not in mixed]
    return lines(moving, len(equation.outvars), kept)


def _along(name: str) -> Callable[[Any, Sequence[int]], Rule]:
    """What mixes along the axis, or the axes, that a parameter says."""

    def rule(equation: Any, moving: Sequence[int]) -> Rule:
        axes = equation.params[name]
        return _all_but(equation, moving, axes if isinstance(axes, Sequence) else (axes,))

    return rule


def _part(equation: Any, moving: Sequence[int]) -> Rule:
    """Axes whose size does not change are taken as they are."""
    if tuple(moving) != (0,):
        return DENSE
    before, after = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    kept = [(i, i) for i, (n, m) in enumerate(zip(before, after, strict=True)) if n == m]
    return lines(moving, 1, kept)


def _pad(equation: Any, moving: Sequence[int]) -> Rule:
    if tuple(moving) != (0,):
        return DENSE
    config = equation.params["padding_config"]
    return _all_but(equation, moving, [i for i, x in enumerate(config) if tuple(x) != (0, 0, 0)])


def _dynamic_update_slice(equation: Any, moving: Sequence[int]) -> Rule:
    if not set(moving) <= {0, 1}:
        return DENSE
    whole, part = (x.aval.shape for x in equation.invars[:2])
    kept = [(i, i) for i, (n, m) in enumerate(zip(whole, part, strict=True)) if n == m]
    return lines(moving, 1, kept)


def _gather(equation: Any, moving: Sequence[int]) -> Rule:
    if tuple(moving) != (0,):
        return DENSE
    numbers = equation.params["dimension_numbers"]
    single = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    operand, out = equation.invars[0].aval, equation.outvars[0].aval
    sizes = equation.params["slice_sizes"]
    axes = [i for i in range(operand.ndim) if i not in single]
    kept = [
        (i, j)
        for i, j in zip(axes, numbers.offset_dims, strict=True)
        if sizes[i] == operand.shape[i]
    ]
    places = [j for j in range(out.ndim) if j not in numbers.offset_dims]
    batching = (numbers.operand_batching_dims, numbers.start_indices_batching_dims)
    kept += [(i, places[j]) for i, j in zip(*batching, strict=True)]
    return lines(moving, 1, kept)


def _scatter(equation: Any, moving: Sequence[int]) -> Rule:
    if not set(moving) <= {0, 2}:
        return DENSE
    numbers = equation.params["dimension_numbers"]
    operand, updates = equation.invars[0].aval, equation.invars[2].aval
    single = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    axes = [i for i in range(operand.ndim) if i not in single]
    kept = [
        (i, j)
        for i, j in zip(axes, numbers.update_window_dims, strict=True)
        if updates.shape[j] == operand.shape[i]
    ]
    places = [j for j in range(updates.ndim) if j not in numbers.update_window_dims]
    batching = (numbers.operand_batching_dims, numbers.scatter_indices_batching_dims)
    kept += [(i, places[j]) for i, j in zip(*batching, strict=True)]
    return Lines(tuple(Line({k: j if k == 2 else i for k in moving}, {0: i}) for i, j in kept))


def _convolution(equation: Any, moving: Sequence[int]) -> Rule:
    """The examples of a batch; or by the kernel, the features that come out."""
    if len(moving) != 1 or equation.params["batch_group_count"] != 1:
        return DENSE
    (k,) = moving
    numbers = equation.params["dimension_numbers"]
    batch, features = numbers.out_spec[:2]
    if k == 0:
        return lines(moving, 1, [(numbers.lhs_spec[0], batch)])
    return lines(moving, 1, [(numbers.rhs_spec[0], features)])


def _window(equation: Any, moving: Sequence[int]) -> Rule:
    """What slides a window, along the axes on which the window is a single entry that does not."""
    parameters = equation.params
    steps = (
        parameters[name]
        for name in ("window_dimensions", "window_strides", "base_dilation", "window_dilation")
    )
    mixed = [
        i
        for i, (*sizes, padding) in enumerate(zip(*steps, parameters["padding"], strict=True))
        if any(n != 1 for n in sizes) or any(padding)
    ]
    return _all_but(equation, moving, mixed)


def _triangular_solve(equation: Any, moving: Sequence[int]) -> Rule:
    if tuple(moving) != (1,):
        return DENSE
    rank = equation.outvars[0].aval.ndim
    return _all_but(equation, moving, [rank - 2 if equation.params["left_side"] else rank - 1])


def _fft(equation: Any, moving: Sequence[int]) -> Rule:
    rank = equation.outvars[0].aval.ndim
    return _all_but(equation, moving, range(rank - len(equation.params["fft_lengths"]), rank))


def _stack(equation: Any, moving: Sequence[int]) -> Rule:
    axis = equation.params["axis"]
    rank = equation.invars[0].aval.ndim
    return lines(moving, 1, [(i, i + (i >= axis)) for i in range(rank)])


def _unstack(equation: Any, moving: Sequence[int]) -> Rule:
    axis = equation.params["axis"]
    rank = equation.outvars[0].aval.ndim
    return lines(moving, len(equation.outvars), [(i + (i >= axis), i) for i in range(rank)])


RULES: dict[str, Callable[[Any, Sequence[int]], Rule]] = {
    **dict.fromkeys(
        ("neg", "convert_element_type", "copy", "real", "imag", "conj", "complex"),
        _entrywise,
    ),
    **dict.fromkeys(("name", "reduce_precision"), _entrywise),
    **dict.fromkeys(("add", "add_any"), _add),
    "sub": _subtract,
    "mul": _multiply,
    "div": _divide,
    "select_n": _select,
    "dot_general": _dot_general,
    "reduce_sum": _reduce_sum,
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    **dict.fromkeys(("reshape", "squeeze"), _reshape),
    "cumsum": _along("axis"),
    "rev": _along("dimensions"),
    "concatenate": _along("dimension"),
    "split": _along("axis"),
    **dict.fromkeys(("slice", "dynamic_slice"), _part),
    "stack": _stack,
    "unstack": _unstack,
    "tile": _part,
    "pad": _pad,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    **dict.fromkeys(("scatter", "scatter-add", "scatter-sub"), _scatter),
    "conv_general_dilated": _convolution,
    "reduce_window_sum": _window,
    "triangular_solve": _triangular_solve,
    "fft": _fft,
}
