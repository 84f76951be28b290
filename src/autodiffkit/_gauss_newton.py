"""Generalised Gauss-Newton matrices, and Fisher information, as linear maps."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, ParamSpec, TypeVar, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array

from autodiffkit._block_table import BlockTable, from_function
from autodiffkit._derivative import linear_map
from autodiffkit._errors import (
    NotDifferentiableError,
    NotDifferentiatedError,
    SelectionError,
    SignatureError,
)
from autodiffkit._flat_call import FlatCall, Options
from autodiffkit._function import as_function, name_of
from autodiffkit._inputs import Inputs
from autodiffkit._leaves import block_spec, describe_leaf
from autodiffkit._linear_map import LinearMap
from autodiffkit._linearized import Linearized
from autodiffkit._options import takes_options
from autodiffkit._paths import component, show
from autodiffkit._plan import Plan
from autodiffkit._planning import Mode
from autodiffkit._result import Gradient
from autodiffkit._selection import Wrt
from autodiffkit._symmetric import SymmetricMatrix, number
from autodiffkit._transforms import HvpTransform, Transform, linearized
from autodiffkit._trees import Tree, Values

P = ParamSpec("P")
R = TypeVar("R")

Likelihood = Literal["gaussian", "bernoulli", "categorical", "poisson"]


class GaussNewton(LinearMap[R]):
    """`J.T @ H @ J`, with the Jacobian of a model and the Hessian of a loss of its output."""

    _jacobian: Linearized[Any]
    _outer: Linearized[Any]
    _result: Values
    _gradient: Any  # None of a Fisher matrix
    _label: str = eqx.field(static=True)
    _is_semidefinite: bool = eqx.field(static=True)

    @property
    def value(self) -> R:
        """The loss; of a Fisher matrix, the model's output."""
        return self._result.tree

    @property
    def aux(self) -> Any:
        """The auxiliary data that the model returned, `None` without `has_aux`."""
        return self._jacobian.aux

    @property
    def grad(self) -> Gradient[R]:
        """The gradient of the loss."""
        if self._gradient is None:
            raise NotDifferentiatedError(
                f"{self._name} has no gradient: a Fisher matrix does not depend on what was "
                "observed. adk.gauss_newton has that of its loss."
            )
        return self._gradient

    @property
    def _domain(self) -> Tree:
        return self._jacobian._domain

    @property
    def _codomain(self) -> Tree:
        return number(jnp.float32).compose(self._domain)

    @property
    def _arguments(self) -> Inputs:
        return self._jacobian._arguments

    @property
    def _name(self) -> str:
        return self._label

    @property
    def _sweep_mode(self) -> str:
        return self._jacobian._sweep_mode

    @property
    def _tags(self) -> frozenset[object]:
        if self._is_semidefinite:
            return frozenset({lx.symmetric_tag, lx.positive_semidefinite_tag})
        return frozenset({lx.symmetric_tag})

    def _apply(self, tangents: list[Array | None]) -> list[Array]:
        moved = self._outer._apply([*self._jacobian._apply(tangents)])
        return self._jacobian._apply_transpose([*moved])

    def _apply_transpose(self, cotangents: list[Array | None]) -> list[Array]:
        return self._apply(cotangents)

    def _refuse_batched(self) -> None:
        self._jacobian._refuse_batched()
        self._outer._refuse_batched()

    def _stored(self, blocks: BlockTable) -> SymmetricMatrix:
        return SymmetricMatrix._pack(
            (blocks,),
            self._arguments,
            number(jnp.float32),
            self._name,
            _is_semidefinite=self._is_semidefinite,
        )


class _OuterHessian(HvpTransform[P, R]):
    """The Hessian of the loss, in messages the user's call."""

    _verb = "gauss_newton"


class GaussNewtonTransform(Transform[P, R]):
    """What `adk.gauss_newton` and `adk.fisher` return."""

    _loss: Any = eqx.field(static=True)

    _verb = "gauss_newton"
    _has_blocks = False
    _is_fisher: ClassVar[bool] = False

    def __init__(
        self, model: Callable[P, Any], loss: Callable[[Any], Any], options: Options
    ) -> None:
        super().__init__(model, options)
        function = as_function(loss)
        try:
            function.signature.bind(None)
        except TypeError as error:
            raise SignatureError(
                f"{self._verb}({name_of(model)}, {function.name}): {error}. The loss is called "
                "with the model's output alone. Let it close over the rest, as in "
                f"lambda output: {function.name}(output, y)."
            ) from None
        self._loss = _OuterHessian(loss, Options(scalar="loss", typecheck=options.typecheck))

    @property
    def _beside(self) -> tuple[str, ...]:
        return (_name_of_loss(self._loss.__wrapped__),)

    def _of(self, function: Any) -> "GaussNewtonTransform[P, R]":
        return type(self)(function, self._loss.__wrapped__, self._options)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> LinearMap[R]:
        flat = self._flat(args, kwargs)
        return self._map(flat, flat.selected)

    def _map(self, flat: FlatCall, selected: Sequence[Any]) -> GaussNewton[Any]:
        found, linear = linear_map(flat, selected)
        jacobian = linearized(flat, found, linear, found.outputs, None)
        output = found.value.tree
        outer = self._loss(output)
        if [s.shape for s in outer._domain.specs] != [s.shape for s in found.outputs.specs]:
            raise NotDifferentiableError(
                f"{flat.call}: the loss is differentiated by all of the model's output, but what "
                f"{name_of(self._loss.__wrapped__)} takes has other leaves. Let the "
                "model return what the loss takes, and the rest as auxiliary data (has_aux=True)."
            )
        label = f"{flat.call[:-1]}, {name_of(self._loss.__wrapped__)})"
        if self._is_fisher:
            value, gradient = found.value, None
        else:
            value = outer._value
            gradient = _gradient(jacobian, outer, flat.name)
        # What is convex for certain: the log-partition functions that are known here.
        is_semidefinite = self._loss.__wrapped__ in _LIKELIHOODS.values()
        return GaussNewton(jacobian, outer, value, gradient, label, is_semidefinite)

    def _plan(self, flat: FlatCall, selected: Any) -> Plan:
        found = self._map(flat, selected)
        return found._plan(found._name)


class FisherTransform(GaussNewtonTransform[P, R]):
    """What `adk.fisher` returns."""

    _verb = "fisher"
    _is_fisher = True

    def __init__(
        self, model: Callable[P, Any], loss: Callable[[Any], Any], options: Options
    ) -> None:
        super().__init__(model, loss, options)


def _name_of_loss(loss: Any) -> str:
    """The name that a likelihood is passed by, or that of the user's function."""
    known = [repr(name) for name, function in _LIKELIHOODS.items() if function is loss]
    return known[0] if known else name_of(loss)


def _gradient(jacobian: Linearized[Any], outer: Linearized[Any], name: str) -> Gradient[Any]:
    leaves = jacobian._apply_transpose([*outer.grad._blocks[0]])
    outputs, sources = outer.grad._outputs, jacobian._domain.specs
    (target,) = outputs.specs
    table = from_function(
        lambda _, j: leaves[j].astype(block_spec(target, sources[j]).dtype), [target], sources
    )
    inputs = jacobian._arguments
    return Gradient._pack((table, outer._value, jacobian._aux), inputs, outputs, name)


# Losses -------------------------------------------------------------------------


def _sum_over_leaves(function: Callable[[Array], Array]) -> Callable[[Any], Array]:
    def total(output: Any) -> Array:
        leaves = [x for x in jax.tree.leaves(output) if eqx.is_inexact_array(x)]
        return sum((jnp.sum(function(leaf)) for leaf in leaves[1:]), jnp.sum(function(leaves[0])))

    return total


def gaussian(output: Any) -> Array:
    """Half the sum of squares: a mean, with variance one."""
    return _sum_over_leaves(lambda x: jnp.square(x) / 2)(output)


def bernoulli(output: Any) -> Array:
    """The sum of `log(1 + exp(x))`: log odds."""
    return _sum_over_leaves(jax.nn.softplus)(output)


def categorical(output: Any) -> Array:
    """The sum of logarithms of sums of exponentials along the last axis: logits."""
    for keys, leaf in jax.tree_util.tree_flatten_with_path(output)[0]:
        if jnp.ndim(leaf) == 0:
            path = show(tuple(map(component, keys))) or "the output"
            raise NotDifferentiableError(
                f"fisher: categorical logits lie along the last axis, and {path} is "
                f"{describe_leaf(leaf)}. Return an array of logits, or use 'bernoulli'."
            )
    return _sum_over_leaves(lambda x: jax.nn.logsumexp(x, axis=-1))(output)


def poisson(output: Any) -> Array:
    """The sum of exponentials: logarithms of rates."""
    return _sum_over_leaves(jnp.exp)(output)


_LIKELIHOODS: dict[str, Callable[[Any], Array]] = {
    "gaussian": gaussian,
    "bernoulli": bernoulli,
    "categorical": categorical,
    "poisson": poisson,
}


# The transforms -----------------------------------------------------------------


@takes_options
def gauss_newton(
    model: Callable[P, Any],
    loss: Callable[[Any], Any],
    /,
    *,
    wrt: Wrt = None,
    mode: Mode = "auto",
    has_aux: bool = False,
    typecheck: bool = True,
) -> GaussNewtonTransform[P, Array]:
    """The generalised Gauss-Newton matrix of `loss(model(...))`, as a linear map.

    It is `J.T @ H @ J`, with the Jacobian of the model and the Hessian of the loss by the model's
    output: the part of the Hessian without second derivatives of the model, positive semidefinite
    where the loss is convex (Schraudolph, *Fast curvature matrix-vector products for second-order
    gradient descent*, 2002).

    Args:
        model: A function of named arguments, or a callable `eqx.Module`.
        loss: A function of the model's output that returns a real scalar. What else it needs, such
            as observations, it closes over.
        wrt: Which inputs of the model, as for `jacobian`.
        mode: The mode in which the matrix is swept; products need none.
        has_aux: Whether the model returns a pair `(output, aux)`.
        typecheck: As for `jacobian`.

    Returns:
        A callable Equinox module with the signature of the model. It runs model and loss once and
            returns a `LinearMap`: `G.mv(params=dp)` is a record by argument, `G.value` the
            loss, `G.grad` its gradient, and `G.materialise()` a `SymmetricMatrix`, swept by the
            plan for the product as a whole.

    Raises:
        SignatureError: If the model or the loss cannot be called.
    """
    if not callable(loss):
        raise SignatureError(
            f"gauss_newton takes a model and a loss, a function of its output; got {loss!r}. "
            "Pass a function for each."
        )
    options = Options(wrt=wrt, mode=mode, has_aux=has_aux, typecheck=typecheck)
    return GaussNewtonTransform(model, loss, options)


@overload
def fisher(
    model: Callable[P, tuple[R, Any]],
    likelihood: Likelihood | Callable[[Any], Any] = ...,
    /,
    *,
    has_aux: Literal[True],
    wrt: Wrt = ...,
    mode: Mode = ...,
    typecheck: bool = ...,
) -> FisherTransform[P, R]: ...
@overload
def fisher(
    model: Callable[P, R],
    likelihood: Likelihood | Callable[[Any], Any] = ...,
    /,
    *,
    has_aux: Literal[False] = ...,
    wrt: Wrt = ...,
    mode: Mode = ...,
    typecheck: bool = ...,
) -> FisherTransform[P, R]: ...
@takes_options
def fisher(
    model: Callable[..., Any],
    likelihood: Likelihood | Callable[[Any], Any] = "gaussian",
    /,
    *,
    wrt: Wrt = None,
    mode: Mode = "auto",
    has_aux: bool = False,
    typecheck: bool = True,
) -> Any:
    """The Fisher information of a model's arguments, as a linear map.

    The model returns the natural parameters of an exponential family. Then the Fisher information
    is the Gauss-Newton matrix of the log-partition function, whatever was observed (Martens, *New
    insights and perspectives on the natural gradient method*, 2020).

    Args:
        model: A function of named arguments, or a callable `eqx.Module`.
        likelihood: What the output says of the observations. `"gaussian"`: means, of variance one
            (for another one, divide the result by it); `"bernoulli"`: log odds; `"categorical"`:
            logits along the last axis; `"poisson"`: logarithms of rates. Of another family, the
            log-partition function: a function of the output that returns a real scalar.
        wrt: Which inputs of the model, as for `jacobian`.
        mode: The mode in which the matrix is swept; products need none.
        has_aux: Whether the model returns a pair `(output, aux)`.
        typecheck: As for `jacobian`.

    Returns:
        A callable Equinox module with the signature of the model. It runs the model once and
            returns a `LinearMap`, whose `value` is the model's output and whose `materialise()`
            is a `SymmetricMatrix`.

    Raises:
        SelectionError: If there is no such likelihood.
    """
    loss: Any = _LIKELIHOODS.get(likelihood) if isinstance(likelihood, str) else likelihood
    if loss is None:
        raise SelectionError(
            f"fisher: there is no likelihood {likelihood!r}; it is one of "
            f"{', '.join(map(repr, _LIKELIHOODS))}, or a log-partition function of the output."
        )
    if not callable(loss):
        raise SelectionError(
            f"fisher: the likelihood is a name or a function of the output; got {likelihood!r}. "
            f"Pass one of {', '.join(map(repr, _LIKELIHOODS))}, or a log-partition function."
        )
    options = Options(wrt=wrt, mode=mode, has_aux=has_aux, typecheck=typecheck)
    return FisherTransform(model, loss, options)
