"""Where names of dimensions mean one thing, and what fixed each of them."""

import dataclasses
import functools
import keyword
from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter, Signature
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Shaped, jaxtyped

from autodiffkit._dims import Dim
from autodiffkit._hints import Node
from autodiffkit._paths import Path, show

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where something is: an argument, an output, or a part of one."""

    kind: str
    path: Path = ()

    def __str__(self) -> str:
        return f"{self.kind} {show(self.path)!r}" if self.path else f"the {self.kind}"

    def at(self, path: Path) -> "Place":
        return Place(self.kind, self.path + path)


@dataclasses.dataclass
class Fixed:
    """What a name stands for, and what fixed it."""

    size: Any
    by: str

    def __str__(self) -> str:
        return f"{self.size} is fixed by {self.by}"


Waiting = tuple[Node, Any, Place, bool]


@dataclasses.dataclass
class Scope:
    """What is fixed, and what waits for names to be; in jaxtyping, a context."""

    sizes: dict[str, Fixed] = dataclasses.field(default_factory=dict[str, Fixed])
    structures: dict[str, Fixed] = dataclasses.field(default_factory=dict[str, Fixed])
    waiting: list[Waiting] | None = dataclasses.field(default_factory=list[Waiting])

    def has_to_wait(self, dims: Iterable[Dim]) -> bool:
        """Whether names are read that nothing has fixed so far."""
        return self.waiting is not None and any(
            name not in self.sizes for dim in dims for name in dim.reads
        )

    def copied(self) -> "Scope":
        """The same, to try what fits; in a context of jaxtyping's that knows nothing yet."""
        for name, fixed in self.sizes.items():
            several = isinstance(fixed.size, tuple)
            shape = fixed.size if several else (fixed.size,)
            known: Any = Shaped[Any, f"*{name}" if several else name]
            assert isinstance(jax.ShapeDtypeStruct(shape, jnp.float32), known)
        return Scope(dict(self.sizes), dict(self.structures))


def in_scope(names: Mapping[str, Any], body: Callable[[], T]) -> T:
    """Runs the body where names of dimensions mean one thing.

    An annotation such as `"{n} k"` reads the value of `n` among the names.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def run(**_: Any) -> None:
        try:
            results.append(body())
        except Exception as error:  # kept from jaxtyping, which would add a note to it
            errors.append(error)

    usable = {name: x for name, x in names.items() if _is_usable(name)}
    setattr(run, "__signature__", _signature(tuple(usable)))  # noqa: B010  # checkers know no such attribute
    jaxtyped(run, typechecker=None)(**usable)
    try:
        if errors:
            raise errors[0]
        return results[0]
    finally:
        errors.clear()  # the error would hold this frame, and the frame the error


def _is_usable(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name)


@functools.cache
def _signature(names: tuple[str, ...]) -> Signature:
    return Signature([Parameter(name, Parameter.KEYWORD_ONLY) for name in names])
