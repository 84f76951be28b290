"""Functions through few numbers, which a cut can use, and what is asked of all of them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import autodiffkit as adk
from functions import array
from reference import assert_close

F32 = jnp.float32


def struct(*shape, dtype=F32):
    return jax.ShapeDtypeStruct(shape, dtype)


def dense(rows, columns, dtype=F32):
    """A matrix of numbers that look random, scaled like an average."""
    return (array(rows, columns)(dtype) - 0.8) / np.sqrt(columns).astype(dtype)


def network(x, *matrices):
    """Layers with tanh between them."""
    *first, last = matrices
    for W in first:
        x = jnp.tanh(W @ x)
    return last @ x


def layers(*widths, dtype=F32):
    return [dense(m, n, dtype) for n, m in itertools.pairwise(widths)]


def waist(x, dtype=F32):
    """From any number of entries through two to 300."""
    return network(x, *layers(x.size, 2, 300, dtype=dtype))


def check(f, *args, sweeps, scale=1.0, theirs=jax.jacfwd, **options):
    """Mixed, with so many sweeps, and the values of JAX, eagerly and compiled."""
    J = adk.jacobian(f, **options)
    plan = J.plan(*args)
    assert (plan.mode, plan.forward_sweeps, plan.reverse_sweeps) == ("mixed", *sweeps), str(plan)
    options = {key: x for key, x in options.items() if key == "holomorphic"}
    expected = jax.jit(theirs(f, range(len(args)), **options))(*args)
    for call in (J, jax.jit(J)):
        found = call(*args).to_jax()
        jax.tree.map(lambda a, b: assert_close(a, b, scale), found, expected)
    return plan
