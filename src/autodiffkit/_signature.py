"""A function and its arguments as named leaves: what is differentiated, what is held."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array

from autodiffkit._errors import (
    NotDifferentiableError,
    NotDifferentiatedError,
    SelectionError,
    SignatureError,
    StructureError,
    columns,
    listed,
    nearest,
)
from autodiffkit._trees import (
    LeafSpec,
    Path,
    Tree,
    all_parts,
    arguments_tree,
    component,
    describe_leaf,
    is_array,
    is_glob,
    is_inexact,
    leaf_spec,
    missing_part,
    names_part,
    show,
)

Predicate = Callable[[str, Any], bool]
Selection = None | str | tuple[str, ...] | Predicate

_OMITTED = "an omitted default is, unless wrt names it"
_NOT_SELECTED = "not in wrt"


# The function -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Function:
    """The user's function, with the object that it is bound to, if any, set apart.

    A callable module is bound to itself, a method to its `self`. That object is an
    argument like the others, but constant unless `wrt` names it.
    """

    name: str
    call: Callable[..., Any]  # takes the bound object first, if there is one
    bound: tuple[str, Any] | None
    source: Callable[..., Any]  # what the user would call

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        """The parameters that the user passes."""
        try:
            return inspect.signature(self.source)
        except (ValueError, TypeError):  # a builtin that does not tell
            return inspect.Signature(
                [
                    inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                    inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
                ]
            )

    def __str__(self) -> str:
        parameters = ", ".join(
            str(parameter.replace(annotation=inspect.Parameter.empty))
            for parameter in self.signature.parameters.values()
        )
        return f"{self.name}({parameters})"


def as_function(f: Callable[..., Any]) -> Function:
    """Takes a callable apart into what is called and what it is bound to."""
    if hasattr(f, "__func__") and hasattr(f, "__self__"):
        method: Any = f
        function = method.__func__
        parameters = list(inspect.signature(function).parameters)
        bound = (parameters[0] if parameters else "self", method.__self__)
        return Function(name_of(function), function, bound, f)
    if isinstance(f, eqx.Module):
        # Through the class, so that a copy of the module with other leaves can be called.
        return Function(name_of(f), type(f).__call__, ("self", f), f)
    return Function(name_of(f), f, None, f)


def name_of(f: Any) -> str:
    """The name of a callable for messages; that of the class if it has none of its own."""
    if isinstance(f, functools.partial):
        return name_of(f.func)
    return getattr(f, "__name__", type(f).__name__)


# The bound call ---------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Argument:
    """One argument: its structure, and where it stood among the positional ones.

    `position` is `None` for what was passed by keyword or left out. `variadic` marks
    `*args`, whose entries occupy the positions from `position` on.
    """

    name: str
    tree: Tree
    position: int | None = None
    variadic: bool = False
    held: str | None = None  # the reason, where it is one for the whole argument


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The static part of a bound call: its arguments in signature order."""

    arguments: tuple[Argument, ...]

    @functools.cached_property
    def tree(self) -> Tree:
        """The record of the differentiated arguments."""
        return arguments_tree([(argument.name, argument.tree) for argument in self.arguments])

    @property
    def specs(self) -> tuple[LeafSpec, ...]:
        """The differentiated leaves."""
        return self.tree.specs

    @property
    def names(self) -> tuple[str, ...]:
        """The arguments that have something differentiated."""
        return tuple(argument.name for argument in self.arguments if argument.tree.selected)

    def locate(self, call: str, path: str) -> "Part":
        """The part of the arguments under `path`.

        Raises:
            NotDifferentiatedError: If nothing there was differentiated, with the reason.
        """
        start = 0
        for argument in self.arguments:
            if path == argument.name or path.startswith(argument.name + "."):
                rest = path[len(argument.name) + 1 :]
                part = self._part(argument, rest, start)
                if part is not None:
                    if not part.indices:
                        raise NotDifferentiatedError(
                            f"{call} has no block for {path!r}: {_reason(argument, part.tree)}."
                        )
                    return part
            start += len(argument.tree.selected)
        raise missing_part(call, "argument", path, self._names)

    def _part(self, argument: Argument, rest: str, start: int) -> "Part | None":
        if not rest:
            return Part(argument.tree, tuple(range(start, start + len(argument.tree.selected))))
        if argument.held is not None:
            return Part(argument.tree, ())
        found = argument.tree.at(rest)
        return None if found is None else Part(found[0], tuple(start + i for i in found[1]))

    @property
    def _names(self) -> list[str]:
        leaves = (leaf.path for argument in self.arguments for leaf in argument.tree.leaves)
        return [*(argument.name for argument in self.arguments), *all_parts(leaves)]

    def positional(self, call: str, argnums: int | Sequence[int] | None) -> "list[Part]":
        """The parts at these positions of the call; `None` means all of them.

        Raises:
            StructureError: If there is no such position.
        """
        parts: list[Part] = []
        start = 0
        for argument in self.arguments:
            if argument.variadic:
                entries = range(len(argument.tree.treedef.children()))
                parts += [p for i in entries if (p := self._part(argument, str(i), start))]
            elif argument.position is not None:
                parts += [p for p in [self._part(argument, "", start)] if p]
            start += len(argument.tree.selected)
        if argnums is None:
            return parts
        numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
        for number in numbers:
            if not -len(parts) <= number < len(parts):
                raise StructureError(
                    f"{call}.to_jax: argnums={argnums} is out of range; the call passed "
                    f"{len(parts)} positional arguments (keyword arguments have no position)."
                )
        return [parts[number] for number in numbers]


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the arguments: its structure, and its leaves among the differentiated ones."""

    tree: Tree
    indices: tuple[int, ...]

    def pick(self, values: Sequence[Any]) -> Any:
        """The part's structure with its share of one value per differentiated leaf."""
        return self.tree.unflatten([values[i] for i in self.indices])


def _reason(argument: Argument, tree: Tree) -> str:
    if argument.held is not None:
        return f"held constant, as {argument.held}"
    if not tree.leaves:
        return "it holds no leaves"
    return "held constant: " + ", ".join(dict.fromkeys(str(leaf.held) for leaf in tree.leaves))


@dataclasses.dataclass
class BoundCall:
    """The user's call, taken apart: `inputs` describe it, `leaves` are its values."""

    inputs: Inputs
    selected: list[Any]
    _function: Function
    _leaves: dict[str, list[Any]]  # by argument; what is not here is passed as it came
    _passed: inspect.BoundArguments
    _by_keyword: frozenset[str]

    def evaluate(self, selected: Sequence[Array]) -> Any:
        """Calls the function with these values in the place of the differentiated leaves."""
        values = iter(selected)
        arguments = dict(self._passed.arguments)
        bound = self._function.bound
        for argument in self.inputs.arguments:
            if not argument.tree.selected:
                continue
            leaves = list(self._leaves[argument.name])
            for i in argument.tree.selected:
                leaves[i] = next(values)
            value = jtu.tree_unflatten(argument.tree.treedef, leaves)
            if bound is not None and argument.name == bound[0]:
                bound = (bound[0], value)
            else:
                arguments[argument.name] = value
        args, kwargs = self._as_passed(arguments)
        if bound is not None:
            args.insert(0, bound[1])
        return self._function.call(*args, **kwargs)

    def _as_passed(self, arguments: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        # Keywords stay keywords: a wrapper may have a signature that is not quite its own.
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        gap = False
        for name, parameter in self._passed.signature.parameters.items():
            if name not in arguments:
                gap = True
            elif parameter.kind is parameter.VAR_POSITIONAL:
                args.extend(arguments[name])
            elif parameter.kind is parameter.VAR_KEYWORD:
                kwargs.update(arguments[name])
            elif parameter.kind is parameter.KEYWORD_ONLY or name in self._by_keyword or gap:
                kwargs[name] = arguments[name]
            else:
                args.append(arguments[name])
        return args, kwargs


def bind(
    call: str,
    function: Function,
    wrt: Selection,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    abstract: bool = False,
) -> BoundCall:
    """Names the leaves of the arguments and selects those to differentiate.

    Args:
        call: The transform and the function, for messages: `jacobian(residual)`.
        function: The user's function.
        wrt: The selection, as the transforms document it.
        args: Positional arguments.
        kwargs: Keyword arguments.
        abstract: Whether `jax.ShapeDtypeStruct`s may stand for arrays.

    Returns:
        The bound call; its `selected` leaves are arrays.

    Raises:
        SignatureError: If the arguments do not fit.
        SelectionError: If `wrt` matches nothing.
        NotDifferentiableError: If nothing that is selected can be differentiated.
    """
    signature = function.signature
    try:
        passed = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise SignatureError(
            f"{call}: {error}. The function is {function}; the call passed "
            f"{_describe_call(args, kwargs)}."
        ) from None
    omitted = {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if name not in passed.arguments and parameter.default is not parameter.empty
    }
    order: list[tuple[str, Any, str | None]] = []
    if function.bound is not None:
        name, value = function.bound
        order.append((name, value, f"the object that {function.name} is bound to"))
    for name in signature.parameters:
        if name in omitted:
            order.append((name, omitted[name], _OMITTED))
        elif name in passed.arguments:
            order.append((name, passed.arguments[name], None))
    positions, by_keyword = _positions(signature, passed, len(args), kwargs)

    flat: dict[str, list[Any]] = {}
    trees: dict[str, Tree] = {}
    for name, value, reserve in order:
        if reserve is not None and not _names_argument(wrt, name):
            continue
        leaves, trees[name] = _flatten(call, name, value, abstract)
        flat[name] = leaves
    chosen = _select(call, wrt, trees, flat, [name for name, _, reserve in order if reserve])
    for name, tree in trees.items():
        specs = tuple(
            leaf
            if leaf.held is not None or leaf.path in chosen
            else dataclasses.replace(leaf, held=_NOT_SELECTED)
            for leaf in tree.leaves
        )
        trees[name] = Tree(tree.treedef, specs)

    empty = Tree(jtu.tree_structure(None), ())
    inputs = Inputs(
        tuple(
            Argument(
                name,
                trees.get(name, empty),
                positions.get(name),
                signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
                if name in signature.parameters
                else False,
                None if name in trees else reserve,
            )
            for name, _, reserve in order
        )
    )
    if not inputs.specs:
        raise _nothing_differentiable(call, order, abstract)
    selected = [
        flat[argument.name][i] if abstract else jnp.asarray(flat[argument.name][i])
        for argument in inputs.arguments
        for i in argument.tree.selected
    ]
    return BoundCall(inputs, selected, function, flat, passed, by_keyword)


def _describe_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    positional = f"{len(args)} positional argument{'' if len(args) == 1 else 's'}"
    if not kwargs:
        return positional
    return f"{positional} and the keywords {', '.join(kwargs)}"


def _positions(
    signature: inspect.Signature,
    passed: inspect.BoundArguments,
    count: int,
    kwargs: dict[str, Any],
) -> tuple[dict[str, int], frozenset[str]]:
    """Where each argument stood, and which ones came by keyword."""
    positions: dict[str, int] = {}
    by_keyword: set[str] = set()
    for name, parameter in signature.parameters.items():
        if name not in passed.arguments or parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL or (
            len(positions) < count and parameter.kind is not parameter.KEYWORD_ONLY
        ):
            positions[name] = len(positions)
        elif name in kwargs:
            by_keyword.add(name)
    return positions, frozenset(by_keyword)


def _flatten(call: str, name: str, value: Any, abstract: bool) -> tuple[list[Any], Tree]:
    """The leaves of one argument and its structure; `held` says what cannot be selected."""
    try:
        keyed, treedef = jtu.tree_flatten_with_path(value)
    except Exception as error:
        raise SignatureError(
            f"{call}: argument {name!r} could not be flattened as a pytree: {error}"
        ) from error
    specs: list[LeafSpec] = []
    for keys, leaf in keyed:
        path = (name, *map(component, keys))
        specs.append(_input_spec(call, path, leaf, abstract))
    return [leaf for _, leaf in keyed], Tree(treedef, tuple(specs))


def _input_spec(call: str, path: Path, leaf: Any, abstract: bool) -> LeafSpec:
    if isinstance(leaf, jax.ShapeDtypeStruct) and not abstract:
        raise SignatureError(
            f"{call}: {show(path)!r} is a jax.ShapeDtypeStruct, which has no values. "
            "Only .plan(...) takes structures; pass an array here."
        )
    if isinstance(leaf, (float, complex)) or is_array(leaf):
        spec = leaf_spec(path, leaf)
    elif isinstance(leaf, jax.ShapeDtypeStruct):
        spec = leaf_spec(path, leaf)
    else:
        return LeafSpec(path, held=describe_leaf(leaf))
    if is_inexact(spec.dtype):
        return spec
    return dataclasses.replace(spec, held=str(spec.dtype))


# The selection ----------------------------------------------------------------


def check_selection(call: str, option: str, selection: Any) -> Any:
    """The selection in hashable form.

    Raises:
        SelectionError: If it is not of a kind that the option takes.
    """
    kinds = "a path, a glob or a tuple of these"
    if option == "wrt":
        kinds = "an argument name, a path, a glob, a tuple of these, or a predicate (path, leaf) -> bool"
    if selection is None or isinstance(selection, str):
        return selection
    if isinstance(selection, (tuple, list)):
        patterns: tuple[Any, ...] = tuple(selection)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]  # elements are checked next
        if not patterns:
            raise SelectionError(f"{call}: {option}=() selects nothing; {option} takes {kinds}.")
        if all(isinstance(pattern, str) for pattern in patterns):
            return patterns
    elif option == "wrt" and callable(selection):
        return selection
    positions = ""
    if option == "wrt" and isinstance(selection, (int, tuple, list)):
        positions = " Arguments are selected by name here, not by position."
    raise SelectionError(f"{call}: {option}={selection!r} is not {kinds}.{positions}")


def _patterns(selection: Selection) -> tuple[str, ...]:
    if isinstance(selection, str):
        return (selection,)
    return selection if isinstance(selection, tuple) else ()


def _names_argument(wrt: Selection, name: str) -> bool:
    """Whether `wrt` names this argument in so many words, not by a wildcard."""
    return any(p == name or p.startswith(name + ".") for p in _patterns(wrt))


def _select(
    call: str,
    wrt: Selection,
    trees: dict[str, Tree],
    flat: dict[str, list[Any]],
    reserved: list[str],
) -> set[Path]:
    """The paths of the leaves that are differentiated."""
    leaves = {
        leaf.path: (leaf, value)
        for name, tree in trees.items()
        for leaf, value in zip(tree.leaves, flat[name], strict=True)
    }
    able = [path for path, (leaf, _) in leaves.items() if leaf.held is None]
    if wrt is None:
        return set(able)
    if callable(wrt):
        chosen = {path for path in able if _ask(call, wrt, path, leaves[path][1])}
        if able and not chosen:
            raise SelectionError(
                f"{call}: the predicate wrt selected none of the {len(able)} differentiable "
                f"leaves: {', '.join(map(show, able[:8]))}{', ...' if len(able) > 8 else ''}."
            )
        return chosen
    chosen: set[Path] = set()
    for pattern in _patterns(wrt):
        matched = [path for path in leaves if _matches(pattern, path, reserved)]
        if not matched:
            raise _no_match(call, pattern, trees, reserved)
        if [show(path) for path in matched] == [pattern] and leaves[matched[0]][0].held:
            raise NotDifferentiableError(
                f"{call}: wrt={pattern!r} cannot be differentiated: it is "
                f"{leaves[matched[0]][0].held}. Pass it as a floating-point array, "
                "or leave it out of wrt."
            )
        usable = {path for path in matched if leaves[path][0].held is None}
        if not usable:
            raise NotDifferentiableError(
                f"{call}: wrt={pattern!r} matches nothing that can be differentiated:"
                + listed(columns([(show(p), str(leaves[p][0].held)) for p in matched]))
            )
        chosen |= usable
    return chosen


def _matches(pattern: str, path: Path, reserved: list[str]) -> bool:
    if path[0] in reserved and not _names_argument(pattern, path[0]):
        return False
    return names_part(pattern, path)


def _ask(call: str, predicate: Predicate, path: Path, leaf: Any) -> bool:
    try:
        return bool(
            predicate(
                show(path),
                leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jnp.asarray(leaf),
            )
        )
    except jax.errors.ConcretizationTypeError as error:
        raise SelectionError(
            f"{call}: the predicate wrt looked at the value of {show(path)!r}, which is not "
            "known while JAX traces. Decide by the path, the shape and the dtype."
        ) from error


def _no_match(
    call: str, pattern: str, trees: dict[str, Tree], reserved: list[str]
) -> SelectionError:
    if pattern in trees:
        return SelectionError(
            f"{call}: wrt={pattern!r} names an argument without leaves: it is None or empty."
        )
    names = [*trees, *reserved, *all_parts(leaf.path for tree in trees.values() for leaf in tree.leaves)]
    remedy = nearest(pattern, names, "The call passed no arguments.")
    skipped = ""
    if is_glob(pattern) and reserved:
        skipped = f" A glob does not reach {', '.join(map(repr, reserved))}; name it in words."
    return SelectionError(f"{call}: wrt={pattern!r} matches nothing. {remedy}{skipped}")


def _nothing_differentiable(
    call: str,
    order: list[tuple[str, Any, str | None]],
    abstract: bool,
) -> NotDifferentiableError:
    rows: list[tuple[str, str]] = []
    for name, value, reserve in order:
        if reserve is not None:
            rows.append((name, reserve))
            continue
        leaves, _ = jtu.tree_flatten_with_path(value)
        if not leaves:
            rows.append((name, "None or empty"))
        for keys, leaf in leaves:
            path = (name, *map(component, keys))
            spec = _input_spec(call, path, leaf, abstract)
            rows.append((show(path), str(spec) if spec.dtype is not None else str(spec.held)))
    what = "none of the arguments is a floating-point array or number" if rows else "no arguments"
    return NotDifferentiableError(
        f"{call}: nothing to differentiate: {what}." + listed(columns(rows))
    )
