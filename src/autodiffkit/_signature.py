"""The user's call taken apart: named leaves, what is differentiated, what is held."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array

from autodiffkit._errors import (
    NotDifferentiableError,
    SignatureError,
    columns,
    listed,
)
from autodiffkit._function import Function
from autodiffkit._function_hints import FunctionHints
from autodiffkit._inputs import Argument, Inputs
from autodiffkit._leaves import LeafSpec, describe_leaf, is_array, is_inexact, leaf_spec
from autodiffkit._paths import Path, component, show
from autodiffkit._selection import Selection, names_argument, select
from autodiffkit._trees import NOTHING, Tree
from autodiffkit._walk import annotations_of

Around = Callable[[dict[str, Any], Callable[[], Any]], Any]


@dataclasses.dataclass
class BoundCall:
    """The user's call, taken apart.

    `selected` are the leaves to differentiate, as arrays. `structs` are the other
    `jax.ShapeDtypeStruct`s of a call to `.plan`, which have to be traced as well.
    """

    inputs: Inputs
    selected: list[Any]
    structs: list[Any]
    hints: FunctionHints
    _function: Function
    _leaves: dict[str, list[Any]]  # by argument; what is not here is passed as it came
    _rebuilt: frozenset[str]  # arguments with a leaf that is replaced
    _passed: inspect.BoundArguments
    _by_keyword: frozenset[str]

    @property
    def defaults(self) -> dict[str, Any]:
        """The arguments that were left out."""
        parameters = self._passed.signature.parameters.values()
        left_out = (p for p in parameters if p.name not in self._passed.arguments)
        return {p.name: p.default for p in left_out if p.default is not p.empty}

    @property
    def leaves(self) -> list[tuple[LeafSpec, Any]]:
        """The leaves of all arguments that were looked into, held or not."""
        return [
            pair
            for argument in self.inputs.arguments
            for pair in zip(argument.tree.leaves, self._leaves.get(argument.name, ()), strict=True)
        ]

    @property
    def source(self) -> Callable[..., Any]:
        """What the user would call."""
        return self._function.source

    def with_structs(self, values: Sequence[Any]) -> "BoundCall":
        """The same call with values in the place of `structs`."""
        left = iter(values)
        leaves = {
            argument.name: [
                next(left) if _is_struct(leaf) and spec.held is not None else leaf
                for leaf, spec in zip(
                    self._leaves[argument.name], argument.tree.leaves, strict=True
                )
            ]
            for argument in self.inputs.arguments
            if argument.name in self._leaves
        }
        return dataclasses.replace(self, _leaves=leaves, structs=[])

    def evaluate(self, selected: Sequence[Array], around: Around | None = None) -> Any:
        """Calls the function with these values in the place of the differentiated leaves.

        Args:
            selected: The values.
            around: Calls the function: takes the arguments that were passed, by name, and
                what has to be called.

        Returns:
            What the function returned.
        """
        values = iter(selected)
        arguments = dict(self._passed.arguments)
        bound = self._function.bound
        for argument in self.inputs.arguments:
            if argument.name not in self._rebuilt:
                continue  # what is held is passed as it came
            leaves = list(self._leaves[argument.name])
            for i in argument.tree.selected:
                leaves[i] = next(values)
            value = jtu.tree_unflatten(argument.tree.treedef, leaves)
            if argument.role == "bound":
                bound = (argument.name, value)
            else:
                arguments[argument.name] = value
        args, kwargs = self._as_passed(arguments)
        if bound is not None:
            args.insert(0, bound[1])
            arguments = {bound[0]: bound[1], **arguments}

        def run() -> Any:
            return self._function.call(*args, **kwargs)

        return run() if around is None else around(arguments, run)

    def _as_passed(self, arguments: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        # Keywords stay keywords: a wrapper may have a signature that is not quite its own.
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        gap = False
        parameters = self._passed.signature.parameters
        last = max(
            (i for i, p in enumerate(parameters.values()) if _is_named(p, arguments)), default=-1
        )
        for i, (name, parameter) in enumerate(parameters.items()):
            if name not in arguments:
                if parameter.kind is parameter.POSITIONAL_ONLY and i < last:
                    args.append(parameter.default)
                else:
                    gap = True
            elif parameter.kind is parameter.VAR_POSITIONAL:
                args.extend(arguments[name])
            elif parameter.kind is parameter.VAR_KEYWORD:
                # JAX rebuilds a dict with sorted keys; the function sees the caller's order.
                kwargs.update({key: arguments[name][key] for key in self._passed.arguments[name]})
            elif parameter.kind is parameter.POSITIONAL_ONLY:
                args.append(arguments[name])
            elif parameter.kind is parameter.KEYWORD_ONLY or name in self._by_keyword or gap:
                kwargs[name] = arguments[name]
            else:
                args.append(arguments[name])
        return args, kwargs


def _is_named(parameter: inspect.Parameter, arguments: dict[str, Any]) -> bool:
    return parameter.kind is parameter.POSITIONAL_ONLY and parameter.name in arguments


def _is_struct(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


@dataclasses.dataclass
class _Raw:
    """An argument before selection; `reserve` says why only its name selects it."""

    name: str
    value: Any
    reserve: str | None = None
    leaves: list[Any] = dataclasses.field(default_factory=list[Any])
    tree: Tree | None = None
    flaw: SignatureError | None = None  # why it could not be flattened


def bind(
    call: str,
    function: Function,
    wrt: Selection,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    hints: FunctionHints,
    abstract: bool = False,
) -> BoundCall:
    """Names the leaves of the arguments and selects those to differentiate.

    Args:
        call: The transform and the function, for messages: `jacobian(residual)`.
        function: The user's function.
        wrt: The selection, as the transforms document it.
        args: Positional arguments.
        kwargs: Keyword arguments.
        hints: The annotations that the leaves of the arguments get.
        abstract: Whether `jax.ShapeDtypeStruct`s may stand for arrays.

    Returns:
        The bound call.

    Raises:
        SignatureError: If the arguments do not fit.
        NotDifferentiableError: If nothing that is selected can be differentiated.
    """
    passed = passed_arguments(call, function, args, kwargs)
    raws = _arguments(function, passed)
    for raw in raws:
        if raw.reserve is None or names_argument(wrt, raw.name):
            _flatten(call, raw, needed=names_argument(wrt, raw.name), abstract=abstract)
    pairs = [
        pair
        for raw in raws
        if raw.tree is not None
        for pair in zip(raw.tree.leaves, raw.leaves, strict=True)
    ]
    _annotate(raws, hints)
    reserved = [raw.name for raw in raws if raw.reserve is not None]
    chosen = select(call, wrt, pairs, [raw.name for raw in raws], reserved)
    positions, by_keyword = _positions(passed, len(args), kwargs)
    inputs = Inputs(
        tuple(_argument(raw, chosen, positions.get(raw.name), passed.signature) for raw in raws)
    )
    if not inputs.specs:
        flaws = (raw.flaw for raw in raws if raw.flaw is not None)
        raise next(flaws, _nothing_differentiable(call, raws))
    leaves = {raw.name: raw.leaves for raw in raws if raw.tree is not None}
    rebuilt = frozenset(
        argument.name
        for argument in inputs.arguments
        if argument.tree.selected or any(map(_is_struct, leaves.get(argument.name, ())))
    )
    specs = [
        (spec, leaf)
        for argument in inputs.arguments
        for spec, leaf in zip(argument.tree.leaves, leaves.get(argument.name, ()), strict=True)
    ]
    return BoundCall(
        inputs,
        [x if abstract else jnp.asarray(x) for spec, x in specs if spec.held is None],
        [x for spec, x in specs if spec.held is not None and _is_struct(x)],
        hints,
        function,
        leaves,
        rebuilt,
        passed,
        by_keyword,
    )


def _arguments(function: Function, passed: inspect.BoundArguments) -> list[_Raw]:
    """Every argument there is: passed, left out, and the object that the function is bound to."""
    raws: list[_Raw] = []
    if function.bound is not None:
        name, value = function.bound
        reserve = f"the object that {function.name} is bound to is constant unless wrt names it"
        raws.append(_Raw(name, value, reserve))
    for name, parameter in passed.signature.parameters.items():
        if name in passed.arguments:
            raws.append(_Raw(name, passed.arguments[name]))
        elif parameter.default is not parameter.empty:
            reserve = "a default that is left out is constant unless wrt names it"
            raws.append(_Raw(name, parameter.default, reserve))
        else:
            empty: Any = () if parameter.kind is parameter.VAR_POSITIONAL else {}
            raws.append(_Raw(name, empty))
    return raws


def _argument(
    raw: _Raw, chosen: set[Path], position: int | None, signature: inspect.Signature
) -> Argument:
    parameter = signature.parameters.get(raw.name)
    role: Literal["plain", "variadic", "bound"] = "plain"
    if parameter is None:
        role = "bound"
    elif parameter.kind is parameter.VAR_POSITIONAL:
        role = "variadic"
    if raw.tree is None:
        return Argument(raw.name, Tree(NOTHING, ()), position, role, raw.reserve)
    leaves = tuple(
        leaf
        if leaf.held is not None or leaf.path in chosen
        else dataclasses.replace(leaf, held="not in wrt")
        for leaf in raw.tree.leaves
    )
    return Argument(raw.name, Tree(raw.tree.treedef, leaves, depth=1), position, role)


def passed_arguments(
    call: str, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> inspect.BoundArguments:
    """What was passed, by the parameters of the function.

    Raises:
        SignatureError: If the arguments do not fit.
    """
    try:
        return function.signature.bind(*args, **kwargs)
    except TypeError as error:
        raise SignatureError(
            f"{call}: {error}. The function is {function}; the call passed "
            f"{_describe_call(args, kwargs)}.",
            remedy="Call the transform as you would call the function.",
        ) from None


def _describe_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    positional = f"{len(args)} positional argument{'' if len(args) == 1 else 's'}"
    if not kwargs:
        return positional
    return f"{positional} and the keyword{'' if len(kwargs) == 1 else 's'} {', '.join(kwargs)}"


def _positions(
    passed: inspect.BoundArguments, count: int, kwargs: dict[str, Any]
) -> tuple[dict[str, int], frozenset[str]]:
    """Where each argument stood, and which ones came by keyword."""
    positions: dict[str, int] = {}
    by_keyword: set[str] = set()
    for name, parameter in passed.signature.parameters.items():
        if name not in passed.arguments or parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is not parameter.KEYWORD_ONLY and len(positions) < count:
            positions[name] = len(positions)
        elif name in kwargs:
            by_keyword.add(name)
    return positions, frozenset(by_keyword)


def _flatten(call: str, raw: _Raw, *, needed: bool, abstract: bool) -> None:
    """Fills in the leaves of an argument and its structure; what cannot be selected is held."""
    try:
        keyed, treedef = jtu.tree_flatten_with_path(raw.value)
    except Exception as error:
        raw.flaw = SignatureError(
            f"{call}: argument {raw.name!r} could not be flattened as a pytree: {error}",
            remedy="Register its class with JAX (jax.tree_util.register_dataclass), or mend how it "
            "is flattened.",
        )
        if needed:
            raise raw.flaw from error
        raw.reserve = "what JAX cannot flatten as a pytree is constant"
        return
    specs = tuple(_input_spec((raw.name, *map(component, keys)), leaf) for keys, leaf in keyed)
    raw.leaves = [leaf for _, leaf in keyed]
    raw.tree = Tree(treedef, specs, depth=1)
    for spec, leaf in zip(specs, raw.leaves, strict=True):
        if _is_struct(leaf) and not abstract:
            raise SignatureError(
                f"{call}: {show(spec.path)!r} is a jax.ShapeDtypeStruct, which has no values. "
                "Only .plan(...) takes structures; pass an array here."
            )


def _annotate(raws: Sequence[_Raw], hints: FunctionHints) -> None:
    """Gives the leaves of the arguments the annotations that there are."""
    for raw in raws:
        node = hints.parameters.get(raw.name)
        if raw.tree is None or node is None:
            continue
        shared = hints.is_alone(raw.name)
        found = dict(annotations_of(node, raw.value, (raw.name,), shared=shared))
        raw.tree = raw.tree.annotated(found)


def _input_spec(path: Path, leaf: Any) -> LeafSpec:
    if not (isinstance(leaf, (float, complex)) or is_array(leaf) or _is_struct(leaf)):
        return LeafSpec(path, held=describe_leaf(leaf))
    spec = leaf_spec(path, leaf)
    return spec if is_inexact(spec.dtype) else dataclasses.replace(spec, held=str(spec))


def _nothing_differentiable(call: str, raws: Sequence[_Raw]) -> NotDifferentiableError:
    rows: list[tuple[str, str]] = []
    for raw in raws:
        if raw.tree is None:
            rows.append((raw.name, str(raw.reserve)))
        elif not raw.tree.leaves:
            rows.append((raw.name, "None or empty"))
        else:
            rows += [(show(leaf.path), str(leaf.held)) for leaf in raw.tree.leaves]
    if not rows:
        return NotDifferentiableError(
            f"{call}: nothing to differentiate: there are no arguments. Give the function one."
        )
    constants = ", or name a constant in wrt" if any(raw.reserve for raw in raws) else ""
    return NotDifferentiableError(
        f"{call}: nothing to differentiate: the call passed no floating-point array or number. "
        f"Convert to floating point what should be differentiated{constants}."
        + listed(columns(rows))
    )
