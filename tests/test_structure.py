"""Results: names, paths, structures, JAX's own structures, matrices, pytrees."""

import copy
import dataclasses
import operator
import pickle
import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autodiffkit as adk
from functions import Affine, Layer, Point, Strict, make_affine

X = jnp.array([0.5, -1.0])
Y = jnp.array([1.0, 2.0, 3.0])


def several(x, params, n=2):
    w, b = params["w"], params["b"]
    return {
        "energy": jnp.sum(w @ x) ** 2 + jnp.sum(b**n),
        "forces": [w @ x * b, jnp.cos(x)],
        "count": n,
    }


def params():
    return {"w": jnp.arange(6.0).reshape(3, 2), "b": Y, "steps": 3}


def energy(x, params):
    return several(x, params)["energy"]


@pytest.fixture(scope="module")
def J():
    return jax.jit(adk.jacobian(several))(X, params())


@pytest.fixture(scope="module")
def H():
    return jax.jit(adk.hessian(energy))(X, params())


@pytest.fixture(scope="module")
def H_several():
    return jax.jit(adk.hessian(several, of=("energy", "forces")))(X, params())


def assert_same(ours: Any, theirs: Any) -> None:
    """Equal structures and equal arrays."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)


# Jacobians by name ----------------------------------------------------------------------


def test_attributes_hold_the_argument_inside_the_output(J):
    assert jax.tree.map(jnp.shape, J.x) == {
        "energy": (2,),
        "forces": [(3, 2), (2, 2)],
        "count": None,
    }
    assert jax.tree.map(jnp.shape, J.params) == {
        "energy": {"w": (3, 2), "b": (3,), "steps": None},
        "forces": [
            {"w": (3, 3, 2), "b": (3, 3), "steps": None},
            {"w": (2, 3, 2), "b": (2, 3), "steps": None},
        ],
        "count": None,
    }


def test_attribute_item_wrt_and_of_agree(J):
    assert_same(J["x"], J.x)
    assert_same(J.wrt("x"), J.x)
    assert_same(J.wrt("params"), J.params)
    assert_same(J["params.w"], jax.tree.map(lambda p: p["w"], J.params, is_leaf=is_params))
    assert_same(J.of("energy").wrt("params.w"), J["params.w"]["energy"])
    assert_same(J.of("forces").x, J.x["forces"])
    assert_same(J.of("forces.0").x, J.x["forces"][0])
    assert_same(J.of("forces").of("0").params, J.params["forces"][0])


def is_params(x: Any) -> bool:
    return isinstance(x, dict) and "w" in x


def test_of_keeps_the_values_of_that_part(J):
    assert_same(J.of("forces").value, J.value["forces"])
    assert_same(J.of("energy").value, J.value["energy"])
    assert J.of("energy").row_labels == (("", slice(0, 1)),)
    assert J.of("forces").row_labels == (("0", slice(0, 3)), ("1", slice(3, 5)))


def test_single_arrays_have_bare_blocks():
    J = adk.jacobian(lambda x, y: jnp.outer(x, y))(X, Y)
    assert J.x.shape == (2, 3, 2)
    assert J.y.shape == (2, 3, 3)
    np.testing.assert_allclose(J.y, np.einsum("i,jk->ijk", X, np.eye(3)))


def test_the_tree_is_the_output_with_a_record_at_each_leaf(J):
    tree = J.tree
    assert set(tree) == {"energy", "forces", "count"}
    assert tree["count"] is None
    record = tree["energy"]
    assert isinstance(record, adk.Record)
    assert_same(record.x, J.x["energy"])
    assert_same(record["params"], J.params["energy"])
    assert [name for name, _ in record] == ["x", "params"]
    assert len(record) == 2
    assert "x" in record
    assert "n" not in record
    assert dict(record)["x"] is record.x
    assert tree["forces"][1].params["w"].shape == (2, 3, 2)


def test_records_flatten_in_signature_order():
    J = adk.jacobian(lambda b, a: a[:1] * b[:1])(X, Y)
    assert [leaf.shape for leaf in jax.tree.leaves(J.tree)] == [(1, 2), (1, 3)]
    keyed, _ = jax.tree_util.tree_flatten_with_path(J.tree)
    assert [jax.tree_util.keystr(keys) for keys, _ in keyed] == [".b", ".a"]
    assert repr(jax.tree.map(jnp.shape, J.tree)) == "Record(b=(1, 2), a=(1, 3))"


def test_records_can_be_made_mapped_copied_and_pickled():
    record = adk.Record(b=X, a={"w": Y})
    mapped = jax.tree.map(lambda x: 2 * x, record)
    np.testing.assert_allclose(mapped.a["w"], 2 * Y)
    for other in (copy.copy(record), copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        assert_same(other, record)
    assert "b" in dir(record)
    assert hash(jax.tree.structure(record)) == hash(jax.tree.structure(mapped))


def test_shapes_are_those_of_the_output_then_the_input():
    f = adk.jacobian(lambda s, A: {"a": jnp.sum(A) * s, "b": A[:, 0] * s})
    J = jax.jit(f)(2.0, jnp.ones((2, 3)))
    assert jax.tree.map(jnp.shape, J.s) == {"a": (), "b": (2,)}
    assert jax.tree.map(jnp.shape, J.A) == {"a": (2, 3), "b": (2, 2, 3)}


# Hessians by name -----------------------------------------------------------------------


def test_hessian_blocks_by_attribute(H):
    assert H.x.x.shape == (2, 2)
    assert H.x.params["w"].shape == (2, 3, 2)
    assert H.params["w"].x.shape == (3, 2, 2)
    assert H.params["w"].params["b"].shape == (3, 2, 3)
    np.testing.assert_allclose(H.params["b"].params["b"], 2 * np.eye(3))
    np.testing.assert_allclose(H.x.params["w"], jnp.moveaxis(H.params["w"].x, -1, 0), rtol=1e-6)


def test_hessian_blocks_by_path(H):
    assert_same(H.wrt("x", "params"), H.x.params)
    assert_same(H.wrt("params.w", "x"), H.params["w"].x)
    assert_same(H["params.w", "params.b"], H.params["w"].params["b"])
    assert_same(H["params.w"]["x"], H.params["w"].x)
    assert_same(H.wrt("params.w").wrt("params.b"), H.params["w"].params["b"])
    assert_same(H.params.w.x, H.params["w"].x)
    assert_same(H.wrt("params", "x"), {"w": H.params["w"].x, "b": H.params["b"].x, "steps": None})
    assert_same(H.params.x, H.wrt("params", "x"))


def test_hessian_tree_nests_records(H):
    assert isinstance(H.tree, adk.Record)
    assert_same(H.tree.x.params, H.x.params)
    assert_same(H.tree.params["w"].x, H.params["w"].x)
    assert_same(H.x.tree, H.tree.x)
    assert_same(H.params["w"].tree, H.tree.params["w"])


def test_hessian_of_several_outputs_has_the_output_outside(H_several):
    H = H_several
    assert H.x.x["energy"].shape == (2, 2)
    assert H.x.x["forces"][1].shape == (2, 2, 2)
    assert H.x.x["count"] is None
    assert H.params["w"].x["forces"][0].shape == (3, 3, 2, 2)
    assert_same(H.tree["energy"].x.x, H.x.x["energy"])
    assert_same(H.of("energy").x.x, H.x.x["energy"])
    assert_same(H.of("forces.1").as_matrix()[:, :2, :2], H.x.x["forces"][1])
    assert H.of("energy").value.shape == ()
    assert_same(H.of("energy").grad.x, adk.grad(energy)(X, params()).x)


def test_hessian_keeps_the_gradient_and_the_value(H):
    G = adk.grad(energy)(X, params())
    assert isinstance(H.grad, adk.Gradient)
    assert_same(H.grad.tree, G.tree)
    assert_same(H.value, G.value)


def test_hessian_rows_step_through_lists_tuples_and_modules():
    def f(layers, model, x):
        hidden = layers[0].w @ x + layers[0].b
        return jnp.sum(model(hidden) ** 2) * layers[1][0]

    transform = eqx.filter_jit(adk.hessian(f))
    H = transform([Layer(jnp.eye(3), Y), (jnp.array(2.0), 3)], make_affine("float32"), Y)
    assert H.layers[0].w.x.shape == (3, 3, 3)
    assert H.layers[-1][0].layers[1][0].shape == ()
    assert H.model.weight.x.shape == (2, 3, 3)
    assert H.model.weight.model.bias.shape == (2, 3, 2)
    assert isinstance(H.layers.x[0], Layer)
    assert "x" in dir(H.layers)
    assert "model" in dir(H)


def test_a_part_of_a_hessian_row_gives_way_to_an_argument_of_the_same_name():
    H = adk.hessian(lambda p, x: jnp.sum(p["x"] * x))({"x": X, "y": X}, X)
    assert_same(H.p.x, {"x": jnp.eye(2), "y": jnp.zeros((2, 2))})
    assert_same(H.p["x"].x, jnp.eye(2))
    assert_same(H.wrt("p.x", "x"), jnp.eye(2))


# Structures of arguments and outputs --------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Validated:
    """Counts how often its constructor runs, and refuses what is not an array."""

    a: Any
    b: Any
    tag: str = dataclasses.field(default="t", metadata={"static": True})

    made = 0

    def __post_init__(self) -> None:
        type(self).made += 1
        for value in (self.a, self.b):
            if not hasattr(value, "shape") or value.shape != (2,):
                raise ValueError("two numbers, please")


@jax.tree_util.register_pytree_with_keys_class
class Custom:
    """A node with flattening code of its own and a constructor that unflattening avoids."""

    def __init__(self, left, right, label):
        assert left.shape == right.shape == (2,), "two numbers, please"
        self.left, self.right, self.label = left, right, label

    def tree_flatten_with_keys(self):
        key = jax.tree_util.GetAttrKey
        return [(key("left"), self.left), (key("right"), self.right)], self.label

    @classmethod
    def tree_unflatten(cls, label, children):
        self = object.__new__(cls)
        self.left, self.right = children
        self.label = label
        return self


class Checked(eqx.Module):
    a: Any
    b: Any

    def __check_init__(self):
        if self.a.shape != (2,):
            raise ValueError("two numbers, please")


def test_no_constructor_of_a_dataclass_runs():
    v = Validated(X, X)
    J = adk.jacobian(lambda v: v.a * v.b, wrt="v.a")(v)
    H = jax.jit(adk.hessian(lambda v: jnp.sum(v.a * v.b)))(v)
    # As JAX rebuilds the arguments of the function, constructors may have run by now.
    made = Validated.made
    assert isinstance(J.v, Validated)
    assert J.v.a.shape == (2, 2)
    assert J.v.b is None
    assert J.v.tag == "t"
    assert isinstance(J.tree.v, Validated)
    assert isinstance(J.to_jax(0), Validated)
    assert isinstance(H.v.a.v, Validated)
    assert isinstance(H.wrt("v", "v").a, Validated)
    assert isinstance(H.tree.v.a.v, Validated)
    assert Validated.made == made


def test_no_constructor_of_an_output_runs():
    def f(x):
        return Validated(x, 2 * x)

    J = adk.jacobian(f)(X)
    made = Validated.made
    assert isinstance(J.x, Validated)
    assert J.x.b.shape == (2, 2)
    assert isinstance(J.tree, Validated)
    assert isinstance(J.tree.a, adk.Record)
    assert isinstance(J.to_jax(), Validated)
    assert isinstance(J.mv(x=X), Validated)
    assert Validated.made == made


@pytest.mark.parametrize("kind", [Checked, lambda a, b: Custom(a, b, "label")])
def test_custom_nodes_keep_their_class(kind):
    node = kind(X, 2 * X)
    first, second = ("a", "b") if isinstance(node, Checked) else ("left", "right")

    def f(node, x):
        return getattr(node, first) * getattr(node, second) * x

    J = adk.jacobian(f, wrt=(f"node.{first}", "x"))(node, X)
    assert type(J.node) is type(node)
    np.testing.assert_allclose(getattr(J.node, first), np.diag(2 * X * X))
    assert getattr(J.node, second) is None
    assert_same(J[f"node.{first}"], getattr(J.node, first))
    H = adk.hessian(lambda node: jnp.sum(f(node, X)))(node)
    assert type(H.wrt("node", "node")) is type(node)
    np.testing.assert_allclose(H[f"node.{first}", f"node.{second}"], np.diag(X))


def test_a_node_that_refuses_derivatives_is_reached_by_path():
    J = adk.jacobian(lambda s: s.a**2)(Strict(X))
    np.testing.assert_allclose(J["s.a"], np.diag(2 * X))
    np.testing.assert_allclose(J.as_matrix(), np.diag(2 * X))


def test_held_leaves_are_none_in_every_container():
    tree = {
        "dict": {"x": X, "n": 1},
        "list": [X, "s"],
        "tuple": (X, None, jnp.arange(2)),
        "named": Point(X, True),
        "module": Affine(X, X, 2, jnp.tanh),
    }

    def f(tree):
        return (tree["dict"]["x"] + tree["list"][0] + tree["tuple"][0] + tree["named"].x) * tree[
            "module"
        ].weight

    block = adk.jacobian(f)(tree).tree.tree
    assert block["dict"]["n"] is None
    assert block["list"][1] is None
    assert block["tuple"][1:] == (None, None)
    assert type(block["named"]) is Point
    assert block["named"].y is None
    assert type(block["module"]) is Affine
    assert (block["module"].power, block["module"].activation) == (None, None)
    assert len(jax.tree.leaves(block)) == 6


# JAX's structures -------------------------------------------------------------------------


def three(x, p, y):
    return {"a": jnp.sin(x) * p["s"], "b": [jnp.sum(x) * y]}


THREE = (X, {"s": jnp.array(2.0), "v": jnp.ones(1)}, Y)


@pytest.fixture(scope="module")
def J_three():
    return jax.jit(adk.jacobian(three))(*THREE)


@pytest.mark.parametrize("argnums", [0, 1, -1, (0,), (2, 0), (1, -1), (-3, 1), np.int64(1)])
def test_jacobian_to_jax(J_three, argnums):
    plain = argnums if isinstance(argnums, tuple) else int(argnums)
    assert_same(J_three.to_jax(argnums), jax.jit(jax.jacobian(three, plain))(*THREE))


def test_jacobian_to_jax_takes_all_positions_and_any_sequence(J_three):
    expected = jax.jit(jax.jacobian(three, (0, 1, 2)))(*THREE)
    for argnums in (None, [0, 1, 2], range(3), np.arange(3)):
        assert_same(J_three.to_jax(argnums), expected)


def scalar(x, p, y):
    return jnp.sum(jnp.sin(x)) * p["s"] ** 2 * jnp.sum(y**2) + jnp.sum(p["v"])


@pytest.mark.parametrize("argnums", [0, 1, -1, (0,), (2, 0)])
def test_gradient_to_jax(argnums):
    G = jax.jit(adk.grad(scalar))(*THREE)
    assert_same(G.to_jax(argnums), jax.jit(jax.grad(scalar, argnums))(*THREE))


@pytest.mark.parametrize("function", [scalar, three])
def test_hessian_to_jax(function):
    everything = (0, 1, 2)

    def both(*args):
        H = adk.hessian(function)(*args)
        return H, [jax.hessian(function, n)(*args) for n in (0, -2, (2, 0), everything)]

    H, expected = jax.jit(both)(*THREE)
    for argnums, theirs in zip((0, -2, (2, 0), (0, 1, -1)), expected, strict=True):
        assert_same(H.to_jax(argnums), theirs)
    assert_same(H.to_jax(), expected[-1])


def test_to_jax_has_none_where_nothing_was_selected():
    J = adk.jacobian(lambda x, n, y: x**n * y, wrt="y")(X, 2, X)
    x, n, y = J.to_jax()
    assert x is None
    assert n is None
    assert y.shape == (2, 2)
    assert J.to_jax(0) is None
    assert_same(J.to_jax((1, 2)), (None, y))


def test_to_jax_leaves_keyword_arguments_out():
    J = adk.jacobian(lambda x, y: x * y)(X, y=X)
    assert len(J.to_jax()) == 1
    assert_same(J.to_jax(), (J.x,))


def test_to_jax_counts_variadic_arguments_one_by_one():
    def f(x, *args, **kwargs):
        return x * args[0] * args[1] * kwargs["q"]

    J = adk.jacobian(f)(X, 2.0, 3 * X, q=1.0)
    assert_same(J.to_jax(), (J.x, *J.args))
    assert_same(J.to_jax(-1), J.args[1])


def test_to_jax_does_not_count_self():
    model = make_affine("float32")
    J = adk.jacobian(model, wrt=("self", "x"))(Y)
    assert_same(J.to_jax(), (J.x,))
    assert_same(J.to_jax(0), jax.jacobian(model)(Y))


# Matrices -----------------------------------------------------------------------------------


def test_a_matrix_is_reassembled_from_its_labels(J):
    matrix = np.asarray(J.as_matrix())
    assert matrix.shape == (6, 11)
    assert [path for path, _ in J.row_labels] == ["energy", "forces.0", "forces.1"]
    assert [path for path, _ in J.column_labels] == ["x", "params.b", "params.w"]
    for output, rows in J.row_labels:
        for source, columns in J.column_labels:
            block = J.of(output).wrt(source)
            np.testing.assert_array_equal(
                matrix[rows, columns],
                np.reshape(block, (rows.stop - rows.start, columns.stop - columns.start)),
            )


def test_the_matrix_of_a_hessian_of_a_scalar(H):
    matrix = np.asarray(H.as_matrix())
    assert matrix.shape == (11, 11)
    assert H.row_labels == H.column_labels
    for first, rows in H.row_labels:
        for second, columns in H.column_labels:
            np.testing.assert_array_equal(
                matrix[rows, columns].ravel(), np.ravel(H.wrt(first, second))
            )


def test_the_matrix_of_a_hessian_of_several_outputs(H_several):
    H = H_several
    matrix = np.asarray(H.as_matrix())
    assert matrix.shape == (6, 11, 11)
    assert [path for path, _ in H.row_labels] == ["energy", "forces.0", "forces.1"]
    for output, rows in H.row_labels:
        for first, middle in H.column_labels:
            for second, columns in H.column_labels:
                block = H.of(output).wrt(first, second)
                found = matrix[rows, middle, columns]
                np.testing.assert_array_equal(found.ravel(), np.ravel(block))


def test_matrices_of_a_linear_map_are_those_of_the_derivative(J, H):
    L = adk.linearize(several)(X, params())
    np.testing.assert_allclose(L.as_matrix(), J.as_matrix(), rtol=1e-6)
    assert (L.row_labels, L.column_labels) == (J.row_labels, J.column_labels)
    M = adk.hvp(energy)(X, params())
    np.testing.assert_allclose(M.as_matrix(), H.as_matrix(), rtol=1e-5)
    assert (M.row_labels, M.column_labels) == (H.row_labels, H.column_labels)


def test_the_matrix_of_a_gradient_is_a_row():
    G = adk.grad(scalar)(*THREE)
    assert G.as_matrix().shape == (1, 7)
    np.testing.assert_allclose(G.as_matrix()[0, :2], G.x)


def test_labels_of_scalars_and_empty_arrays():
    J = adk.jacobian(lambda s, e, x: s * jnp.sum(e) + x)(2.0, jnp.zeros(0), X)
    assert J.column_labels == (("s", slice(0, 1)), ("e", slice(1, 1)), ("x", slice(1, 3)))
    assert J.row_labels == (("", slice(0, 2)),)
    assert J.as_matrix().shape == (2, 3)


def test_a_matrix_has_the_dtype_that_its_blocks_promote_to():
    def f(x, y):
        return x.astype(jnp.float32) * y

    J = adk.jacobian(f)(X.astype(jnp.float16), X)
    assert J.as_matrix().dtype == jnp.float32


# Names ------------------------------------------------------------------------------------


COLLIDING = ["value", "aux", "T", "mv", "rmv", "wrt", "of", "tree", "to_jax", "as_matrix", "plot"]


@pytest.mark.parametrize("transform", [adk.jacobian, adk.grad])
def test_arguments_named_like_methods_are_reached_by_path(transform):
    def f(value, aux, T, mv, rmv, wrt, of, tree, to_jax, as_matrix, plot):
        terms = [value, aux, T, mv, rmv, wrt, of, tree, to_jax, as_matrix, plot]
        return sum((i * x for i, x in enumerate(terms, start=1)), start=jnp.float32(0))

    J = transform(f)(*range_of(COLLIDING))
    for i, name in enumerate(COLLIDING, start=1):
        assert J[name] == i
        assert J.wrt(name) == i
        assert getattr(J.tree, name) == i
    assert J.value == sum(i * i for i in range(1, 12))
    assert callable(J.plot)
    assert len(J.to_jax()) == 11


def test_an_operand_named_like_a_method_is_reached_by_item():
    G = adk.grad(lambda value, x: value * x)(2.0, 3.0)
    with pytest.raises(adk.OperandError, match=r"Take \['value'\], \.x for the blocks"):
        G - jnp.ones(())


def range_of(names: list[str]) -> list[Any]:
    return [jnp.float32(i) for i in range(1, len(names) + 1)]


def test_a_hessian_of_arguments_named_like_methods():
    def f(grad, value, wrt, tree):
        return grad * value * wrt * tree

    H = adk.hessian(f)(*range_of(["grad", "value", "wrt", "tree"]))
    assert H.wrt("grad", "value") == 12
    assert H["grad"]["wrt"] == 8
    assert H["wrt", "tree"] == 2
    assert H["wrt"].wrt("tree") == 2
    assert H.tree.tree.grad == 6
    assert H.value == 24
    assert H.grad["tree"] == 6


def test_arguments_named_like_fields():
    def f(_blocks, _value, _inputs, _outputs, __x__, __class_):
        return _blocks * _value * _inputs * _outputs * __x__ * __class_

    names = ["_blocks", "_value", "_inputs", "_outputs", "__x__", "__class_"]
    J = adk.jacobian(f)(*[jnp.float32(i) for i in range(1, 7)])
    for i, name in enumerate(names, start=1):
        assert J[name] == 720 / i
        assert J.tree[name] == 720 / i
    assert J.__class_ == 120
    assert J.mv({"__x__": 1.0}) == 144
    assert J.column_labels[4] == ("__x__", slice(4, 5))


def test_private_names_that_are_no_fields_are_attributes():
    J = adk.jacobian(lambda _x, _y: _x * _y)(2.0, 3.0)
    assert J._x == 3
    assert J.tree._y == 2


def test_unicode_names():
    J = adk.jacobian(lambda λ, größe: λ * größe["Ω"])(2.0, {"Ω": X})
    np.testing.assert_allclose(J.λ, X)
    np.testing.assert_allclose(J["größe.Ω"], 2 * np.eye(2))
    assert [path for path, _ in J.column_labels] == ["λ", "größe.Ω"]
    H = adk.hessian(lambda λ, größe: jnp.sum(λ**2 * größe))(2.0, X)
    np.testing.assert_allclose(H.λ.größe, [4, 4])


def test_completion_knows_the_arguments(J, H):
    assert {"x", "params", "value", "as_matrix"} <= set(dir(J))
    assert {"x", "params", "grad"} <= set(dir(H))
    assert "n" not in dir(J)


def test_a_result_is_not_iterable(J, H):
    for result in (J, H, H.params):
        with pytest.raises(TypeError, match="no tuple or list to unpack"):
            iter(result)
        assert not np.iterable(result)
        assert all(leaf is not result for leaf in jax.tree.leaves(result))
        assert jax.tree.structure(eqx.filter(result, eqx.is_array)) == jax.tree.structure(result)


def test_a_result_that_is_unpacked_says_what_is_in_it():
    def f(x, y):
        return jnp.sum(x * y)

    for transform, words in [
        (adk.grad, [".value", ".x, .y"]),
        (adk.jacobian, [".value", ".x, .y"]),
        (adk.hessian, [".value", ".x, .y"]),
        (adk.linearize, [".value", ".mv"]),
        (adk.laplacian, [".value", ".laplacian"]),
        (adk.hessian_diagonal, [".value", ".diagonal"]),
    ]:
        with pytest.raises(adk.OperandError) as caught:
            _, _ = transform(f)(X, X)
        assert str(caught.value).startswith(("Laplacian of f", f"{transform.__name__}(f)", "Hess"))
        assert all(word in str(caught.value) for word in words)
    with pytest.raises(adk.OperandError, match=r"\.aux for the auxiliary data"):
        _, _ = adk.grad(lambda x: (x**2, "note"), has_aux=True)(1.0)


@pytest.mark.parametrize("transform", [adk.grad, adk.hessian, adk.laplacian, adk.hvp])
def test_a_result_as_a_number_or_a_collection_says_what_to_take(transform):
    def f(x):
        return jnp.sum(x**2)

    result = transform(f)(X[0])
    for kind in (float, int, complex):
        with pytest.raises(adk.OperandError, match=rf"^{kind.__name__}\(.*is no number.* Take "):
            kind(result)
    with pytest.raises(adk.OperandError, match=r"^'x' in .*is no collection\. Take \.value"):
        _ = "x" in result


ARITHMETIC = {
    "+": operator.add,
    "-": operator.sub,
    "/": operator.truediv,
    "**": operator.pow,
}


@pytest.mark.parametrize("array", [X, np.asarray(X), np.float32(2), 2.0])
@pytest.mark.parametrize("symbol", ARITHMETIC)
def test_a_result_as_an_operand_says_what_to_take(symbol, array):
    def f(x):
        return jnp.sum(x**2)

    G, operate = adk.grad(f)(X), ARITHMETIC[symbol]
    for result, words in [
        (G, "Take .x for the block, or .tree for the whole."),
        (0.1 * G, "Take the block of grad(f) and multiply that: .x for the block"),
        (adk.hessian(f)(X).x, "Take .x to choose the second argument, too."),
        (adk.laplacian(f)(X), "Take .laplacian, which holds the derivative."),
        (adk.hvp(f)(X), "Take .materialise().x, a block that is stored, or multiply with .mv"),
    ]:
        with pytest.raises(adk.OperandError) as caught:
            operate(array, result) if symbol != "**" else operate(result, array)
        assert f" {symbol} " in str(caught.value)
        assert words in str(caught.value)
    if symbol in "+-":
        with pytest.raises(adk.OperandError, match=re.escape(f"grad(f) {symbol} ")):
            operate(G, array)


def test_a_result_as_an_operand_says_it_while_jax_traces():
    def step(x):
        return x - 0.1 * adk.grad(lambda x: jnp.sum(x**2))(x)

    with pytest.raises(adk.OperandError, match=r"float32\[2\] - \(.* \* grad\(.*\)\): "):
        jax.jit(step)(X)


def test_a_class_of_the_users_may_know_how_to_add_a_result():
    class Adds:
        def __radd__(self, other):
            return "added"

        __rsub__ = __radd__

    G = adk.grad(jnp.sum)(X)
    assert G + Adds() == G - Adds() == "added"


# Results as pytrees -----------------------------------------------------------------------


TRANSFORMS = [adk.jacobian, adk.grad, adk.hessian, adk.linearize, adk.hvp]


def loss(x, params):
    return jnp.sum(jnp.tanh(params["w"] @ x)) ** params["n"]


def loss_params():
    return {"w": jnp.ones((2, 2)), "n": 2}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_two_calls_have_equal_structures(transform):
    results = [transform(loss)(scale * X, loss_params()) for scale in (1, 2)]
    structures = [jax.tree.structure(result) for result in results]
    assert structures[0] == structures[1]
    assert hash(structures[0]) == hash(structures[1])
    total = jax.tree.map(lambda a, b: a + b, *results)
    np.testing.assert_allclose(total.value, results[0].value + results[1].value)
    assert type(total) is type(results[0])


@pytest.mark.parametrize("transform", [adk.jacobian, adk.grad, adk.hessian])
def test_eager_and_jitted_results_have_equal_structures_and_values(transform):
    f = transform(loss)
    eager = f(X, loss_params())
    jitted = jax.jit(lambda x, w: f(x, {"w": w, "n": 2}))(X, jnp.ones((2, 2)))
    assert_same(jitted, eager)
    traced_integer = jax.jit(f)(X, loss_params())
    assert jax.tree.structure(traced_integer) == jax.tree.structure(eager)


@pytest.mark.parametrize("transform", [adk.linearize, adk.hvp])
def test_linear_maps_go_through_jit(transform):
    f = transform(loss, wrt="x")
    L = jax.jit(lambda x: f(x, loss_params()))(X)
    np.testing.assert_allclose(L.as_matrix(), f(X, loss_params()).as_matrix(), rtol=1e-5)
    np.testing.assert_allclose(L.value, loss(X, loss_params()), rtol=1e-6)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_result_can_be_carried_by_scan(transform):
    f = transform(jnp.square)
    first = jax.jit(f)(jnp.float32(0.5))

    def step(carry, _):
        new = f(carry.value)
        return new, new.as_matrix().ravel()[0]

    last, rows = jax.lax.scan(step, first, length=2)
    np.testing.assert_allclose(last.value, 0.5**8, rtol=1e-6)
    assert type(last) is type(first)
    slopes = [2.0, 2.0] if transform in (adk.hessian, adk.hvp) else [0.5, 0.125]
    np.testing.assert_allclose(rows, slopes, rtol=1e-6)


def test_an_eager_result_can_start_a_scan():
    f = adk.jacobian(lambda x: {"y": x**2, "note": "n"})
    carry, _ = jax.lax.scan(lambda c, _: (f(c.value["y"]), None), f(X), length=2)
    np.testing.assert_allclose(carry.x["y"], np.diag(2 * X**4), rtol=1e-6)
    assert carry.value["note"] == "n"


def test_results_of_different_selections_differ_in_structure():
    a = adk.jacobian(lambda x, y: x * y, wrt="x")(X, X)
    b = adk.jacobian(lambda x, y: x * y, wrt="y")(X, X)
    assert jax.tree.structure(a) != jax.tree.structure(b)


@pytest.mark.parametrize("transform", [adk.jacobian, adk.linearize])
def test_a_batched_result_is_a_pytree_whose_matrix_methods_refuse(transform):
    def f(x, y):
        return jnp.sin(x) * y

    batch = jnp.stack([X, 2 * X, 3 * X])
    result = jax.vmap(transform(f), in_axes=(0, None))(batch, X)
    np.testing.assert_allclose(result.value, jnp.sin(batch) * X[None, :], rtol=1e-6)
    for method in (
        lambda: result.as_matrix(),
        lambda: result.mv(x=X),
        lambda: result.rmv(X),
        lambda: result.T.as_matrix(),
        lambda: result @ {"x": X},
    ):
        with pytest.raises(adk.StructureError, match=r"belong inside the function that is mapped"):
            method()
    one = jax.tree.map(lambda leaf: leaf[1], result)
    np.testing.assert_allclose(
        one.as_matrix(), transform(f)(batch[1], X).as_matrix(), rtol=1e-5, atol=1e-6
    )
    inside = jax.vmap(lambda x: transform(f)(x, X).as_matrix())(batch)
    assert inside.shape == (3, 2, 4)
    np.testing.assert_allclose(inside[1], one.as_matrix(), rtol=1e-5, atol=1e-6)


def test_names_of_a_batched_result_still_work():
    J = jax.vmap(adk.jacobian(lambda x, y: x * y))(jnp.ones((3, 2)), jnp.ones((3, 2)))
    assert J.x.shape == J["y"].shape == J.tree.x.shape == (3, 2, 2)
    H = jax.vmap(adk.hessian(lambda x, y: jnp.sum(x * y)))(jnp.ones((3, 2)), jnp.ones((3, 2)))
    assert H.x.y.shape == (3, 2, 2)
    assert H.grad.x.shape == (3, 2)
    with pytest.raises(adk.StructureError, match=r"belong inside the function that is mapped"):
        H.as_matrix()


# Values and auxiliary data -------------------------------------------------------------------


def with_aux(x):
    aux = {"label": "sine", "function": jnp.sin, "none": None, "n": 3, "sum": jnp.sum(x)}
    return {"y": jnp.sin(x).sum(), "note": "n", "f": jnp.cos, "nothing": None}, aux


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("wrapper", [lambda f: f, jax.jit, eqx.filter_jit])
def test_value_and_aux_come_through_as_they_are(transform, wrapper):
    result = wrapper(transform(with_aux, has_aux=True))(X)
    assert result.value["note"] == "n"
    assert result.value["f"] is jnp.cos
    assert result.value["nothing"] is None
    np.testing.assert_allclose(result.value["y"], jnp.sin(X).sum(), rtol=1e-6)
    assert {k: result.aux[k] for k in ("label", "function", "none", "n")} == {
        "label": "sine",
        "function": jnp.sin,
        "none": None,
        "n": 3,
    }
    np.testing.assert_allclose(result.aux["sum"], -0.5)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_without_has_aux_there_is_none(transform):
    assert transform(jnp.sin)(1.0).aux is None


def test_aux_need_not_hold_arrays_and_may_be_none():
    assert adk.jacobian(lambda x: (x, "only text"), has_aux=True)(X).aux == "only text"
    assert adk.jacobian(lambda x: (x, None), has_aux=True)(X).aux is None


def test_aux_belongs_to_parts_of_the_result_too():
    H = adk.hessian(with_aux, has_aux=True)(X)
    assert H.grad.aux["label"] == "sine"
    assert H.of("y").aux["label"] == "sine"


# Pickle, copies, text -------------------------------------------------------------------------


def picklable(x, p):
    return jnp.sum(x**2) * p["s"]


@pytest.mark.parametrize("transform", [adk.jacobian, adk.grad, adk.hessian])
@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_results_are_copied_and_pickled(transform, again):
    result = transform(picklable)(X, {"s": jnp.array(2.0), "n": 1})
    copied = again(result)
    assert_same(copied, result)
    assert_same(copied.tree, result.tree)
    assert repr(copied) == repr(result)


@pytest.mark.parametrize("transform", [adk.linearize, adk.hvp])
def test_linear_maps_are_copied(transform):
    L = transform(picklable)(X, {"s": jnp.array(2.0)})
    for other in (copy.copy(L), copy.deepcopy(L)):
        assert_same(other.as_matrix(), L.as_matrix())
        assert jax.tree.structure(other) == jax.tree.structure(L)


def test_a_linear_map_says_that_it_cannot_be_pickled():
    with pytest.raises(TypeError) as caught:
        pickle.dumps(adk.linearize(jnp.sin)(X))
    assert str(caught.value) == (
        "a linear map holds a program, which cannot be pickled; pickle its .as_matrix(), or the "
        "result of adk.jacobian or adk.hessian"
    )


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_transforms_are_copied_and_pickled(transform, again):
    f = transform(picklable, wrt=("x", "p.*"))
    copied = again(f)
    assert copied.__name__ == "picklable"
    assert_same(copied(X, {"s": 2.0}).as_matrix(), f(X, {"s": 2.0}).as_matrix())


def labelled(x, p):
    return {"a": jnp.sum(x) * p["s"], "b": x}


def test_a_jacobian_as_text():
    J = adk.jacobian(labelled)(X, {"s": 2.0, "n": 3})
    assert repr(J) == (
        "Jacobian of labelled, 3 by 3\n"
        "  of  with respect to  block              values\n"
        "  a   x                float32[2]         [2, 2]\n"
        "  a   p.s              float32[]          -0.5\n"
        "  b   x                float32[2, 2]      [[1, 0], [0, 1]]\n"
        "  b   p.s              float32[2] (zero)"
    )
    assert str(J) == repr(J)


def test_a_gradient_as_text():
    assert repr(adk.grad(picklable)(X, {"s": 2.0})) == (
        "Gradient of picklable, 1 by 3\n"
        "  of      with respect to  block       values\n"
        "  output  x                float32[2]  [2, -4]\n"
        "  output  p.s              float32[]   1.25"
    )


def test_a_hessian_as_text():
    H = adk.hessian(picklable)(X, {"s": 2.0})
    assert repr(H) == (
        "Hessian of picklable, 3 by 3\n"
        "  of      by   then by  block             values\n"
        "  output  x    x        float32[2, 2]     [[4, 0], [0, 4]]\n"
        "  output  x    p.s      float32[2]        [1, -2]\n"
        "  output  p.s  x        float32[2]        [1, -2]\n"
        "  output  p.s  p.s      float32[] (zero)"
    )
    assert repr(H.p) == (
        "Hessian of picklable, its blocks by p\n"
        "  of      by   then by  block             values\n"
        "  output  p.s  x        float32[2]        [1, -2]\n"
        "  output  p.s  p.s      float32[] (zero)"
    )
    H = adk.hessian(lambda x: {"a": x, "b": x[:1]})(X)
    assert repr(H).splitlines()[0] == "Hessian of <lambda>, 3 times 2 by 2"


def test_a_linear_map_as_text():
    assert repr(adk.linearize(labelled)(X, {"s": 2.0})) == (
        "Jacobian of labelled as a linear map, 3 by 3\n"
        "  from\n"
        "    x    float32[2]\n"
        "    p.s  float32[]\n"
        "  to\n"
        "    a  float32[]\n"
        "    b  float32[2]"
    )
    L = adk.hvp(picklable, wrt="x")(X, {"s": 2.0})
    text = (
        "Hessian of picklable as a linear map, 2 by 2\n"
        "  from\n"
        "    x  float32[2]\n"
        "  to\n"
        "    x  float32[2]"
    )
    assert repr(L) == text
    assert repr(L.T) == f"transpose of {text}"


def test_a_long_table_is_cut_short():
    J = adk.jacobian(lambda t: sum(t.values()))({f"k{i:02}": jnp.float32(i) for i in range(30)})
    lines = repr(J).splitlines()
    assert len(lines) == 27
    assert lines[-1] == "  ... and 6 more blocks"


def test_a_result_prints_while_its_leaves_are_not_arrays():
    J = adk.jacobian(labelled)(X, {"s": 2.0})
    assert "Jacobian of labelled" in repr(jax.tree.map(lambda leaf: None, J))
    assert "float32[2, 2]" in repr(jax.eval_shape(lambda x: adk.jacobian(jnp.sin)(x), X))


def test_derivatives_of_derivatives_are_named_like_them():
    JH = adk.jacobian(adk.hessian(lambda x: jnp.sum(x**3)))(X)
    assert [path for path, _ in JH.row_labels] == ["x.x", "value", "grad.x"]
    np.testing.assert_allclose(JH.of("x.x").as_matrix().shape, (X.size**2, X.size))
    JJ = adk.jacobian(adk.grad(lambda x, y: jnp.sum(x * y)))(X, 2.0)
    assert [path for path, _ in JJ.row_labels] == ["x", "y", "value"]
    # What somebody has filtered or mapped has no such names, and still a Jacobian.
    filtered = adk.jacobian(lambda x: eqx.filter(adk.jacobian(jnp.sin)(x), lambda a: a.ndim == 2))(
        X
    )
    assert len(filtered.row_labels) == 1
