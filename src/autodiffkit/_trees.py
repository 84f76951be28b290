"""Named leaves: paths into pytrees, structures in static form, and rebuilding them."""

import dataclasses
import fnmatch
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array

from autodiffkit._errors import NotDifferentiatedError, StructureError, nearest
from autodiffkit._jax_compat import dataclass_fields, one_level_treedef
from autodiffkit._records import make_record

Path = tuple[str, ...]


# Paths ------------------------------------------------------------------------


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


def show(path: Path) -> str:
    """`("params", "w")` as `"params.w"`."""
    return ".".join(path)


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


# Leaves -----------------------------------------------------------------------

_SCALARS = (bool, int, float, complex)


def is_array(leaf: Any) -> bool:
    """Whether JAX takes the leaf as an array of its own accord."""
    if isinstance(leaf, (np.ndarray, np.generic)):
        return leaf.dtype.kind in "biufc" or is_inexact(leaf.dtype)
    return isinstance(leaf, jax.Array) or hasattr(leaf, "__jax_array__")


def is_numeric(leaf: Any) -> bool:
    """Whether the leaf is an array or a Python number."""
    return is_array(leaf) or isinstance(leaf, _SCALARS)


def is_inexact(dtype: Any) -> bool:
    """Whether values of this dtype have derivatives."""
    return jnp.issubdtype(dtype, jnp.inexact)


def is_complex(dtype: Any) -> bool:
    """Whether the dtype is complex."""
    return jnp.issubdtype(dtype, jnp.complexfloating)


@dataclasses.dataclass(frozen=True)
class LeafSpec:
    """What is known of a leaf without its values.

    `held` is the reason why it is not differentiated, `None` if it is. `dtype` is `None`
    for what is not an array.
    """

    path: Path
    shape: tuple[int, ...] = ()
    dtype: Any = None
    weak_type: bool = False
    held: str | None = None

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)

    @property
    def struct(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype in JAX's terms."""
        return jax.ShapeDtypeStruct(self.shape, self.dtype)

    def __str__(self) -> str:
        return describe_array(self.shape, self.dtype)


def describe_array(shape: Sequence[int], dtype: Any) -> str:
    """`float32[3, 2]`."""
    return f"{dtype}[{', '.join(map(str, shape))}]"


def describe_leaf(leaf: Any) -> str:
    """What arrived, for a message: dtype and shape, or the type's name."""
    if is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct):
        struct = leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)
        return describe_array(struct.shape, struct.dtype)
    if callable(leaf) and not isinstance(leaf, type):
        return "a function"
    if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
        return (
            f"{type(leaf).__name__}, a dataclass that JAX does not know as a pytree: "
            "register it with jax.tree_util.register_dataclass"
        )
    return type(leaf).__name__


def leaf_spec(path: Path, leaf: Any, held: str | None = None) -> LeafSpec:
    """The specification of an array, a Python number or a `jax.ShapeDtypeStruct`."""
    if isinstance(leaf, _SCALARS) or not hasattr(leaf, "dtype"):
        leaf = jnp.asarray(leaf)
    weak_type = bool(getattr(leaf, "weak_type", False))
    return LeafSpec(path, tuple(leaf.shape), leaf.dtype, weak_type, held)


def directions(specs: Sequence[LeafSpec], holomorphic: bool) -> int:
    """How many directions span the leaves; two an entry where only R-linearity holds."""
    return sum(
        spec.size * (2 if is_complex(spec.dtype) and not holomorphic else 1) for spec in specs
    )


def promote(dtypes: Iterable[Any]) -> Any:
    """The promotion of dtypes on JAX's standard lattice, whatever the promotion setting.

    The 8-bit floats, which promote with nothing, give way to any wider dtype.
    """
    distinct = list(dict.fromkeys(map(jnp.dtype, dtypes)))
    wide = [dtype for dtype in distinct if dtype.itemsize > 1]
    if len(distinct) > 1 and not wide:
        return jnp.dtype(jnp.float32)
    with jax.numpy_dtype_promotion("standard"):
        return functools.reduce(jnp.promote_types, wide or distinct)


def derivative_dtype(output: LeafSpec, source: LeafSpec) -> Any:
    """The dtype of a block: the promotion of both; weak types (Python floats) do not widen."""
    if output.weak_type != source.weak_type:
        strong, weak = (source, output) if output.weak_type else (output, source)
        with jax.numpy_dtype_promotion("standard"):
            # A Python scalar type stands for a weak type of its kind.
            if not is_complex(weak.dtype) or strong.dtype.itemsize > 1:
                kind = complex if is_complex(weak.dtype) else float
                return jnp.result_type(strong.dtype, kind)
    return promote([output.dtype, source.dtype])


def block_spec(output: LeafSpec, source: LeafSpec) -> LeafSpec:
    """The block of an output leaf by a source leaf, as a leaf of the derivative."""
    return LeafSpec(
        output.path + source.path,
        output.shape + source.shape,
        derivative_dtype(output, source),
        output.weak_type and source.weak_type,
    )


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
        return jtu.tree_unflatten(one_level_treedef(treedef, len(children)), children)
    instance = object.__new__(kind)
    for name, value in zip(recipe[0] + recipe[1], [*children, *metadata], strict=True):
        object.__setattr__(instance, name, value)
    return instance


def children_of(node: Any) -> list[tuple[str, Any]]:
    """The children of a pytree node by name; none of a leaf."""
    children, _ = jtu.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    return [(component(keys[0]), child) for keys, child in children if keys]


def find(node: Any, path: str) -> tuple[Any, Path] | None:
    """The node under `path`, with the steps that lead to it (a step may contain dots)."""
    if path == "":
        return node, ()
    for name, child in children_of(node):
        if path == name:
            return child, (name,)
        if path.startswith(name + "."):
            found = find(child, path[len(name) + 1 :])
            if found is not None:
                return found[0], (name, *found[1])
    return None


# Structures -------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Tree:
    """The structure of a pytree with a specification for each leaf, in hashable form."""

    treedef: Any
    leaves: tuple[LeafSpec, ...]

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

    def at(self, path: str) -> tuple["Tree", tuple[int, ...]] | None:
        """The part under `path`, and which of the differentiated leaves it holds.

        Paths of the part's leaves stay those of the whole.
        """
        found = find(self.indexed, path)
        if found is None:
            return None
        indices, treedef = jtu.tree_flatten(found[0])
        part = Tree(treedef, tuple(self.leaves[i] for i in indices))
        return part, tuple(self.selected.index(i) for i in indices if i in self.selected)

    def rebased(self, depth: int) -> "Tree":
        """The same with the first `depth` steps of each path left out."""
        leaves = (dataclasses.replace(leaf, path=leaf.path[depth:]) for leaf in self.leaves)
        return Tree(self.treedef, tuple(leaves))

    @functools.cached_property
    def indexed(self) -> Any:
        """The pytree with the number of each leaf in its place."""
        return unflatten(self.treedef, range(len(self.leaves)))

    def compose(self, inner: "Tree") -> "Tree":
        """The structure of a derivative: `inner` in the place of each differentiated leaf."""
        stand_in = unflatten(inner.treedef, [0] * len(inner.leaves))
        leaves = (
            leaf if leaf.held is not None else block_spec(outer, leaf)
            for outer in self.specs
            for leaf in inner.leaves
        )
        nested = self.unflatten([stand_in] * len(self.specs))
        return Tree(jtu.tree_structure(nested), tuple(leaves))

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
            name = repr(show(path)) if path else "the vector"
            if path not in specs:
                known = nearest(show(path), map(show, specs), "There is nothing to match it with.")
                raise StructureError(
                    f"{call}: {name} of the vector has no counterpart among the "
                    f"differentiated leaves. {known}"
                )
            spec = specs[path]
            if spec.held is not None:
                if is_numeric(value) and is_inexact(jnp.asarray(value).dtype):
                    raise StructureError(
                        f"{call}: {name} of the vector was not differentiated ({spec.held}); "
                        "leave it out or give None."
                    )
                continue
            found[path] = _fitted(value, spec, name, call)
        return [found.get(spec.path) for spec in self.specs]


def _fitted(value: Any, spec: LeafSpec, name: str, call: str) -> Array:
    if not is_numeric(value):
        raise StructureError(f"{call}: {name} should be {spec}; got {describe_leaf(value)}.")
    array = jnp.asarray(value)
    if array.shape != spec.shape or (is_complex(array.dtype) and not is_complex(spec.dtype)):
        hint = ""
        if array.ndim > len(spec.shape) and array.shape[array.ndim - len(spec.shape) :] == spec.shape:
            hint = " A batch of vectors goes through jax.vmap."
        raise StructureError(
            f"{call}: {name} should be {spec}; got {describe_array(array.shape, array.dtype)}.{hint}"
        )
    return array.astype(spec.dtype)


def arguments_tree(trees: Sequence[tuple[str, Tree]]) -> Tree:
    """A record of the arguments that have something differentiated, as one structure."""
    used = [(name, tree) for name, tree in trees if tree.selected]
    # The leaves of the record are stand-ins: only its structure is wanted.
    record = make_record(
        tuple(name for name, _ in used),
        tuple(unflatten(tree.treedef, [0] * len(tree.leaves)) for _, tree in used),
    )
    return Tree(jtu.tree_structure(record), tuple(leaf for _, tree in used for leaf in tree.leaves))


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
        try:
            hash(self.value), hash(other.value)
            return type(self.value) is type(other.value) and bool(self.value == other.value)
        except Exception:  # whatever cannot be compared is only equal to itself
            return False

    def __hash__(self) -> int:
        try:
            return hash(self.value)
        except TypeError:
            return id(self.value)


class Values(eqx.Module):
    """A pytree of which only arrays and numbers are leaves; the rest is structure.

    Strings, functions and other objects can thus pass through `jax.jit` and be part of
    a `jax.lax.scan` carry.
    """

    _arrays: tuple[Any, ...]
    _treedef: Any = eqx.field(static=True)
    _constants: tuple[tuple[int, _Constant], ...] = eqx.field(static=True)

    def __init__(self, tree: Any) -> None:
        leaves, self._treedef = jtu.tree_flatten(tree)
        self._arrays = tuple(leaf for leaf in leaves if is_numeric(leaf))
        self._constants = tuple(
            (i, _Constant(leaf)) for i, leaf in enumerate(leaves) if not is_numeric(leaf)
        )

    @property
    def tree(self) -> Any:
        """The pytree itself."""
        leaves = list(self._arrays)
        for i, constant in self._constants:
            leaves.insert(i, constant.value)
        return jtu.tree_unflatten(self._treedef, leaves)


def missing_part(call: str, kind: str, path: str, names: Iterable[str]) -> NotDifferentiatedError:
    """The exception for a path that names nothing."""
    known = nearest(path, names, f"There is no {kind} to name.")
    return NotDifferentiatedError(f"{call}: no {kind} {path!r}. {known}")


def split(flags: Sequence[bool], values: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """The values whose flag is set, and the others."""
    parts: tuple[list[Any], list[Any]] = ([], [])
    for flag, value in zip(flags, values, strict=True):
        parts[not flag].append(value)
    return parts
