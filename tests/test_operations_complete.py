"""The registry of operations has all that JAX differentiates, or says why not."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import jax.scipy.special
import pytest
from jax.interpreters import ad

from operations import OPERATIONS
from operations.coverage import OTHERS, cover, functions_of, primitives_of, registered
from operations.omitted import FUNCTIONS, IN_SOME_VERSIONS, PRIMITIVES

# Without the primitives that other packages have registered in this process.
TABLE = """
import json
import jax.numpy, jax.scipy
from jax.experimental import pallas
from jax.interpreters import ad
print(json.dumps([p.name for p in ad.primitive_jvps]))
"""

MODULES = {
    "jnp.linalg": jnp.linalg,
    "jnp.fft": jnp.fft,
    "jss": jax.scipy.special,
    "jsl": jax.scipy.linalg,
    "jax.nn": jax.nn,
    "lax": jax.lax,
    "lax.linalg": jax.lax.linalg,
}


def test_every_primitive_with_a_derivative_is_in_an_operation():
    run = subprocess.run([sys.executable, "-c", TABLE], capture_output=True, text=True, check=True)
    known = {*json.loads(run.stdout), *OTHERS}
    assert {"sin", "while", "pallas_call"} <= known <= {p.name for p in ad.primitive_jvps} | OTHERS
    found = set().union(*map(primitives_of, OPERATIONS.values()))
    assert sorted(known - found - PRIMITIVES.keys() - IN_SOME_VERSIONS) == [], (
        "add an operation, or say why not"
    )
    assert sorted((PRIMITIVES.keys() & found) - IN_SOME_VERSIONS) == [], "these are not left out"
    assert sorted(PRIMITIVES.keys() - known - IN_SOME_VERSIONS) == [], (
        "JAX does not have these any more"
    )


@pytest.mark.parametrize("prefix", MODULES)
def test_every_function_of_a_module_is_an_operation(prefix):
    known, found, omitted = functions_of(MODULES[prefix]), registered(prefix), FUNCTIONS[prefix]
    assert sorted(known - found - omitted.keys() - IN_SOME_VERSIONS) == [], (
        "add an operation, or say why not"
    )
    assert sorted((omitted.keys() & found) - IN_SOME_VERSIONS) == [], "these are not left out"
    assert sorted(omitted.keys() - known - IN_SOME_VERSIONS) == [], (
        "JAX does not have these any more"
    )


def test_the_default_operations_have_nearly_all_primitives():
    found = set().union(*map(primitives_of, OPERATIONS.values()))
    known = OTHERS | {p.name for p in ad.primitive_jvps}
    missed = (found & known) - set().union(*map(primitives_of, cover()))
    assert missed == {"igamma", "igammac", "random_gamma"}  # which take long to compile
    assert len(cover()) < len(OPERATIONS) / 2


def test_what_jax_does_not_differentiate_is_left_out():
    for f in (jax.lax.igamma_grad_a, jax.lax.zeta):
        with pytest.raises(NotImplementedError, match="Differentiation rule"):
            jax.eval_shape(lambda x, f=f: jax.jvp(f, (x, x), (x, x)), jnp.ones(2))
