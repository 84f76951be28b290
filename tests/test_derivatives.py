"""Every registered function, in every mode and dtype, against JAX and against formulas."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autodiffkit as adk
import reference
from functions import CASES, Case
from reference import assert_close

ALL = [pytest.param(case, id=case.name) for case in CASES.values()]
SMOOTH = [pytest.param(case, id=case.name) for case in CASES.values() if case.smooth]
CLOSED = [pytest.param(case, id=case.name) for case in CASES.values() if case.closed]
BATCHED = [pytest.param(case, id=case.name) for case in CASES.values() if case.batch]


def modes(case: Case) -> list[str]:
    """The modes that are possible."""
    return ["auto", case.only] if case.only else ["auto", "fwd", "rev"]


def rows_of(J: Any) -> list[list[Any]]:
    """The blocks by output and source, through the public tree."""
    records = jax.tree.leaves(J.tree, is_leaf=lambda x: isinstance(x, adk.Record))
    return [jax.tree.leaves(record) for record in records]


def test_the_registry_is_as_large_as_promised():
    assert len(CASES) >= 40
    assert len(CLOSED) >= 15


def compiled(case: Case, dtype: Any, function: Any) -> Any:
    """What `function(args, kwargs)` gives, in one compilation."""
    dynamic, static = eqx.partition(case.call(dtype), eqx.is_inexact_array)
    return jax.jit(lambda leaves: function(*eqx.combine(leaves, static)))(dynamic)


def assert_rows_close(found: list[list[Any]], expected: list[list[Any]], scale: float = 1) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert [x.shape for x in ours] == [x.shape for x in theirs]
        for a, b in zip(ours, theirs, strict=True):
            assert_close(a, b, scale)


@pytest.mark.parametrize("case", ALL)
def test_jacobian_equals_that_of_jax(case, dtype):
    def both(args, kwargs):
        found = {
            mode: rows_of(adk.jacobian(case.function, mode=mode, **case.options)(*args, **kwargs))
            for mode in modes(case)
        }
        return found, reference.first(case, args, kwargs)

    found, expected = compiled(case, dtype, both)
    for rows in found.values():
        assert_rows_close(rows, expected)


@pytest.mark.parametrize("case", SMOOTH)
def test_hessian_equals_that_of_jax(case, dtype):
    def both(args, kwargs):
        found = {
            mode: jax.tree.leaves(
                adk.hessian(case.function, mode=mode, **case.options)(*args, **kwargs).tree
            )
            for mode in (["auto"] if case.only else ["auto", "fwd", "rev"])
        }
        return found, reference.second(case, args, kwargs)

    found, expected = compiled(case, dtype, both)
    blocks = [block for rows in expected for row in rows for block in row]
    for leaves in found.values():
        assert_rows_close([leaves], [blocks], scale=20)


@pytest.mark.parametrize("case", ALL)
def test_eager_calls_agree_and_can_be_repeated(case):
    args, kwargs = case.call("float32")
    J = adk.jacobian(case.function, **case.options)
    expected = compiled(case, "float32", lambda args, kwargs: rows_of(J(*args, **kwargs)))
    before = [np.array(x) for x in jax.tree.leaves((args, kwargs)) if eqx.is_inexact_array(x)]
    for _ in range(2):
        assert_rows_close(rows_of(J(*args, **kwargs)), expected)
    after = [np.array(x) for x in jax.tree.leaves((args, kwargs)) if eqx.is_inexact_array(x)]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("case", CLOSED)
def test_jacobian_equals_the_formula(case, dtype):
    args, kwargs = case.call(dtype)
    J = adk.jacobian(case.function, **case.options)(*args, **kwargs)
    formula = case.closed(*args, **kwargs)
    assert list(formula) == [path for path, _ in J.column_labels]
    for path, block in formula.items():
        assert_close(J.wrt(path), block)


def plain(case: Case) -> bool:
    """Whether JAX takes the function as it is, in some mode."""
    args, kwargs = case.call("float32")
    if kwargs or case.has_aux or case.name == "dataclass":  # whose constructor refuses blocks
        return False
    leaves = jax.tree.leaves(args)
    return all(map(reference.is_floating, [*leaves, *jax.tree.leaves(case.function(*args))]))


@pytest.mark.parametrize("case", [c for c in ALL if plain(c.values[0])])
def test_to_jax_has_the_structure_of_jax(case):
    args, _ = case.call("float32")
    holomorphic = case.kind == "holomorphic"
    transform = jax.jacrev if case.only == "rev" or case.kind == "C to R" else jax.jacfwd
    J = adk.jacobian(case.function, **case.options)(*args)
    for argnums in [0, tuple(range(len(args)))]:
        expected = transform(case.function, argnums, holomorphic=holomorphic)(*args)
        found = J.to_jax(argnums)
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        jax.tree.map(assert_close, found, expected)
    assert jax.tree.structure(J.to_jax()) == jax.tree.structure(J.to_jax(range(len(args))))


@pytest.mark.parametrize("case", BATCHED)
def test_under_vmap_each_example_is_the_same(case):
    args, kwargs = case.call("float32")
    dynamic, static = eqx.partition((args, kwargs), eqx.is_inexact_array)
    batch = jax.tree.map(lambda x: jnp.stack([x, x * 1.1]), dynamic)
    J = adk.jacobian(case.function, **case.options)

    def blocks(leaves):
        new_args, new_kwargs = eqx.combine(leaves, static)
        return J(*new_args, **new_kwargs).tree

    mapped, alone = jax.jit(
        lambda batch: (
            jax.vmap(blocks)(batch),
            [blocks(jax.tree.map(lambda x, i=i: x[i], batch)) for i in range(2)],
        )
    )(batch)
    for i in range(2):
        for ours, theirs in zip(jax.tree.leaves(mapped), jax.tree.leaves(alone[i]), strict=True):
            assert_close(ours[i], theirs, scale=20)


@pytest.mark.parametrize("case", [c for c in SMOOTH if c.values[0].kind == "real"])
def test_differentiating_the_jacobian_again_gives_the_hessian(case):
    outer = jax.jacfwd if case.only == "fwd" else jax.jacrev

    def three_ways(args, kwargs):
        function, selected = reference.flat_function(case, args, kwargs)

        def blocks(values: Any) -> Any:
            return jax.tree.leaves(adk.jacobian(lambda v: function(*v))(values).tree)

        return [
            outer(blocks)(selected),
            adk.jacobian(blocks)(selected).to_jax(0),
            adk.hessian(lambda v: function(*v))(selected).tree,
        ]

    *found, expected = map(jax.tree.leaves, compiled(case, "float32", three_ways))
    for leaves in found:
        assert_rows_close([leaves], [expected], scale=20)


@pytest.mark.parametrize("case", [c for c in SMOOTH if c.values[0].kind != "holomorphic"])
def test_central_differences_agree(case):
    """Independent of JAX's differentiation, in float64 along one direction per leaf."""
    with jax.enable_x64(True):
        args, kwargs = case.call("float64")
        function, selected = reference.flat_function(case, args, kwargs)
        evaluate = jax.jit(function)
        J = jax.jit(adk.jacobian(lambda *v: function(*v)))(*selected)
        step = 1e-5
        for j, leaf in enumerate(selected):
            direction = jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape)
            shifted = [
                evaluate(*selected[:j], leaf + sign * step * direction, *selected[j + 1 :])
                for sign in (1, -1)
            ]
            args_ = [None] * len(selected)
            args_[j] = direction
            product = J.mv({"v": tuple(args_)})
            for plus, minus, ours in zip(*shifted, product, strict=True):
                np.testing.assert_allclose(ours, (plus - minus) / (2 * step), rtol=1e-6, atol=1e-6)
