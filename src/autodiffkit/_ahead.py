"""Transforms that are compiled ahead of time."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.tree_util as jtu
import numpy as np

from autodiffkit._display import Displayed
from autodiffkit._display_text import Display, plain_table
from autodiffkit._errors import SignatureError, columns, listed
from autodiffkit._leaves import describe_leaf, is_array
from autodiffkit._paths import Path, component, legible, show

P = ParamSpec("P")
D = TypeVar("D")  # a derivative


class Compiled(Displayed, Generic[P, D]):
    """A transform that was compiled for arguments of these shapes and dtypes.

    It is called like the transform. What was no array, float or complex number when it was compiled
    is a part of it, and has to be the same again.
    """

    def __init__(
        self, call: str, names: Sequence[str], compiled: Any, moving: Any, fixed: Any
    ) -> None:
        self._call = call
        self._names = names  # of positional arguments
        self._compiled = compiled
        self._treedef: Any = jtu.tree_structure(moving)
        self._moving = moving  # structures in the place of arrays
        self._fixed = fixed
        self._wide = bool(jax.config.read("jax_enable_x64"))

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
            SignatureError: If the arguments are not those that it was compiled for.
        """
        moving, fixed = _divided(args, kwargs)
        self._refuse_others(moving, fixed)
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
        rows = [(legible(path), _described(leaf)) for path, leaf in self._leaves(self._moving)]
        return Display(f"{self._call}, compiled for", (plain_table(rows, "name", "fixed"),))

    def _leaves(self, tree: Any) -> list[tuple[Path, Any]]:
        """The leaves of the arguments by path."""
        found: list[tuple[Path, Any]] = []
        for keys, leaf in jtu.tree_flatten_with_path(tree)[0]:
            kind, first, *rest = map(component, keys)
            number = int(first) if kind == "0" else len(self._names)
            name = self._names[number] if number < len(self._names) else first
            found.append(((name, *rest), leaf))
        return found

    def _refuse_others(self, moving: Any, fixed: Any) -> None:
        given, wanted = self._leaves(moving), self._leaves(self._moving)
        same_trees = bool(jtu.tree_structure(moving) == self._treedef)
        wrong = [
            (show(path), f"{_described(new)} instead of {_described(old)}")
            for (path, new), (_, old) in zip(given, wanted, strict=False)
            if _described(new) != _described(old)
        ]
        if same_trees and not wrong and not _differ(fixed, self._fixed):
            return
        if not wrong:
            known = dict(self._leaves(self._fixed))
            wrong = [
                (show(path), f"{describe_leaf(leaf)}, another value than was compiled in")
                for path, leaf in self._leaves(fixed)
                if path not in known or _differ(leaf, known[path])
            ] or [("the arguments", "another structure")]
        raise SignatureError(
            f"{self._call}: it was compiled for other arguments. Pass what fits, or compile "
            "again." + listed(columns(wrong))
        )


def compile_ahead(
    call: str,
    names: Sequence[str],
    transform: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Compiled[Any, Any]:
    """Compiles a transform for these arguments, or structures of them.

    Args:
        call: The transform and the function, for messages.
        names: Those of the parameters.
        transform: What is compiled.
        args: Positional arguments.
        kwargs: Keyword arguments.

    Returns:
        The compiled transform.
    """
    moving, fixed = _divided(args, kwargs)

    def run(moving: Any) -> Any:
        args, kwargs = eqx.combine(moving, fixed)
        return transform(*args, **kwargs)

    compiled = jax.jit(run).lower(moving).compile()
    return Compiled(call, names, compiled, jtu.tree_map(_as_struct, moving), fixed)


def _divided(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The arguments of the compiled function, and what is compiled in."""
    return eqx.partition((args, kwargs), _is_moving)


def _is_moving(leaf: Any) -> bool:
    is_number = isinstance(leaf, (float, complex))
    return is_number or is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _as_struct(leaf: Any) -> Any:
    if isinstance(leaf, (float, complex)) and not isinstance(leaf, np.generic):
        return type(leaf)()  # its type is all that matters
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _described(leaf: Any) -> str:
    is_number = isinstance(leaf, (float, complex)) and not isinstance(leaf, np.generic)
    return f"a {type(leaf).__name__}" if is_number else describe_leaf(leaf)


def _differ(one: Any, other: Any) -> bool:
    return not eqx.tree_equal(one, other)
