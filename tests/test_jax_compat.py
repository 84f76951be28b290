"""Everything that the package assumes of JAX without a public promise, each by its name."""

import dataclasses
import functools
import inspect

import equinox as eqx
import jax
import jax.extend
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import pytest
from jax import shard_map
from jax.experimental import io_callback
from jax.extend.source_info_util import summarize
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from autodiffkit import _jax_compat as compat
from autodiffkit._jax_compat import (
    gathered,
    is_deleted,
    is_explicit,
    is_ordered,
    struct_of,
    typed,
    varying,
    varying_struct,
)


def test_an_operation_on_a_constant_is_recorded_under_every_staging_trace():
    seen = []

    def look(x):
        seen.append(compat.is_staging())
        return x

    jax.jit(look)(1.0)
    jax.make_jaxpr(look)(1.0)
    jax.eval_shape(look, 1.0)
    jax.lax.scan(lambda c, _: (look(c), None), 1.0, length=1)
    assert seen
    assert all(seen)


def test_an_operation_on_a_constant_is_executed_outside_of_one():
    seen = []

    def look(x):
        seen.append(compat.is_staging())
        return x * 1.0

    look(1.0)
    jax.vmap(look)(jnp.ones(2))
    jax.grad(look)(1.0)
    jax.jvp(look, (1.0,), (1.0,))
    jax.linearize(look, 1.0)
    assert seen == 5 * [False]


def test_operations_are_known_to_be_executed_or_not():
    seen = []

    def look(x):
        seen.append(compat.is_executing())
        return x * 1.0

    look(1.0)
    assert seen == [True]
    jax.jit(look)(1.0)
    jax.vmap(look)(jnp.ones(2))
    jax.grad(look)(1.0)
    jax.jvp(look, (1.0,), (1.0,))
    jax.linearize(look, 1.0)
    assert seen == [True, *5 * [False]]


def test_what_nothing_needs_is_left_out_of_a_program():
    def f(x, y):
        jax.debug.callback(leave, y)
        jnp.sin(x)
        return jax.lax.scan(lambda c, x: (c + x, jnp.exp(x)), 0.0, x)[0], 2 * y

    jaxpr = jax.make_jaxpr(f)(jnp.ones(2), 1.0).jaxpr
    (*_, loop, _) = kept = compat.without_unused(jaxpr).eqns
    assert [x.primitive.name for x in kept] == ["debug_callback", "scan", "mul"]
    assert "exp" not in str(loop)
    unused = jax.make_jaxpr(lambda x, y: y)(1.0, 2.0).jaxpr
    assert len(compat.without_unused(unused).invars) == 2  # they stay


def test_whether_rules_are_forgotten_is_what_jax_does():
    same = jax.custom_jvp(lambda x: x**2)
    same.defjvp(lambda primals, tangents: (same(*primals), 3 * primals[0] * tangents[0]))

    def scanned(x):
        return jax.lax.scan(lambda c, _: (same(c), None), x, length=2)[0]

    followed = jax.jacfwd(jax.jacfwd(scanned))(1.0)
    assert (jax.jacfwd(jax.jacrev(scanned))(1.0) != followed) == compat.forgets_rules()
    known = compat.forgets_rules()
    compat.forgets_rules.cache_clear()
    with jax.disable_jit():  # where there are no loops
        assert compat.forgets_rules() == known


def test_a_checkpoint_holds_what_it_is_made_of():
    equation = jax.make_jaxpr(jax.checkpoint(jnp.sin, prevent_cse=False))(1.0).eqns[0]
    assert equation.primitive is jax.extend.core.primitives.remat_p
    assert set(equation.params) == {"jaxpr", "prevent_cse", "differentiated", "policy"}
    assert equation.params["prevent_cse"] is False


def test_a_tracer_is_an_instance_of_the_public_class():
    seen = []
    jax.vmap(lambda x: seen.append(isinstance(x, jax.core.Tracer)))(jnp.ones(2))
    assert seen == [True]
    assert compat.is_eager([jnp.ones(2)])


def test_a_scan_tells_its_constants_from_what_it_carries():
    def scanned(x, y):
        def step(carry, row):
            return (carry[0] + x[0], carry[1] * jnp.sum(row)), row * x

        return jax.lax.scan(step, (y[0], 2.0), y)

    equations = jax.make_jaxpr(scanned)(jnp.ones(3), jnp.ones(3)).eqns
    (equation,) = [x for x in equations if x.primitive.name == "scan"]
    constants, carried = compat.scan_counts(equation)
    assert carried == 2
    assert constants == len(equation.invars) - 3


def test_a_structure_is_taken_apart_and_put_together():
    tree = {"a": (1, None), "b": [2, 3]}
    treedef = jtu.tree_structure(tree)
    assert treedef.node_data()[0] is dict
    again = compat.make_treedef(treedef.node_data(), treedef.children())
    assert again == treedef
    assert jtu.tree_structure(1).node_data() is None
    assert jtu.tree_structure(None).num_leaves == 0


@functools.partial(jtu.register_dataclass, data_fields=["b", "a"], meta_fields=["n"])
@dataclasses.dataclass
class Registered:
    a: float
    n: int
    b: float


def test_a_registered_dataclass_tells_which_fields_are_data():
    assert compat.dataclass_fields(Registered, ["a", "n", "b"]) == (["b", "a"], ["n"])


@jtu.register_pytree_node_class
@dataclasses.dataclass
class Own:
    a: float

    def tree_flatten(self):
        return (self.a + 1,), "metadata"

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def test_a_dataclass_that_flattens_itself_is_left_to_itself():
    assert compat.dataclass_fields(Own, ["a"]) is None


def test_a_linear_program_can_be_had_and_transposed_with_public_names():
    out, tangent_map, aux = jax.linearize(lambda x: (jnp.sin(x), "aux"[:0] or x), 2.0, has_aux=True)
    del out, aux
    closed = jax.make_jaxpr(tangent_map)(1.0)
    assert len(closed.consts) == 1
    rebuilt = jax.extend.core.ClosedJaxpr(closed.jaxpr, closed.consts)
    (pushed,) = jax.extend.core.jaxpr_as_fun(rebuilt)(1.0)
    assert jnp.allclose(pushed, jnp.cos(2.0))
    (pulled,) = jax.linear_transpose(tangent_map, 1.0)(1.0)
    assert jnp.allclose(pulled, jnp.cos(2.0))


def test_a_custom_vjp_leaves_an_equation_that_refuses_when_batched():
    @jax.custom_vjp
    def f(x):
        return x**2

    f.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))
    _, tangent_map = jax.linearize(f, 2.0)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.eval_shape(jax.vmap(tangent_map), jnp.ones(1))


def test_the_rule_of_a_custom_vjp_is_known_by_its_function():
    @jax.custom_vjp
    def f(x):
        return x**2

    def backward(x, g):
        return (2 * x * g,)

    f.defvjp(lambda x: (x**2, x), backward)

    def rule():
        _, tangent_map = jax.linearize(f, 2.0)
        (equation,) = jax.make_jaxpr(tangent_map)(1.0).jaxpr.eqns
        return equation.params["bwd"]

    first, second = rule(), rule()
    assert first is not second
    key = compat.rule_key(first)
    assert key == compat.rule_key(second)
    assert key[:2] == ("rule", backward)
    assert compat.rule_key(backward) is None


def test_equinox_keeps_the_name_of_a_wrapped_function():
    class Wrapper(eqx.Module):
        f: object

        @property
        def __wrapped__(self):
            return self.f

        def __call__(self, x):
            return self.f(x)

    def named(x):
        """Documented."""
        return x

    wrapper = eqx.module_update_wrapper(Wrapper(named))
    assert (wrapper.__name__, wrapper.__doc__) == ("named", "Documented.")
    assert list(inspect.signature(wrapper).parameters) == ["x"]


def test_mutable_arrays_are_told_from_others():
    def f(x):
        r = jax.new_ref(x)
        return r[...] + x

    equations = jax.make_jaxpr(f)(jnp.ones(2)).eqns
    read = [compat.is_reference(x) for equation in equations for x in equation.invars]
    assert any(read)
    assert not all(read)


def test_an_equation_that_calls_a_rule_runs_by_itself_with_the_lines_of_the_rule():
    @jax.custom_jvp
    def f(x):
        return jnp.sin(x)

    @f.defjvp
    def rule(primals, tangents):
        return f(*primals), jnp.cos(primals[0]) * tangents[0]

    (equation,) = jax.make_jaxpr(f)(1.0).eqns
    run = functools.partial(compat.bind_equation, equation)
    assert run(2.0) == [jnp.sin(2.0)]
    traced = jax.make_jaxpr(lambda x, t: jax.jvp(run, (x,), (t,))[1])(1.0, 1.0)
    lines = [str(summarize(e.source_info)) for e in traced.eqns]
    assert any(line.endswith("rule)") for line in lines)
    compare = jax.custom_vjp(jnp.sin)
    compare.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (3.0 * g,))
    (equation,) = jax.make_jaxpr(compare)(1.0).eqns
    assert jax.vjp(functools.partial(compat.bind_equation, equation), 2.0)[1]([1.0]) == (3.0,)


def test_types_inside_of_a_shard_map_say_along_which_axes_values_vary():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Auto,))

    def inside(x, w):
        assert varying(jax.typeof(x)) == {"d"}
        assert varying(jax.typeof(w)) == frozenset()
        own = typed(w, varying_struct(jax.typeof(w), ["d"]))
        assert varying(jax.typeof(own)) == varying(struct_of(x)) == {"d"}
        (same,) = jax.make_jaxpr(lambda x: 2 * x)(struct_of(x)).jaxpr.invars
        assert varying(same.aval) == {"d"}
        y, tangent_map = jax.linearize(lambda w: jax.lax.psum(jnp.sum(x * w), "d"), w)
        names = [e.primitive.name for e in jax.make_jaxpr(tangent_map)(struct_of(w)).jaxpr.eqns]
        assert names[0] == "pvary"
        return y

    shard_map(inside, mesh=mesh, in_specs=(P("d"), P()), out_specs=P())(jnp.ones(2), jnp.ones(2))


def test_types_on_an_explicit_mesh_say_where_the_parts_are():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Explicit,))
    x = jax.device_put(jnp.ones((2, 2)), NamedSharding(mesh, P("d")))
    struct = struct_of(x)
    assert is_explicit(struct)
    assert struct.sharding.spec == P("d", None)
    assert jax.typeof(typed(jnp.ones((2, 2)), struct)).sharding.spec == P("d", None)
    assert jax.typeof(gathered(x)).sharding.spec == P(None, None)
    plain = jnp.ones(2)
    assert not is_explicit(struct_of(plain))
    assert gathered(plain) is typed(plain, struct_of(plain)) is plain


def test_effects_that_have_an_order_are_told_from_others():
    def effects(ordered):
        def f(x):
            jax.debug.callback(lambda x: None, x, ordered=ordered)
            io_callback(lambda x: None, None, x, ordered=ordered)
            return x

        return jax.make_jaxpr(f)(1.0).jaxpr.effects

    assert [sum(map(is_ordered, effects(ordered))) for ordered in (False, True)] == [0, 2]


def test_callbacks_without_results_have_these_names():
    def f(x):
        jax.debug.print("{}", x)
        jax.debug.callback(lambda x: None, x)
        io_callback(lambda x: None, None, x)

    equations = jax.make_jaxpr(f)(1.0).jaxpr.eqns
    assert {e.primitive.name for e in equations} <= {"debug_callback", "debug_print", "io_callback"}
    assert not any(e.outvars for e in equations)


def test_deleted_arrays_are_known():
    x = jnp.ones(2)
    assert not is_deleted(x)
    x.delete()
    assert is_deleted(x)
    assert not is_deleted(np.ones(2))
    jax.jit(lambda x: (is_deleted(x), x)[1])(1.0)


def never(*_):
    raise AssertionError


def leave(*_):
    return None


def test_operations_are_done_in_another_way_before_jax_differentiates_or_records_them():
    seen = []

    def is_meant(operation):
        seen.append(operation.primitive.name)
        return operation.primitive is jax.extend.core.primitives.sin_p

    def run(operation):
        (x,) = operation.operands
        return [3 * x]

    @jax.custom_jvp
    def square(x):
        return x**2

    square.defjvp(lambda primals, tangents: (primals[0] ** 2, 5 * tangents[0]))

    def f(x):
        return jax.jit(jnp.exp)(jax.lax.sin(x)) + square(x) + jax.nn.relu(x)

    def expected(x):
        return jnp.exp(3 * x) + square(x) + x

    changed = compat.with_operations(f, is_meant, run, never, leave)
    x = 0.5
    for transform in (
        jax.grad,
        jax.jacfwd,
        jax.jit,
        lambda g: jax.grad(jax.grad(g)),
        lambda g: jax.vmap(g, axis_size=2, in_axes=None),
        lambda g: jax.linearize(g, x)[1],
        lambda g: jax.grad(lambda x: jax.vmap(g)(x * jnp.ones(2)).sum()),
    ):
        seen.clear()
        np.testing.assert_allclose(transform(changed)(x), transform(expected)(x), rtol=1e-6)
        assert "sin" in seen
        assert "jit" in seen  # what is compiled is one operation
    with jax.checking_leaks():
        jax.jit(jax.grad(changed))(x)
    assert not compat.is_staging()


def test_what_is_done_in_another_way_is_differentiated_and_divided_among_devices():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Auto,))

    def f(x):
        return jax.shard_map(jnp.sin, mesh=mesh, in_specs=P("d"), out_specs=P("d"))(x)

    same = compat.with_operations(f, lambda _: False, never, never, leave)
    x = jnp.ones(2)
    for run in (same, jax.jit(same)):
        np.testing.assert_allclose(jax.jacrev(run)(x), jax.jacrev(f)(x))


def test_what_jax_fails_at_is_offered_to_be_rescued():
    @jax.custom_batching.custom_vmap
    def same(x):
        return x

    same.def_vmap(lambda size, batched, x: (x, True))
    halved = jax.custom_jvp(lambda x: x / 2)
    halved.defjvp(lambda primals, tangents: jax.jvp(same, primals, tangents))
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Auto,))
    divided = jax.shard_map(halved, mesh=mesh, in_specs=P("d"), out_specs=P("d"))

    seen = []

    def rescue(operation, error):
        seen.append(operation.primitive.name)
        assert isinstance(error, ValueError)
        pushed = jax.make_jaxpr(lambda *x: jax.jvp(operation.bind, x, x))(*operation.operands)
        assert [y.shape for y in pushed.out_avals] == [(2,), (2,)]
        return [3 * operation.operands[0]]

    x = jnp.ones(2)
    for f, names in (
        (halved, ["custom_jvp_call"]),
        (same, ["custom_vmap_call"]),
        (jax.jit(halved), ["jit"]),
        (divided, ["custom_jvp_call"]),
    ):
        seen.clear()
        changed = compat.with_operations(f, lambda _: False, never, rescue, leave)
        np.testing.assert_array_equal(jax.jacrev(changed)(x), 3 * np.eye(2))
        assert seen == names
        hopeless = compat.with_operations(f, lambda _: False, never, leave, leave)
        with pytest.raises(ValueError, match="Linearization failed"):
            jax.jacrev(hopeless)(x)


def test_operations_of_a_rule_are_seen_with_what_is_known_of_them():
    seen = []

    @jax.custom_jvp
    def f(x):
        return x

    @f.defjvp
    def rule(primals, tangents):
        (x,), (t,) = primals, tangents
        return jax.lax.exp(x), jax.lax.mul(t, jax.lax.exp(2 * x))

    def run(operation):
        division = compat.divided(operation.operands)
        seen.append((operation.primitive.name, division and division.is_unknown))
        if division is None or any(division.is_unknown):
            return operation.bind(*operation.operands)
        with jax.extend.core.set_current_trace(division.outside):
            return operation.bind(*division.values)

    def within(origin, operands):
        assert "rule at" in origin
        assert "test_jax_compat.py" in origin
        assert len(operands) == 1
        return run

    changed = compat.with_operations(f, lambda _: True, never, leave, within)
    x = jnp.float32(0.5)
    np.testing.assert_allclose(jax.linearize(changed, x)[1](x), np.exp(1) / 2, rtol=1e-6)
    assert ("exp", [False]) in seen
    assert ("mul", [True, False]) in seen
    seen.clear()
    np.testing.assert_allclose(jax.jvp(changed, (x,), (x,))[1], np.exp(1) / 2, rtol=1e-6)
    assert ("exp", None) in seen
    np.testing.assert_allclose(jax.jit(jax.grad(changed))(x), np.exp(1), rtol=1e-6)
    with jax.checking_leaks():
        jax.jit(jax.grad(changed))(x)
