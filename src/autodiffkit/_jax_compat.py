"""The places where JAX offers no stable public name; `tests/test_jax_compat.py` pins each."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.extend.core as jex
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.extend.core import primitives
from jax.interpreters import partial_eval


def is_staging() -> bool:
    """Whether operations are being recorded (`jit`, `scan`, ...) instead of executed.

    Under `vmap`, `jvp` or `grad` alone the answer is no: there, whatever is not itself
    transformed has a concrete value, and Python control flow on it works.
    """
    # Under a staging trace even an operation on a constant is recorded. That is all that
    # can be had publicly: `jax.extend.core` has a question for it, named DO_NOT_USE.
    return isinstance(jax.lax.neg(np.float32(0)), jax.core.Tracer)


def is_eager(arrays: Iterable[Any]) -> bool:
    """Whether nothing is being traced, as far as these arrays show."""
    # Arrays first: the other question leaves an operation in what is being staged.
    return not any(isinstance(x, jax.core.Tracer) for x in arrays) and not is_staging()


def is_executing() -> bool:
    """Whether operations are executed, and neither recorded nor transformed in any way."""
    with jex.take_current_trace() as trace:
        return type(trace).__name__ == "EvalTrace"


def without_tracer(x: Any) -> Any:
    """A leaf, or the shape and dtype of one that is being traced."""
    if isinstance(x, jax.core.Tracer):
        return jax.ShapeDtypeStruct(x.shape, x.dtype)
    return x


def is_deleted(x: Any) -> bool:
    """Whether an array was donated to a compiled function, or deleted."""
    return isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) and x.is_deleted()


def make_treedef(node_data: Any, children: Sequence[Any]) -> Any:
    """A structure from what `PyTreeDef.node_data()` and `PyTreeDef.children()` give."""
    kind: Any = jtu.PyTreeDef
    # The static constructor has lost its prefix in later versions of jaxlib.
    make = getattr(kind, "from_node_data_and_children", None)
    if make is None:
        make = kind.make_from_node_data_and_children
    return make(jtu.default_registry, node_data, children)


def dataclass_fields(kind: type, names: Sequence[str]) -> tuple[list[str], list[str]] | None:
    """Which fields of a dataclass JAX flattens as data and which it keeps as metadata.

    Args:
        kind: A dataclass that is registered as a pytree node.
        names: The names of its fields.

    Returns:
        Names of data and metadata in the order that JAX holds them, found by flattening
        an instance made without its constructor; `None` if the class flattens itself in
        some way of its own.
    """
    probe: Any = object.__new__(kind)
    for name in names:
        object.__setattr__(probe, name, name)
    try:
        treedef: Any
        children, treedef = jtu.tree_flatten_with_path(probe, is_leaf=lambda x: x is not probe)
        metadata = treedef.node_data()[1]
        data = [child for _, child in children]
        if set(data) | set(metadata) <= set(names) and isinstance(metadata, tuple):
            return data, list(metadata)
    except Exception:  # a node with flattening code of its own may raise anything at all
        return None
    return None


def varying(kind: Any) -> frozenset[str]:
    """The axes of a mesh along which values of a type vary, inside of `jax.shard_map`."""
    # The field has had two names, and there is none in the documentation.
    manual = getattr(kind, "manual_axis_type", None)
    return frozenset() if manual is None else manual.varying


def struct_of(x: Any) -> jax.ShapeDtypeStruct:
    """The type of an array, or of a variable by its `aval`, as a structure to trace with.

    Besides shape and dtype it says what belongs to the type inside of `jax.shard_map` (the axes
    of the mesh along which values vary) and on a mesh with explicit axes (where the parts lie).
    """
    return varying_struct(jax.typeof(x) if isinstance(x, jax.Array) else x, ())


def varying_struct(kind: Any, axes: Iterable[str]) -> jax.ShapeDtypeStruct:
    """The same of a type, but that it varies along some more axes of the mesh in use."""
    every = varying(kind) | frozenset(axes)
    options: dict[str, Any] = {}
    if every:
        manual = jax.sharding.ManualAxisType(varying=every)
        whole = jax.sharding.PartitionSpec(*[None] * len(kind.shape))
        place = jax.sharding.NamedSharding(jax.sharding.get_abstract_mesh(), whole)
        options = {"sharding": place, "manual_axis_type": manual}
    elif is_explicit(kind):
        options = {"sharding": kind.sharding}
    return jax.ShapeDtypeStruct(kind.shape, kind.dtype, **options)


def is_explicit(kind: Any) -> bool:
    """Whether a type says on which devices the parts of an array are."""
    mesh = getattr(getattr(kind, "sharding", None), "mesh", None)
    return mesh is not None and jax.sharding.AxisType.Explicit in mesh.axis_types


def lacks_mesh(x: Any) -> bool:
    """Whether an array is on a mesh with explicit axes, while no mesh is in use."""
    return is_explicit(jax.typeof(x)) and jax.sharding.get_abstract_mesh().empty


def typed(x: Any, struct: jax.ShapeDtypeStruct) -> Any:
    """A value as one of the type of a structure, where JAX does not convert it by itself."""
    missing = varying(struct) - varying(jax.typeof(x))
    if missing:
        x = jax.lax.pcast(x, tuple(sorted(missing)), to="varying")
    return jax.reshard(x, struct.sharding) if is_explicit(struct) else x


def directions_at(arrays: Sequence[Any], directions: Sequence[Any]) -> list[Any]:
    """Tangents or cotangents of the types of some arrays, as `typed` makes them."""
    return list(map(typed, directions, map(struct_of, arrays)))


def gathered(x: Any) -> Any:
    """An array whose parts a mesh with explicit axes lays on its devices, whole on each.

    On such a mesh JAX wants to be told where the result of a reshape or of a product over a
    divided axis is.
    """
    kind = jax.typeof(x)
    if not is_explicit(kind):
        return x
    whole = jax.sharding.PartitionSpec()
    return jax.reshard(x, jax.sharding.NamedSharding(kind.sharding.mesh, whole))


def rule_key(value: Any) -> tuple[Any, ...] | None:
    """What the backward rule of a `jax.custom_vjp` is in an equation, in comparable form.

    JAX wraps the user's function anew in each trace, in a class that has no public name; the
    function itself and the structures of its arguments stay the same.

    Returns:
        A key, or `None` for any other parameter.
    """
    if type(value).__name__ != "WrappedFun":
        return None
    arguments = [argument for _, arguments in value.transforms for argument in arguments]
    trees = tuple(x for x in arguments if isinstance(x, jtu.PyTreeDef))
    return "rule", value.f, trees


def scan_counts(equation: Any) -> tuple[int, int]:
    """How many constants a `scan` equation has, and how many arrays it carries."""
    parameters = equation.params
    if "num_consts" in parameters:
        return parameters["num_consts"], parameters["num_carry"]
    # Since JAX 0.11 the operands are a tree of three parts.
    constants, carry, _ = parameters["ft_in"].update(equation.invars).unpack()
    return len([*constants]), len([*carry])


def without_unused(jaxpr: Any) -> Any:
    """A jaxpr of the same inputs and outputs, without equations whose results nothing needs."""
    # Among the interpreters, which are no part of the documentation.
    return partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)[0]


@functools.cache
def forgets_rules() -> bool:
    """Whether JAX calls the function alone where a `scan` that it linearises calls a rule.

    Derivatives of the value are then those of the function, and not those of the rule.
    """
    ruled = jax.custom_jvp(lambda x: x)
    ruled.defjvp(lambda primals, tangents: (ruled(*primals), *tangents))

    def scanned(x: Any) -> Any:
        return jax.lax.scan(lambda carry, _: (ruled(carry), None), x, length=1)[0]

    with jax.disable_jit(False):
        known = jax.make_jaxpr(lambda x: jax.linearize(scanned, x)[0])(0.0)
    (loop,) = (x for x in known.eqns if x.primitive is primitives.scan_p)
    return all(x.primitive is not primitives.custom_jvp_call_p for x in loop.params["jaxpr"].eqns)


def is_reference(variable: Any) -> bool:
    """Whether a variable of a jaxpr is a mutable array, made by `jax.new_ref`."""
    return type(variable.aval).__name__ == "AbstractRef"


def is_ordered(effect: Any) -> bool:
    """Whether an effect of a program is that of callbacks that come in an order."""
    # The classes of effects have no public names.
    return "Ordered" in type(effect).__name__


def is_unspecified(sharding: Any) -> bool:
    """Whether a `jit` equation leaves it open where an array lives, as it does by default."""
    # The marker for that is an object of a class that has no public name.
    return type(sharding).__name__ == "UnspecifiedValue"


def bind_equation(equation: Any, *operands: Any, **changes: Any) -> list[Any]:
    """Runs an equation as the user's call would, also if it calls a rule or a `jax.shard_map`.

    Public ways to run a program give all that happens in an equation the line of source that the
    equation has, what a rule does included.
    """
    primitive = equation.primitive
    results = primitive.bind(*operands, **primitive.get_bind_params({**equation.params, **changes}))
    return list(results) if primitive.multiple_results else [results]


class Operation(NamedTuple):
    """What JAX is about to do: a primitive with its operands, or the call of a rule."""

    primitive: Any
    operands: Sequence[Any]
    params: dict[str, Any]  # as of an equation
    bind: Callable[..., list[Any]]  # does it to operands


def _never(*_: Any) -> None:
    return None


def with_operations(
    function: Callable[..., Any],
    is_meant: Callable[[Operation], bool],
    run: Callable[[Operation], list[Any]],
    rescue: Callable[[Operation, Exception], list[Any] | None] = _never,
    within: Callable[[str, Sequence[Any]], Callable[[Operation], list[Any]] | None] = _never,
) -> Callable[..., Any]:
    """A function some operations of which are done in another way.

    Args:
        function: A function of arrays, which JAX is about to transform.
        is_meant: Says of an operation whether it is to be done in another way, before JAX
            differentiates, records or runs it. It is not asked about what calls a custom rule.
        run: Gives the results of one that is.
        rescue: Gives the results of one that JAX fails at, whatever it is, or `None` if it
            fails as well.
        within: Gives what to do instead of `run` with the operations of the rule of a
            `jax.custom_jvp`, or `None` to leave them to JAX. It takes the function and the line
            that the rule comes from, and the operands of the call.

    Returns:
        The function.
    """

    def changed(*args: Any) -> Any:
        with jex.take_current_trace() as trace:
            pass
        with jex.set_current_trace(_Watch(trace, is_meant, run, rescue, within)):
            return function(*args)

    return changed


class _Watch(jax.core.Trace):
    """What JAX is doing with the operations of a function, seen first by somebody else."""

    def __init__(self, trace: Any, *ways: Any) -> None:
        super().__init__()
        self.parent_trace = trace  # by this name JAX knows what it is in
        self.requires_low = trace.requires_low
        self._ways = ways

    def process_primitive(self, primitive: Any, tracers: Any, params: Any, /) -> Any:
        def bind(*operands: Any) -> list[Any]:
            results = primitive.bind(*operands, **params)
            return list(results) if primitive.multiple_results else [results]

        is_meant, run, _, _ = self._ways
        operation = Operation(primitive, tracers, params, bind)
        if is_meant(operation):
            with jex.set_current_trace(self.parent_trace):
                results = run(operation)
        else:
            try:
                return self.parent_trace.process_primitive(primitive, tracers, params)
            except Exception as error:  # any operation may refuse, each in its own way
                results = self._rescued(operation, error)
                if results is None:
                    raise
        return results if primitive.multiple_results else results[0]

    def _rescued(self, operation: Operation, error: Exception) -> list[Any] | None:
        _, _, rescue, _ = self._ways
        with jex.set_current_trace(self.parent_trace):
            return rescue(operation, error)

    def process_custom_jvp_call(
        self, primitive: Any, function: Any, rule: Any, tracers: Any, /, **kwargs: Any
    ) -> Any:
        is_meant, _, _, within = self._ways
        with jex.set_current_trace(self.parent_trace):
            run = within(str(rule.debug_info.func_src_info), tracers)
        watched = rule if run is None else _WatchedRule(rule, is_meant, run)
        try:
            process = self.parent_trace.process_custom_jvp_call
            return process(primitive, function, watched, tracers, **kwargs)
        except Exception as error:  # as above
            bind = _by_rule(rule, **kwargs)
            results = self._rescued(Operation(primitive, tracers, {}, bind), error)
            if results is None:
                raise
            return results

    def process_shard_map(
        self, primitive: Any, function: Any, tracers: Any, /, **kwargs: Any
    ) -> Any:
        def bind(*operands: Any) -> list[Any]:
            with jex.take_current_trace() as trace:
                return list(trace.process_shard_map(primitive, function, operands, **kwargs))

        try:
            inner = with_operations(function, *self._ways)
            return self.parent_trace.process_shard_map(primitive, inner, tracers, **kwargs)
        except Exception as error:  # as above
            results = self._rescued(Operation(primitive, tracers, {}, bind), error)
            if results is None:
                raise
            return results

    def process_custom_vjp_call(self, *args: Any, **kwargs: Any) -> Any:
        return self.parent_trace.process_custom_vjp_call(*args, **kwargs)

    def process_call(self, *args: Any, **kwargs: Any) -> Any:
        return self.parent_trace.process_call(*args, **kwargs)

    def stage_value(self, val: Any) -> Any:
        return self.parent_trace.stage_value(val)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.parent_trace, name)


class _WatchedRule:
    """What JAX has made of a rule, with the operations that it does seen first, too."""

    def __init__(self, rule: Any, is_meant: Any, run: Any) -> None:
        self._rule = rule
        self._is_meant, self._run = is_meant, run

    def call_wrapped(self, *args: Any) -> Any:
        call = self._rule.call_wrapped
        return with_operations(call, self._is_meant, self._run)(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rule, name)


class Division(NamedTuple):
    """Operands in a rule that JAX divides into what is known and what depends on tangents."""

    outside: Any  # where what is known is computed
    values: list[Any]  # the operands, as they are there if they are known
    is_unknown: list[bool]


def divided(operands: Sequence[Any]) -> Division | None:
    """The operands of an operation in a rule, `None` if JAX is not about to divide it."""
    with jex.take_current_trace() as trace:
        pass
    if type(trace).__name__ != "JaxprTrace":
        return None
    internal: Any = trace
    tracers = [internal.to_jaxpr_tracer(x) for x in operands]
    return Division(
        internal.parent_trace,
        [x.full_lower() if x.is_known() else x for x in tracers],
        [not x.is_known() for x in tracers],
    )


def _by_rule(rule: Any, symbolic_zeros: bool) -> Callable[..., list[Any]]:
    """The function that a rule of a `jax.custom_jvp` belongs to, as the rule computes it.

    Args:
        rule: What JAX has made of the rule; it takes primals and tangents, and gives results and
            tangents of results, all in one list.
        symbolic_zeros: Whether it takes tangents that say that they are zero.
    """

    def push(primals: Any, tangents: Any) -> tuple[list[Any], list[Any]]:
        results = rule.call_wrapped(*primals, *tangents)
        half = len(results) // 2
        return results[:half], results[half:]

    @jax.custom_jvp
    def function(*primals: Any) -> list[Any]:
        zeros = [
            jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.inexact) else _no_tangent(x)
            for x in map(jnp.asarray, primals)
        ]
        return push(primals, zeros)[0]

    function.defjvp(push, symbolic_zeros=symbolic_zeros)
    return function


def _no_tangent(x: Any) -> Any:
    return np.zeros(x.shape, jax.dtypes.float0)
