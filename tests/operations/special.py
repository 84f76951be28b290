"""Special functions and the other numerical modules of `jax.scipy` and `jax.nn`."""

import functools

import jax
import jax.numpy as jnp
import jax.scipy.special as jss
import numpy as np

from operations.registry import family, within

operation = family("jax.scipy.special")

for name in (
    "dawsn", "digamma", "entr", "erf", "erfc", "erfcx", "erfinv", "exp1", "expi",
    "expit", "factorial", "fresnel", "gamma", "gammaln", "i0", "i0e", "i1", "i1e", "log_ndtr",
    "log_softmax", "loggamma", "logit", "logsumexp", "ndtr", "ndtri", "sici", "softmax", "spence",
):  # fmt: skip
    operation(f"jss.{name}", getattr(jss, name), (3,), high=0.9, scale=10)
if hasattr(jss, "erfcinv"):  # since JAX 0.12
    operation("jss.erfcinv", jss.erfcinv, (3,), high=0.9, scale=10)
for name in ("expit", "logsumexp", "softmax", "log_softmax"):
    operation(f"jss.{name}, complex", getattr(jss, name), (3,), kinds=("complex",), scale=10)
two = functools.partial(operation, scale=10)
for name in ("beta", "betaln", "kl_div", "rel_entr", "xlogy", "xlog1py", "boxcox", "boxcox1p",
             "poch", "comb", "owens_t"):  # fmt: skip
    two(f"jss.{name}", getattr(jss, name), within(3, low=1.2, high=2), (3,))
for name in ("gammainc", "gammaincc"):
    two(
        f"jss.{name}", getattr(jss, name), (3,), within(3, low=0.8, high=2), smooth=False, slow=True
    )
two("jss.betainc", lambda x: jss.betainc(jnp.full_like(x, 2), jnp.full_like(x, 3), x), (3,),
    high=0.9)  # fmt: skip
two("jss.bessel_jn", lambda x: jss.bessel_jn(x, v=2, n_iter=20), (3,))
two("jss.expn", lambda x: jss.expn(np.array([1, 2, 3], x.dtype), x), (3,))
two("jss.hyp1f1", lambda x: jss.hyp1f1(jnp.full_like(x, 1.5), jnp.full_like(x, 2.5), x), (3,),
    strict=False)  # fmt: skip
two("jss.hyp2f1", lambda x: jss.hyp2f1(jnp.full_like(x, 1.5), jnp.full_like(x, 0.5),
    jnp.full_like(x, 2.5), x), (3,), high=0.8)  # fmt: skip
two("jss.multigammaln", lambda x: jss.multigammaln(x, 2), within(3, low=2, high=3))
two("jss.polygamma", lambda x: jss.polygamma(np.array([1, 2, 3], "int32"), x), (3,))
two("jss.zeta", lambda x: jss.zeta(jnp.full_like(x, 3), x), within(3, low=1, high=2))
# Integers of 64 bits are others where these are switched off, which JAX's cache of traces misses.
DEGREES, ORDERS = np.array([1, 2], "int32"), np.array([0, 1], "int32")
two("jss.sph_harm_y", lambda t, p: jss.sph_harm_y(DEGREES, ORDERS, t, p, n_max=3),
    (2,), (2,))  # fmt: skip
two("jss.wofz", jss.wofz, (3,), kinds=("complex",))

# Other modules ---------------------------------------------------------------------------

operation = functools.partial(family("jax.nn"), scale=10)
for name in (
    "celu", "elu", "gelu", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu", "log_sigmoid",
    "log1mexp", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_sign", "softplus",
    "sparse_plus", "sparse_sigmoid", "squareplus", "tanh", "standardize", "log_softmax", "softmax",
    "logsumexp", "logmeanexp", "glu", "hard_swish", "swish", "identity",
):  # fmt: skip
    operation(f"jax.nn.{name}", getattr(jax.nn, name), (4,), high=0.9)
operation("jax.nn.dot_product_attention", jax.nn.dot_product_attention, (1, 3, 1, 2), (1, 3, 1, 2),
          (1, 3, 1, 2), strict=False, exact=False, coarse=1e-5,
          note="JAX computes it in float32")  # fmt: skip

operation = functools.partial(family("jax.scipy, other modules"), scale=10)
signal = jax.scipy.signal
for name in ("convolve", "correlate", "fftconvolve"):
    operation(f"jax.scipy.signal.{name}", getattr(signal, name), (4,), (3,))
for name in ("convolve2d", "correlate2d"):
    operation(f"jax.scipy.signal.{name}", getattr(signal, name), (3, 3), (2, 2))
operation("jax.scipy.signal.detrend", signal.detrend, (5,))
operation("jax.scipy.signal.stft", lambda x: signal.stft(x, nperseg=4)[2], (8,))
operation("jax.scipy.signal.istft", lambda x: signal.istft(x, nperseg=4)[1], (3, 3),
          kinds=("complex",), holomorphic=False)  # fmt: skip
operation("jax.scipy.signal.welch", lambda x: signal.welch(x, nperseg=4)[1], (8,))
operation("jax.scipy.signal.csd", lambda x, y: signal.csd(x, y, nperseg=4)[1], (8,), (8,))
operation("jax.scipy.ndimage.map_coordinates", lambda x, i: jax.scipy.ndimage.map_coordinates(
    x, [i, i * i], order=1), (3, 3), (3,), smooth=False)  # fmt: skip
operation("jax.scipy.integrate.trapezoid", jax.scipy.integrate.trapezoid, (4,), (4,))
operation("jax.scipy.interpolate.RegularGridInterpolator", lambda v, x:
          jax.scipy.interpolate.RegularGridInterpolator(
              (np.arange(3).astype(x.dtype), np.arange(3).astype(x.dtype)), v)(x), (3, 3), (2, 2),
          smooth=False)  # fmt: skip
operation("jax.scipy.sparse.linalg.cg", lambda b: jax.scipy.sparse.linalg.cg(
    lambda x: x * np.array([2, 3, 4], b.dtype), b, tol=1e-12)[0], (3,), scale=100,
    smooth=False)  # fmt: skip
operation("jax.scipy.stats.norm.logpdf", jax.scipy.stats.norm.logpdf, (3,), (3,), (3,))
operation("jax.scipy.stats.gaussian_kde", lambda d, x: jax.scipy.stats.gaussian_kde(d)(x), (5,),
          (2,))  # fmt: skip
operation("jax.image.resize", lambda x: jax.image.resize(x, (3, 4), "cubic"), (2, 3))
KEY = np.array([0, 7], "uint32")
operation("jax.random.gamma", lambda a: jax.random.gamma(
    jax.random.wrap_key_data(KEY), a, dtype=a.dtype), (3,), low=1, high=2, scale=100, smooth=False,
    slow=True,
    exact=False, note="the pathwise derivative")  # fmt: skip
operation("jax.random.normal", lambda m, s: m + s * jax.random.normal(
    jax.random.wrap_key_data(KEY), (3,), m.dtype), (3,), (3,))  # fmt: skip
