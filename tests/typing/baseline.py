"""What static checkers infer of the public interface; checked, never run.

pyright and mypy both read it. A line that must be rejected has an ignore for each of them, and an
ignore that nothing needs is an error.
"""

from typing import Any, NamedTuple, assert_type

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from matplotlib.axes import Axes

import autodiffkit as adk


def energy(x: Float[Array, "n"], scale: float = 1.0) -> Float[Array, ""]:
    return scale * jnp.sum(x**2)


x = jnp.ones(3)
struct = jax.ShapeDtypeStruct((3,), jnp.float32)

# Results --------------------------------------------------------------------------------

assert_type(adk.jacobian(energy)(x), adk.Jacobian[Array])
assert_type(adk.jacobian(energy)(x, scale=2.0), adk.Jacobian[Array])
assert_type(adk.grad(energy, wrt=("x", "scale"))(x, 2.0), adk.Gradient[Array])
assert_type(adk.hessian(energy, wrt="x")(x), adk.Hessian[Array])
assert_type(adk.hessian(energy)(x).grad, adk.Gradient[Array])
assert_type(adk.linearize(energy)(x), adk.LinearMap[Array])
assert_type(adk.hvp(energy, mode="fwd")(x), adk.LinearMap[Array])
assert_type(adk.hvp(energy)(x).grad, adk.Gradient[Array])
assert_type(adk.jacobian(energy)(x).value, Array)
assert_type(adk.jacobian(energy)(x).as_matrix(), Array)
assert_type(adk.jacobian(energy, typecheck=False, holomorphic=True)(x).value, Array)
assert_type(adk.hessian(energy, chunk_size=8, memory_limit="1GiB", progress=True)(x).value, Array)
assert_type(adk.jacobian(energy, memory_limit=2e9).compile(x)(x), adk.Jacobian[Array])


class Forces(NamedTuple):
    energy: Float[Array, ""]
    forces: Float[Array, "n"]


def structured(x: Float[Array, "n"]) -> Forces:
    return Forces(jnp.sum(x), x)


assert_type(adk.jacobian(structured)(x).value, Forces)
assert_type(adk.jacobian(structured)(x).value.forces, Array)
assert_type(adk.jacobian(structured)(x).of("energy"), adk.Jacobian[Any])
assert_type(adk.hessian(structured, of="energy")(x).value, Forces)

# Auxiliary data -------------------------------------------------------------------------


def with_aux(x: Float[Array, "n"]) -> tuple[Float[Array, ""], dict[str, int]]:
    return jnp.sum(x), {"n": x.size}


assert_type(adk.jacobian(with_aux, has_aux=True)(x), adk.Jacobian[Array])
assert_type(adk.grad(with_aux, has_aux=True)(x).value, Array)
assert_type(adk.hessian(has_aux=True)(with_aux)(x).value, Array)
assert_type(adk.jacobian(with_aux)(x).value, tuple[Array, dict[str, int]])


def chosen(has_aux: bool) -> None:
    assert_type(adk.jacobian(with_aux, has_aux=has_aux)(x), adk.Jacobian[Any])


# Plans ----------------------------------------------------------------------------------

assert_type(adk.jacobian(energy).plan(x), adk.Plan)
assert_type(adk.hessian(energy).plan(struct, scale=1.0), adk.Plan)

# Decorators -----------------------------------------------------------------------------


@adk.jacobian
def decorated(x: Float[Array, "n"]) -> Float[Array, "n"]:
    return x**2


@adk.grad(wrt="x")
def decorated_with_options(x: Float[Array, "n"], n: int) -> Float[Array, ""]:
    return jnp.sum(x) * n


@adk.linearize(has_aux=True)
def decorated_with_aux(x: Float[Array, "n"]) -> tuple[Forces, str]:
    return structured(x), "aux"


assert_type(decorated(x), adk.Jacobian[Array])
assert_type(decorated_with_options(x, n=2), adk.Gradient[Array])
assert_type(decorated_with_aux(x), adk.LinearMap[Forces])

# Linear algebra -------------------------------------------------------------------------

assert_type(adk.jacobian(energy)(x).gram(), adk.SymmetricMatrix)
assert_type(adk.jacobian(energy)(x).covariance(x).correlation(), adk.SymmetricMatrix)
assert_type(adk.jacobian(energy)(x).svd(), adk.SVD)
assert_type(adk.jacobian(energy)(x).slogdet().sign, Array)
assert_type(adk.jacobian(energy)(x).from_matrix(x), adk.Jacobian[Array])
assert_type(adk.hessian(energy)(x).inverse(), adk.SymmetricMatrix)
assert_type(adk.hessian(energy)(x).damped(0.1), adk.Hessian[Array])
assert_type(adk.hessian(energy, blocks=[("x", "x")])(x).eigh(), adk.Eigh)
assert_type(adk.hvp(energy)(x) + adk.hvp(energy)(x), adk.LinearMap[Any])
assert_type(2.0 * adk.jacobian(energy)(x), adk.LinearMap[Any])
assert_type(adk.jacobian(energy)(x).T, adk.LinearMap[Any])
assert_type(adk.gauss_newton(structured, lambda out: jnp.sum(out.forces))(x), adk.LinearMap[Array])
assert_type(adk.fisher(energy, "poisson")(x), adk.LinearMap[Array])
assert_type(adk.fisher(with_aux, has_aux=True)(x).value, Array)

# Operators ------------------------------------------------------------------------------

assert_type(adk.laplacian(structured)(x), adk.Laplacian[Forces])
assert_type(adk.laplacian(with_aux, has_aux=True)(x).value, Array)
assert_type(adk.hessian_diagonal(energy)(x, scale=2.0), adk.HessianDiagonal[Array])
assert_type(adk.hessian_diagonal(energy)(x).grad, adk.Gradient[Array])
assert_type(adk.divergence(energy, wrt="x")(x).divergence, Array)
assert_type(adk.curl(wrt="x")(energy)(x), adk.Curl[Array])
assert_type(
    adk.directional_derivative(energy, order=2)(x, direction=x), adk.DirectionalDerivative[Array]
)

# Reports --------------------------------------------------------------------------------

assert_type(adk.find_nonfinite(energy, wrt="x")(x, scale=2.0), adk.NonfiniteReport)
assert_type(adk.find_nonfinite(has_aux=True)(with_aux)(x).first, adk.NonfiniteFinding | None)

# Checks ---------------------------------------------------------------------------------

assert_type(adk.check_derivatives(energy)(x, scale=2.0), adk.DerivativeReport)
assert_type(adk.check_derivatives(order=1)(with_aux)(x), adk.DerivativeReport)
assert_type(adk.testing.assert_derivatives(energy, wrt="x")(x), adk.DerivativeReport)

# Plots ----------------------------------------------------------------------------------

assert_type(adk.jacobian(energy)(x).plot(), Axes)
assert_type(adk.hessian(energy)(x).plot(None, kind="spy", log=True, values=False), Axes)
assert_type(adk.jacobian(energy)(x).gram().plot(), Axes)
assert_type(adk.jacobian(energy).plan(struct).plot(), Axes)
assert_type(adk.check_derivatives(energy)(x).plot(), Axes)
assert_type(adk.plot_function(jnp.tanh, -1, jnp.ones(()), n=50, order=3), Axes)

# Methods --------------------------------------------------------------------------------


class Model(eqx.Module):
    weight: Float[Array, "m n"]

    def __call__(self, x: Float[Array, "n"]) -> Float[Array, "m"]:
        return self.weight @ x

    @adk.jacobian
    def slope(self, x: Float[Array, "n"]) -> Float[Array, "m"]:
        return self(x)

    @adk.hessian(wrt="x")
    def curvature(self, x: Float[Array, "n"], *, scale: float) -> Float[Array, ""]:
        return jnp.sum(self(x)) * scale


model = Model(jnp.ones((2, 3)))
assert_type(adk.jacobian(model, wrt="self")(x), adk.Jacobian[Array])
assert_type(adk.jacobian(model.__call__)(x), adk.Jacobian[Array])
assert_type(model.slope(x), adk.Jacobian[Array])
assert_type(model.curvature(x, scale=2.0), adk.Hessian[Array])
assert_type(Model.slope(model, x), adk.Jacobian[Array])
assert_type(model.slope.plan(struct), adk.Plan)
assert_type(adk.jacobian(energy, wrt=lambda path, leaf: path == "x")(x), adk.Jacobian[Array])
assert_type(adk.jacobian(adk.grad(energy))(x).value, adk.Gradient[Array])

# Rejected -------------------------------------------------------------------------------

adk.jacobian(energy)()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # an argument is missing
adk.jacobian(energy)(x, factor=2.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # an unknown keyword
adk.jacobian(energy)(x, scale="two")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a wrong type
model.slope()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # an argument is missing
model.curvature(x)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # likewise
decorated_with_options(x, "two")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a wrong type
adk.jacobian(energy, mode="forward")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]  # no such mode
adk.jacobian(energy, wrt=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]  # no path
adk.jacobian(energy)(x).plot(kind="contour")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # no such kind
adk.plot_function(3, 0, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # not a function
adk.jacobian(energy, argnums=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]  # no option
adk.jacobian(energy, x, 2.0)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]  # not here
adk.jacobian(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]  # not a function
