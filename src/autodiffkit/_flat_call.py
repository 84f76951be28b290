"""The user's call as a flat function of arrays, and the structure of what it returned."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array

from autodiffkit._errors import (
    NotDifferentiableError,
    SelectionError,
    columns,
    listed,
    nearest,
)
from autodiffkit._inputs import Inputs
from autodiffkit._leaves import (
    Ends,
    LeafSpec,
    describe_leaf,
    is_array,
    is_complex,
    is_inexact,
    is_numeric,
    leaf_spec,
)
from autodiffkit._limits import NO_LIMITS, Limits
from autodiffkit._paths import Path, all_parts, component, legible, names_part, show
from autodiffkit._signature import BoundCall
from autodiffkit._structured_map import StructuredMap
from autodiffkit._trees import Tree, Values
from autodiffkit._typecheck import checked, result_node
from autodiffkit._walk import annotations_of


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a transform, in hashable form."""

    wrt: Any = None
    of: Any = None
    mode: str = "auto"
    has_aux: bool = False
    holomorphic: bool | None = False  # None where there is no such option
    typecheck: bool = True
    layout: str = "dense"
    blocks: Any = None  # pairs of patterns, or "diagonal"; None means all
    limits: Limits = NO_LIMITS
    scalar: bool | str = False  # whether one scalar output is needed; of what, if not of the output


class FlatCall:
    """The bound call as a flat function; after it has run, the structure of its output."""

    outputs: Tree

    def __init__(self, call: str, name: str, bound: BoundCall, options: Options) -> None:
        self.call = call
        self.name = name
        self.inputs: Inputs = bound.inputs
        self.selected: Sequence[Any] = bound.selected
        self.holomorphic = bool(options.holomorphic)
        self.may_be_holomorphic = options.holomorphic is not None
        self.mode = options.mode
        self.is_compact = options.layout == "compact"
        self.blocks = options.blocks
        self.limits = options.limits
        self._bound = bound
        self._options = options
        self._passive: list[Any] = []  # leaves of value and aux that are no traced arrays
        self._treedefs: tuple[Any, Any] = (None, None)
        # What JAX says of the function it traces, and of its arguments.
        self.__name__ = name
        self.__wrapped__ = bound.source
        self.__signature__ = _leaf_signature(bound.inputs.specs)

    def __call__(self, *selected: Array) -> tuple[list[Array], list[Any]]:
        """Runs the user's function: the outputs to differentiate, and the other arrays."""
        out = self._bound.evaluate(selected, None if self._bound.hints.is_checked else self._check)
        aux: Any = None
        if self._options.has_aux:
            if not isinstance(out, tuple) or len(out) != 2:
                raise NotDifferentiableError(
                    f"{self.call}: has_aux=True needs the function to return a pair "
                    f"(output, aux); it returned {describe_leaf(out)}"
                    f"{f' of {len(out)}' if isinstance(out, tuple) else ''}. "
                    "Return such a pair, or leave has_aux out."
                )
            out, aux = out
        self.outputs, leaves = _flatten_output(self.call, out, self._options.of)
        self._annotate(out)
        self._see(out)
        self._check_outputs()
        aux_leaves, aux_treedef = jtu.tree_flatten(aux)
        self._treedefs = (self.outputs.treedef, aux_treedef)
        differentiated = [jnp.asarray(leaves[i]) for i in self.outputs.selected]
        for i in self.outputs.selected:
            leaves[i] = _Slot
        self._passive = [_Traced if is_array(x) else x for x in (*leaves, *aux_leaves)]
        rest = [x for x in (*leaves, *aux_leaves) if is_array(x)]
        return differentiated, rest

    def _check(self, arguments: dict[str, Any], run: Callable[[], Any]) -> Any:
        bound, has_aux = self._bound, self._options.has_aux
        return checked(
            self.call,
            bound.hints,
            arguments,
            run,
            defaults=bound.defaults,
            has_aux=has_aux,
        )

    def _see(self, out: Any) -> None:
        """What else there is to learn of the output as the function returned it."""

    def _annotate(self, out: Any) -> None:
        """Gives the leaves of the output the annotations that there are."""
        node = result_node(self._bound.hints, has_aux=self._options.has_aux)
        shared = self._bound.hints.is_new(node)
        found = annotations_of(node, out, (), shared=shared, root="output")
        self.outputs = self.outputs.annotated(dict(found))

    def values(self, outs: Sequence[Any], rest: Sequence[Any]) -> tuple[Values, Values]:
        """The function's value and the auxiliary data, put together again."""
        outs_left, rest_left = iter(outs), iter(rest)
        leaves = [
            next(outs_left) if x is _Slot else next(rest_left) if x is _Traced else x
            for x in self._passive
        ]
        count = len(self.outputs.leaves)
        value_treedef, aux_treedef = self._treedefs
        return (
            Values.of(jtu.tree_unflatten(value_treedef, leaves[:count])),
            Values.of(jtu.tree_unflatten(aux_treedef, leaves[count:])),
        )

    @property
    def held(self) -> list[tuple[str, str]]:
        """What is held constant, for the plan."""
        rows: list[tuple[str, str]] = []
        for argument in self.inputs.arguments:
            if argument.held is not None:
                rows.append((argument.name, argument.held))
            rows += [(legible(x.path), x.held) for x in argument.tree.leaves if x.held is not None]
        return rows

    @property
    def leaves(self) -> list[tuple[LeafSpec, Any]]:
        """The leaves of the arguments as they came, held or not."""
        return self._bound.leaves

    @property
    def structs(self) -> list[Any]:
        """What has to be traced although it is not differentiated, in a call to `.plan`."""
        return self._bound.structs

    def with_structs(self, values: Sequence[Any]) -> "FlatCall":
        """The same call with values in the place of `structs`."""
        bound = self._bound.with_structs(values)
        return FlatCall(self.call, self.name, bound, self._options)

    @property
    def ends(self) -> Ends:
        """What the first derivative is swept from and to."""
        return Ends(self.inputs.specs, self.outputs.specs, self.holomorphic, self.is_compact)

    def _check_outputs(self) -> None:
        """Refuses what has no derivative of the kind that was asked for."""
        if self._options.scalar:
            self._check_scalar()
        sources = [spec for spec in self.inputs.specs if is_complex(spec.dtype)]
        targets = [spec for spec in self.outputs.specs if is_complex(spec.dtype)]
        if self.holomorphic:
            real = [
                (f"{kind} {show(spec.path)}".rstrip(), str(spec))
                for kind, specs in (("input", self.inputs.specs), ("output", self.outputs.specs))
                for spec in specs
                if not is_complex(spec.dtype)
            ]
            if real:
                raise NotDifferentiableError(
                    f"{self.call}: holomorphic=True needs complex inputs and outputs. Convert "
                    "these to complex, or leave them out of wrt or of." + listed(columns(real))
                )
        elif sources and targets:
            rows = [("input " + show(spec.path), str(spec)) for spec in sources]
            rows += [(f"output {show(spec.path)}".rstrip(), str(spec)) for spec in targets]
            raise NotDifferentiableError(
                f"{self.call}: a complex output of a complex input has a derivative only where "
                "the function is holomorphic. "
                + ("Pass holomorphic=True if it is; otherwise" if self.may_be_holomorphic else "Do")
                + " differentiate real and imaginary parts."
                + listed(columns(rows))
            )

    def _check_scalar(self) -> None:
        specs = self.outputs.specs
        if len(specs) == 1 and specs[0].shape == ():
            if is_complex(specs[0].dtype) and not self.holomorphic:
                raise NotDifferentiableError(
                    f"{self.call}: a gradient needs a real output; the function returned "
                    f"{specs[0]}. adk.jacobian differentiates a complex output."
                )
            return
        rows = [(show(spec.path) or "output", str(spec)) for spec in specs]
        if self._options.scalar == "loss":
            raise NotDifferentiableError(
                f"{self.call}: the loss must return one real scalar. Reduce what it returns "
                "to one, for example with jnp.sum. It returned:"
                + listed(columns([(show(spec.path) or "loss", str(spec)) for spec in specs]))
            )
        remedy = ""
        if len(specs) > 1 and self._is_loss_and_more():
            remedy = (
                ", or choose one with of='...', or pass has_aux=True if the "
                "second is auxiliary data"
            )
        elif len(specs) > 1:
            remedy = ", or choose one with of='...'"
        elif self.outputs.size == 1:
            remedy = ", or make the output a scalar with .squeeze()"
        raise NotDifferentiableError(
            f"{self.call}: the output must be one scalar. Use adk.jacobian or adk.hessian, which "
            f"take any{remedy}. The function returned:" + listed(columns(rows))
        )

    def _is_loss_and_more(self) -> bool:
        """Whether the function returned a pair that begins with a scalar."""
        node = self.outputs.treedef.node_data()
        is_tuple = node is not None and node[0] is tuple
        is_pair = is_tuple and len(self.outputs.treedef.children()) == 2
        is_new = not self._options.has_aux and self._options.of is None
        first = self.outputs.specs[0]
        return is_pair and is_new and first.path == ("0",) and first.shape == ()


def _leaf_signature(specs: Sequence[LeafSpec]) -> inspect.Signature:
    """A parameter for each leaf, named after its path."""
    names = [re.sub(r"\W", "_", show(spec.path)) for spec in specs]
    if len(set(names)) < len(names) or not all(map(str.isidentifier, names)):
        names = [f"leaf_{i}" for i in range(len(specs))]
    kind = inspect.Parameter.POSITIONAL_ONLY
    return inspect.Signature([inspect.Parameter(name, kind) for name in names])


class _Slot:
    """Stands for an output that is differentiated."""


class _Traced:
    """Stands for an array that the function returned besides."""


def _flatten_output(call: str, out: Any, of: Any) -> tuple[Tree, list[Any]]:
    """The leaves of the output and which of them are differentiated."""
    paths, leaves, treedef = _named_leaves(out)
    specs: list[LeafSpec] = []
    for path, leaf in zip(paths, leaves, strict=True):
        if not is_numeric(leaf):
            specs.append(LeafSpec(path, held=describe_leaf(leaf)))
            continue
        spec = leaf_spec(path, leaf)
        if not is_inexact(spec.dtype):
            spec = dataclasses.replace(spec, held=str(spec))
        specs.append(spec)
    if not any(spec.held is None for spec in specs):
        rows = [(show(spec.path) or "output", str(spec.held)) for spec in specs]
        what = (
            "no array at all"
            if not any(spec.dtype is not None for spec in specs)
            else ("no floating-point array")
        )
        returned = "" if rows else f" It returned {out!r}."
        raise NotDifferentiableError(
            f"{call}: the function returned {what}, so there is nothing to differentiate. "
            f"Return floating-point arrays or numbers.{returned}" + listed(columns(rows))
        )
    if of is not None:
        specs = _select_outputs(call, of, specs)
    return Tree(treedef, tuple(specs)), leaves


def _named_leaves(out: Any) -> tuple[list[Path], list[Any], Any]:
    """The leaves of the output by path; those of a derivative under the names that it uses."""
    keyed, _ = jtu.tree_flatten_with_path(out, is_leaf=lambda x: isinstance(x, StructuredMap))
    paths: list[Path] = []
    for keys, node in keyed:
        inside: list[Path] = [()]
        if isinstance(node, StructuredMap):
            inside = node._leaf_paths()
            generic, _ = jtu.tree_flatten_with_path(node)
            if len(inside) != len(generic):  # somebody has mapped leaves to None
                inside = [tuple(map(component, rest)) for rest, _ in generic]
        paths += [tuple(map(component, keys)) + rest for rest in inside]
    leaves, treedef = jtu.tree_flatten(out)
    return paths, leaves, treedef


def _select_outputs(call: str, of: Any, specs: list[LeafSpec]) -> list[LeafSpec]:
    chosen: set[int] = set()
    for pattern in (of,) if isinstance(of, str) else of:
        matched = [i for i, spec in enumerate(specs) if names_part(pattern, spec.path)]
        if not matched:
            raise SelectionError(
                f"{call}: of={pattern!r} matches no output"
                + nearest(
                    pattern,
                    all_parts(spec.path for spec in specs),
                    "The output is a single array without a name; leave of out.",
                )
            )
        usable = {i for i in matched if specs[i].held is None}
        if not usable:
            rows = [(show(specs[i].path), str(specs[i].held)) for i in matched]
            raise NotDifferentiableError(
                f"{call}: of={pattern!r} matches no output that can be differentiated; only "
                "floating-point arrays can. Convert it, or select another." + listed(columns(rows))
            )
        chosen |= usable
    return [
        spec if i in chosen or spec.held else dataclasses.replace(spec, held="not in of")
        for i, spec in enumerate(specs)
    ]
