"""Where names of dimensions mean one thing, and what fixed each of them."""

import contextlib
import dataclasses
import functools
import keyword
from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter, Signature
from typing import Any, TypeVar

from jaxtyping import jaxtyped

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
    """What is fixed, and what waits for names to be; in jaxtyping, a context.

    Args:
        names: What an annotation such as `"{n} k"` reads.
        is_partly_known: Whether arguments are missing, as of a `functools.partial`; then a name
            that nothing fixes is no fault.
        sizes: Names of dimensions.
        structures: Names of structures.
        passed: What has fixed them, with the hints that it fits; arrays by their shapes.
        waiting: What reads a name that is not fixed yet; `None` where nothing may wait.
    """

    names: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    is_partly_known: bool = False
    sizes: dict[str, Fixed] = dataclasses.field(default_factory=dict[str, Fixed])
    structures: dict[str, Fixed] = dataclasses.field(default_factory=dict[str, Fixed])
    passed: list[tuple[Any, Any]] = dataclasses.field(default_factory=list[tuple[Any, Any]])
    waiting: list[Waiting] | None = dataclasses.field(default_factory=list[Waiting])

    def puts_aside(self, dims: Iterable[Dim], waiting: Waiting) -> bool:
        """Whether names are read that nothing has fixed so far; then it waits, if it may."""
        unknown = any(name not in self.sizes for dim in dims for name in dim.reads)
        if self.waiting is None or not unknown:
            return False
        self.waiting.append(waiting)
        return True

    def copied(self) -> "Scope":
        """The same, to try what fits."""
        return dataclasses.replace(
            self,
            sizes=dict(self.sizes),
            structures=dict(self.structures),
            passed=list(self.passed),
            waiting=[],
        )

    def inside(self, body: Callable[[], T]) -> T:
        """Runs the body in a context of jaxtyping's where what is fixed is known."""

        def run() -> T:
            for value, hint in self.passed:
                with contextlib.suppress(Exception):  # it reads what a partial hides
                    isinstance(value, hint)  # which fixes the names
            return body()

        return _in_context(self.names, run)


def _in_context(names: Mapping[str, Any], body: Callable[[], T]) -> T:
    """Runs the body in a context of its own, in which annotations can read the names."""
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


@functools.lru_cache(maxsize=1024)
def _signature(names: tuple[str, ...]) -> Signature:
    return Signature([Parameter(name, Parameter.KEYWORD_ONLY) for name in names])
