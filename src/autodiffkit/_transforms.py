"""The callables that the transforms return: Equinox modules that wrap a function."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, Self

import equinox as eqx
import jax
from jaxtyping import Array

from autodiffkit._derivative import (
    Evaluated,
    first_derivative,
    linear_map,
    plan_first,
    plan_second,
    second_derivative,
    second_linear_map,
)
from autodiffkit._errors import SignatureError
from autodiffkit._flat_call import FlatCall, Options
from autodiffkit._function import BoundMethod, Opaque, as_function, name_of
from autodiffkit._hessian import Hessian, bare
from autodiffkit._jax_compat import is_eager
from autodiffkit._linear_map import LinearMap
from autodiffkit._plan import Plan
from autodiffkit._planning import check_mode
from autodiffkit._program import Linear
from autodiffkit._result import Gradient, Jacobian
from autodiffkit._selection import check_selection
from autodiffkit._signature import bind
from autodiffkit._trees import Tree

P = ParamSpec("P")

_CONCRETE_NEEDED = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


_WRAPPED = ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__")


class Transform(eqx.Module, Generic[P]):
    """A function that returns a derivative; made by `adk.jacobian` and its siblings.

    It is a pytree whose leaves are those of the wrapped callable, and it compares and
    hashes by identity, so that `jax.jit` takes it like any function.
    """

    _function: Any  # a module, or any other callable as an `Opaque`
    _options: Options = eqx.field(static=True)

    _verb = ""

    def __init__(self, function: Callable[P, Any], options: Options) -> None:
        if isinstance(function, classmethod):
            raise SignatureError(
                f"{self._verb} takes a function, and @classmethod makes something else of it; "
                f"write @classmethod above @adk.{self._verb}."
            )
        if not callable(function):
            raise SignatureError(
                f"{self._verb} takes a function or a callable module; got {function!r}."
            )
        call = f"{self._verb}({name_of(function)})"
        check_mode(call, options.mode)
        self._function = function if isinstance(function, eqx.Module) else Opaque(function)
        self._options = dataclasses.replace(
            options,
            wrt=check_selection(call, "wrt", options.wrt),
            of=check_selection(call, "of", options.of),
        )
        # As `functools.wraps` does, and `eqx.module_update_wrapper`, which makes a copy.
        for name in _WRAPPED:
            with contextlib.suppress(AttributeError):
                setattr(self, name, getattr(function, name))

    @property
    def __wrapped__(self) -> Callable[P, Any]:
        held = self._function
        return held.function if isinstance(held, Opaque) else held

    def __get__(self, instance: Any, owner: Any = None) -> Self:
        # Like in Python itself, only what would have become a method does.
        wrapped = self.__wrapped__
        if (
            instance is None
            or isinstance(wrapped, staticmethod)
            or not hasattr(type(wrapped), "__get__")
        ):
            return self
        return type(self)(BoundMethod(self.__wrapped__, instance), self._options)

    # A module compares by its leaves, which may be arrays; a function by identity.
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def _flat(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, abstract: bool = False
    ) -> FlatCall:
        function = as_function(self.__wrapped__)
        call = f"{self._verb}({function.name})"
        bound = bind(call, function, self._options.wrt, args, kwargs, abstract=abstract)
        return FlatCall(call, function.name, bound, self._options)

    def _plan(self, flat: FlatCall, selected: Any) -> Plan:
        return plan_first(flat, selected)

    @property
    def plan(self) -> Callable[P, Plan]:
        """Which sweeps a call would run, and why: `transform.plan(*args, **kwargs)`.

        It takes what the call itself takes, where arrays may be `jax.ShapeDtypeStruct`s, and
        returns a `Plan`. The function is traced and nothing is differentiated; it runs only if
        tracing needs the value of an argument (Python control flow on it). Where only a
        structure was given then, that is a `SignatureError`.
        """

        # No method: Equinox binds those in a way that claims the keyword `self`.
        def plan(*args: P.args, **kwargs: P.kwargs) -> Plan:
            return self._plan_call(args, kwargs)

        return plan

    def _plan_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Plan:
        flat = self._flat(args, kwargs, abstract=True)
        plans: list[Plan] = []

        def trace(selected: list[Array], structs: list[Array]) -> None:
            plans.append(self._plan(flat.with_structs(structs), selected))

        try:
            jax.eval_shape(trace, flat.selected, flat.structs)
        except _CONCRETE_NEEDED as error:
            if flat.structs or any(isinstance(x, jax.ShapeDtypeStruct) for x in flat.selected):
                raise SignatureError(
                    f"{flat.call}.plan: tracing the function needs the value of an argument, "
                    "and a jax.ShapeDtypeStruct has none. Pass arrays."
                ) from error
            if not is_eager(flat.selected):
                raise
            flat = self._flat(args, kwargs)
            plans.append(self._plan(flat, flat.selected))
        return plans[0]


class JacobianTransform(Transform[P]):
    """What `adk.jacobian` returns."""

    _verb = "jacobian"

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Jacobian:
        flat = self._flat(args, kwargs)
        found = first_derivative(flat)
        return Jacobian(
            found.first,
            found.value,
            found.aux,
            found.inputs,
            found.outputs,
            flat.name,
        )


class GradTransform(Transform[P]):
    """What `adk.grad` returns."""

    _verb = "grad"

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Gradient:
        flat = self._flat(args, kwargs)
        return _gradient(flat, first_derivative(flat))


class HessianTransform(Transform[P]):
    """What `adk.hessian` returns."""

    _verb = "hessian"

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Hessian:
        flat = self._flat(args, kwargs)
        found = second_derivative(flat)
        return Hessian(
            found.second,
            found.value,
            found.aux,
            found.inputs,
            found.outputs,
            flat.name,
            found.first,
        )

    def _plan(self, flat: FlatCall, selected: Any) -> Plan:
        return plan_second(flat, selected)


class LinearizeTransform(Transform[P]):
    """What `adk.linearize` returns."""

    _verb = "linearize"

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> LinearMap:
        flat = self._flat(args, kwargs)
        found, linear = linear_map(flat)
        return _linear_map(flat, found, linear, found.outputs, None)


class HvpTransform(Transform[P]):
    """What `adk.hvp` returns."""

    _verb = "hvp"

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> LinearMap:
        flat = self._flat(args, kwargs)
        found, linear = second_linear_map(flat)
        outputs = bare(found.outputs).compose(found.inputs.tree)
        return _linear_map(flat, found, linear, outputs, _gradient(flat, found))

    def _plan(self, flat: FlatCall, selected: Any) -> Plan:
        return plan_second(flat, selected)


def _gradient(flat: FlatCall, found: Evaluated) -> Gradient:
    return Gradient(
        found.first,
        found.value,
        found.aux,
        found.inputs,
        bare(found.outputs),
        flat.name,
    )


def _linear_map(
    flat: FlatCall, found: Evaluated, linear: Linear, outputs: Tree, gradient: Gradient | None
) -> LinearMap:
    return LinearMap(
        linear,
        found.value,
        found.aux,
        gradient,
        found.inputs,
        outputs,
        flat.name,
        flat.mode,
        flat.holomorphic,
    )
