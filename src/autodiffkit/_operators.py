"""Differential operators, none of which needs a whole Jacobian or Hessian."""

import operator
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array

from autodiffkit._derivative import (
    Evaluated,
    along_lines,
    first_derivative,
    linear_map,
    plan_first,
    second_linear_map,
    staged,
)
from autodiffkit._diagonal import Diagonal
from autodiffkit._directions import unit_directions
from autodiffkit._errors import (
    ModeError,
    NotDifferentiableError,
    SelectionError,
    SignatureError,
    columns,
    listed,
)
from autodiffkit._flat_call import FlatCall, Options
from autodiffkit._function import as_function, name_of
from autodiffkit._inputs import is_index
from autodiffkit._leaves import Ends, LeafSpec, is_complex, promote, slices
from autodiffkit._operator_plan import OperatorPlan, Way, plan_of
from autodiffkit._operator_results import (
    Curl,
    DirectionalDerivative,
    Divergence,
    HessianDiagonal,
    Laplacian,
)
from autodiffkit._options import noting_shapes
from autodiffkit._pairs import is_scalar
from autodiffkit._paths import children_of, show
from autodiffkit._program import Linear
from autodiffkit._staging import Staged
from autodiffkit._taylor import by_taylor
from autodiffkit._transforms import Transform, gradient_of
from autodiffkit._vectors import collect_vector, filled

P = ParamSpec("P")
R = TypeVar("R")


class _Operator(Transform[P, R]):
    """A transform whose results are no blocks."""

    _has_blocks = False

    @property
    def annotations(self) -> Mapping[str | tuple[str, ...], Any]:
        """None: the results are no blocks."""
        return MappingProxyType({})

    @property
    def plan(self) -> Callable[..., Any]:
        """What a call would sweep, and what it costs: `operator.plan(*args, **kwargs)`.

        It takes what the call itself takes, where arrays may be `jax.ShapeDtypeStruct`s, and
        returns an `OperatorPlan`; of a curl, the `Plan` of its Jacobian.
        """

        # No method, as for `Transform.plan`.
        def plan(*args: Any, **kwargs: Any) -> Any:
            with noting_shapes(self.__wrapped__, args, kwargs):
                return self._plan_call(args, kwargs)

        return plan


def _diagonals(
    flat: FlatCall, linear: Linear, targets: Sequence[LeafSpec], pairs: Sequence[int] | None = None
) -> list[Diagonal]:
    """The diagonals of the block of each input, and of the output that belongs to it."""
    ends = Ends(flat.inputs.specs, tuple(targets), holomorphic=False)
    rows = range(len(ends.sources)) if pairs is None else pairs
    return [Diagonal(flat.call, linear, ends.only([i], [j])) for j, i in enumerate(rows)]


class _Field(FlatCall):
    """A call whose outputs belong to its inputs."""

    is_resorted: bool  # whether JAX has the keys of an output's dict in another order

    def __init__(self, flat: FlatCall) -> None:
        super().__init__(flat.call, flat.name, flat._bound, flat._options)

    def _see(self, out: Any) -> None:
        chosen = set(self.outputs.selected)
        written = [i for i in _as_written(out) if i in chosen]
        self.is_resorted = written != sorted(written)


def _as_written(node: Any, start: int = 0) -> list[int]:
    """The numbers of a pytree's leaves, in the order that its dicts have: JAX sorts their keys."""
    children = children_of(node)
    if not children:
        return [start + i for i in range(len(jtu.tree_leaves(node)))]
    found: dict[str, list[int]] = {}
    for name, child in children:
        found[name] = _as_written(child, start)
        start += len(found[name])
    names = map(str, node) if isinstance(node, dict) else list(found)
    return [i for name in names for i in found[name]]


def _pairs(flat: _Field) -> list[int] | None:
    """Which output belongs to each input: that of the same name, or else in the same place.

    Returns:
        The outputs by number; `None` if there are more or fewer of them.

    Raises:
        NotDifferentiableError: If names differ, and JAX has the outputs in another order than the
            function.
    """
    sources, targets = (
        [s.path for s in specs] for specs in (flat.inputs.specs, flat.outputs.specs)
    )
    for depth in (0, 1):  # by argument, or by what the only argument holds
        names = [path[depth:] for path in sources]
        if len({path[:depth] for path in sources}) == 1 and sorted(names) == sorted(targets):
            return [targets.index(name) for name in names]
    if flat.is_resorted:
        raise NotDifferentiableError(
            f"{flat.call}: which output belongs to which coordinate? They have other names, and "
            "JAX sorts the keys of a dict. Return them under the names of the coordinates, or in "
            "their order in a tuple or an array." + _both(flat)
        )
    return list(range(len(targets))) if len(targets) == len(sources) else None


def _second(
    flat: FlatCall, selected: Sequence[Any], function: Any = None
) -> tuple[Evaluated, list[Diagonal]]:
    found, linear = second_linear_map(flat, selected, function)
    return found, _diagonals(flat, linear, found.outputs.compose(found.inputs.tree).specs)


def _trace(diagonals: Sequence[Diagonal]) -> Array:
    """The sum of all diagonals, in the dtype that they promote to."""
    sums = [jnp.sum(x.compute()) for x in diagonals]
    dtype = promote(x.dtype for x in sums)
    return jnp.sum(jnp.stack([x.astype(dtype) for x in sums]))


class HessianDiagonalTransform(_Operator[P, R]):
    """What `adk.hessian_diagonal` returns."""

    _verb = "hessian_diagonal"

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> HessianDiagonal[R]:
        flat = self._flat(args, kwargs)
        found, diagonals = _second(flat, flat.selected)
        diagonal = flat.inputs.tree.unflatten([x.compute() for x in diagonals])
        gradient = gradient_of(flat, found)
        return HessianDiagonal(found.value, found.aux, flat.name, diagonal, gradient)

    def _plan(self, flat: FlatCall, selected: Any) -> Any:
        _, diagonals = _second(flat, selected)
        return plan_of(flat.call, [x.way for x in diagonals])


class LaplacianTransform(_Operator[P, R]):
    """What `adk.laplacian` returns."""

    _verb = "laplacian"

    @staticmethod
    def _by_gradient(flat: FlatCall, selected: Sequence[Any], function: Any) -> Laplacian[Any]:
        found, diagonals = _second(flat, selected, function)
        tree = found.outputs.unflatten([_trace(diagonals)])
        return Laplacian(found.value, found.aux, flat.name, tree)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Laplacian[R]:
        flat = self._flat(args, kwargs)
        function = staged(flat, flat.selected, 2)
        _refuse_complex(flat)
        if _has_gradient(flat, function):
            return self._by_gradient(flat, flat.selected, function)
        units = unit_directions(flat.selected, 1.0, 1, 0)
        try:
            value, aux, terms = along_lines(flat, function, flat.selected, units, 2)
        except ModeError:
            # What has run with its values, and cannot be pushed: perhaps it has a gradient.
            if isinstance(function, Staged) or not is_real_scalar(flat):
                raise
            return self._by_gradient(flat, flat.selected, function)
        leaves = [jnp.sum(term, axis=0) for term in terms]
        return Laplacian(value, aux, flat.name, flat.outputs.unflatten(leaves))

    def _plan(self, flat: FlatCall, selected: Any) -> Any:
        function = staged(flat, selected, 2)
        _refuse_complex(flat)
        if _has_gradient(flat, function):
            _, diagonals = _second(flat, selected, function)
            return plan_of(flat.call, [x.way for x in diagonals])
        return _plan_along(flat, function, selected, 2, "along each entry")


def _has_gradient(flat: FlatCall, function: Any) -> bool:
    """Whether this is known to be a real scalar; then its gradient's program is swept.

    What a function returns that runs with its values is not known before it has run.
    """
    return isinstance(function, Staged) and is_real_scalar(flat)


def is_real_scalar(flat: FlatCall) -> bool:
    """Whether the function, which has run, returned one real scalar."""
    return is_scalar(flat.outputs) and not is_complex(flat.outputs.specs[0].dtype)


def _plan_along(
    flat: FlatCall, function: Any, selected: Sequence[Any], order: int, lines: str
) -> OperatorPlan:
    """The plan of derivatives along lines, which are traced to see that they can be had."""
    along_lines(flat, function, selected, unit_directions(selected, 1.0, 1, 0), order)
    by = f"pushed {order} times, one inside the other" if order > 1 else "pushed"
    if by_taylor(function, order):
        by = f"carried to order {order} (Taylor mode)"
    return plan_of(flat.call, [Way(x, "line", f"{by}, {lines}") for x in flat.inputs.specs])


class DivergenceTransform(_Operator[P, R]):
    """What `adk.divergence` returns."""

    _verb = "divergence"

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Divergence[R]:
        flat = _Field(self._flat(args, kwargs))
        found, linear = linear_map(flat)
        trace = _trace(self._diagonals(flat, linear))
        return Divergence(found.value, found.aux, flat.name, trace)

    def _plan(self, flat: FlatCall, selected: Any) -> Any:
        field = _Field(flat)
        _, linear = linear_map(field, selected)
        return plan_of(flat.call, [x.way for x in self._diagonals(field, linear)])

    @staticmethod
    def _diagonals(flat: _Field, linear: Linear) -> list[Diagonal]:
        _refuse_complex(flat)
        sources, targets = flat.inputs.specs, flat.outputs.specs
        pairs = _pairs(flat)
        if pairs is None or [s.shape for s in sources] != [targets[k].shape for k in pairs]:
            raise NotDifferentiableError(
                f"{flat.call}: a vector field has an output for each coordinate, of the same "
                "shape and in the same order. Select the coordinates with wrt=, and the outputs "
                "with of=." + _both(flat)
            )
        return _diagonals(flat, linear, targets, pairs)


class CurlTransform(_Operator[P, R]):
    """What `adk.curl` returns."""

    _verb = "curl"

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Curl[R]:
        flat = _Field(self._flat(args, kwargs))
        found = first_derivative(flat)
        order = self._rows(flat)
        matrix = found.first.matrix()[order]
        rotated = [matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0]]
        curl = jnp.stack([*rotated, matrix[1, 0] - matrix[0, 1]])[np.argsort(order)]
        leaves = [
            curl[part].reshape(spec.shape)
            for spec, part in zip(found.outputs.specs, slices(found.outputs.specs), strict=True)
        ]
        return Curl(found.value, found.aux, flat.name, found.outputs.unflatten(leaves))

    @staticmethod
    def _rows(flat: _Field) -> np.ndarray:
        """The entries of the output in the order of the coordinates, of which there are three."""
        _refuse_complex(flat)
        if flat.inputs.tree.size != 3 or flat.outputs.size != 3:
            raise NotDifferentiableError(
                f"{flat.call}: the curl is that of three outputs by three coordinates. Select "
                "them with wrt= and of=." + _both(flat)
            )
        parts = slices(flat.outputs.specs)
        entries = [np.arange(part.start, part.stop) for part in parts]
        pairs = _pairs(flat) or range(len(parts))
        return np.concatenate([entries[k] for k in pairs])

    def _plan(self, flat: FlatCall, selected: Any) -> Any:
        field = _Field(flat)
        plan = plan_first(field, selected)
        self._rows(field)
        return plan


class DirectionalDerivativeTransform(_Operator[P, R]):
    """What `adk.directional_derivative` returns."""

    _derivative_order: int = eqx.field(static=True)

    _verb = "directional_derivative"

    def __init__(self, function: Callable[P, R], options: Options, order: Any) -> None:
        super().__init__(function, options)
        call = f"{self._verb}({name_of(function)})"
        if isinstance(order, bool) or not is_index(order) or order < 1:
            raise SelectionError(
                f"{call}: order={order!r} is not a positive integer. Pass 1, or more."
            )
        self._derivative_order = operator.index(order)
        if "direction" in as_function(function).signature.parameters:
            raise SignatureError(
                f"{call}: the function has an argument that is called 'direction', as is that of "
                "the derivative. Wrap it in a function whose argument has another name."
            )

    @property
    def _chosen(self) -> dict[str, Any]:
        order = self._derivative_order
        return super()._chosen | ({} if order == 1 else {"order": order})

    def _of(self, function: Any) -> "DirectionalDerivativeTransform[P, R]":
        return DirectionalDerivativeTransform(function, self._options, self._derivative_order)

    def __call__(self, /, *args: Any, **kwargs: Any) -> DirectionalDerivative[R]:
        order = self._derivative_order
        direction = kwargs.pop("direction", None)
        flat = self._flat(args, kwargs)
        if direction is None:
            names = ", ".join(f"{name}=..." for name in flat.inputs.names)
            raise SignatureError(
                f"{flat.call}: along which direction? Call it with direction=..., a record or a "
                f"dict by argument ({names}), or the bare argument where there is only one."
            )
        tree = flat.inputs.tree
        vector = filled(collect_vector(tree, direction, f"{flat.call}: direction"), tree.specs)
        function = staged(flat, flat.selected, order)
        lines = [leaf[None] for leaf in vector]
        value, aux, found = along_lines(flat, function, flat.selected, lines, order)
        derivative = flat.outputs.unflatten([leaf[0] for leaf in found])
        return DirectionalDerivative(value, aux, flat.name, derivative)

    def _plan(self, flat: FlatCall, selected: Any) -> Any:
        order = self._derivative_order
        function = staged(flat, selected, order)
        return _plan_along(flat, function, selected, order, "along one line")

    def _plan_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # The plan is the same whatever the direction.
        rest = {name: value for name, value in kwargs.items() if name != "direction"}
        return super()._plan_call(args, rest)


def _refuse_complex(flat: FlatCall) -> None:
    rows = [(show(s.path), str(s)) for s in flat.inputs.specs if is_complex(s.dtype)]
    if rows:
        raise NotDifferentiableError(
            f"{flat.call}: coordinates are real. Take real and imaginary parts as coordinates, or "
            "leave these out of wrt." + listed(columns(rows))
        )


def _both(flat: FlatCall) -> str:
    rows = [("coordinates", show(s.path), str(s)) for s in flat.inputs.specs]
    rows += [("output", show(s.path), str(s)) for s in flat.outputs.specs]
    return listed(columns(rows))
