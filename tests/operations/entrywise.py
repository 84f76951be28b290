"""Operations entry by entry."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import primitives

from operations.registry import BOTH, COMPLEX, family, within

operation = family("jax.lax, entry by entry")

ROUGH = {"smooth": False, "note": "differentiable but for a set of measure zero"}
STEPS = {"note": "its derivative is zero"}

# Of one array ---------------------------------------------------------------------------

for function in (
    lax.sin, lax.cos, lax.tan, lax.asin, lax.acos, lax.atan, lax.sinh, lax.cosh, lax.tanh,
    lax.asinh, lax.atanh, lax.exp, lax.exp2, lax.expm1, lax.log, lax.log1p, lax.logistic,
    lax.sqrt, lax.rsqrt, lax.square, lax.neg, lax.reciprocal,
):  # fmt: skip
    operation(f"lax.{function.__name__}", function, (3,), high=0.9, kinds=BOTH)
operation("lax.acosh", lax.acosh, (3,), low=1.2, high=2.2, kinds=BOTH)
for function in (
    lax.bessel_i0e, lax.bessel_i1e, lax.cbrt, lax.digamma, lax.erf, lax.erfc, lax.erf_inv,
    lax.lgamma,
):  # fmt: skip
    operation(f"lax.{function.__name__}", function, (3,), high=0.9)
for name in ("log2", "one_minus_square"):
    if hasattr(lax, name):  # since JAX 0.12
        operation(f"lax.{name}", getattr(lax, name), (3,), high=0.9)
for function in (lax.ceil, lax.floor, lax.round, lax.sign):
    operation(f"lax.{function.__name__}", function, (3,), low=0.6, high=0.9, **STEPS)
operation("lax.sign, complex", lax.sign, (3,), kinds=COMPLEX, holomorphic=False, exact=False,
          note="JAX takes its derivative to be zero")  # fmt: skip
operation("lax.abs", lax.abs, (3,), low=-1, high=-0.2)
operation("lax.abs, complex", lax.abs, (3,), kinds=COMPLEX, holomorphic=False)
for function in (lax.real, lax.imag, lax.conj):
    operation(
        f"lax.{function.__name__}", function, (3,), kinds=COMPLEX, holomorphic=False,
    )  # fmt: skip
operation("lax.conj, of real arrays", lax.conj, (3,), holomorphic=False)
operation("lax.integer_pow", lambda x: lax.integer_pow(x, 3), (3,), kinds=BOTH)
operation("lax.integer_pow, negative", lambda x: lax.integer_pow(x, -2), (3,), kinds=BOTH)
operation("lax.copy_p", primitives.copy_p.bind, (3,), kinds=BOTH)
operation("lax.stage", lax.stage, (3,), kinds=BOTH)
operation("lax.stop_gradient", lambda x: x * lax.stop_gradient(x), (3,), kinds=BOTH, exact=False,
          note="holds its argument constant")  # fmt: skip
operation("lax.optimization_barrier", lambda x: lax.optimization_barrier((x, 2 * x)), (3,),
          kinds=BOTH)  # fmt: skip
operation("lax.reduce_precision", lambda x: lax.reduce_precision(x, 8, 7), (3,), exact=False,
          coarse=0.02, note="tangents are rounded as the value is")  # fmt: skip
operation("checkpoint_name", lambda x: checkpoint_name(jnp.sin(x), "kept"), (3,), kinds=BOTH)
operation("lax.convert_element_type, to fewer bits", lambda x: lax.sin(x.astype("float16")),
          (3,), exact=False, coarse=2e-3)  # fmt: skip
operation("lax.convert_element_type, to complex", lambda x: lax.sin(x.astype("complex64")), (3,),
          exact=False, coarse=1e-6)  # fmt: skip
operation("lax.convert_element_type, to real", lambda x: lax.real(x).astype("float32"), (3,),
          kinds=COMPLEX, holomorphic=False, exact=False, coarse=1e-6)  # fmt: skip
operation("jax.device_put", lambda x: jax.device_put(jnp.sin(x)), (3,), kinds=BOTH)

# Of several -----------------------------------------------------------------------------

for function in (lax.add, lax.sub, lax.mul, lax.div, lax.pow):
    operation(f"lax.{function.__name__}", function, (2, 3), (2, 3), kinds=BOTH)
operation("lax.add, rows", lambda x, y: x + y[None], (2, 3), (3,), kinds=BOTH)
operation("lax.mul, by a constant", lambda x: x * jnp.asarray([2, 3, 5], x.dtype), (3,), kinds=BOTH)
operation("lax.mul, of one array", lambda x: x * x, (3,), kinds=BOTH)
operation("add_jaxvals_p", primitives.add_jaxvals_p.bind, (3,), (3,), kinds=BOTH)
operation("lax.atan2", lax.atan2, (3,), (3,))
operation("lax.max", lax.max, (2, 3), (2, 3), **ROUGH)
operation("lax.min", lax.min, (2, 3), (2, 3), **ROUGH)
operation("lax.rem", lax.rem, within(3, low=2.2, high=2.8), within(3, low=0.9, high=1.0))
operation("lax.complex", lax.complex, (3,), (3,))
operation("lax.clamp", lambda x: lax.clamp(jnp.asarray(0.5, x.dtype), x, jnp.asarray(1, x.dtype)),
          (5,), **ROUGH)  # fmt: skip
operation("lax.clamp, all three", lax.clamp, within(3, high=0.5), (3,), within(3, low=1, high=1.2),
          **ROUGH)  # fmt: skip
WHICH = np.array([True, False, True])
operation("lax.select_n", lambda x, y: lax.select_n(WHICH, x, y), (3,), (3,), kinds=BOTH)
operation("lax.select", lambda x, y: lax.select(WHICH, x, y), (3,), (3,), kinds=BOTH)
operation("lax.select_n, by a value", lambda x, y: jnp.where(x > y, x, y * y), (3,), (3,), **ROUGH)
for function in (lax.igamma, lax.igammac):
    operation(f"lax.{function.__name__}", function, (3,), within(3, low=0.8, high=2), scale=10,
              slow=True, smooth=False,
              note="JAX has no second derivative by the first argument")  # fmt: skip
operation("lax.betainc", lambda x: lax.betainc(jnp.full_like(x, 2), jnp.full_like(x, 3), x), (3,),
          high=0.9, scale=10, note="JAX has the derivative by the last argument only")  # fmt: skip
operation("lax.polygamma", lambda x: lax.polygamma(jnp.full_like(x, 2), x), (3,), low=1, high=2,
          scale=10, note="by the last argument")  # fmt: skip
