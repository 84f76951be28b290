"""Results of every kind are carried by loops: two calls have equal structures and types."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import autodiffkit as adk


def params():
    return {"w": jnp.full((2, 2), 0.5), "n": 2, "tag": "t"}


def loss(x, p):
    return jnp.sum(jnp.tanh(p["w"] @ x) ** p["n"])


def model(x, p):
    return jnp.tanh(p["w"] @ x)


def labelled(x, p):
    return {"y": model(x, p), "note": "n", "count": jnp.arange(2)}


def with_aux(x, p):
    return loss(x, p), {"x": x, "label": "s", "f": jnp.sin, "none": None}


def looping(x, p):
    step = lambda s: (s[0] + 1, jnp.sin(p["w"] @ s[1]))  # noqa: E731
    return jnp.sum(lax.while_loop(lambda s: s[0] < 2, step, (0, x))[1])


@jax.custom_vjp
def square(x):
    return jnp.sum(x**2)


square.defvjp(lambda x: (square(x), x), lambda x, g: (2 * x * g,))


def ruled(x, p):
    return square(p["w"] @ x)


def half(y):
    return jnp.sum(y**2) / 2


KINDS = {
    "jacobian": adk.jacobian(labelled),
    "grad": adk.grad(with_aux, has_aux=True),
    "hessian": adk.hessian(with_aux, has_aux=True),
    "linearize": adk.linearize(labelled),
    "hvp": adk.hvp(with_aux, has_aux=True),
    "blocks": adk.hessian(loss, blocks="diagonal"),
    "compact": adk.jacobian(lambda x, p: jnp.sin(x), layout="compact"),
    "while": adk.grad(looping),
    "rule": adk.jacobian(ruled),
    "rule map": adk.linearize(ruled),
    "laplacian": adk.laplacian(with_aux, has_aux=True),
    "diagonal": adk.hessian_diagonal(loss),
    "divergence": adk.divergence(model, wrt="x"),
    "gauss_newton": adk.gauss_newton(model, half),
    "symmetric": lambda x, p: adk.jacobian(model, wrt="x")(x, p).gram(),
    "transpose": lambda x, p: adk.jacobian(model)(x, p).T,
    "sum": lambda x, p: 2.0 * adk.hessian(loss)(x, p) + adk.hvp(loss)(x, p),
    "product": lambda x, p: adk.linearize(model)(x, p).T @ adk.linearize(model)(x, p),
    "record": lambda x, p: adk.jacobian(model)(x, p).tree,
    "row": lambda x, p: adk.hessian(loss)(x, p).x,
}


def types(result):
    return [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(result)]


@pytest.mark.parametrize("name", KINDS)
def test_a_result_is_carried_whether_it_began_eagerly_or_not(name):
    with jax.enable_x64(name in {"jacobian", "gauss_newton"}):
        x, p = jnp.array([0.5, -1.0]), params()

        def make(x):
            return KINDS[name](x, p)

        first, second = make(x), make(2 * x)
        structure = jax.tree.structure(first)
        assert structure == jax.tree.structure(second)
        assert hash(structure) == hash(jax.tree.structure(second))
        assert types(first) == types(second)

        @jax.jit
        def loops(first):
            last, every = lax.scan(lambda c, s: (make(x * s), c), first, jnp.ones(2, x.dtype))
            last = lax.while_loop(lambda s: s[0] < 1, lambda s: (s[0] + 1, make(x)), (0, last))[1]
            last = lax.cond(x[0] > 0, lambda: last, lambda: make(x))
            return last, every

        last, every = loops(first)
        assert jax.tree.structure(last) == structure
        assert jax.tree.structure(every) == structure
        assert types(last) == types(first)
        assert all(leaf.shape[0] == 2 for leaf in jax.tree.leaves(every))


def test_static_parts_of_the_auxiliary_data_are_structure():
    x, p = jnp.array([0.5, -1.0]), params()
    last, _ = lax.scan(
        lambda c, _: (KINDS["hessian"](x, p), None), KINDS["hessian"](x, p), length=1
    )
    assert last.aux["label"] == "s"
    assert last.aux["f"] is jnp.sin
    other = adk.grad(lambda x: (jnp.sum(x), "other"), has_aux=True)
    same = adk.grad(lambda x: (jnp.sum(x), "label"), has_aux=True)
    assert jax.tree.structure(other(x)) != jax.tree.structure(same(x))
