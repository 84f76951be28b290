"""Calls of the transforms themselves: what is no option of theirs is told apart."""

import contextlib
import functools
import inspect
import typing
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

from autodiffkit._errors import SignatureError, nearest
from autodiffkit._function import as_function, name_of

F = TypeVar("F", bound=Callable[..., Any])

_OF_JAX = ("argnum", "argnums", "argname", "argnames")


def takes_options(function: F) -> F:
    """Lets a transform say what was meant by arguments that it does not take.

    They are those of JAX's transforms, or of the function that is to be differentiated. To checkers
    the transform stays what it is.
    """
    signature = inspect.signature(function)
    parameters = signature.parameters.values()
    count = sum(x.kind is x.POSITIONAL_ONLY for x in parameters)
    names = [*_names(parameters)]

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        unknown = [name for name in kwargs if name not in names]
        if len(args) > count:
            raise _by_position(function.__name__, args[:count], len(args) - count)
        if unknown:
            raise _unknown(function.__name__, args, unknown[0], kwargs[unknown[0]], names)
        return function(*args, **kwargs)

    return cast("F", checked)


def _names(parameters: Iterable[inspect.Parameter]) -> Iterable[str]:
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY:
            yield parameter.name
        elif parameter.kind is parameter.VAR_KEYWORD:  # `**options: Unpack[...]`
            yield from typing.get_args(parameter.annotation)[0].__annotations__


@contextlib.contextmanager
def noting_shapes(
    function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Generator[None, None, None]:
    """Adds a note to what fails where a tuple of integers came, which may be meant as a shape.

    The error stays as it is: such a tuple may be what the function takes, and the fault another.
    """
    try:
        yield
    except (AttributeError, TypeError) as error:
        names = _arguments(function)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        for name, value in given.items():
            if isinstance(value, tuple) and value and all(type(x) is int for x in value):
                error.add_note(
                    f"The argument {name!r} is the tuple {value!r}. If an array of that shape is "
                    f"meant, pass jax.ShapeDtypeStruct({value!r}, jnp.float32)."
                )
        raise


def _by_position(name: str, functions: Sequence[Any], more: int) -> SignatureError:
    call = f"{name}({', '.join(map(_name, functions))}"
    arguments = _arguments(functions[0])[:more]
    listed = ", ".join(arguments) if len(arguments) == more else "..."
    return SignatureError(
        f"{call}, ...) takes no more than that by position. Write {call})({listed}) to call "
        "what it returns, and wrt= to select arguments by name."
    )


def _unknown(
    name: str, functions: Sequence[Any], unknown: str, value: Any, names: Sequence[str]
) -> SignatureError:
    call = f"{name}({', '.join(map(_name, functions))})"
    arguments = _arguments(functions[0]) if functions else []
    if unknown in _OF_JAX:
        return SignatureError(
            f"{call}: there is no option {unknown!r}, because arguments are selected by name. "
            f"Pass {_selection(arguments, value)}."
        )
    if unknown in arguments:
        return SignatureError(
            f"{call}: {unknown!r} is an argument of the function and no option. Pass it to what "
            f"{name} returns: {call}({unknown}=...)."
        )
    known = nearest(unknown, names, "Leave it out.")
    return SignatureError(f"{call}: there is no option {unknown!r}{known}")


def _selection(arguments: Sequence[str], value: Any) -> str:
    """What to write in the place of JAX's positions or names."""
    given = value if isinstance(value, (tuple, list)) else [value]
    try:
        found = [x if isinstance(x, str) else arguments[x] for x in given]
    except (IndexError, TypeError):
        found = []
    if not found:
        return "wrt= with the name of the argument, or with a tuple of several"
    return f"wrt={found[0]!r}" if len(found) == 1 else f"wrt={tuple(found)!r}"


def _name(function: Any) -> str:
    if isinstance(function, str):  # the likelihood of `fisher`
        return repr(function)
    return name_of(function) if callable(function) else "f"


def _arguments(function: Any) -> list[str]:
    """The names of the function's arguments, as far as they are known."""
    try:
        found = as_function(function)
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return [x.name for x in found.signature.parameters.values() if x.kind not in kinds]
    except (SignatureError, TypeError, ValueError):
        return []
