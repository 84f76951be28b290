"""Derivatives of random programs: equal to those of JAX, and to themselves in other forms.

By default there are few programs; `nox -s fuzz` runs thousands.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import autodiffkit as adk
from fuzzing import fuzz
from oracles import (
    Flat,
    called,
    close,
    flat_of,
    is_finite_in_jax,
    jacobian_of_jax,
    plain_hessian,
    plain_jacobian,
    ravelled,
    vector,
)
from probes import SEEN, probe
from strategies import HOW, LIMITS, OPTIONS, composed, modes, programs
from templates import ONE_WAY, SINGULAR, TABLE


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("table", [TABLE, ONE_WAY, SINGULAR], ids=["any", "one way", "singular"])
def test_programs_may_have_every_operation(table):
    assert [row for row in table if not composed(row)] == []


@fuzz(0.25, program=programs(), data=st.data())
def test_jacobians_are_those_of_jax(program, data):
    options = {"mode": data.draw(modes(program.rules)), **data.draw(OPTIONS)}
    how, flat = data.draw(HOW), flat_of(program)
    try:
        J = called(how, adk.jacobian(program.function, **options), flat)
    except adk.SelectionError:
        assert options.get("layout") == "compact"  # and no axis is shared
        return
    matrix = J.as_matrix()
    if not np.all(np.isfinite(matrix)) and not is_finite_in_jax(program, how):
        return
    close(matrix, plain_jacobian(program), program)
    values = program.function(*flat.args, **flat.kwargs)
    for ours, theirs in zip(*map(jax.tree.leaves, (J.value, values)), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        close(ours, theirs, program)


@fuzz(0.1, program=programs(scalar=True, steps=5), data=st.data())
def test_hessians_are_those_of_jax(program, data):
    options = {"mode": data.draw(modes(program.rules)), **data.draw(OPTIONS)}
    how, flat = data.draw(HOW), flat_of(program)
    # Where one direction does not serve the whole function, only what joins both can.
    verbs = [adk.hessian, adk.grad, adk.hvp, adk.hessian_diagonal, adk.laplacian]
    verb = data.draw(st.sampled_from(verbs[:2] if program.rules == "vw" else verbs))
    if verb in {adk.hvp, adk.grad}:
        options.pop("layout", None)
    elif verb is not adk.hessian:
        options = {}
    try:
        found = called(how, verb(program.function, **options), flat)
    except adk.SelectionError:
        assert options.get("layout") == "compact"
        return
    gradient, expected = plain_hessian(program)
    matches = functools.partial(close, program=program, scale=expected, factor=10)
    if verb is adk.laplacian:
        matches(found.laplacian, np.trace(expected))
        return
    G = found if verb is adk.grad else found.grad
    close(ravelled(G.tree), gradient, program)
    if verb is adk.grad:
        return
    if verb is adk.hessian_diagonal:
        matches(ravelled(found.diagonal), np.diag(expected))
    else:
        matches(found.as_matrix(), expected)
        v = vector(found.in_structure, 3)
        matches(ravelled(found.mv(v)), expected @ ravelled(v))


@fuzz(0.05, program=programs(rules=False, steps=4), data=st.data())
def test_hessians_of_several_outputs_are_those_of_jax(program, data):
    options = {"mode": data.draw(modes("")), **data.draw(st.just({}) | LIMITS)}
    how, flat = data.draw(HOW), flat_of(program)
    H = called(how, adk.hessian(program.function, **options), flat)
    first = Flat(lambda *point: jax.jacfwd(flat.outputs, numbers)(*point), (*flat.point,), {})
    numbers = tuple(range(len(flat.point)))
    rows = jacobian_of_jax(first)
    # Those of a block of the first derivative stand together, by output and by input.
    n, start, found = sum(x.size for x in flat.point), 0, []
    for out in flat.outputs(*flat.point):
        blocks = []
        for x in flat.point:
            stop = start + out.size * x.size
            blocks.append(rows[start:stop].reshape(out.size, x.size, n))
            start = stop
        found.append(np.concatenate(blocks, axis=1))
    expected = np.concatenate(found)
    matrix = np.asarray(H.as_matrix())
    close(matrix.reshape(expected.shape), expected, program, factor=10)


@fuzz(
    0.1,
    program=programs(rules=False, singular=True),
    values=st.sampled_from(["zeros", "ties", "normal"]),
    data=st.data(),
)
def test_entries_are_finite_where_both_modes_are(program, values, data):
    if any(dtype.startswith("complex") for dtype in program.dtypes):
        return  # JAX pulls back from real outputs only
    flat = flat_of(program, values=values)
    options = {"mode": data.draw(modes("")), **data.draw(OPTIONS)}
    try:
        J = adk.jacobian(program.function, **options)(*flat.args, **flat.kwargs)
    except adk.SelectionError:
        assert options.get("layout") == "compact"
        return
    A = np.asarray(J.as_matrix())
    pushed, pulled = (jacobian_of_jax(flat, way) for way in (jax.jacfwd, jax.jacrev))
    finite = np.isfinite(pushed) & np.isfinite(pulled)
    assert np.all(np.isfinite(A[finite])), f"\n{A}\n{pushed}\n{pulled}"
    if np.all(np.abs(pushed[finite]) < 1e3):
        close(A[finite], pushed[finite], program)


@fuzz(0.1, program=programs(), data=st.data())
def test_products_are_those_of_the_matrix(program, data):
    flat = flat_of(program)
    stored = program.rules == "vw" or data.draw(st.booleans())
    verb, options = (adk.jacobian, data.draw(OPTIONS)) if stored else (adk.linearize, {})
    try:
        J = verb(program.function, **options)(*flat.args, **flat.kwargs)
    except adk.SelectionError:
        assert options.get("layout") == "compact"
        return
    A = np.asarray(J.as_matrix(), complex)
    v, w = vector(J.in_structure, 1), vector(J.out_structure, 2)
    x, y = ravelled(v), ravelled(w)
    np.testing.assert_array_equal(ravelled(J.unravel(J.ravel(v))), x)
    matches = functools.partial(close, program=program, scale=A, factor=10)
    if stored or program.rules != "v":
        pushed = J.mv(v)
        assert jax.tree.structure(pushed) == jax.tree.structure(J.out_structure)
        for product in (pushed, J @ v, J.T.rmv(v)):
            matches(ravelled(product), A @ x)
        if not program.rules:
            matches(ravelled(jax.jvp(flat.outputs, flat.point, jax.tree.leaves(v))[1]), A @ x)
        # What is left out counts as zero.
        first = J.column_labels[0][0].partition(".")[0]
        part = np.concatenate([
            x[s] * (path.partition(".")[0] == first) for path, s in J.column_labels
        ])
        matches(ravelled(J.mv({first: v[first]})), A @ part)
    # Real arguments get the real part of what comes back.
    leaves = jax.tree.leaves(J.in_structure)
    real = np.concatenate([np.full(x.size, not jnp.iscomplexobj(x)) for x in leaves])
    back = np.where(real, (y @ A).real, y @ A)
    if stored or program.rules != "w":
        pulled = J.rmv(w)
        assert jax.tree.structure(pulled) == jax.tree.structure(J.in_structure)
        for product in (pulled, J.T @ w, J.T.mv(w)):
            matches(ravelled(product), back)
        if not program.rules:
            matches(ravelled(jax.vjp(flat.outputs, *flat.point)[1](jax.tree.leaves(w))), back)
    if stored or not program.rules:
        both = y @ ravelled(J.mv(v))
        matches(both.real if real.all() else both, ravelled(J.rmv(w)) @ x)


# Plans -------------------------------------------------------------------------------------


@fuzz(0.1, program=programs(), data=st.data())
def test_plans_come_from_shapes_alone(program, data):
    flat = flat_of(program)
    options = {"mode": data.draw(modes(program.rules)), **data.draw(st.just({}) | LIMITS)}
    verb = data.draw(st.sampled_from([adk.jacobian, adk.linearize]))
    transform = verb(program.function, **options)
    args, kwargs = flat.call([
        jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=x.weak_type) for x in flat.point
    ])
    plan = transform.plan(*flat.args, **flat.kwargs)
    assert str(transform.plan(*args, **kwargs)) == str(plan)
    forward, reverse = plan.forward_sweeps, plan.reverse_sweeps
    assert {"fwd": not reverse, "rev": not forward, "mixed": forward and reverse}[plan.mode]
    assert options["mode"] in {"auto", plan.mode}


@fuzz(0.05, program=programs(rules=False, names=st.just(["x"]), odd=False), data=st.data())
def test_a_plan_counts_the_sweeps_that_run(program, data):
    limits = data.draw(st.sampled_from([{}, {}, {"chunk_size": 2}, {"chunk_size": 5}]))
    how, flat = data.draw(st.sampled_from(["eager", "jit"])), flat_of(program)

    def probed(x):
        outs = jax.tree.leaves(program.function(probe(x, "first")))
        return probe([out for out in outs if jnp.issubdtype(out.dtype, jnp.inexact)][-1], "last")

    transform = adk.jacobian(probed, mode=data.draw(modes("")), **limits)
    plan = transform.plan(*flat.args, **flat.kwargs)
    SEEN.clear()
    jax.block_until_ready(called(how, transform, Flat(probed, flat.args, flat.kwargs)))
    jax.effects_barrier()
    # Once more for the value, if it has entries; the last chunk may be filled up.
    for planned, seen in (
        (plan.forward_sweeps, max(0, SEEN["last", "fwd"] - 1)),
        (plan.reverse_sweeps, SEEN["first", "rev"]),
    ):
        size = min(plan.chunk_size, planned) or 1
        assert planned <= seen <= -(-planned // size) * size, f"{plan}\n{SEEN}"
