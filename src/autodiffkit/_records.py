"""`Record`: the pytree that holds one value per argument, in signature order."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax.tree_util as jtu

from autodiffkit._display import reached
from autodiffkit._paths import spellings


class Record:
    """Values by argument name, with attribute and item access.

    A record is a pytree whose children come in the order of the function's signature
    (a `dict` would sort them). It is what derivatives use wherever a value per argument
    is needed: `J.tree`, `J.rmv(dy)`, the vectors that `J.mv` accepts.

    A record has no public methods, so that argument names are free: `record.x`,
    `record["x"]`, `len(record)`, `"x" in record`; iteration gives pairs of a name and its
    value, so that `dict(iter(record))` is the dict of them.
    """

    __slots__ = ("__weakref__", "_names", "_values")

    _names: tuple[str, ...]
    _values: tuple[Any, ...]

    def __init__(self, /, **values: Any) -> None:
        """Make a record of the keyword arguments, in their order."""
        self._fill(tuple(values), tuple(values.values()))

    def _fill(self, names: tuple[str, ...], values: tuple[Any, ...]) -> None:
        object.__setattr__(self, "_names", names)
        object.__setattr__(self, "_values", values)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"a Record is immutable; cannot set {name!r}. Make another one: adk.Record(...)"
        )

    def __getattr__(self, name: str) -> Any:
        # Only reached when the lookup of slots and dunders has failed.
        if name in Record.__slots__:
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"this record has no argument {name!r}; it holds {', '.join(self._names)}"
            ) from None

    def __getitem__(self, name: str) -> Any:
        for spelling in spellings(name):
            if spelling in self._names:
                return self._values[self._names.index(spelling)]
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(x in self._names for x in spellings(name))

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(zip(self._names, self._values, strict=True))

    def __len__(self) -> int:
        return len(self._names)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._names]

    def __eq__(self, other: object) -> bool:
        """As tuples compare; lineax compares structures so."""
        if not isinstance(other, Record):
            return NotImplemented
        return self._names == other._names and self._values == other._values

    def __hash__(self) -> int:
        return hash((self._names, self._values))

    def __repr__(self) -> str:
        return f"Record({', '.join(f'{name}={value!r}' for name, value in self)})"

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        # Only treescope calls this, which is no dependency.
        from autodiffkit import _treescope  # noqa: PLC0415

        children = [(reached(Record, name), value) for name, value in self]
        return _treescope.render(Record, children, path, subtree_renderer)

    def __reduce__(self) -> tuple[Any, ...]:
        return make_record, (self._names, self._values)


def make_record(names: tuple[str, ...], values: tuple[Any, ...]) -> Record:
    """A record whose names need not be identifiers."""
    record = object.__new__(Record)
    record._fill(names, values)
    return record


def _flatten(record: Record) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    return tuple(value for _, value in record), tuple(name for name, _ in record)


def _flatten_with_keys(
    record: Record,
) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
    return [(jtu.GetAttrKey(name), value) for name, value in record], _flatten(record)[1]


def _unflatten(names: tuple[str, ...], values: Iterable[Any]) -> Record:
    return make_record(names, tuple(values))


jtu.register_pytree_with_keys(Record, _flatten_with_keys, _unflatten, _flatten)
