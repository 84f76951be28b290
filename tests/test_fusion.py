"""What is computed where it is read is neither written nor read again."""

import jax.numpy as jnp
import pytest

from autodiffkit._fusion import fused_costs
from autodiffkit._network import Network
from functions import array
from networks import linear_of

N = 5
X = array(N)("float32")
W = array(N, N)("float32")
BYTES = 4 * N


def moved(function, mode):
    """By step: the bytes that each direction moves."""
    network = Network(linear_of(function, [X]).program, 1)
    names = [network.program.jaxpr.eqns[step.equation].primitive.name for step in network.steps]
    costs = fused_costs(network, mode)
    return [(name, cost.moved) for name, cost in zip(names, costs, strict=True)]


@pytest.mark.parametrize("mode", ["fwd", "rev"])
def test_between_two_products_factors_are_read_and_written_once(mode):
    found = moved(lambda x: W @ (jnp.cos(jnp.sin(W @ x))), mode)
    assert found[0] == found[-1] == ("dot_general", 2 * BYTES)
    inner = dict(enumerate(bytes_ for _, bytes_ in found[1:-1]))
    assert sum(inner.values()) == 2 * BYTES
    assert {name for name, _ in found[1:-1]} <= {"mul", "neg"}


@pytest.mark.parametrize("mode", ["fwd", "rev"])
def test_of_what_is_done_entry_by_entry_only_the_result_is_written(mode):
    assert sum(n for _, n in moved(lambda x: jnp.exp(jnp.sin(jnp.cos(x))), mode)) == BYTES


def test_what_several_steps_read_is_read_once():
    def function(x):
        hidden = W @ x
        return hidden * X + hidden * jnp.cos(X)

    products = [n for name, n in moved(function, "fwd") if name != "dot_general"]
    assert sum(products) == 2 * BYTES


def test_a_sum_reads_what_was_not_written_and_is_a_broadcast_when_pulled():
    def function(x):
        return jnp.sum(jnp.sin(x)) * X

    assert (
        sum(n for _, n in moved(function, "fwd")) == 4 + 4 + BYTES
    )  # the sum, for the last factor
    assert moved(lambda x: jnp.sum(jnp.sin(x)), "rev")[0][1] == BYTES


def test_the_parts_of_a_sum_are_not_written_only_the_sum():
    assert sum(n for _, n in moved(lambda x: jnp.sin(x) + 2 * x, "rev")) == BYTES


def test_what_was_padded_is_written_where_several_places_read_it():
    def stencil(x):
        padded = jnp.pad(x, 1)
        return padded[2:] + padded[:-2]

    padded = 4 * (N + 2)
    found = moved(stencil, "fwd")
    assert found[0] == ("pad", padded)
    assert sum(n for _, n in found) == 2 * padded + BYTES
    assert sum(n for _, n in moved(stencil, "rev")) < 2 * padded
    assert moved(lambda x: jnp.pad(x, 1)[2:], "fwd")[0] == ("pad", 0)


def kernels(function, mode):
    network = Network(linear_of(function, [X]).program, 1)
    return sum(cost.kernels for cost in fused_costs(network, mode))


def test_a_sum_of_padded_parts_is_a_kernel_where_it_goes_on_twice():
    def crossed(x):
        both = x * jnp.sin(X) + jnp.cos(x)
        return both[1:] * both[:-1]

    assert (kernels(crossed, "fwd"), kernels(crossed, "rev")) == (0, 1)
    once = [n for _, n in moved(crossed, "rev")]
    assert sum(once) == 2 * BYTES + BYTES  # written once, read once; and the result
    assert kernels(lambda x: jnp.sin(x)[1:] * jnp.sin(x)[:-1], "rev") == 0


def test_what_was_padded_and_is_read_again_is_a_kernel_when_pushed():
    assert kernels(lambda x: jnp.pad(x, 1)[2:] + jnp.pad(x, 1)[:-2], "fwd") == 0

    def stencil(x):
        padded = jnp.pad(x, 1)
        return padded[2:] + padded[:-2]

    assert (kernels(stencil, "fwd"), kernels(stencil, "rev")) == (1, 0)
