"""Maps with named axes: as dense arrays, as text, and with axes of all kinds.

The axes of a map are written as those of an einsum, its input first. Axes with the same letter are
the same axis, `(ab)` is one axis that consists of two, and `1` has one entry. After a colon is what
the data have: `ab->ac:bc` is a product with a constant matrix, whose batch stays a batch.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from autodiffkit._maps import ONE, Axis, Data, Label, Map, Part, axes_of, flat

# Small programs compile faster without optimisation.
FAST = {"xla_backend_optimization_level": 0}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def dense_of(given: Map) -> np.ndarray:
    """The map as an array with the axes of the output and then of the input, by an einsum."""
    letters = dict(zip(dict.fromkeys((*flat(given.outs), *flat(given.ins))), LETTERS, strict=False))
    twins = dict(zip(given.shared, reversed(LETTERS), strict=False))
    dtype = np.result_type(given.dtype, np.float32)
    terms = [("", np.ones((), dtype))]
    terms += [(letter, np.ones(label.size, dtype)) for label, letter in letters.items()]
    terms += [(letters[x] + twin, np.eye(x.size, dtype=dtype)) for x, twin in twins.items()]
    for array, axes in given.data.parts:
        assert np.shape(array) == tuple(label.size for label in axes)
        terms.append(("".join(letters[x] for x in axes), np.asarray(array, dtype)))
    ends = [letters[x] for x in flat(given.outs)]
    ends += [twins.get(x, letters[x]) for x in flat(given.ins)]
    equation = f"{','.join(letter for letter, _ in terms)}->{''.join(ends)}"
    array = np.einsum(equation, *(array for _, array in terms), optimize=True)
    return np.reshape(array, [*shape_of(given.outs), *shape_of(given.ins)])


def shape_of(axes: Iterable[Axis]) -> tuple[int, ...]:
    """The shape of an array with these axes."""
    return tuple(math.prod(label.size for label in axis) for axis in axes)


def written(
    ins: Iterable[Sequence[Hashable]],
    outs: Iterable[Sequence[Hashable]],
    data: Iterable[Hashable],
) -> str:
    """Axes as text, lettered in the order in which they occur: `ab->ac:bc`."""
    names: dict[Hashable, str] = {}

    def axis(labels: Sequence[Hashable]) -> str:
        found = "".join(names.setdefault(x, LETTERS[len(names)]) for x in labels)
        return found if len(found) == 1 else f"({found})" if found else "1"

    sides = ["".join(map(axis, axes)) for axes in (ins, outs)]
    return f"{'->'.join(sides)}:{''.join(sorted(names[x] for x in data))}"


def axes_written(given: Map) -> str:
    """The axes of a map as text."""
    return written(given.ins, given.outs, given.data.axes)


def parsed(side: str) -> list[tuple[str, ...]]:
    """The letters of each axis: `a(bc)1` has three."""
    return [tuple(x.strip("()1")) for x in re.findall(r"\([a-z]+\)|[a-z1]", side)]


def canonical(text: str) -> str:
    """Axes as text, lettered as `axes_written` does it."""
    axes, data = text.split(":")
    ins, outs = map(parsed, axes.split("->"))
    return written(ins, outs, data)


def map_of(text: str, rng: np.random.Generator, *, dtype: Any = "float32", turn: int = 0) -> Map:
    """A map with the axes of a text, of these sizes, and random data."""
    sizes = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 2, "f": 6, "g": 3, "h": 12}
    labels = {letter: Label(size) for letter, size in sizes.items()}
    axes, data = text.split(":")
    ins, outs = (
        tuple(tuple(labels[x] for x in axis) for axis in parsed(side)) for side in axes.split("->")
    )
    return Map(outs, ins, random_data([labels[x] for x in data], turn, dtype, rng), dtype)


def filled(given: Map, arrays: Sequence[Any]) -> Map:
    """The map with other arrays, of the same axes."""
    pairs = zip(given.data.parts, arrays, strict=True)
    data = Data(tuple(part._replace(array=array) for part, array in pairs))
    return dataclasses.replace(given, data=data)


def arrays_of(given: Map) -> list[Any]:
    """The arrays of a map."""
    return [part.array for part in given.data.parts]


def structured(
    outs: Sequence[int], ins: Sequence[int], turn: int, dtype: Any, rng: np.random.Generator
) -> Map:
    """A map whose output has axes of all kinds in turn.

    The kinds are: shared with the input and scaled, only the output's, shared in part, shared,
    and constant.
    """
    kinds = itertools.cycle(("scaled", "mixed", "half", "shared", "constant"))
    turns = itertools.islice(kinds, turn, None)
    own: list[Axis] = []
    inputs = list(axes_of(ins))
    free = [i for i, n in enumerate(ins) if n != 1]
    inside: list[Label] = []
    for n in outs:
        if n == 1:
            own.append(())
            continue
        kind = next(turns)
        match = next((i for i in free if ins[i] == n), None)
        if kind in {"scaled", "half", "shared"} and match is not None:
            free.remove(match)
            if kind == "half" and n % 2 == 0 and n > 2:
                common, *others = Label(2), Label(n // 2), Label(n // 2)
                own.append((common, others[0]))
                inputs[match] = (common, others[1])
                inside += others
            else:
                own.append(inputs[match])
                inside += inputs[match] if kind == "scaled" else ()
        else:
            own.append((Label(n),))
            inside += own[-1] if kind != "constant" else ()
    inside += [x for i in free[turn % 2 :] for x in inputs[i]]
    return Map(tuple(own), tuple(inputs), random_data(inside, turn, dtype, rng), dtype)


def random_data(labels: Sequence[Label], turn: int, dtype: Any, rng: np.random.Generator) -> Data:
    """Numbers with these labels: one array, or two that may have a label in common."""
    if not labels:
        return ONE
    if turn % 2 == 0 or len(labels) == 1:
        groups = [labels]
    else:
        half = len(labels) // 2
        groups = [labels[: half + turn % 3 // 2], labels[half:]]
    return Data(tuple(Part(random_array(map_sizes(x), dtype, rng), tuple(x)) for x in groups if x))


def map_sizes(labels: Iterable[Label]) -> list[int]:
    """The sizes of labels."""
    return [label.size for label in labels]


def random_array(shape: Sequence[int], dtype: Any, rng: np.random.Generator) -> Any:
    """Numbers of the order of one, complex if the dtype is."""
    array = rng.normal(size=shape)
    if np.dtype(dtype).kind == "c":
        array = array + 1j * rng.normal(size=shape)
    return array.astype(dtype)


# Checks ------------------------------------------------------------------------------


def generator(key: Any) -> np.random.Generator:
    """NumPy's random numbers by a key of JAX's."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def computed(build: Callable[[], Iterable[Map]]) -> list[Map]:
    """The maps that a function makes, computed in one program."""
    maps: list[Map] = []

    def run() -> list[Any]:
        maps.extend(build())
        return [arrays_of(x) for x in maps]

    arrays = jax.jit(run, compiler_options=FAST)()
    return [filled(*pair) for pair in zip(maps, arrays, strict=True)]


def assert_same(found: Any, expected: Any, eps: float = 1e-5) -> None:
    """Equal up to the rounding of sums."""
    scale = eps * (1 + np.abs(expected).max(initial=0))
    np.testing.assert_allclose(found, expected, rtol=eps, atol=scale)


def assert_names(given: Map) -> None:
    """Each label is an axis of its own, and the data have no others."""
    for axes in (given.outs, given.ins, *([part.axes] for part in given.data.parts)):
        assert len(set(flat(axes))) == len(flat(axes))
    assert set(given.data.axes) <= {*flat(given.outs), *flat(given.ins)}
