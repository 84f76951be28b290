"""The callables that the transforms return: Equinox modules that wrap a function."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    cast,
    overload,
    runtime_checkable,
)

import equinox as eqx
import jax
from jaxtyping import Array

from autodiffkit._ahead import Compiled
from autodiffkit._annotations import annotations_of_blocks
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
from autodiffkit._function import BoundMethod, Function, Opaque, as_function, name_of
from autodiffkit._function_hints import FunctionHints, hints_of
from autodiffkit._hessian import Hessian
from autodiffkit._jax_compat import is_eager
from autodiffkit._leaves import canonical
from autodiffkit._limits import Limits, check_limits
from autodiffkit._linear_map import LinearMap
from autodiffkit._linearized import Linearized
from autodiffkit._options import noting_shapes
from autodiffkit._pairs import bare
from autodiffkit._plan import Plan
from autodiffkit._planning import check_layout, check_mode
from autodiffkit._program import Linear
from autodiffkit._result import Gradient, Jacobian
from autodiffkit._selection import check_blocks, check_selection
from autodiffkit._signature import bind
from autodiffkit._taylor import NO_VALUES
from autodiffkit._trees import Tree
from autodiffkit._typecheck import is_enabled, result_node

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
D = TypeVar("D")  # a derivative

_INNER = {"limits", "scalar"}  # options that nobody passes under these names
_WRAPPED = ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__")


@runtime_checkable
class PlanCall(Protocol[P]):
    """Takes what the function takes, and structures in the place of arrays."""

    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Plan: ...
    @overload
    def __call__(self, /, *args: Any, **kwargs: Any) -> Plan: ...


@runtime_checkable
class CompileCall(Protocol[P, D]):
    """Takes what the function takes, and structures in the place of arrays."""

    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Compiled[P, D]: ...
    @overload
    def __call__(self, /, *args: Any, **kwargs: Any) -> Compiled[P, D]: ...


class Transform(eqx.Module, Generic[P, R]):
    """A function that returns a derivative; made by `adk.jacobian` and its siblings.

    It is a pytree whose leaves are those of the wrapped callable, and it compares and
    hashes by identity, so that `jax.jit` takes it like any function.
    """

    _function: Any  # a module, or any other callable as an `Opaque`
    _options: Options = eqx.field(static=True)

    _verb = ""
    _order: ClassVar[int] = 1
    _has_blocks: ClassVar[bool] = True

    def __init__(self, function: Callable[P, R], options: Options) -> None:
        if isinstance(function, classmethod):
            raise SignatureError(
                f"{self._verb} takes a function, and @classmethod makes something else of it; "
                f"write @classmethod above @adk.{self._verb}."
            )
        if not callable(function):
            raise SignatureError(
                f"{self._verb} takes a function or a callable module; got {function!r}. Pass "
                f"the function itself, and its arguments to the result: adk.{self._verb}(f)(x)."
            )
        call = f"{self._verb}({name_of(function)})"
        check_mode(call, options.mode)
        check_layout(call, options.layout, has_blocks=self._has_blocks)
        self._function = function if isinstance(function, eqx.Module) else Opaque(function)
        self._options = dataclasses.replace(
            options,
            wrt=check_selection(call, "wrt", options.wrt),
            of=check_selection(call, "of", options.of),
            blocks=check_blocks(call, options.blocks),
            limits=check_limits(call, options.limits, options.layout),
        )
        # As `functools.wraps` does, and `eqx.module_update_wrapper`, which makes a copy.
        for name in _WRAPPED:
            with contextlib.suppress(AttributeError):
                setattr(self, name, getattr(function, name))

    def __reduce__(self) -> tuple[Any, ...]:
        # The annotations stay with the function: `jax.Array` cannot be pickled.
        state = {k: value for k, value in vars(self).items() if k != "__annotations__"}
        return _restored, (type(self), state)

    @property
    def __wrapped__(self) -> Callable[P, R]:
        held = self._function
        return held.function if isinstance(held, Opaque) else held

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        # Like in Python itself, only what would have become a method does.
        wrapped = self.__wrapped__
        if (
            instance is None
            or isinstance(wrapped, staticmethod)
            or not hasattr(type(wrapped), "__get__")
        ):
            return self
        return self._of(BoundMethod(self.__wrapped__, instance))

    def _of(self, function: Any) -> "Transform[P, R]":
        """The same transform of another function."""
        return type(self)(function, self._options)

    # A module compares by its leaves, which may be arrays; a function by identity.
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        """The call that makes it: `adk.grad(f, wrt='x')`, with the options that were chosen."""
        wrapped = self.__wrapped__
        function = repr(wrapped) if isinstance(wrapped, Transform) else as_function(wrapped).name
        options = [f"{name}={_written(value)}" for name, value in self._chosen.items()]
        return f"adk.{self._verb}({', '.join([function, *self._beside, *options])})"

    def __pdoc__(self, **kwargs: Any) -> Any:  # how it is laid out
        # What Equinox prints of a module that holds this one asks for it.
        from wadler_lindig import TextDoc  # noqa: PLC0415

        return TextDoc(repr(self))

    @property
    def _beside(self) -> tuple[str, ...]:
        """What comes after the function in the call that makes it."""
        return ()

    @property
    def _chosen(self) -> dict[str, Any]:
        """The options that are not the default."""
        options = self._options
        fields = [field for field in dataclasses.fields(options) if field.name not in _INNER]
        found = {field.name: (getattr(options, field.name), field.default) for field in fields}
        defaults = Limits._field_defaults
        found |= {k: (x, defaults[k]) for k, x in options.limits._asdict().items()}
        return {k: x for k, (x, default) in found.items() if x not in (default, None)}

    def _flat(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, abstract: bool = False
    ) -> FlatCall:
        function = as_function(self.__wrapped__)
        call = f"{self._verb}({function.name})"
        wrt, hints = self._options.wrt, self._hints(function)
        bound = bind(call, function, wrt, args, kwargs, hints=hints, abstract=abstract)
        return FlatCall(call, function.name, bound, self._options)

    def _hints(self, function: Function) -> FunctionHints:
        is_wanted = self._options.typecheck and is_enabled()
        return hints_of(function) if is_wanted else FunctionHints()

    def _plan(self, flat: FlatCall, selected: Any) -> Any:
        return plan_first(flat, selected)

    @property
    def annotations(self) -> Mapping[str | tuple[str, ...], Any]:
        """The annotations of the blocks by path, as far as those of the function say them.

        They are jaxtyping types, for signatures and `isinstance`: where `x: Float[Array, "n"]`
        becomes `Float[Array, "m"]`, a Jacobian's `annotations["x"]` is `Float[Array, "m n"]`. Those
        of a Hessian are found under pairs: `annotations["x", "y"]`; where the function returns
        several arrays, the path of the output comes first. What has no annotation, or none that
        is valid (with two variadic dimensions), is left out.
        """
        function, options = as_function(self.__wrapped__), self._options
        hints = hints_of(function)
        names = [*function.signature.parameters, *(function.bound or ())[:1]]
        taken = {name: node for name, node in hints.parameters.items() if name in names}
        hints = dataclasses.replace(hints, parameters=taken)
        return annotations_of_blocks(
            hints,
            None if function.bound is None else function.bound[0],
            result_node(hints, has_aux=options.has_aux),
            order=self._order,
            wrt=options.wrt,
            of=options.of,
            scalar=bool(options.scalar),
        )

    @property
    def plan(self) -> PlanCall[P]:
        """Which sweeps a call would run, and why: `transform.plan(*args, **kwargs)`.

        It takes what the call itself takes, where arrays may be `jax.ShapeDtypeStruct`s, and
        returns a `Plan`. The function is traced and nothing is differentiated; it runs only if
        tracing needs the value of an argument (Python control flow on it). Where only a
        structure was given then, that is a `SignatureError`.
        """

        # No method: Equinox binds those in a way that claims the keyword `self`.
        def plan(*args: P.args, **kwargs: P.kwargs) -> Plan:
            with noting_shapes(self.__wrapped__, args, kwargs):
                return self._plan_call(args, kwargs)

        return plan

    @property
    def compile(self) -> CompileCall[P, Any]:
        """Compiles ahead of time: `transform.compile(*args, **kwargs)`.

        It takes what the call itself takes, where arrays may be `jax.ShapeDtypeStruct`s, and
        returns a `Compiled`: called with arguments of the same shapes and dtypes, it gives what
        the transform gives, and it says what memory and work that takes. Arrays, floats and
        complex numbers are its arguments; whatever else was passed is part of what is compiled.
        """

        def ahead(*args: P.args, **kwargs: P.kwargs) -> Compiled[P, Any]:
            function, run = as_function(self.__wrapped__), cast("Any", self)
            with noting_shapes(self.__wrapped__, args, kwargs):
                return Compiled(f"{self._verb}({function.name})", function, run, args, kwargs)

        return ahead

    def _plan_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        flat = self._flat(args, kwargs, abstract=True)
        plans: list[Any] = []

        def trace(selected: list[Array], structs: list[Array]) -> None:
            plans.append(self._plan(flat.with_structs(structs), selected))

        # JAX warns of structures in dtypes that it does not have.
        given = [[canonical(x) for x in leaves] for leaves in (flat.selected, flat.structs)]
        try:
            jax.eval_shape(trace, *given)
        except NO_VALUES as error:
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


def _restored(kind: type[Transform[Any, Any]], state: dict[str, Any]) -> Transform[Any, Any]:
    """A transform from its pickle."""
    transform = object.__new__(kind)
    for name, value in state.items():
        object.__setattr__(transform, name, value)
    with contextlib.suppress(AttributeError):
        annotations = transform.__wrapped__.__annotations__
        object.__setattr__(transform, "__annotations__", annotations)
    return transform


def _written(value: Any) -> str:
    """An option as it was passed; a predicate by its name."""
    return name_of(value) if callable(value) else repr(value)


class JacobianTransform(Transform[P, R]):
    """What `adk.jacobian` returns."""

    _verb = "jacobian"

    if TYPE_CHECKING:

        @property
        def compile(self) -> CompileCall[P, Jacobian[R]]: ...

        @overload
        def __get__(self, instance: None, owner: Any = None) -> Self: ...
        @overload
        def __get__(
            self: "JacobianTransform[Concatenate[Any, Q], R]", instance: object, owner: Any = None
        ) -> "JacobianTransform[Q, R]": ...
        def __get__(self, instance: Any, owner: Any = None) -> Any: ...

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Jacobian[R]:
        flat = self._flat(args, kwargs)
        found = first_derivative(flat)
        parts = (found.first, found.value, found.aux)
        return Jacobian._pack(parts, found.inputs, found.outputs, flat.name)


class GradTransform(Transform[P, R]):
    """What `adk.grad` returns."""

    _verb = "grad"

    if TYPE_CHECKING:

        @property
        def compile(self) -> CompileCall[P, Gradient[R]]: ...

        @overload
        def __get__(self, instance: None, owner: Any = None) -> Self: ...
        @overload
        def __get__(
            self: "GradTransform[Concatenate[Any, Q], R]", instance: object, owner: Any = None
        ) -> "GradTransform[Q, R]": ...
        def __get__(self, instance: Any, owner: Any = None) -> Any: ...

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Gradient[R]:
        flat = self._flat(args, kwargs)
        return gradient_of(flat, first_derivative(flat))


class HessianTransform(Transform[P, R]):
    """What `adk.hessian` returns."""

    _verb = "hessian"
    _order = 2

    if TYPE_CHECKING:

        @property
        def compile(self) -> CompileCall[P, Hessian[R]]: ...

        @overload
        def __get__(self, instance: None, owner: Any = None) -> Self: ...
        @overload
        def __get__(
            self: "HessianTransform[Concatenate[Any, Q], R]", instance: object, owner: Any = None
        ) -> "HessianTransform[Q, R]": ...
        def __get__(self, instance: Any, owner: Any = None) -> Any: ...

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Hessian[R]:
        flat = self._flat(args, kwargs)
        found = second_derivative(flat)
        parts = (found.second, found.value, found.aux, found.first)
        return Hessian._pack(parts, found.inputs, found.outputs, flat.name)

    def _plan(self, flat: FlatCall, selected: Any) -> Plan:
        return plan_second(flat, selected)


class LinearizeTransform(Transform[P, R]):
    """What `adk.linearize` returns."""

    _verb = "linearize"
    _has_blocks = False

    if TYPE_CHECKING:

        @property
        def compile(self) -> CompileCall[P, LinearMap[R]]: ...

        @overload
        def __get__(self, instance: None, owner: Any = None) -> Self: ...
        @overload
        def __get__(
            self: "LinearizeTransform[Concatenate[Any, Q], R]", instance: object, owner: Any = None
        ) -> "LinearizeTransform[Q, R]": ...
        def __get__(self, instance: Any, owner: Any = None) -> Any: ...

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> LinearMap[R]:
        flat = self._flat(args, kwargs)
        found, linear = linear_map(flat)
        return linearized(flat, found, linear, found.outputs, None)


class HvpTransform(Transform[P, R]):
    """What `adk.hvp` returns."""

    _verb = "hvp"
    _has_blocks = False
    _order = 2

    if TYPE_CHECKING:

        @property
        def compile(self) -> CompileCall[P, LinearMap[R]]: ...

        @overload
        def __get__(self, instance: None, owner: Any = None) -> Self: ...
        @overload
        def __get__(
            self: "HvpTransform[Concatenate[Any, Q], R]", instance: object, owner: Any = None
        ) -> "HvpTransform[Q, R]": ...
        def __get__(self, instance: Any, owner: Any = None) -> Any: ...

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> LinearMap[R]:
        flat = self._flat(args, kwargs)
        found, linear = second_linear_map(flat)
        outputs = bare(found.outputs).compose(found.inputs.tree)
        return linearized(flat, found, linear, outputs, gradient_of(flat, found))

    def _plan(self, flat: FlatCall, selected: Any) -> Plan:
        return plan_second(flat, selected)


def gradient_of(flat: FlatCall, found: Evaluated) -> Gradient[Any]:
    """The first derivatives of a scalar by names."""
    parts = (found.first, found.value, found.aux)
    return Gradient._pack(parts, found.inputs, bare(found.outputs), flat.name)


def linearized(
    flat: FlatCall, found: Evaluated, linear: Linear, outputs: Tree, gradient: Gradient[Any] | None
) -> Linearized[Any]:
    """The tangent map by names."""
    return Linearized(
        linear,
        found.value,
        found.aux,
        gradient,
        found.inputs,
        outputs,
        flat.name,
        flat.mode,
        flat.holomorphic,
        flat.limits,
    )
