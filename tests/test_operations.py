"""Every operation of JAX: alone, among others with a cut on each side, in batches, twice.

With `AUTODIFFKIT_BREADTH=1` (`nox -s breadth`) all operations are differentiated in all these ways.
By default each primitive is, by one operation that has it, in one dtype and beside a cut on one
side; a few are in the other ways.
"""

import functools
import os
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autodiffkit as adk
from operations import OPERATIONS, parts
from operations.coverage import cover
from operations.registry import numbers

ALL = os.environ.get("AUTODIFFKIT_BREADTH") == "1"
N = 40  # entries on the far side of a waist


NARROW, WIDE = ("float32", "complex64"), ("float64", "complex128")


def cases(wanted=lambda operation: True, dtypes=(*NARROW, *WIDE), few=True):
    """Operations with dtypes: all of them, or few."""
    if ALL:
        pairs = [(x, dtype) for x in OPERATIONS.values() for dtype in x.dtypes if dtype in dtypes]
    else:
        chosen = cover()[:: FEW if few else 1]
        pairs = [(x, x.dtypes[number(x) % len(x.dtypes)]) for x in chosen]
    return pytest.mark.parametrize(
        ("operation", "dtype"),
        [pytest.param(x, dtype, id=f"{x.name}-{dtype}") for x, dtype in pairs if wanted(x)],
    )


FEW = 40  # one in so many


def number(operation):
    """A number that differs from operation to operation, and is the same in each run."""
    return zlib.crc32(operation.name.encode())


def in_precision(test):
    """Runs a test with the precision that its dtype needs."""

    @functools.wraps(test)
    def run(operation, dtype):
        promotion = jax.numpy_dtype_promotion("strict" if operation.strict else "standard")
        with jax.enable_x64(dtype in WIDE), promotion:
            test(operation, dtype)

    return run


def assert_near(found, expected, operation, factor=1):
    """Equal up to rounding that is relative to the largest entry."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert np.all(np.isfinite(expected))
    size = 1 + np.max(np.abs(expected), initial=0)
    eps = np.finfo(expected.dtype).eps
    tolerance = factor * max(100 * eps * operation.scale, operation.coarse)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * size)


# What JAX says ----------------------------------------------------------------------------


def flat(blocks, primals):
    """A matrix of blocks by output and input."""
    rows = [
        jnp.concatenate([b.reshape(-1, p.size) for b, p in zip(row, primals, strict=True)], 1)
        for row in blocks
    ]
    return jnp.concatenate(rows)


def modes(operation):
    """The modes that JAX has for it."""
    return ("fwd", "rev") if operation.modes == "both" else (operation.modes,)


def of_jax(operation, function, primals):
    """JAX's Jacobian as a matrix."""
    argnums = tuple(range(len(primals)))
    if operation.alone:
        return one_by_one(function, primals)
    transform = jax.jacrev if operation.modes == "rev" else jax.jacfwd
    return flat(transform(function, argnums)(*primals), primals)


def one_by_one(function, primals):
    """The columns of a Jacobian, each pushed by itself."""
    ends = np.cumsum([x.size for x in primals])[:-1]

    def push(unit):
        parts = zip(jnp.split(unit, ends), primals, strict=True)
        tangents = jax.jvp(function, primals, tuple(u.reshape(x.shape) for u, x in parts))[1]
        return joined(jax.tree.leaves(tangents))

    return jax.lax.map(push, jnp.eye(sum(x.size for x in primals), dtype=primals[0].dtype)).T


def joined(values):
    return jnp.concatenate([x.ravel() for x in values])


# Tests ------------------------------------------------------------------------------------


@cases()
@in_precision
def test_alone(operation, dtype):
    function, primals = parts(operation, dtype)

    def run(*primals):
        found = {
            mode: adk.jacobian(function, mode=mode)(*primals).as_matrix()
            for mode in ("auto", *modes(operation))
        }
        return found, of_jax(operation, function, primals)

    found, expected = jax.jit(run)(*primals)
    for matrix in found.values():
        assert_near(matrix, expected, operation)
    for mode in {"fwd", "rev"}.difference(found):
        with pytest.raises(adk.ModeError):
            adk.jacobian(function, mode=mode).plan(*primals)
    if operation.exact and dtype in WIDE:
        assert_near_differences(function, primals, expected)


def assert_near_differences(function, primals, matrix):
    """Compares with central differences along a direction."""
    directions = [numbers(x.shape, x.dtype, -1, 1, start=5) for x in primals]
    evaluate = jax.jit(lambda *primals: joined(function(*primals)))
    step = 1e-6
    plus, minus = (
        evaluate(*(x + sign * step * d for x, d in zip(primals, directions, strict=True)))
        for sign in (1, -1)
    )
    product = matrix @ joined(directions)
    size = 1 + np.max(np.abs(product), initial=0)
    np.testing.assert_allclose((plus - minus) / (2 * step), product, rtol=0, atol=1e-6 * size)


@cases(dtypes=NARROW)
@in_precision
def test_eager(operation, dtype):
    function, primals = parts(operation, dtype)
    found = adk.jacobian(function)(*primals).as_matrix()
    expected = jax.jit(lambda *x: of_jax(operation, function, x))(*primals)
    assert_near(found, expected, operation)


def dense(rows, columns, dtype, start):
    return numbers((rows, columns), dtype, -0.2, 0.2, start)


def steered(primals, x, start):
    """The inputs of an operation as functions of an array, which do not move them."""
    change = x - jax.lax.stop_gradient(x)
    return [
        p + (dense(p.size, x.size, x.dtype, start + i) @ change).reshape(p.shape)
        for i, p in enumerate(primals)
    ]


def behind_a_waist(function, primals, x):
    """A program whose cut is before the operation, which is pushed through."""
    waist = jnp.tanh(dense(2, N, x.dtype, 1) @ x)
    out = joined(function(*steered(primals, waist, 2)))
    return dense(N, out.size, x.dtype, 3) @ out + dense(N, 2, x.dtype, 4) @ waist


def before_a_waist(function, primals, x):
    """A program whose cut is after the operation, which is pulled through."""
    out = joined(function(*steered(primals, x, 2)))
    waist = dense(2, out.size, x.dtype, 3) @ out + dense(2, N, x.dtype, 4) @ x
    return dense(N, 2, x.dtype, 5) @ jnp.tanh(waist)


PROGRAMS = {"fwd": behind_a_waist, "rev": before_a_waist}


@cases(lambda operation: operation.combined, few=False)
@in_precision
def test_in_a_program_with_a_cut_on_each_side(operation, dtype):
    function, primals = parts(operation, dtype)
    x = numbers((N,), primals[0].dtype)
    programs = {
        mode: functools.partial(program, function, primals)
        for mode, program in PROGRAMS.items()
        if ALL or mode == ("fwd", "rev")[number(operation) % 2]
    }

    def run(x):
        return {
            mode: (adk.jacobian(f)(x).x, of_jax(operation, lambda x, f=f: [f(x)], (x,)))
            for mode, f in programs.items()
        }

    found = jax.jit(run)(x)
    for mode, program in programs.items():
        assert_near(*found[mode], operation)
        # Where there is a rule of the user's, which may not be linear, no cut is looked for.
        if operation.modes in ("both", mode) and operation.modes != "rev" and operation.cut:
            plan = adk.jacobian(program).plan(x)
            assert (plan.mode, plan.forward_sweeps, plan.reverse_sweeps) == ("mixed", 2, 2), plan


NOT_COMBINED = [x for x in OPERATIONS.values() if not x.combined]


@pytest.mark.parametrize("operation", NOT_COMBINED, ids=str)
def test_what_refuses_several_directions_is_named(operation):
    function, primals = parts(operation, "float32")
    program = functools.partial(behind_a_waist, function, primals)
    x = numbers((N,), "float32")
    with pytest.raises(ValueError, match="scan got no values"):
        jax.jacfwd(program)(x)
    with pytest.raises(adk.ModeError, match="cannot push through custom_vmap_call at tests"):
        jax.jit(adk.jacobian(program))(x)


@cases(lambda operation: operation.batched and not operation.alone, NARROW)
@in_precision
def test_in_a_batch(operation, dtype):
    function, primals = parts(operation, dtype)
    batch = [jnp.stack([x, x * 0.99, x * 1.01]) for x in primals]
    mapped = jax.vmap(function)

    def run(*batch):
        found = [adk.jacobian(mapped)(*batch)]
        shared = True
        try:
            found.append(adk.jacobian(mapped, layout="compact")(*batch))
        except adk.SelectionError:
            shared = False
        expected = jax.vmap(lambda *x: of_jax(operation, function, x))(*batch)
        return [J.as_matrix() for J in found], expected, shared

    found, blocks, _ = jax.jit(run)(*batch)
    sizes = [x.size // 3 for x in batch]
    rows = [x.size for x in jax.eval_shape(function, *primals)]
    expected = np.zeros((3 * sum(rows), 3 * sum(sizes)), found[0].dtype)
    for b in range(3):
        i = 0
        for m in rows:
            j = 0
            for n in sizes:
                top, left = 3 * i + b * m, 3 * j + b * n
                expected[top : top + m, left : left + n] = blocks[b, i : i + m, j : j + n]
                j += n
            i += m
    for matrix in found:
        assert_near(matrix, expected, operation)


@cases(lambda operation: operation.smooth and not operation.alone, WIDE)
@in_precision
def test_second_derivatives(operation, dtype):
    function, primals = parts(operation, dtype)

    def scalar(*primals):
        out = joined(function(*primals))
        return jnp.sum(out * numbers(out.shape, out.dtype, -1, 1, start=3))

    argnums = tuple(range(len(primals)))
    inner = jax.jacfwd if operation.modes == "fwd" else jax.jacrev

    def of_jax(*primals):
        return flat(jax.jacfwd(inner(scalar, argnums), argnums)(*primals), primals)

    def run(*primals):
        return adk.hessian(scalar)(*primals).as_matrix(), of_jax(*primals)

    if operation.name in REFUSED_TWICE and is_refused(of_jax, primals):
        assert is_refused(lambda *primals: adk.hessian(scalar)(*primals).as_matrix(), primals)
        return
    assert_near(*jax.jit(run)(*primals), operation, factor=10)


# JAX 0.10 leaks a tracer from the rule of these where it is differentiated; newer versions do not.
REFUSED_TWICE = {"jss.exp1", "jss.expn"}


def is_refused(function, primals):
    try:
        jax.jit(function)(*primals)
    except Exception:  # a TypeError or a leaked tracer, as it happens
        return True
    return False
