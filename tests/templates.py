"""The operations of random programs, as templates of source by the kinds of their operands.

In a template `{x}`, `{y}` and `{z}` are operands, `{x.size}` is a number about one, and all
other fields are drawn: `{axis}` an axis of the first operand, `{k}` a small number, and so on.
"""

import dataclasses
import math
import string
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from hypothesis import strategies as st

Draw = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class Var:
    """A variable of a source, with what it holds."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def last(self) -> int:
        return self.shape[-1]

    @property
    def is_real(self) -> bool:
        return bool(jnp.issubdtype(jnp.dtype(self.dtype), jnp.floating))

    @property
    def is_complex(self) -> bool:
        return bool(jnp.issubdtype(jnp.dtype(self.dtype), jnp.complexfloating))

    def __format__(self, spec: str) -> str:
        return self.name


KINDS: dict[str, Callable[[Var], bool]] = {
    "any": lambda x: x.is_real,  # of any size, zero as well
    "real": lambda x: x.is_real and x.size > 0,
    "scalar": lambda x: x.is_real and x.ndim == 0,
    "axes": lambda x: x.is_real and x.size > 0 and x.ndim > 0,
    "vector": lambda x: x.is_real and x.size > 0 and x.ndim == 1,
    "matrix": lambda x: x.is_real and x.size > 0 and x.ndim == 2,
    "tensor": lambda x: x.is_real and x.size > 0 and x.ndim == 3,
    "batch": lambda x: x.is_real and x.size > 0 and x.ndim > 1,
    # What has kinks is told apart by its rounding, and LAPACK and FFTs know two dtypes.
    "wide": lambda x: x.dtype in {"float32", "float64"} and x.size > 0,
    "wide axes": lambda x: x.dtype in {"float32", "float64"} and x.size > 0 and x.ndim > 0,
    "wide vector": lambda x: x.dtype in {"float32", "float64"} and x.size > 0 and x.ndim == 1,
    "square": lambda x: (
        x.dtype in {"float32", "float64"} and x.ndim == 2 and 0 < x.shape[0] == x.shape[1]
    ),
    "complex": lambda x: x.is_complex and x.size > 0,
    "complex axes": lambda x: x.is_complex and x.size > 0 and x.ndim > 0,
    "index": lambda x: x.dtype == "int32" and x.size > 0,
}

# How a second operand goes with the first.
PAIRS: dict[str, Callable[[Var, Var], bool]] = {
    "same": lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype),
    "spread": lambda x, y: (
        x.dtype == y.dtype
        and x.ndim == y.ndim
        and all(a == b or 1 in {a, b} for a, b in zip(x.shape, y.shape, strict=True))
    ),
    "a scalar": lambda x, y: y.is_real and y.ndim == 0 and y.dtype == x.dtype,
    "a vector": lambda x, y: y.ndim == 1 and y.size > 0 and y.dtype == x.dtype,
    "columns": lambda x, y: y.dtype == x.dtype and y.shape == x.shape[1:],
    "factor": lambda x, y: y.dtype == x.dtype and y.ndim == 2 and y.shape[:1] == x.shape[1:],
    "an index": lambda x, y: KINDS["index"](y),
}

TABLE: list[tuple[str, ...]] = [
    # Elementwise; the simplest first, to which examples shrink.
    ("any", "", "jnp.sin({x})"),
    ("any", "", "jnp.tanh({x})"),
    ("any", "", "0.7 * {x} + 0.2"),
    ("any", "", "jnp.cos({x})"),
    ("any", "", "{x} / (1 + {x} * {x})"),
    ("any", "", "jnp.sqrt(1 + {x} ** 2)"),
    ("any", "", "jnp.exp(-{x} * {x})"),
    ("any", "", "jnp.log1p({x} ** 2)"),
    ("any", "", "jnp.arctan({x})"),
    ("any", "", "lax.rsqrt(1 + {x} ** 2)"),
    ("any", "", "lax.erf({x})"),
    ("any", "", "lax.logistic({x})"),
    ("any", "", "jax.nn.softplus({x})"),
    ("any", "", "lax.integer_pow(jnp.sin({x}), {k})"),
    ("any", "", "lax.stop_gradient({x})"),
    ("any", "", "lax.optimization_barrier({x})"),
    ("any", "", "-{x}"),
    ("any", "", "{x}.astype('{dtype}')"),
    ("any", "", "jnp.zeros_like({x}) + 0.5"),
    ("wide", "", "jax.nn.relu({x} - 0.2718)"),
    ("wide", "", "jnp.abs({x} + 0.3183)"),
    ("wide", "", "jnp.where({x} > 0.2718, jnp.sin({x}), 0.3 * {x})"),
    ("wide", "", "jnp.clip({x}, -0.8123, 0.9157)"),
    ("wide", "", "jnp.where({x} > 0.1, jnp.log(jnp.where({x} > 0.1, {x}, 1.0)), 0.5)"),
    ("wide", "", "jnp.floor(1.7 * {x} + 0.123) * {x}"),
    ("wide", "", "({x} > 0.2718).astype(jnp.int32)"),
    (
        "wide axes",
        "",
        "jnp.argmax({x} + const('{x.dtype}', {x.shape}, {k}), axis={axis}).astype(jnp.int32)",
    ),
    # Two operands.
    ("any", "same", "{x} - {y}"),
    ("any", "same", "0.6 * {x} * {y}"),
    ("any", "spread", "{x} + 0.4 * {y}"),
    ("any", "spread", "{x} * {y}"),
    ("any", "same", "{x} / (2 + {y} * {y})"),
    ("any", "same", "jnp.arctan2({x}, 2 + {y} * {y})"),
    ("any", "a scalar", "{y} * {x}"),
    ("wide", "same", "jnp.maximum({x}, 0.9 * {y} + 0.0317)"),
    ("wide", "same", "jnp.where({x} > 0.2718, {x}, {y})"),
    ("any", "same", "jax.jit(lambda a, b: (jax.jit(jnp.sin)(a) * b, a))({x}, {y})[{bit}]"),
    ("any", "same", "lax.cond({flag}, lambda a, b: a * b, lambda a, b: b, {x}, {y})"),
    ("any", "same", "jax.checkpoint(lambda a, b: jnp.sin(a * jnp.sin(b)))({x}, {y})"),
    # Reductions and sums along an axis.
    ("any", "", "jnp.sum({x})"),
    ("real", "", "jnp.mean({x})"),
    ("axes", "", "jnp.sum({x}, axis={axis})"),
    ("axes", "", "jnp.mean({x}, axis={axis}, keepdims=True)"),
    ("axes", "", "jnp.prod({x}, axis={axis})"),
    ("axes", "", "jnp.var({x}, axis={axis})"),
    ("axes", "", "jax.nn.logsumexp({x}, axis={axis})"),
    ("axes", "", "jax.nn.softmax({x}, axis={axis})"),
    ("axes", "", "0.5 * lax.cumsum({x}, axis={axis}, reverse={flag})"),
    ("axes", "", "lax.cumprod(jnp.cos({x}), axis={axis})"),
    ("axes", "", "lax.cumlogsumexp({x}, axis={axis})"),
    ("axes", "", "associative({x})"),
    ("axes", "", "0.5 * windows({x})"),
    ("wide axes", "", "jnp.max({x} + const('{x.dtype}', {x.shape}, {k}), axis={axis})"),
    ("wide axes", "", "jnp.sort({x} + const('{x.dtype}', {x.shape}, {k}), axis={axis})"),
    ("wide axes", "", "lax.cummax({x} + const('{x.dtype}', {x.shape}, {k}), axis={axis})"),
    ("wide vector", "", "lax.top_k({x} + const('{x.dtype}', {x.shape}, 1), 1)[0]"),
    # Shapes.
    ("any", "", "jnp.reshape({x}, {shape})"),
    ("any", "", "jnp.ravel({x})"),
    ("any", "", "jnp.transpose({x}, {perm})"),
    ("any", "", "{x}[None]"),
    ("any", "", "jnp.broadcast_to({x}, (2, *{x.shape}))"),
    ("any", "", "jnp.squeeze({x})"),
    ("axes", "", "jnp.flip({x}, axis={axis})"),
    ("axes", "", "jnp.roll({x}, {k}, axis={axis})"),
    ("axes", "", "lax.slice_in_dim({x}, 0, {stop}, {k}, {axis})"),
    ("axes", "", "lax.slice_in_dim({x}, {start}, None, 1, {axis})"),
    ("axes", "", "lax.index_in_dim({x}, {start}, {axis}, keepdims={flag})"),
    ("axes", "", "jnp.take({x}, np.array({indices}), axis={axis})"),
    ("axes", "", "{x}[:0]"),
    ("axes", "", "jnp.repeat({x}, 2, axis={axis})"),
    ("axes", "", "lax.pad({x}, np.array(0.5, {x}.dtype), {padding})"),
    ("any", "same", "jnp.stack([{x}, {y}], axis={new_axis})"),
    ("axes", "same", "jnp.concatenate([{x}, 0.5 * {y}], axis={axis})"),
    ("axes", "a vector", "jnp.concatenate([jnp.ravel({x}), {y}])"),
    ("matrix", "", "jnp.tril({x})"),
    ("matrix", "", "jnp.diagonal({x})"),
    ("matrix", "", "jnp.trace({x})"),
    ("vector", "", "jnp.diag({x})"),
    ("vector", "", "jnp.stack([{x}[0] * e + 0.5 * jnp.sin({x}[-1]) for e in {x}])"),
    ("axes", "", "lax.split({x}, [1, {x.last} - 1], axis={x.ndim} - 1)[{bit}]"),
    # Gathers, scatters and slices at places that depend on values.
    ("axes", "", "{x}.at[np.array({rows})].add(0.5)"),
    (
        "axes",
        "",
        "{x}.at[np.array({rows})].multiply(jnp.cos({x}[np.array({rows})]), unique_indices=True)",
    ),
    ("vector", "", "jnp.zeros(6, {x}.dtype).at[np.arange({x.size}) // 2].add({x})"),
    ("vector", "", "jnp.zeros(5, {x}.dtype).at[np.arange({x.size}) % 5].set({x})"),
    ("axes", "an index", "{x}[{y} % {x.shape[0]}]"),
    ("axes", "an index", "jnp.take({x}, {y}, axis={axis}, mode='clip')"),
    ("axes", "an index", "lax.dynamic_slice_in_dim({x}, jnp.ravel({y})[0], 1, {axis})"),
    (
        "axes",
        "an index",
        "lax.dynamic_update_slice_in_dim(jnp.sin({x}), 0.5 * {x}[:1], jnp.ravel({y})[0], 0)",
    ),
    ("axes", "an index", "{x}.at[{y} % {x.shape[0]}].set(0.25)"),
    ("axes", "an index", "jax.ops.segment_sum({x}, jnp.resize({y}, {x.shape[0]}), 3)"),
    ("real", "an index", "{x} * jnp.sum({y}).astype({x}.dtype)"),
    # Products.
    ("vector", "", "const('{x.dtype}', ({k}, {x.size}), {k}) @ {x}"),
    ("vector", "", "const('{x.dtype}', (4, {x.size}), 1) @ jnp.sin({x})"),
    (
        "vector",
        "",
        "const('{x.dtype}', (6, {k}), 1) @ jnp.tanh(const('{x.dtype}', ({k}, {x.size}), 2) @ {x})",
    ),
    ("batch", "", "{x} @ const('{x.dtype}', ({x.last}, {k}), 3)"),
    ("vector", "same", "{x} @ {y} / {x.size}"),
    ("vector", "a vector", "{x}[:, None] * {y}[None, :]"),
    ("matrix", "columns", "0.5 * {x} @ {y}"),
    ("matrix", "factor", "0.5 * {x} @ {y}"),
    ("matrix", "same", "0.5 * jnp.einsum('ij,kj->ik', {x}, {y})"),
    ("matrix", "same", "jnp.einsum('ij,ij->i', {x}, {y})"),
    ("tensor", "same", "0.3 * jnp.einsum('bij,bkj->bik', {x}, {y})"),
    ("tensor", "", "jnp.einsum('bij->ib', {x})"),
    ("wide vector", "a vector", "jnp.convolve({x}, {y}, mode='same')"),
    (
        "wide vector",
        "",
        "lax.conv_general_dilated({x}[None, None], const('{x.dtype}', (2, 1, 2), {k}), "
        "({k},), 'SAME')[0]",
    ),
    ("square", "columns", "solved({x}, {y})"),
    ("square", "", "factor({x})"),
    ("square", "", "volume({x})"),
    # Control flow, rules, and transforms inside of one another.
    ("any", "", "bend({x})"),
    ("axes", "", "mix({x})"),
    ("any", "", "soft({x})"),
    ("any", "", "jax.jit(bend)({x})"),
    ("any", "", "jax.checkpoint(bend)({x})"),
    ("any", "", "branch({x})"),
    ("wide", "", "switch({x})"),
    ("any", "", "counted({x})"),
    ("axes", "", "scanned({x})"),
    ("axes", "", "accumulated({x})"),
    ("axes", "", "nested_scan({x})"),
    ("axes", "", "mapped({x})"),
    ("any", "", "grown({x})"),
    ("any", "", "along({x})"),
    ("batch", "", "jax.vmap({body})({x})"),
    ("batch", "", "jax.vmap({body}, in_axes=1)({x})"),
    ("vector", "", "jax.vmap(lambda a: a * {x}, out_axes={bit})({x})"),
    # Complex steps.
    ("wide axes", "", "jnp.fft.rfft({x})"),
    ("wide axes", "", "filtered({x})"),
    ("wide axes", "", "jnp.fft.fft({x}, axis={axis})"),
    ("wide axes", "", "waves({x})"),
    ("wide", "same", "lax.complex({x}, {y})"),
    ("complex", "", "{z0} * np.array(0.8 + 0.4j, '{z0.dtype}')"),
    ("complex", "", "lax.complex(jnp.tanh({z0}.real), {z0}.imag)"),
    ("complex", "", "jnp.conj({z0})"),
    ("complex", "same", "0.3 * {z0} * jnp.conj({y})"),
    ("complex", "", "{z0}.real"),
    ("complex", "", "{z0}.imag"),
    ("complex", "", "jnp.real({z0} * jnp.conj({z0}))"),
    ("complex axes", "", "jnp.fft.irfft({z0}, n={irfft})"),
    ("complex axes", "", "jnp.fft.ifft({z0})"),
]

# One direction only: "w" can be pushed, "v" can be pulled.
ONE_WAY: list[tuple[str, ...]] = [
    ("real", "", "loop{wrap}({x})", "w"),
    ("real", "", "linear_loop{wrap}({x})", "w"),
    ("real", "", "rule{wrap}({x})", "v"),
    ("real", "same", "rule_of_two({x}, {y})[{bit}]", "v"),
    ("batch", "", "jax.vmap(loop)({x})", "w"),
    ("batch", "", "jax.vmap(rule)({x})", "v"),
]

# At places where a derivative is infinite or undefined, alone or beside what is not.
SINGULAR: list[tuple[str, ...]] = [
    ("real", "", "jnp.sqrt({x})"),
    ("real", "", "jnp.log({x})"),
    ("real", "", "1 / {x}"),
    ("real", "", "jnp.abs({x})"),
    ("real", "", "jnp.where({x} > 0, jnp.sqrt({x}), 0)"),
    ("real", "", "jnp.sqrt(jnp.sum({x} ** 2))"),
    ("real", "", "jnp.exp(400 * {x})"),
    ("real", "same", "{x} / {y}"),
    ("real", "same", "jnp.arctan2({x}, {y})"),
    ("vector", "", "const('{x.dtype}', (4, {x.size}), 1) @ {x}"),
    ("vector", "", "jnp.sum({x})[None] * const('{x.dtype}', (3,), 2)"),
    ("any", "", "0 * {x}"),
]


class Fields(Mapping[str, Any]):
    """The fields of a template; each is drawn when it is read, and stays what it is."""

    def __init__(self, draw: Draw, operands: list[Var], dtypes: list[str]) -> None:
        self.draw, self.first, self.dtypes = draw, operands[0], dtypes
        self.known: dict[str, Any] = dict(zip("xy", operands, strict=False))
        self.known["z0"] = self.first

    def __iter__(self):
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)

    def __getitem__(self, name: str) -> Any:
        if name not in self.known:
            self.known[name] = getattr(self, "_" + name)()
        return self.known[name]

    def _int(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, max(low, high)))

    def _of(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def _axis(self) -> int:
        return self._int(0, self.first.ndim - 1)

    def _new_axis(self) -> int:
        return self._int(0, self.first.ndim)

    def _k(self) -> int:
        return self._int(1, 3)

    def _bit(self) -> int:
        return self._int(0, 1)

    def _flag(self) -> bool:
        return self._of(False, True)

    def _dtype(self) -> str:
        return self._of(*self.dtypes)

    def _body(self) -> str:
        return self._of("mix", "bend", "scanned", "associative", "jax.nn.softmax", "jnp.sum")

    def _wrap(self) -> str:
        return self._of("", "_jit", "_scan", "_checkpoint", "_cond")

    def _length(self) -> int:
        return self.first.shape[self["axis"]]

    def _start(self) -> int:
        return self._int(0, self._length() - 1)

    def _stop(self) -> int:
        return self._int(1, self._length())

    def _indices(self) -> list[int]:
        return self.draw(st.lists(st.integers(0, self._length() - 1), min_size=1, max_size=3))

    def _rows(self) -> list[int]:
        return self.draw(
            st.lists(st.integers(0, self.first.shape[0] - 1), min_size=1, max_size=2, unique=True)
        )

    def _perm(self) -> tuple[int, ...]:
        return tuple(self.draw(st.permutations(range(self.first.ndim))))

    def _padding(self) -> list[tuple[int, int, int]]:
        sides = [st.integers(0, 1), st.integers(-1, 1), st.integers(0, 1)]
        some = st.tuples(*sides).filter(lambda pad: self.first.size)
        return [self.draw(some) if n > 1 else (1, 0, 0) for n in self.first.shape]

    def _shape(self) -> tuple[int, ...]:
        size = self.first.size
        pairs = [(n, size // n) for n in range(1, size + 1) if size % n == 0]
        if not size:
            pairs = [(0, 2), (0, 0)]
        return self._of((size,), *pairs, *((1, *pair) for pair in pairs[1:2]))

    def _irfft(self) -> int:
        return self._of(*range(1, 2 * self.first.last + 2))


def spelled(template: str, fields: Fields) -> str:
    """The source of a step."""
    return string.Formatter().vformat(template, (), fields)
