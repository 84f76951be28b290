"""The registry of functions that the tests share: what is differentiated, where, and how.

A case makes its arguments in a given dtype, so that each runs in float32 and float64.
`closed` is the derivative written by hand: paths of arguments to blocks, for functions with
one output array. `only` names the single mode that JAX itself can differentiate it in.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap


@dataclasses.dataclass(frozen=True)
class Case:
    """A function with the arguments at which it is differentiated."""

    name: str
    function: Callable[..., Any]
    arguments: Callable[[Any], tuple[Any, ...]]
    keywords: Callable[[Any], dict[str, Any]] = lambda dtype: {}
    closed: Callable[..., dict[str, Any]] | None = None
    only: str | None = None
    has_aux: bool = False
    kind: str = "real"  # or "R to C", "C to R", "holomorphic"
    smooth: bool = True  # whether it has second derivatives
    batch: bool = True  # whether vmap over every array argument makes sense

    def call(self, dtype: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments."""
        return self.arguments(dtype), self.keywords(dtype)

    @property
    def options(self) -> dict[str, Any]:
        """Options that every transform of this function needs."""
        options: dict[str, Any] = {}
        if self.has_aux:
            options["has_aux"] = True
        if self.kind == "holomorphic":
            options["holomorphic"] = True
        return options


CASES: dict[str, Case] = {}


def case(arguments: Callable[[Any], tuple[Any, ...]], **options: Any) -> Callable[..., Any]:
    """Registers the decorated function under its name."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        CASES[function.__name__] = Case(function.__name__, function, arguments, **options)
        return function

    return register


def array(*shape: int) -> Callable[[Any], Any]:
    """Numbers between 0.3 and 1.3 that look random and are the same in each run."""

    def make(dtype: Any) -> Any:
        size = int(np.prod(shape))
        values = (np.arange(1, size + 1) * 0.6180339887) % 1.0 + 0.3
        return jnp.asarray(values.reshape(shape), dtype)

    return make


def arrays(*shapes: tuple[int, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """Arrays as positional arguments, all different."""
    return lambda dtype: tuple(array(*s)(dtype) * (1 + 0.1 * i) for i, s in enumerate(shapes))


# Numbers, vectors, tensors -------------------------------------------------------


@case(lambda _: (1.5,), closed=lambda x: {"x": 2 * x + 1}, batch=False)
def polynomial(x):
    return x**2 + x + 4


@case(arrays((), ()), closed=lambda x, y: {"x": y * jnp.cos(x * y), "y": x * jnp.cos(x * y)})
def sine_of_product(x, y):
    return jnp.sin(x * y)


@case(arrays((5,)), closed=lambda x: {"x": jnp.diag(jnp.cos(x))})
def elementwise(x):
    return jnp.sin(x)


@case(arrays((5,)), closed=lambda x: {"x": 2 * x})
def sum_of_squares(x):
    return jnp.sum(x**2)


@case(arrays((4, 3), (3,)), closed=lambda A, x: {"A": np.einsum("ik,l->ikl", np.eye(4), x), "x": A})
def matrix_vector(A, x):
    return A @ x


@case(
    arrays((2, 3), (3, 2)),
    closed=lambda A, B: {
        "A": np.einsum("ik,lj->ijkl", np.eye(2), B),
        "B": np.einsum("il,jk->ijlk", A, np.eye(2)),
    },
)
def matrix_product(A, B):
    return A @ B


@case(
    arrays((4,), (4, 4)),
    closed=lambda x, A: {"x": (A + A.T) @ x, "A": jnp.outer(x, x)},
)
def quadratic_form(x, A):
    return x @ A @ x


@case(
    arrays((3,), (3,)),
    closed=lambda a, b: {
        "a": np.einsum("ijk,k->ij", _levi_civita(), b),
        "b": np.einsum("ijk,j->ik", _levi_civita(), a),
    },
)
def cross_product(a, b):
    return jnp.cross(a, b)


def _levi_civita() -> np.ndarray:
    tensor = np.zeros((3, 3, 3))
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        tensor[i, j, k], tensor[i, k, j] = 1, -1
    return tensor


@case(
    arrays((4,)),
    closed=lambda x: {"x": jnp.diag(jax.nn.softmax(x)) - jnp.outer(*2 * [jax.nn.softmax(x)])},
)
def softmax(x):
    return jax.nn.softmax(x)


@case(arrays((4,)), closed=lambda x: {"x": jax.nn.softmax(x)})
def logsumexp(x):
    return jax.nn.logsumexp(x)


@case(arrays((5,)), closed=lambda x: {"x": np.tril(np.ones((5, 5)))})
def cumulative_sum(x):
    return jnp.cumsum(x)


@case(arrays((3,)), closed=lambda x: {"x": jnp.zeros((2, 3))})
def constant(x):
    return jnp.ones(2, x.dtype)


@case(arrays((3,)), closed=lambda x: {"x": jnp.eye(3)})
def identity(x):
    return x


@case(
    arrays((2, 2, 2)),
    closed=lambda x: {"x": 3 * np.einsum("ai,bj,ck,ijk->abcijk", *3 * [np.eye(2)], x**2)},
)
def cube_of_tensor(x):
    return x**3


@case(arrays((), (6,)), closed=lambda s, x: {"s": x, "x": s * jnp.eye(6)})
def scaling(s, x):
    return s * x


@case(arrays((3, 3)), closed=lambda A: {"A": jnp.linalg.det(A) * jnp.linalg.inv(A).T}, batch=True)
def determinant(A):
    return jnp.linalg.det(A)


@case(arrays((3,)), closed=lambda x: {"x": x / jnp.linalg.norm(x)})
def euclidean_norm(x):
    return jnp.linalg.norm(x)


@case(lambda d: (np.dtype(d).type(0.7),), batch=False)
def tall(x):
    return jnp.sin(x * jnp.arange(6, dtype=x.dtype))


@case(arrays((6, 4), (4,)))
def tall_regression(X, w):
    return jnp.tanh(X @ w)


@case(arrays((3, 2), (2,)))
def broadcasting(A, b):
    return jnp.exp(A * b[None, :]) - A.sum()


# Empty arrays --------------------------------------------------------------------


@case(arrays((0,), (3,)))
def empty_input(e, x):
    return jnp.sum(e) + x**2


@case(arrays((3,)))
def empty_output(x):
    return {"none": x[:0], "all": x**2}


# Control flow --------------------------------------------------------------------


@case(arrays((3,), (3, 3)))
def scan(x, A):
    def step(carry, _):
        carry = jnp.tanh(A @ carry)
        return carry, carry.sum()

    last, sums = lax.scan(step, x, length=4)
    return last, sums


@case(arrays((3,)))
def cond(x):
    return lax.cond(x[0] > 0, lambda y: y**3, lambda y: -y, x)


@case(arrays((3,)))
def switch(x):
    return lax.switch(1, [jnp.sin, jnp.cos, jnp.tan], x)


@case(arrays((3,)), only="fwd")
def while_loop(x):
    return lax.while_loop(
        lambda state: state[0] < 3, lambda state: (state[0] + 1, jnp.sin(state[1]) * 2), (0, x)
    )[1]


@case(arrays((3,)))
def fori_loop(x):
    return lax.fori_loop(0, 4, lambda i, y: jnp.cos(y) + 0.1 * i * y, x)


@case(arrays((4,)))
def checkpointed(x):
    return jax.checkpoint(lambda y: jnp.sin(jnp.sin(y)))(x).sum() * x


@case(arrays((5,)))
def map_over_rows(x):
    return lax.map(lambda y: jnp.exp(-(y**2)), x)


# Rules of one's own --------------------------------------------------------------


@jax.custom_jvp
def _log1pexp(x):
    return jnp.logaddexp(x, 0.0)


@_log1pexp.defjvp
def _log1pexp_jvp(primals, tangents):
    return _log1pexp(*primals), tangents[0] * jax.nn.sigmoid(primals[0])


@case(arrays((4,)), closed=lambda x: {"x": jnp.diag(jax.nn.sigmoid(x))})
def custom_jvp(x):
    return _log1pexp(x)


@jax.custom_vjp
def _square(x):
    return x**2


_square.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))


@case(arrays((4,)), closed=lambda x: {"x": jnp.diag(2 * x)}, only="rev")
def custom_vjp(x):
    return _square(x)


@case(arrays((3,), (3,)), only="rev")
def custom_vjp_in_a_chain(x, y):
    return jnp.sum(_square(jnp.sin(x)) * y)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _power(n, x):
    return x**n


_power.defvjp(lambda n, x: (x**n, x), lambda n, x, g: (n * x ** (n - 1) * g,))


@case(arrays((3,)), closed=lambda x: {"x": jnp.diag(3 * x**2)}, only="rev")
def custom_vjp_with_a_static_argument(x):
    return _power(3, x)


# Linear algebra, transforms, indexing -----------------------------------------------


def _well_conditioned(A):
    return A @ A.T + jnp.eye(A.shape[0], dtype=A.dtype)


@case(arrays((3, 3), (3,)))
def linear_solve(A, b):
    return jnp.linalg.solve(_well_conditioned(A), b)


@case(arrays((3, 3)))
def cholesky(A):
    return jnp.linalg.cholesky(_well_conditioned(A))


@case(arrays((3, 3), (3,)))
def custom_linear_solve(A, b):
    def solve(matvec, x):
        return jnp.linalg.solve(_well_conditioned(A), x)

    return lax.custom_linear_solve(
        lambda x: _well_conditioned(A) @ x, b, solve, symmetric=True, transpose_solve=solve
    )


@case(arrays((8,)))
def power_spectrum(x):
    return jnp.abs(jnp.fft.rfft(x)) ** 2


@case(arrays((8,)))
def filtered(x):
    waves = jnp.fft.rfft(x)
    return jnp.fft.irfft(lax.complex(jnp.tanh(waves.real), waves.imag**2), n=8)


@case(arrays((6,)))
def sorting(x):
    return jnp.sort(x)[::2]


@case(arrays((5,)))
def gather_and_scatter(x):
    return jnp.zeros(4, x.dtype).at[jnp.array([0, 2, 2])].add(x[jnp.array([4, 1, 0])] ** 2)


@case(arrays((1, 1, 6), (1, 1, 3)))
def convolution(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1,), "SAME")


@case(arrays((5,)))
def maximum(x):
    return jnp.max(x) * jnp.where(x > 0.8, x**2, jnp.sin(x))


@case(arrays((4,)))
def nested_jit(x):
    return jax.jit(lambda y: jax.jit(jnp.sin)(y) * y)(x).sum()


# Structured arguments and outputs ----------------------------------------------------


class Point(NamedTuple):
    """A named tuple."""

    x: Any
    y: Any


@functools.partial(jax.tree_util.register_dataclass, data_fields=["w", "b"], meta_fields=["kind"])
@dataclasses.dataclass
class Layer:
    """A registered dataclass whose constructor refuses anything but arrays of few axes."""

    w: Any
    b: Any
    kind: str = "dense"

    def __post_init__(self) -> None:
        if getattr(self.b, "ndim", 1) > 1:
            raise ValueError(f"a bias has one axis, not {self.b.ndim}")


class Strict:
    """A node whose constructor, which JAX runs, refuses anything but a vector."""

    def __init__(self, a):
        if a is None or getattr(a, "ndim", 1) > 1:
            raise TypeError("a vector, please")
        self.a = a


jax.tree_util.register_pytree_with_keys(
    Strict,
    lambda s: ([(jax.tree_util.GetAttrKey("a"), s.a)], None),
    lambda _, children: Strict(*children),
)


class Affine(eqx.Module):
    """A callable module with arrays, an integer, a string and a function among its leaves."""

    weight: Any
    bias: Any
    power: int
    activation: Callable[..., Any]
    label: str = eqx.field(static=True, default="affine")

    def __call__(self, x, *, gain=1.0):
        return gain * self.activation(self.weight @ x + self.bias) ** self.power


def make_affine(dtype: Any, rows: int = 2, columns: int = 3) -> Affine:
    """An `Affine` module."""
    return Affine(array(rows, columns)(dtype), array(rows)(dtype) * 1.1, 2, jnp.tanh)


@case(lambda d: ({"w": array(2, 3)(d), "b": array(2)(d)}, array(3)(d)))
def dictionary(params, x):
    return jnp.tanh(params["w"] @ x + params["b"])


@case(lambda d: ([array(2)(d), (array(3)(d), None, array()(d))],))
def nested_lists(tree):
    a, (b, _, c) = tree
    return [a * c, b.sum() * a[0]]


@case(lambda d: (Point(array(2)(d), array()(d)),))
def named_tuple(p):
    return Point(p.x * p.y, jnp.sin(p.y))


@case(lambda d: (Layer(array(2, 3)(d), array(2)(d)), array(3)(d)), batch=False)
def dataclass(layer, x):
    return layer.w @ x + layer.b


@case(lambda d: (make_affine(d), array(3)(d)))
def module(model, x):
    return {"out": model(x), "norm": jnp.sum(model.weight**2)}


@case(lambda d: (array(3)(d), 2, True, "mean", None, jnp.arange(3), jax.random.key(0)), batch=False)
def mixed_leaves(x, n, flag, how, nothing, steps, key):
    assert flag
    assert how == "mean"
    assert nothing is None
    return jnp.mean(x**n * (1 + steps).astype(x.dtype)) + 0 * jax.random.uniform(key, (), x.dtype)


@case(
    lambda d: (array(3)(d),),
    keywords=lambda d: {"other": array(2)(d), "scale": array()(d)},
)
def keyword_arguments(x, *, other, scale=2.0, offset=1.0):
    return scale * jnp.outer(x, other) + offset


@case(
    lambda d: (array(3)(d), array(2)(d) * 2, array()(d)),
    keywords=lambda d: {"q": array(2)(d), "p": array()(d) * 3},
)
def variadic(x, *args, **kwargs):
    return x * args[1] + args[0].sum() + kwargs["q"].sum() * kwargs["p"]


@case(lambda d: (array(2)(d), array(2)(d) * 2))
def positional_only(x, y, /):
    return x / y


@case(lambda d: ({"größe": array(2)(d), "λ": array()(d)},))
def unicode_names(parameter):
    return parameter["größe"] ** 2 * parameter["λ"]


@case(lambda d: (array(3)(d),), has_aux=True)
def auxiliary(x):
    return jnp.sin(x), {"label": "sine", "sum": x.sum(), "function": jnp.sin, "none": None, "n": 3}


@case(lambda d: (array(3)(d),))
def several_outputs(x):
    return {
        "energy": jnp.sum(x**2),
        "forces": [x * 2, jnp.cos(x)],
        "count": jnp.arange(2),
        "note": "n",
    }


@case(lambda d: (array(3)(d), array(3)(d)))
def repeated_outputs(x, y):
    z = x * y
    return z, z, x, 1.5


# Complex ---------------------------------------------------------------------------


@case(arrays((3,)), kind="R to C", closed=lambda x: {"x": np.diag(1j * np.exp(1j * np.asarray(x)))})
def phases(x):
    return jnp.exp(lax.complex(jnp.zeros_like(x), x))


@case(arrays((6,)), kind="R to C")
def spectrum(x):
    return jnp.fft.rfft(x)


def _complex(d: Any) -> Any:
    return lax.complex(array(3)(d), array(3)(d) * 0.5 - 0.4)


@case(
    lambda d: (_complex(d),),
    kind="C to R",
    closed=lambda z: {"z": 2 * jnp.conj(z)},
    smooth=False,
)
def squared_modulus(z):
    return jnp.sum(jnp.abs(z) ** 2)


@case(lambda d: (_complex(d), array(3)(d)), kind="C to R", smooth=False)
def complex_and_real_arguments(z, x):
    return z.real * x - jnp.abs(z).sum()


@case(
    lambda d: (_complex(d),),
    kind="holomorphic",
    closed=lambda z: {"z": jnp.diag(2 * z + jnp.exp(z))},
)
def entire(z):
    return z**2 + jnp.exp(z)


# What JAX pushes through and does not linearise ------------------------------------


@custom_vmap
def own_batches(x):
    return jnp.sin(x)


@own_batches.def_vmap
def _(size, batched, x):
    return jnp.sin(x), True
