"""The usual causes of numbers that are not finite, and what usually helps."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Cause:
    """A usual cause: a name of it, what it is, and what helps."""

    name: str
    problem: str
    remedy: str


DOUBLE_WHERE = (
    "The double where: choose a harmless argument before the operation, too. Write "
    "jnp.where(ok, f(jnp.where(ok, x, 1.0)), 0.0) in the place of jnp.where(ok, f(x), 0.0)."
)

OVERFLOW = Cause(
    "overflow",
    "the result is larger than its dtype holds",
    "Work with logarithms or scaled numbers, or with a wider dtype (float32 for float16, "
    "jax.enable_x64 for float64).",
)
CONSTANT = Cause(
    "constant",
    "it reads a constant that is not finite: one that is written in the function, or that it "
    "closes over",
    "If it is meant as a mask, keep it from what the function returns; otherwise mend it.",
)
LINEAR = Cause(
    "infinite slope",
    "an operation on this line has a derivative that is not finite",
    "Look for a root, a logarithm, a division or a power at zero, an angle at the edge of its "
    "domain, or an overflow on this line. " + DOUBLE_WHERE,
)
READ = Cause(
    "not finite before",
    "it reads a number that is not finite",
    "Look at where that number comes from; if it is meant to be masked, mask it before this "
    "operation and not after it (the double where).",
)
ROOT = Cause(
    "root at zero",
    "a root has an infinite slope at zero",
    "A norm or a distance, perhaps: differentiate its square; add a small number under the root; "
    "or take the zero out with the double where: "
    "jnp.where(s > 0, jnp.sqrt(jnp.where(s > 0, s, 1.0)), 0.0), whose derivative at zero is 0.",
)
NOUGHT = Cause(
    "0/0",
    "0/0 has no value",
    "Where the limit is known, write it down with the double where: "
    "jnp.where(y != 0, x / jnp.where(y != 0, y, 1.0), limit).",
)
DIVISION = Cause(
    "division by zero",
    "the divisor is zero",
    "Choose another divisor there before dividing: jnp.where(y != 0, x / jnp.where(y != 0, y, 1.0),"
    " 0.0); or add a small number to a divisor that is not negative.",
)
TINY = Cause(
    "division by a small number",
    "the divisor is so small that the result, or its derivative, overflows",
    "Bound the divisor from below (jnp.maximum(y, 1e-6)), scale the numbers, or use float64.",
)
LOG = Cause(
    "logarithm at zero",
    "a logarithm and its slope are infinite at zero",
    "For x * log(x), jax.scipy.special.xlogy; for log(sum(exp(x))), jax.nn.logsumexp, of which one "
    "entry has to be finite; otherwise bound the argument from below (jnp.maximum(x, 1e-30)) or "
    "take the zero out with the double where.",
)
DOMAIN = Cause(
    "outside of the domain",
    "the function is not defined there",
    "Bring the argument into the domain first (jnp.clip, jnp.maximum); rounding may have taken it "
    "out.",
)
EDGE = Cause(
    "edge of the domain",
    "the slope is infinite at the edge of the domain",
    "For an angle, jnp.arctan2 of both components; otherwise clip the argument to a little inside "
    "of it (jnp.clip).",
)
EIGEN = Cause(
    "degenerate eigenvalues",
    "eigenvectors of equal eigenvalues, or singular vectors of equal singular values or of zero, "
    "are not unique and have no derivative",
    "Differentiate functions of the values alone (jnp.linalg.eigvalsh), or of the matrix; or "
    "break the tie with a small distinct diagonal.",
)
SINGULAR = Cause(
    "singular matrix",
    "the matrix is singular, or not positive definite where it must be",
    "Add a small multiple of the identity, or use jnp.linalg.lstsq or pinv.",
)
MASKED_ALL = Cause(
    "infinity minus infinity",
    "infinity minus infinity has no value",
    "A softmax or logsumexp of nothing but -inf, perhaps: leave one entry of each row unmasked, or "
    "mask with a large finite number (-1e9) and set the masked results with jnp.where.",
)
ZERO_TIMES = Cause(
    "zero times infinity",
    "zero times infinity has no value",
    "Mend what is infinite, and not the product: mask it before this operation (the double where), "
    "or write the limit.",
)
EXP = Cause(
    "overflow",
    "the exponential is larger than its dtype holds",
    "Subtract the maximum first (jax.nn.softmax, jax.nn.logsumexp do), work with logarithms "
    "(jax.nn.log_softmax, jax.nn.softplus), or clip the argument.",
)
CAST = Cause(
    "overflow",
    "the number is larger than the dtype holds to which it is converted",
    "Scale it first, keep the wider dtype, or clip it (jnp.finfo(dtype).max).",
)
ANGLE = Cause(
    "angle at the origin",
    "the angle of (0, 0) has no derivative",
    "Take the origin out with the double where.",
)
POLE = Cause(
    "pole",
    "the function has a pole there",
    "Keep the argument away from it.",
)
POWER = Cause(
    "power of zero",
    "the power, or its slope, is infinite at zero",
    "Take the zero out with the double where, or add a small number to the base.",
)
NEGATIVE_BASE = Cause(
    "power of a negative number",
    "a negative number has no real power of this exponent",
    "Use an integer as the exponent, or bring the base into the domain (jnp.maximum, jnp.abs).",
)
