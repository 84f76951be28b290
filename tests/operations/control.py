"""Control flow, rules of one's own, and mutable arrays."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap, sequential_vmap
from jax.custom_derivatives import closure_convert
from jax.experimental import checkify, pallas

from operations.registry import BOTH, family, matrix, numbers


def weights(x):
    """A constant matrix in the dtype of an array."""
    return numbers((3, 3), x.dtype)


# Control flow ---------------------------------------------------------------------------

operation = functools.partial(family("Control flow"), kinds=BOTH)


def recurrent(x, w):
    def step(carry, _):
        carry = jnp.tanh(w @ carry)
        return carry, jnp.sum(carry)

    return lax.scan(step, x, length=3)


def running(x, xs):
    return lax.scan(lambda c, row: (c + jnp.sin(row), c * row), x, xs, reverse=True)


operation("lax.scan", recurrent, (3,), (3, 3))
operation("lax.scan, over inputs, reversed", running, (3,), (2, 3))
operation("lax.scan, unrolled", lambda x: lax.scan(
    lambda c, _: (jnp.sin(c), c), x, length=4, unroll=2)[0], (3,))  # fmt: skip
operation("lax.scan, in a scan", lambda x: lax.scan(
    lambda c, _: (lax.scan(lambda d, _: (jnp.sin(d), None), c, length=2)[0], None), x, length=2)[0],
    (3,))  # fmt: skip
operation("lax.while_loop", lambda x: lax.while_loop(
    lambda s: s[0] < 3, lambda s: (s[0] + 1, jnp.tanh(weights(x) @ s[1])), (0, x))[1], (3,),
    modes="fwd")  # fmt: skip
operation("lax.while_loop, until it is large", lambda x: lax.while_loop(
    lambda v: jnp.sum(jnp.abs(v)) < 10, lambda v: v * v + v, x), (3,), modes="fwd")  # fmt: skip
operation("lax.fori_loop, of known length", lambda x: lax.fori_loop(
    0, 3, lambda i, v: jnp.sin(v) * (i + 1), x), (3,))  # fmt: skip
operation("lax.fori_loop, of unknown length", lambda x: lax.fori_loop(
    0, jnp.asarray(3), lambda i, v: jnp.sin(v), x), (3,), modes="fwd")  # fmt: skip
operation("lax.cond", lambda x: lax.cond(jnp.sum(jnp.real(x)) > 0, jnp.sin, jnp.cos, x), (3,))
operation("lax.cond, of two arrays", lambda x, y: lax.cond(
    True, lambda x, y: (x @ y, y), lambda x, y: (y @ x, x * y), x, y), (3, 3), (3, 3))  # fmt: skip
operation("lax.switch", lambda x: lax.switch(
    jnp.asarray(2), [jnp.sin, jnp.cos, lambda x: weights(x) @ x], x), (3,))  # fmt: skip
operation("lax.map", lambda x: lax.map(lambda row: jnp.cumprod(jnp.sin(row)), x), (2, 3))
operation("lax.map, in batches", lambda x: lax.map(jnp.sin, x, batch_size=2), (3, 2))
operation("lax.associative_scan", lambda x: lax.associative_scan(
    lambda a, b: (a[0] * b[0], a[1] * b[0] + b[1]), (x, jnp.sin(x))), (5,), cut=False)  # fmt: skip
operation("lax.platform_dependent", lambda x: lax.platform_dependent(
    x, cpu=jnp.sin, default=jnp.sin), (3,))  # fmt: skip
operation("jax.jit", lambda x: jax.jit(jnp.sin)(jax.jit(lambda x: x @ weights(x))(x)), (3,))
operation("jax.vmap", lambda x, w: jax.vmap(lambda r: jnp.tanh(w @ r))(x), (2, 3), (2, 3))
operation("jax.named_call", lambda x: jax.named_call(jnp.sin, name="sine")(x), (3,))
operation("jax.checkpoint", lambda x: jax.checkpoint(lambda v: jnp.sin(weights(v) @ jnp.sin(v)))(x),
          (3,))  # fmt: skip
operation("jax.checkpoint, with a policy", lambda x: jax.checkpoint(
    lambda v: jnp.sin(weights(v) @ jnp.sin(v)), policy=jax.checkpoint_policies.dots_saveable)(x),
    (3,), kinds=("real",))  # fmt: skip
operation(
    "jax.checkpoint, in a scan",
    lambda x: lax.scan(jax.checkpoint(lambda c, _: (jnp.tanh(weights(c) @ c), None)), x, length=3)[
        0
    ],
    (3,),
)
operation("checkify.checkify", lambda x: checkify.checkify(jnp.sin)(x)[1], (3,))

# Rules ----------------------------------------------------------------------------------

operation = functools.partial(family("Rules of one's own"), kinds=BOTH)


@jax.custom_jvp
def forward_rule(x):
    return jnp.sin(weights(x) @ x)


@forward_rule.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    return forward_rule(x), jnp.cos(weights(x) @ x) * (weights(x) @ t)


@jax.custom_vjp
def reverse_rule(x):
    return jnp.sin(x) * x


reverse_rule.defvjp(
    lambda x: (jnp.sin(x) * x, (jnp.sin(x) + jnp.cos(x) * x,)), lambda kept, g: (kept[0] * g,)
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def powered(n, x):
    return x**n


powered.defvjp(lambda n, x: (x**n, x), lambda n, x, g: (n * x ** (n - 1) * g,))


@jax.custom_vjp
def optimised(x):
    return jnp.sin(x)


optimised.defvjp(lambda x: (jnp.sin(x), jnp.cos(x)), lambda c, g: (c * g,), optimize_remat=True)


@jax.custom_gradient
def gradient_rule(x):
    return jnp.sin(x), lambda g: jnp.cos(x) * g


@custom_vmap
def own_batches(x):
    return jnp.sin(x)


@own_batches.def_vmap
def _(size, batched, x):
    del size, batched
    return jnp.sin(x), True


def with_closure(x, y):
    f, moved = closure_convert(lambda v: jnp.sin(v) * y, x)
    return f(x, *moved)


operation("jax.custom_jvp", forward_rule, (3,))
operation("jax.custom_vjp", reverse_rule, (3,), modes="rev", smooth=False)
operation("jax.custom_vjp, with a static argument", lambda x: powered(3, x), (3,), modes="rev",
          smooth=False)  # fmt: skip
operation("jax.custom_vjp, optimize_remat", optimised, (3,), modes="rev", smooth=False)
operation("jax.custom_vjp, optimize_remat, its gradient", lambda x: jax.vjp(optimised, x)[1](x),
          (3,), modes="fwd", smooth=False, alone=True)  # fmt: skip
operation("jax.custom_vjp, in a scan", lambda x: lax.scan(
    lambda c, _: (reverse_rule(c), None), x, length=2)[0], (3,), modes="rev",
    smooth=False)  # fmt: skip
operation("jax.custom_vjp, in a cond", lambda x: lax.cond(
    jnp.real(x[0]) > 0, reverse_rule, jnp.cos, x), (3,), modes="rev", smooth=False)  # fmt: skip
operation("jax.custom_gradient", gradient_rule, (3,), modes="rev", smooth=False)
operation("custom_vmap", own_batches, (3,), modes="fwd", alone=True)
operation("sequential_vmap", sequential_vmap(jnp.sin), (3,), modes="fwd", alone=True,
          combined=False, smooth=False, note="one direction at a time")  # fmt: skip
operation("closure_convert", with_closure, (3,), (3,))
operation("lax.custom_root", lambda a: lax.custom_root(
    lambda x: x * x - a, jnp.ones_like(a), lambda f, x: lax.fori_loop(
        0, 12, lambda _, v: (v + (f(v * 0) * -1) / v) / 2, x),
    lambda g, y: y / g(jnp.ones_like(y))), (3,), scale=10)  # fmt: skip
operation("lax.custom_linear_solve", lambda w, b: lax.custom_linear_solve(
    lambda v: w @ v, b, lambda _, b: jnp.linalg.solve(w, b),
    lambda _, b: jnp.linalg.solve(w.T, b)), matrix(3, 3), (3,), scale=10)  # fmt: skip
operation("lax.custom_linear_solve, symmetric", lambda w, b: lax.custom_linear_solve(
    lambda v: (w + w.T) @ v, b, lambda _, b: jnp.linalg.solve(w + w.T, b), symmetric=True),
    matrix(3, 3), (3,), scale=10)  # fmt: skip
operation("lax.custom_linear_solve, without a transpose", lambda w, b: lax.custom_linear_solve(
    lambda v: w @ v, b, lambda _, b: jnp.linalg.solve(w, b)), matrix(3, 3), (3,), modes="fwd",
    scale=10)  # fmt: skip


def outside(x):
    """A function outside of JAX, with a rule."""

    def call(f, x):
        return jax.pure_callback(
            lambda v: np.asarray(f(np.asarray(v))), jax.ShapeDtypeStruct(x.shape, x.dtype), x,
            vmap_method="expand_dims",
        )  # fmt: skip

    @jax.custom_jvp
    def sine(x):
        return call(np.sin, x)

    sine.defjvp(lambda p, t: (sine(*p), call(np.cos, *p) * t[0]))
    return sine(x)


operation("jax.pure_callback, with a rule", outside, (3,), smooth=False,
          note="without a rule it is refused, with its line of source")  # fmt: skip

# Pallas ---------------------------------------------------------------------------------

operation = family("Kernels")


def kernel(body, *outs):
    return lambda *arrays: pallas.pallas_call(
        body, out_shape=[jax.ShapeDtypeStruct(s or arrays[0].shape, arrays[0].dtype) for s in outs],
        interpret=True,
    )(*arrays)  # fmt: skip


def sine(x, out):
    out[...] = jnp.sin(x[...])


def product(x, y, out):
    out[...] = x[...] * jnp.exp(y[...])


operation("pallas_call, interpreted", kernel(sine, None), (3,), modes="fwd", alone=True)
operation("pallas_call, interpreted, of two arrays", kernel(product, None), (2, 3), (2, 3),
          modes="fwd", alone=True)  # fmt: skip
operation("pallas_call, with a rule", lambda x: with_rule(x), (3,), modes="rev", smooth=False)


@jax.custom_vjp
def with_rule(x):
    return kernel(sine, None)(x)[0]


with_rule.defvjp(lambda x: (with_rule(x), x), lambda x, g: (jnp.cos(x) * g,))
