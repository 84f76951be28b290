"""Transforms that are compiled ahead of time."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.core
import jax.tree_util as jtu
import numpy as np

from autodiffkit._display import Displayed
from autodiffkit._display_text import Display, plain_table
from autodiffkit._errors import SignatureError, columns, listed
from autodiffkit._function import Function
from autodiffkit._leaves import canonical, describe_leaf, is_array
from autodiffkit._paths import Path, component, legible
from autodiffkit._signature import passed_arguments

P = ParamSpec("P")
D = TypeVar("D")  # a derivative
Arguments = tuple[tuple[Any, ...], dict[str, Any]]  # by position and by keyword


class Compiled(Displayed, Generic[P, D]):
    """A transform that was compiled for arguments of these shapes and dtypes.

    It is called like the transform. What was no array, float or complex number when it was compiled
    is a part of it, and has to be the same again.
    """

    def __init__(
        self,
        call: str,
        function: Function,
        transform: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Compiles a transform for these arguments, or structures of them.

        Args:
            call: The transform and the function, for messages.
            function: What the transform differentiates.
            transform: What is compiled.
            args: Positional arguments.
            kwargs: Keyword arguments.
        """
        self._call = call
        self._function = function
        self._keywords = frozenset(kwargs)
        leaves, self._treedef = jtu.tree_flatten((args, kwargs))
        self._are_moving = [_is_moving(leaf) for leaf in leaves]
        self._wide = _is_wide()

        # Structures in the place of arrays, numbers in that of numbers; the rest as it is.
        self._wanted = [_as_struct(leaf) if _is_moving(leaf) else leaf for leaf in leaves]

        def run(moving: list[Any]) -> Any:
            new = iter(moving)
            pairs = zip(self._wanted, self._are_moving, strict=True)
            complete = [next(new) if is_moving else leaf for leaf, is_moving in pairs]
            args, kwargs = jtu.tree_unflatten(self._treedef, complete)
            return transform(*args, **kwargs)

        self._compiled: Any = jax.jit(run).lower(self._moving(leaves)).compile()

    def __copy__(self) -> "Compiled[P, D]":
        return self  # what is compiled does not change

    def __deepcopy__(self, memo: dict[int, Any]) -> "Compiled[P, D]":
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self._call}: what was compiled for the devices of this process cannot be pickled; "
            "pickle the transform, and compile it again where it is unpickled"
        )

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> D:
        """What the transform gives.

        Args:
            args: As when it was compiled, with the same shapes and dtypes.
            kwargs: Likewise.

        Returns:
            The derivative.

        Raises:
            SignatureError: If the arguments are not those that it was compiled for, or are traced.
        """
        given: Arguments = args, kwargs
        treedef: Any  # JAX's annotations do not say what it is
        leaves, treedef = jtu.tree_flatten(given)
        if treedef != self._treedef:
            given = self._as_compiled(args, kwargs)
            leaves, treedef = jtu.tree_flatten(given)
        if treedef != self._treedef or not all(map(_fits, leaves, self._wanted)):
            raise self._other(given)
        moving = self._moving(leaves)
        if any(isinstance(x, jax.core.Tracer) for x in moving):
            raise SignatureError(
                f"{self._call}: what is compiled cannot be traced once more, by jax.jit, jax.vmap, "
                "jax.grad or another transformation. Call the transform itself there."
            )
        if _is_wide() == self._wide:
            return self._compiled(moving)
        with jax.enable_x64(self._wide):  # a float is as wide as when this was compiled
            return self._compiled(moving)

    def memory_analysis(self) -> Any:
        """The bytes of arguments, result and temporaries, as XLA counts them.

        Returns:
            What `jax.stages.Compiled.memory_analysis` gives: `.temp_size_in_bytes`,
                `.output_size_in_bytes` and others; `None` if the backend does not say.
        """
        return self._compiled.memory_analysis()

    def cost_analysis(self) -> Mapping[str, float]:
        """What XLA estimates that a call takes, by name: `"flops"`, `"bytes accessed"`.

        Returns:
            What `jax.stages.Compiled.cost_analysis` gives, empty if the backend does not say.
        """
        return self._compiled.cost_analysis() or {}

    def as_text(self) -> str:
        """The compiled program."""
        return self._compiled.as_text()

    def _display(self) -> Display:
        leaves = self._by_path(jtu.tree_unflatten(self._treedef, self._wanted)).items()
        rows = [(legible(path), _described(leaf)) for path, leaf in leaves if _is_moving(leaf)]
        return Display(f"{self._call}, compiled for", (plain_table(rows, "name", "fixed"),))

    def _moving(self, leaves: list[Any]) -> list[Any]:
        """The leaves that are arguments of what is compiled."""
        return [x for x, is_moving in zip(leaves, self._are_moving, strict=True) if is_moving]

    def _as_compiled(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """The arguments by position and by keyword as when it was compiled."""
        passed = passed_arguments(self._call, self._function, args, kwargs)
        by_position: list[Any] = []
        by_keyword: dict[str, Any] = {}
        for name, value in passed.arguments.items():
            kind = passed.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                by_position += value
            elif kind is inspect.Parameter.VAR_KEYWORD:
                by_keyword |= value
            elif kind is inspect.Parameter.KEYWORD_ONLY or name in self._keywords:
                by_keyword[name] = value
            else:
                by_position.append(value)
        return tuple(by_position), by_keyword

    def _by_path(self, arguments: Arguments) -> dict[Path, Any]:
        """The leaves of the arguments."""
        names = [*self._function.signature.parameters]
        found: dict[Path, Any] = {}
        for keys, leaf in jtu.tree_flatten_with_path(arguments)[0]:
            kind, first, *rest = map(component, keys)
            number = int(first) if kind == "0" else len(names)
            found[names[number] if number < len(names) else first, *rest] = leaf
        return found

    def _other(self, arguments: Arguments) -> SignatureError:
        """What is wrong with arguments that are not those that it was compiled for."""
        given = self._by_path(arguments)
        wanted = self._by_path(jtu.tree_unflatten(self._treedef, self._wanted))
        wrong: list[tuple[str, str]] = []
        for path in dict.fromkeys([*wanted, *given]):
            if path not in given:
                why = f"missing; it was {_described(wanted[path])}"
            elif path not in wanted:
                why = f"{_described(given[path])}, where nothing was passed"
            elif _fits(given[path], wanted[path]):
                continue
            elif _is_moving(given[path]) or _is_moving(wanted[path]):
                why = f"{_described(given[path])} instead of {_described(wanted[path])}"
            else:
                why = f"{describe_leaf(given[path])}, another value than was compiled in"
            wrong.append((legible(path), why))
        wrong = wrong or [("the arguments", "another structure")]
        return SignatureError(
            f"{self._call}: it was compiled for other arguments. Pass what fits, or compile "
            "again." + listed(columns(wrong))
        )


def _is_wide() -> bool:
    return bool(jax.config.read("jax_enable_x64"))


def _is_moving(leaf: Any) -> bool:
    """Whether a leaf is an argument of what is compiled, and no part of it."""
    is_number = isinstance(leaf, (float, complex))
    return is_number or is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _as_struct(leaf: Any) -> Any:
    if isinstance(leaf, (float, complex)) and not isinstance(leaf, np.generic):
        return type(leaf)()  # its type is all that matters
    return canonical(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))


def _fits(new: Any, old: Any) -> bool:
    """Whether a leaf may be passed where this was compiled in, or where there was one like it."""
    if _is_moving(old):
        if isinstance(new, jax.Array) and isinstance(old, jax.ShapeDtypeStruct):  # without words
            return new.shape == old.shape and new.dtype == old.dtype
        return _is_moving(new) and _described(new) == _described(old)
    return not _is_moving(new) and bool(eqx.tree_equal(new, old))


def _described(leaf: Any) -> str:
    is_number = isinstance(leaf, (float, complex)) and not isinstance(leaf, np.generic)
    return f"a {type(leaf).__name__}" if is_number else describe_leaf(leaf)
