"""What a static checker infers of the public interface; checked, never run."""

from typing import assert_type

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import autodiffkit as adk


def energy(x: Float[Array, "n"], scale: float = 1.0) -> Float[Array, ""]:
    return scale * jnp.sum(x**2)


x = jnp.ones(3)

assert_type(adk.jacobian(energy)(x), adk.Jacobian)
assert_type(adk.jacobian(energy)(x, scale=2.0), adk.Jacobian)
assert_type(adk.grad(energy, wrt=("x", "scale"))(x, 2.0), adk.Gradient)
assert_type(adk.hessian(energy, wrt="x")(x), adk.Hessian)
assert_type(adk.hessian(energy)(x).grad, adk.Gradient)
assert_type(adk.linearize(energy)(x), adk.LinearMap)
assert_type(adk.hvp(energy, mode="fwd")(x), adk.LinearMap)
assert_type(adk.jacobian(energy).plan(x), adk.Plan)
assert_type(adk.jacobian(energy)(x).as_matrix(), Array)


@adk.jacobian
def decorated(x: Float[Array, "n"]) -> Float[Array, "n"]:
    return x**2


@adk.grad(wrt="x")
def decorated_with_options(x: Float[Array, "n"], n: int) -> Float[Array, ""]:
    return jnp.sum(x) * n


assert_type(decorated(x), adk.Jacobian)
assert_type(decorated_with_options(x, n=2), adk.Gradient)


class Model(eqx.Module):
    weight: Float[Array, "m n"]

    def __call__(self, x: Float[Array, "n"]) -> Float[Array, "m"]:
        return self.weight @ x


assert_type(adk.jacobian(Model(jnp.ones((2, 3))), wrt="self")(x), adk.Jacobian)
assert_type(adk.jacobian(energy, wrt=lambda path, leaf: path == "x")(x), adk.Jacobian)

# What the function does not accept is rejected. An ignore that nothing needs is an error.
adk.jacobian(energy)()  # pyright: ignore[reportCallIssue]  # an argument is missing
adk.jacobian(energy)(x, factor=2.0)  # pyright: ignore[reportCallIssue]  # an unknown keyword
adk.jacobian(energy)(x, scale="two")  # pyright: ignore[reportArgumentType]  # a wrong type
adk.jacobian(energy, mode="forward")  # pyright: ignore[reportArgumentType]  # no such mode
adk.jacobian(3)  # pyright: ignore[reportArgumentType]  # not a function

jax.jit(adk.jacobian(energy))
