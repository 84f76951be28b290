"""The user's callable: its name, its signature, and the object that it is bound to."""

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

import equinox as eqx


@dataclasses.dataclass(frozen=True)
class Function:
    """The user's function, with the object that it is bound to, if any, set apart.

    A callable module is bound to itself, a method to its `self`. That object is an
    argument like the others, but constant unless `wrt` names it.
    """

    name: str
    call: Callable[..., Any]  # takes the bound object first, if there is one
    bound: tuple[str, Any] | None
    source: Callable[..., Any]  # what the user would call

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        """The parameters that the user passes."""
        try:
            return inspect.signature(self.source)
        except (ValueError, TypeError):  # a builtin that does not tell
            return inspect.Signature([
                inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
            ])

    def __str__(self) -> str:
        parameters = [
            parameter.replace(annotation=inspect.Parameter.empty)
            for parameter in self.signature.parameters.values()
        ]
        return f"{self.name}{inspect.Signature(parameters)}"


def as_function(f: Callable[..., Any]) -> Function:
    """Takes a callable apart into what is called and what it is bound to."""
    if hasattr(f, "__func__") and hasattr(f, "__self__"):
        method: Any = f
        return _bound(method.__func__, method.__self__, f)
    if type(f) is eqx.Partial:
        # What binding a method that `eqx.filter_jit` or its siblings wrapped gives.
        partial: Any = f
        source = functools.partial(partial.func, *partial.args, **partial.keywords)
        if len(partial.args) == 1 and not partial.keywords:
            return _bound(partial.func, partial.args[0], source)
        return Function(name_of(f), f, None, source)
    if isinstance(f, eqx.Module):
        # Through the class, so that a copy of the module with other leaves can be called.
        module: Any = f
        call = type(module).__call__
        # Python asks an instance for the parameters of a descriptor, which has lost them.
        is_wrapped = hasattr(call, "__wrapped__") and not hasattr(module, "__wrapped__")
        source = functools.partial(call, module) if is_wrapped else module
        return _unambiguous(Function(name_of(f), call, ("self", module), source))
    return Function(name_of(f), f, None, f)


def _bound(function: Callable[..., Any], instance: Any, source: Callable[..., Any]) -> Function:
    try:
        name = next(iter(inspect.signature(function).parameters), "self")
    except (ValueError, TypeError):  # a builtin that does not tell
        name = "self"
    return _unambiguous(Function(name_of(function), function, (name, instance), source))


def _unambiguous(function: Function) -> Function:
    """The bound object without a name where a parameter has the same one."""
    assert function.bound is not None
    name, instance = function.bound
    if name not in function.signature.parameters:
        return function
    return dataclasses.replace(function, bound=("<bound>", instance))


def name_of(f: Any) -> str:
    """The name of a callable for messages; that of the class if it has none of its own."""
    if isinstance(f, (functools.partial, eqx.Partial)):
        return name_of(f.func)
    name, wrapped = getattr(f, "__name__", None), getattr(f, "__wrapped__", None)
    # A transformed module or partial function has no name, or that of the class of a wrapper.
    is_name = isinstance(name, str) and name not in (_UNNAMED, type(wrapped).__name__)
    if wrapped is not None and not is_name:
        return name_of(wrapped)
    return name if isinstance(name, str) else type(f).__name__


_UNNAMED = "<unnamed function>"  # as JAX calls what it has wrapped


@dataclasses.dataclass(frozen=True)
class Opaque:
    """Holds a function that is no pytree, for a field of a module.

    Equinox warns of modules that hold a jitted or vmapped one, for the sake of parameters
    that are to be updated; a transform has none.
    """

    function: Callable[..., Any]


class BoundMethod(eqx.Module):  # its docstring is the function's
    __func__: Callable[..., Any]
    __self__: Any

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return types.MethodType(self.__func__, self.__self__)

    @property
    def __name__(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]  # as of a function
        return name_of(self.__func__)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]  # as above
        return getattr(self.__func__, "__doc__", None)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self.__func__(self.__self__, *args, **kwargs)
