"""Structures in static form, with named leaves, and rebuilding pytrees from them."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array

from autodiffkit._errors import StructureError, nearest, some_of
from autodiffkit._jax_compat import dataclass_fields, make_treedef
from autodiffkit._leaves import LeafSpec, block_spec, describe_leaf, fitted, is_inexact, is_numeric
from autodiffkit._paths import Path, children_of, component, find, show, spellings
from autodiffkit._records import make_record

LEAF = jtu.tree_structure(0)
NOTHING = jtu.tree_structure(None)

# Rebuilding -------------------------------------------------------------------


def _is_plain_dataclass(kind: type) -> bool:
    return dataclasses.is_dataclass(kind) and not issubclass(kind, eqx.Module)


@functools.lru_cache(maxsize=1024)
def _dataclass_recipe(kind: type) -> tuple[list[str], list[str]] | None:
    return dataclass_fields(kind, [field.name for field in dataclasses.fields(kind)])


def _has_plain_dataclass(treedef: Any) -> bool:
    node = treedef.node_data()
    if node is None:
        return False
    return _is_plain_dataclass(node[0]) or any(map(_has_plain_dataclass, treedef.children()))


def unflatten(treedef: Any, leaves: Iterable[Any]) -> Any:
    """`jax.tree.unflatten` that runs no constructor of a registered dataclass.

    The leaves are blocks or `None`, which a constructor that checks its arguments would
    refuse. (Equinox modules are rebuilt without their constructors by Equinox itself.)
    """
    if not _has_plain_dataclass(treedef):
        return jtu.tree_unflatten(treedef, leaves)
    return _unflatten_slowly(treedef, iter(leaves))


def _unflatten_slowly(treedef: Any, leaves: Iterator[Any]) -> Any:
    node = treedef.node_data()
    if node is None:
        return next(leaves) if treedef.num_leaves else None
    children = [_unflatten_slowly(child, leaves) for child in treedef.children()]
    kind, metadata = node
    recipe = _dataclass_recipe(kind) if _is_plain_dataclass(kind) else None
    if recipe is None:
        return jtu.tree_unflatten(make_treedef(node, [LEAF] * len(children)), children)
    instance = object.__new__(kind)
    for name, value in zip(recipe[0] + recipe[1], [*children, *metadata], strict=True):
        object.__setattr__(instance, name, value)
    return instance


# Structures -------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Tree:
    """The structure of a pytree with a specification for each leaf, in hashable form."""

    treedef: Any
    leaves: tuple[LeafSpec, ...]
    depth: int = 0  # how many steps of the leaves' paths lead to the root of this structure

    @functools.cached_property
    def selected(self) -> tuple[int, ...]:
        """The indices of the leaves that are differentiated."""
        return tuple(i for i, leaf in enumerate(self.leaves) if leaf.held is None)

    @functools.cached_property
    def specs(self) -> tuple[LeafSpec, ...]:
        """The leaves that are differentiated."""
        return tuple(self.leaves[i] for i in self.selected)

    @property
    def size(self) -> int:
        """The number of entries that are differentiated."""
        return sum(spec.size for spec in self.specs)

    def unflatten(self, values: Sequence[Any]) -> Any:
        """The pytree with a value at each differentiated leaf and `None` at each other."""
        leaves: list[Any] = [None] * len(self.leaves)
        for i, value in zip(self.selected, values, strict=True):
            leaves[i] = value
        return self._rebuilt(leaves)

    def _rebuilt(self, leaves: Iterable[Any]) -> Any:
        try:
            return unflatten(self.treedef, leaves)
        except Exception as error:
            raise StructureError(
                f"{self.treedef} could not be rebuilt with derivatives as its leaves. "
                "A pytree node must accept any leaves, `None` among them, when JAX "
                f"rebuilds it; this one raised {type(error).__name__}: {error}. Reach the "
                "single blocks by their paths instead, as in J.wrt('a.b')."
            ) from error

    @functools.cached_property
    def structure(self) -> Any:
        """The pytree of `jax.ShapeDtypeStruct`s of what is differentiated."""
        return self.unflatten([spec.struct for spec in self.specs])

    @functools.cached_property
    def _indexed(self) -> Any:
        """The pytree with the number of each leaf in its place."""
        return self._rebuilt(range(len(self.leaves)))

    def children(self) -> list[str]:
        """The names of the parts one step below the root."""
        return [name for name, _ in children_of(self._indexed)]

    def at(self, path: str | None, call: str) -> "Part | None":
        """The part under `path` (`None` means all of it), `None` if there is none.

        Raises:
            StructureError: If two leaves have this path, which dict keys with dots can do.
        """
        if path is None:
            return Part(self, tuple(range(len(self.leaves))), tuple(range(len(self.selected))))
        steps = [leaf.path[self.depth :] for leaf in self.leaves]
        exact = [i for i, inside in enumerate(steps) if inside and show(inside) == path]
        if len(exact) > 1:
            whole = show(self.leaves[exact[0]].path)
            raise StructureError(
                f"{call}: {whole!r} is the path of {len(exact)} leaves; use .tree instead."
            )
        if exact:
            leaf = self.leaves[exact[0]]
            part, positions = Tree(LEAF, (leaf,), len(leaf.path)), exact
        else:
            found = find(self._indexed, path)
            if found is None:
                return None
            positions, treedef = jtu.tree_flatten(found[0])
            leaves = tuple(self.leaves[i] for i in positions)
            part = Tree(treedef, leaves, self.depth + len(found[1]))
        indices = tuple(self.selected.index(i) for i in positions if self.leaves[i].held is None)
        return Part(part, tuple(positions), indices)

    def rebased(self) -> "Tree":
        """The same with paths that start at its root."""
        leaves = (dataclasses.replace(leaf, path=leaf.path[self.depth :]) for leaf in self.leaves)
        return Tree(self.treedef, tuple(leaves))

    def annotated(self, annotations: Mapping[Path, Any]) -> "Tree":
        """The same with annotations of leaves, by path."""
        leaves = (
            dataclasses.replace(leaf, annotation=annotations.get(leaf.path)) for leaf in self.leaves
        )
        return dataclasses.replace(self, leaves=tuple(leaves))

    def compose(self, inner: "Tree") -> "Tree":
        """The structure of a derivative: `inner` in the place of each differentiated leaf."""
        leaves = (
            leaf if leaf.held is not None else block_spec(outer, leaf)
            for outer in self.specs
            for leaf in inner.leaves
        )
        scions = (NOTHING if leaf.held is not None else inner.treedef for leaf in self.leaves)
        return Tree(_graft(self.treedef, iter(scions)), tuple(leaves))

    def why_held(self) -> str:
        """Why nothing in this structure is differentiated."""
        if not self.leaves:
            return "it holds no arrays (None or empty)"
        reasons = dict.fromkeys(str(leaf.held) for leaf in self.leaves)
        return "; ".join(r if r.startswith("not in ") else f"held constant: {r}" for r in reasons)

    def collect(self, vector: Any, prefix: Path, call: str) -> list[Array | None]:
        """The leaves of a structured vector, matched with the structure by their paths.

        Args:
            vector: A pytree. What it leaves out, or has as `None`, counts as zero.
            prefix: Put before each path of the vector.
            call: The name of the call for messages.

        Returns:
            An array of the leaf's shape and dtype, or `None`, per differentiated leaf.

        Raises:
            StructureError: If a leaf of the vector has no counterpart, another shape, or
                a dtype that does not convert.
        """
        specs = {leaf.path: leaf for leaf in self.leaves}
        found: dict[Path, Array] = {}
        for keys, value in jtu.tree_flatten_with_path(vector)[0]:
            path = prefix + tuple(map(component, keys))
            if path and path not in specs:
                path = (spellings(path[0])[-1], *path[1:])
            name = repr(show(path)) if path else "the vector"
            if path not in specs:
                names = [show(spec.path) for spec in self.specs if spec.path]
                inside = [x.path for x in self.specs if x.path[: len(path)] == path]
                if inside:
                    holds = some_of([repr(show(x)) for x in inside])
                    raise StructureError(
                        f"{call}: {name} is {describe_leaf(value)}, and should be a structure "
                        f"that holds {holds}. Pass one; unravel(...) of the result makes it of a "
                        "flat array of all entries."
                    )
                known = nearest(show(path), names, "It is a single array.")
                raise StructureError(
                    f"{call}: {name} has no counterpart among the differentiated leaves{known}"
                )
            spec = specs[path]
            if spec.held is not None:
                if is_numeric(value) and is_inexact(jnp.asarray(value).dtype):
                    raise StructureError(
                        f"{call}: {name} was not differentiated ({spec.held}); "
                        "leave it out or give None."
                    )
                continue
            found[path] = fitted(value, spec, f"{call}: {name}")
        return [found.get(spec.path) for spec in self.specs]


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a structure, and which leaves of the whole are in it."""

    tree: Tree
    positions: tuple[int, ...]  # among all leaves of the whole
    indices: tuple[int, ...]  # among its differentiated leaves

    def pick(self, values: Sequence[Any]) -> Any:
        """The part's structure with its share of one value per differentiated leaf."""
        return self.tree.unflatten([values[i] for i in self.indices])

    def shifted(self, start: int) -> "Part":
        """The same in a whole whose differentiated leaves start with `start` others."""
        return dataclasses.replace(self, indices=tuple(start + i for i in self.indices))


def _graft(treedef: Any, scions: Iterator[Any]) -> Any:
    """The structure with another one in the place of each leaf."""
    node = treedef.node_data()
    if node is None:
        return next(scions) if treedef.num_leaves else treedef
    return make_treedef(node, [_graft(child, scions) for child in treedef.children()])


def arguments_tree(trees: Sequence[tuple[str, Tree]]) -> Tree:
    """A record of the arguments that have something differentiated, as one structure."""
    used = [(name, tree) for name, tree in trees if tree.selected]
    record = jtu.tree_structure(make_record(tuple(name for name, _ in used), (0,) * len(used)))
    treedef = _graft(record, (tree.treedef for _, tree in used))
    return Tree(treedef, tuple(leaf for _, tree in used for leaf in tree.leaves))


# Values with their structure --------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Constant:
    """A leaf that is not an array, comparable by value if it can be, else by identity."""

    value: Any

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Constant):
            return False
        if self.value is other.value:
            return True
        same = type(self.value) is type(other.value)
        try:
            return same and hash(self.value) == hash(other.value) and self.value == other.value
        except Exception:  # whatever cannot be compared is only equal to itself
            return False

    def __hash__(self) -> int:
        try:
            return hash(self.value)
        except TypeError:
            return id(self.value)


@functools.partial(
    jtu.register_dataclass, data_fields=["_arrays"], meta_fields=["_treedef", "_constants"]
)
@dataclasses.dataclass(frozen=True, eq=False)
class Values:
    """A pytree of which only arrays and numbers are leaves; the rest is structure.

    Strings, functions and other objects can thus pass through `jax.jit` and be part of
    a `jax.lax.scan` carry.
    """

    _arrays: tuple[Any, ...]
    _treedef: Any
    _constants: tuple[tuple[int, _Constant], ...]

    @staticmethod
    def of(tree: Any) -> "Values":
        """Takes a pytree apart."""
        leaves, treedef = jtu.tree_flatten(tree)
        constants = [(i, _Constant(leaf)) for i, leaf in enumerate(leaves) if not is_numeric(leaf)]
        arrays = tuple(leaf for leaf in leaves if is_numeric(leaf))
        return Values(arrays, treedef, tuple(constants))

    @property
    def tree(self) -> Any:
        """The pytree itself."""
        leaves = list(self._arrays)
        for i, constant in self._constants:
            leaves.insert(i, constant.value)
        return jtu.tree_unflatten(self._treedef, leaves)

    def leaf_paths(self) -> list[Path]:
        """The paths of the arrays and numbers."""
        keyed, _ = jtu.tree_flatten_with_path(self.tree)
        return [tuple(map(component, keys)) for keys, leaf in keyed if is_numeric(leaf)]
