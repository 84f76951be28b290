"""Values along their hints: parts with their nodes, and arrays with their annotations."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Union, cast, is_typeddict

import jax
import jax.tree_util as jtu
from jaxtyping import PyTree

from autodiffkit._dims import Annotation, may_have
from autodiffkit._hints import (
    ArrayHint,
    FieldsHint,
    FlawedHint,
    ItemsHint,
    MappingHint,
    Node,
    TreeHint,
    TupleHint,
    UnionHint,
    fields_of,
    has_annotated_fields,
)
from autodiffkit._leaves import is_numeric, leaf_spec
from autodiffkit._paths import Path, component


def node_of(value: Any, node: Node | None) -> Node | None:
    """The node for a value: of an object, that of its own class, which may say more."""
    if node is not None and _fits_class(node, value) and has_annotated_fields(type(value)):
        return FieldsHint(type(value))
    return node


def _fits_class(node: Node, value: Any) -> bool:
    if not isinstance(node, FieldsHint):
        return False
    if is_typeddict(node.hint):
        return isinstance(value, dict) and node.hint.__required_keys__ <= value.keys()
    return isinstance(value, node.hint)


def children(node: Node, value: Any) -> list[tuple[str, Node | None, Any]] | None:
    """The parts of a container by name, with their nodes; `None` if it is of another kind."""
    match node:
        case TupleHint(items=items, tail=tail) if _fits_length(node, value):
            nodes = (*items, *[tail] * (len(value) - len(items)))
            return [(str(i), item, x) for i, (item, x) in enumerate(zip(nodes, value, strict=True))]
        case ItemsHint(kind=kind, item=item) if isinstance(value, kind):
            entries = cast("Collection[Any]", value)
            return [(str(i), item, x) for i, x in enumerate(entries)]
        case MappingHint(kind=kind, value=item) if isinstance(value, kind):
            mapping = cast("Mapping[Any, Any]", value)
            return [(str(key), item, x) for key, x in mapping.items()]
        case FieldsHint() if _fits_class(node, value):
            parts = (
                (name, part, _field(value, name)) for name, part in fields_of(node.hint).items()
            )
            # Where a part of an object is missing, as after `eqx.partition`, it has `None`.
            return [part for part in parts if part[2] is not None]
        case _:
            return None


def _fits_length(node: TupleHint, value: Any) -> bool:
    if not isinstance(value, tuple):
        return False
    found, wanted = len(value), len(node.items)
    return found == wanted or (found > wanted and node.has_tail)


def _field(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value).get(name)
    return getattr(value, name, None)


def leaves(node: TreeHint, value: Any) -> tuple[list[tuple[Path, Any]], Any]:
    """The leaves of a pytree by path, where a leaf may itself be a container; its structure."""

    def is_leaf(x: Any) -> bool:
        return _is_container(node.leaf, x)

    keyed, structure = jtu.tree_flatten_with_path(value, is_leaf=is_leaf)
    return [(tuple(map(component, keys)), leaf) for keys, leaf in keyed], structure


def _is_container(node: Node | None, value: Any) -> bool:
    if isinstance(node, UnionHint):
        return any(_is_container(part, value) for _, part in node.alternatives)
    return node is not None and children(node, value) is not None


def checkable(leaf: Any) -> Any:
    """What stands for a leaf in a check: Python's numbers and NumPy's arrays become JAX's."""
    if isinstance(leaf, jax.Array) or not is_numeric(leaf):
        return leaf
    return leaf_spec((), leaf).struct


def annotations_of(
    node: Node | None,
    value: Any,
    path: Path,
    *,
    shared: bool,
    scope: Path = (),
    root: str = "argument",
) -> Iterator[tuple[Path, Annotation]]:
    """The annotations of the arrays in a value, which are not checked.

    Args:
        node: What is known of the value.
        value: The value, in which `jax.ShapeDtypeStruct`s may stand for arrays.
        path: Where it is.
        shared: Whether the names in an object's annotations are those of the function.
        scope: Whose names are read.
        root: What kind of thing the value is a part of.

    Yields:
        The path of each annotated array, with its annotation.
    """
    node = node_of(value, node)
    parts: Sequence[tuple[Path, Node | None, Any]] = ()
    match node:
        case None | FlawedHint():
            pass
        case ArrayHint(hint=hint):
            yield path, Annotation(hint, scope)
        case UnionHint(alternatives=alternatives):
            nodes = [x for _, x in alternatives if x is not None and may_fit(x, value)]
            if len(set(map(meaning, nodes))) == 1:  # else nothing tells which one it is
                parts = [((), nodes[0], value)]
        case TreeHint(leaf=leaf):
            parts = [(rest, leaf, x) for rest, x in leaves(node, value)[0]]
            shared = False
        case _:
            if isinstance(node, FieldsHint) and not shared:
                scope = (root, *path)
            parts = [((name,), part, x) for name, part, x in children(node, value) or []]
            shared = False
    for rest, part, x in parts:
        yield from annotations_of(part, x, path + rest, shared=shared, scope=scope, root=root)


def meaning(node: Node) -> Any:
    """What an annotation says, whatever library it is for, as in `Float[ArrayLike, "n"]`."""
    return (node.hint.dtype, node.hint.dim_str) if isinstance(node, ArrayHint) else node


def may_fit(node: Node, value: Any) -> bool:
    """Whether an alternative is the one for a value, as far as it can be told by itself."""
    if isinstance(node, ArrayHint):
        value = checkable(value)
        return hasattr(value, "shape") and may_have(node.hint, value.shape, value.dtype)
    return isinstance(node, TreeHint) or children(node, value) is not None


def arrays_of(node: Node | None) -> list[ArrayHint]:
    """The array types of a leaf."""
    parts = [x for _, x in node.alternatives] if isinstance(node, UnionHint) else [node]
    return [x for x in parts if isinstance(x, ArrayHint)]


def for_any_library(node: TreeHint) -> Any:
    """The hint of a pytree for arrays of any library."""
    leaf = node.leaf
    check: Any = None if leaf is None else leaf.hint
    if isinstance(leaf, ArrayHint):
        check = leaf.check
    elif isinstance(leaf, UnionHint):
        parts = ((x.check if isinstance(x, ArrayHint) else hint) for hint, x in leaf.alternatives)
        check = Union[tuple(parts)]  # noqa: UP007  # of as many as there are
    return PyTree[check] if node.structure is None else PyTree[check, node.structure]


def reads_fields(node: FieldsHint) -> bool:
    """Whether an annotation of an object reads the values of its fields."""
    parts = (part for field in fields_of(node.hint).values() for part in arrays_of(field))
    return any("{" in dim.text for part in parts for dim in part.dims)


def stand_in(value: Any) -> Any:
    """The shape and dtype of an array in its place; nothing is kept alive by it."""
    value = checkable(value)
    return leaf_spec((), value).struct if isinstance(value, jax.Array) else value
