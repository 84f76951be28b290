"""Matrices as images: each pixel against the whole matrix, however blocks are stored."""

import tracemalloc

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

import autodiffkit as adk
from autodiffkit import _raster
from autodiffkit._pixels import Pixels
from autodiffkit._raster import Rectangle, raster
from functions import CASES

mpl.use("Agg")
import matplotlib.pyplot as plt

LIMITS = [(1000, 1000), (7, 5), (3, 1000), (1000, 4), (1, 1)]


def whole(result):
    """The matrix, with the panels of second derivatives beside one another."""
    matrix = np.asarray(result.as_matrix())
    return matrix if matrix.ndim == 2 else np.concatenate([*matrix], axis=1)


def check(result, limits, matrix=None):
    """Compares each pixel with the entries that it stands for, one by one."""
    image = raster(result._blocks, result._sides, limits)
    matrix = whole(result) if matrix is None else matrix
    if np.iscomplexobj(matrix):
        matrix = np.abs(matrix)
    assert image.shape == matrix.shape
    assert image.nonzero == np.count_nonzero(matrix)
    assert image.not_finite == np.sum(~np.isfinite(matrix))
    down, across = image.step
    assert image.values.shape == (-(-matrix.shape[0] // down), -(-matrix.shape[1] // across))
    assert image.values.shape[0] <= limits[0]
    assert image.values.shape[1] <= limits[1]
    for (i, j), value in np.ndenumerate(image.values):
        part = matrix[i * down : (i + 1) * down, j * across : (j + 1) * across].ravel()
        if np.isfinite(part).all():
            assert abs(value) == np.abs(part).max()
            assert value in part
        else:
            assert not np.isfinite(value)
    return image


@pytest.mark.parametrize("case", [pytest.param(x, id=x.name) for x in CASES.values()])
def test_registered_functions(case):
    args, kwargs = case.call(jnp.float32)
    transform = adk.jacobian(case.function, **case.options)
    J = transform(*args, **kwargs)
    check(J, (1000, 1000))
    check(J, (3, 3))
    assert J.plot(new_axes()).get_title() == f"Jacobian of {case.name}"
    assert transform.plan(*args, **kwargs).plot(new_axes()).get_title().startswith("Plan of ")
    assert plt.get_fignums() == []


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("least", [0.1, 0.3])
def test_thin_blocks_have_pixels_of_their_own(limits, least):
    def f(x, y, z):
        return {"loss": jnp.sum(x) * y, "field": x * y + z, "last": z * 3.0}

    J = adk.jacobian(f)(jnp.arange(1.0, 41), 2.0, 5.0)
    matrix = whole(J)
    image = raster(J._blocks, J._sides, limits, (least, least))
    starts = [
        [*map(int, side.starts), n] for side, n in zip(image.pixels, matrix.shape, strict=True)
    ]
    assert image.values.shape == tuple(len(x) - 1 for x in starts)
    for (i, j), value in np.ndenumerate(image.values):
        rows, columns = (slice(x[k], x[k + 1]) for x, k in zip(starts, (i, j), strict=True))
        part = matrix[rows, columns].ravel()
        assert value in part
        assert abs(value) == np.abs(part).max()
    assert image.nonzero == np.count_nonzero(matrix)


def test_where_pixels_are_drawn():
    side = Pixels([1, 200, 2, 97], 100, 0.02)
    assert side.step == 3
    assert list(side.starts[:3]) == [0, 1, 4]
    np.testing.assert_array_equal(
        side.of(np.array([0, 1, 3, 4, 200, 201, 202, 203])), [*(0, 1, 1, 2, 67, 68, 68, 69)]
    )
    assert [int(x) for x in side.repeats[[0, 1, 68, 69]]] == [2, 1, 2, 1]
    # Blocks are as wide as the share says, and everything is in order and without gaps.
    ends = [side.place(x) for x in (0, 1, 201, 203, 300)]
    assert ends == sorted(ends)
    assert ends[0] == 0
    assert ends[-1] == 3 * side.repeats.sum()
    assert ends[1] - ends[0] >= 6
    assert ends[3] - ends[2] >= 6
    assert side.place(2) - side.place(1) == 1
    np.testing.assert_array_equal(np.diff(side.middles)[2:60], 3)
    for start, count in ((0, 300), (0, 5), (5, 10), (199, 10)):
        found = side.within(start, count)
        pixels = side.of(np.arange(start, start + count))
        np.testing.assert_array_equal(found, np.append(0, 1 + np.flatnonzero(np.diff(pixels))))


@pytest.mark.parametrize("sizes", [[300], [3] * 100, [1] * 300, [0, 300, 0]])
def test_sides_without_thin_blocks_and_with_too_many(sizes):
    side = Pixels(sizes, 100, 0.02)
    assert list(side.starts) == [*range(0, 300, 3)]
    assert set(side.repeats) == {1}
    assert [side.place(x) for x in (0, 7, 300)] == [0, 7, 300]


def new_axes():
    return Figure().add_subplot()


def tree(x, p, t):
    return {"a": jnp.sin(x) * t, "b": jnp.sum(p["w"] @ x), "c": p["v"] ** 2}


ARGUMENTS = (
    jnp.array([0.3, -1.2, 2.0]),
    {"w": jnp.arange(12.0).reshape(4, 3), "v": jnp.ones(2)},
    2.0,
)


@pytest.mark.parametrize("limits", LIMITS)
def test_blocks(limits):
    image = check(adk.jacobian(tree)(*ARGUMENTS), limits)
    assert image.is_exact == (limits[0] >= 6 and limits[1] >= 18)
    # v gets nothing from x or w or t, and the others nothing from v.
    assert image.structural == (
        Rectangle(0, 3, 3, 17),
        Rectangle(3, 4, 3, 5),
        Rectangle(3, 4, 17, 18),
        Rectangle(4, 6, 0, 3),
        Rectangle(4, 6, 5, 18),
    )
    assert not image.zeros


@pytest.mark.parametrize("limits", LIMITS)
def test_blocks_that_are_parts_of_one_matrix(limits):
    leaves = {f"p{i:02d}": jnp.arange(2.0) + i for i in range(20)}
    J = adk.jacobian(lambda p: {k: jnp.sin(v) * p["p03"] for k, v in p.items()})(leaves)
    assert J._blocks.is_packed
    check(J, limits)


def three(a, b):
    return {"u": a * jnp.sum(b**2), "v": jnp.stack([jnp.prod(b), jnp.sum(a) * b[0]])}


@pytest.mark.parametrize("limits", LIMITS)
def test_panels_of_second_derivatives(limits):
    H = adk.hessian(three)(jnp.array([1.0, 2.0]), jnp.array([0.5, -1.0, 3.0]))
    image = check(H, limits)
    assert image.shape == (5, 4 * 5)


def test_panels_of_many_blocks():
    def f(p):
        total = sum(jnp.sum(v**2) for v in p.values())
        return jnp.stack([total**2, jnp.sin(total)])

    H = adk.hessian(f)({f"p{i}": jnp.float32(i) for i in range(10)})
    assert H._blocks.is_packed
    check(H, (1000, 1000))


@pytest.mark.parametrize("limits", LIMITS)
def test_compact_blocks(limits):
    def layer(X, w, b):
        return jnp.tanh(X @ w + b[None])

    X = jnp.linspace(-1, 1, 20).reshape(5, 4)
    w, b = jnp.linspace(0.1, 1, 12).reshape(4, 3), jnp.zeros(3)
    compact = adk.jacobian(layer, layout="compact")(X, w, b)
    dense = adk.jacobian(layer)(X, w, b)
    image = check(compact, limits, whole(dense))
    assert compact._blocks.is_compact
    assert image.structural == (Rectangle(0, 15, 0, 35),)
    if image.is_exact:
        np.testing.assert_array_equal(image.covered, whole(dense) != 0)


@pytest.mark.parametrize("limits", LIMITS)
def test_compact_second_derivatives(limits):
    def f(x, y):
        return {"e": jnp.sum(jnp.sin(x) * y), "g": jnp.sum(x**3)}

    arguments = jnp.linspace(0, 1, 6), jnp.ones(6)
    compact = adk.hessian(f, layout="compact")(*arguments)
    assert compact._blocks.is_compact
    check(compact, limits, whole(adk.hessian(f)(*arguments)))


def test_blocks_that_were_not_computed():
    def f(a, b, c):
        return jnp.sum(a * b**2) + c**3

    H = adk.hessian(f, blocks=[("a", "b"), ("c", "c")])(jnp.ones(2), jnp.ones(2), 2.0)
    image = raster(H._blocks, H._sides, (100, 100))
    assert image.missing == (
        Rectangle(0, 2, 0, 2),
        Rectangle(0, 2, 4, 5),
        Rectangle(2, 4, 0, 5),
        Rectangle(4, 5, 0, 4),
    )
    np.testing.assert_array_equal(image.covered.sum(axis=1), [2, 2, 0, 0, 1])


def test_zeros_of_the_program_and_zeros_of_the_point():
    def f(x, y, z):
        return {"a": jax.nn.relu(x), "b": jnp.sum(y) * z}

    J = adk.jacobian(f)(-jnp.ones(2), jnp.zeros(2), 1.0)
    image = raster(J._blocks, J._sides, (9, 9))
    assert image.structural == (Rectangle(0, 2, 2, 5), Rectangle(2, 3, 0, 2))
    assert image.zeros == (Rectangle(0, 2, 0, 2), Rectangle(2, 3, 4, 5))
    # A map of the pytree leaves what is known as it was, and changes the values.
    changed = jax.tree.map(lambda x: x + 1, J)
    image = raster(changed._blocks, changed._sides, (9, 9))
    assert not image.structural
    assert image.covered.all()


def test_complex_blocks_by_their_modulus():
    z = jnp.array([1 + 2j, -3j, 0.5])
    J = adk.jacobian(lambda z: z**2 * jnp.array([1, -1j, 2]), holomorphic=True)(z)
    image = check(J, (100, 100))
    assert image.is_modulus
    assert not check(adk.jacobian(jnp.sin)(jnp.ones(3)), (100, 100)).is_modulus


def test_real_blocks_beside_complex_ones_by_their_modulus():
    J = adk.jacobian(lambda x: {"re": -x, "im": jax.lax.complex(jnp.cos(x), jnp.sin(x))})(
        jnp.array([0.1, 0.2])
    )
    image = raster(J._blocks, J._sides, (100, 100))
    np.testing.assert_array_equal(image.values[np.nonzero(image.values)] > 0, True)
    np.testing.assert_allclose(image.values[2:], np.eye(2))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("limits", LIMITS)
def test_narrow_dtypes(dtype, limits):
    x = jnp.linspace(-1, 1, 11).astype(dtype)
    J = adk.jacobian(lambda x: jnp.cumsum(x) * x)(x)
    check(J, limits, np.asarray(J.as_matrix().astype(jnp.float32)))


@pytest.mark.parametrize("limits", LIMITS)
def test_what_is_not_finite_is_not_lost(limits):
    x = jnp.array([0.0, 1.0, 4.0, 9.0, 0.0, 2.0, 3.0])
    J = adk.jacobian(lambda x: {"root": jnp.sqrt(x), "log": -jnp.log(x[:2])})(x)
    image = check(J, limits)
    assert image.not_finite == 3


def test_the_scale_is_that_of_finite_entries():
    J = adk.jacobian(jnp.sqrt)(jnp.array([0.0, 4.0]))
    assert raster(J._blocks, J._sides, (9, 9)).limit == 0.25
    zero = adk.jacobian(lambda x: 0 * x)(jnp.ones(2))
    assert raster(zero._blocks, zero._sides, (9, 9)).limit == 1
    with jax.enable_x64(True):
        large = adk.jacobian(lambda x: 1.7e308 * x)(jnp.ones(2))
        limit = raster(large._blocks, large._sides, (9, 9)).limit
        assert np.isfinite(2 * limit)
        small = adk.jacobian(lambda x: 5e-324 * x)(jnp.ones(2))
        assert np.isfinite(1 / raster(small._blocks, small._sides, (9, 9)).limit)


@pytest.mark.parametrize("chunk", [1, 7, 1 << 18])
def test_the_parts_that_are_read_make_no_difference(chunk, monkeypatch):
    monkeypatch.setattr(_raster, "_CHUNK", chunk)
    for limits in LIMITS:
        check(adk.jacobian(tree)(*ARGUMENTS), limits)
        x = jnp.linspace(0, 1, 12).reshape(3, 4)
        compact = adk.jacobian(lambda x: jnp.cumsum(x, axis=1) ** 2, layout="compact")(x)
        assert compact._blocks.is_compact
        check(compact, limits)


def test_the_matrix_is_not_formed():
    n = 20_000
    compact = adk.jacobian(jnp.tanh, layout="compact")(jnp.linspace(-1, 1, n))
    dense = adk.jacobian(lambda x: jnp.outer(x, x).reshape(-1)[:: n // 40])(jnp.ones(2000))
    for result, bound in ((compact, 40e6), (dense, 40e6)):
        tracemalloc.start()
        image = raster(result._blocks, result._sides, (400, 400))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < bound
        assert image.shape == (result._outputs.size, result._domain.size)
        assert not image.is_exact
    assert raster(compact._blocks, compact._sides, (400, 400)).nonzero == n


def test_leaves_without_entries():
    J = adk.jacobian(lambda x, y: {"a": x * jnp.sum(y), "b": y})(jnp.zeros(0), jnp.ones(2))
    image = check(J, (10, 10))
    assert image.shape == (2, 2)
