"""Paths into pytrees, as people write them: `params.layers.0.weight`."""

import fnmatch
import unicodedata
from collections.abc import Iterable
from typing import Any

import jax.tree_util as jtu

from autodiffkit._errors import NotDifferentiatedError, nearest

Path = tuple[str, ...]


def component(key: Any) -> str:
    """One step of a path, as people write it: a field, a dict key or an index."""
    match key:
        case jtu.DictKey() | jtu.FlattenedIndexKey():
            return str(key.key)
        case jtu.SequenceKey():
            return str(key.idx)
        case jtu.GetAttrKey():
            return key.name
        case _:
            return str(key)


def spellings(path: str) -> list[str]:
    """A path as it is written, and then with names spelt as Python spells them.

    Python takes names that differ in the composition of their letters for one (NFKC): a function
    whose argument was typed as the micro sign has one that is named by the Greek letter. Keys of
    dicts stay as they are.
    """
    head, dot, rest = path.partition(".")
    as_argument = unicodedata.normalize("NFKC", head) + dot + rest
    return list(dict.fromkeys((path, as_argument, unicodedata.normalize("NFKC", path))))


def show(path: Path) -> str:
    """`("params", "w")` as `"params.w"`."""
    return ".".join(path)


def legible(path: Path) -> str:
    """The path for tables, where two that differ look different: `p['a.b']`, `p['']`.

    As people pass them, and as programs read them, paths are those of `show`.
    """
    text = ""
    for step in path:
        if step and "." not in step and not step.startswith("["):
            text += f".{step}" if text else step
        else:
            quote = '"' if "'" in step else "'"
            text += f"[{quote}{step}{quote}]"
    return text


def is_glob(pattern: str) -> bool:
    """Whether `pattern` has a wildcard of `fnmatch`."""
    return any(character in pattern for character in "*?[")


def names_part(pattern: str, path: Path) -> bool:
    """Whether `pattern` is the path of the leaf or of a node that contains it.

    A wildcard may stand for several steps, as in `fnmatch`.
    """
    parts = (show(path[:n]) for n in range(1, len(path) + 1))
    if is_glob(pattern):
        return any(part == pattern or fnmatch.fnmatchcase(part, pattern) for part in parts)
    return pattern in parts


def all_parts(paths: Iterable[Path]) -> list[str]:
    """Every path that names something: the leaves and the nodes above them."""
    return list(dict.fromkeys(show(path[:n]) for path in paths for n in range(1, len(path) + 1)))


def children_of(node: Any) -> list[tuple[str, Any]]:
    """The children of a pytree node by name; none of a leaf."""
    children, _ = jtu.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    return [(component(keys[0]), child) for keys, child in children if keys]


def find(node: Any, path: str) -> tuple[Any, Path] | None:
    """The node under `path`, with the steps that lead to it (which may be empty, or have dots)."""
    for name, child in children_of(node):
        if path == name:
            return child, (name,)
        if path.startswith(name + "."):
            found = find(child, path[len(name) + 1 :])
            if found is not None:
                return found[0], (name, *found[1])
    return None


def missing(
    call: str,
    kind: str,
    path: str,
    names: Iterable[str],
    otherwise: str = "The call passed no arguments.",
) -> NotDifferentiatedError:
    """The exception for a path that names nothing."""
    known = nearest(path, names, otherwise)
    return NotDifferentiatedError(f"{call}: no {kind} {path!r}{known}")
