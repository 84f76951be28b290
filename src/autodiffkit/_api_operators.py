"""The differential operators: `laplacian`, `divergence`, `curl` and their siblings."""

from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypedDict, TypeVar, Unpack, overload

from autodiffkit._api import transform
from autodiffkit._flat_call import Options
from autodiffkit._operators import (
    CurlTransform,
    DirectionalDerivativeTransform,
    DivergenceTransform,
    HessianDiagonalTransform,
    LaplacianTransform,
)
from autodiffkit._options import takes_options
from autodiffkit._selection import Of, Wrt

P = ParamSpec("P")
R = TypeVar("R")


class _Options(TypedDict, total=False):
    """The options that all operators share."""

    wrt: Wrt
    of: Of
    typecheck: bool


class _DirectionalOptions(_Options, total=False):
    """Those of directional derivatives."""

    order: int


@overload
def hessian_diagonal(
    f: Callable[P, tuple[R, Any]], /, *, has_aux: Literal[True], **options: Unpack[_Options]
) -> HessianDiagonalTransform[P, R]: ...
@overload
def hessian_diagonal(
    f: Callable[P, R], /, *, has_aux: Literal[False] = ..., **options: Unpack[_Options]
) -> HessianDiagonalTransform[P, R]: ...
@overload
def hessian_diagonal(
    *, has_aux: Literal[True], **options: Unpack[_Options]
) -> Callable[[Callable[P, tuple[R, Any]]], HessianDiagonalTransform[P, R]]: ...
@overload
def hessian_diagonal(
    *, has_aux: Literal[False] = ..., **options: Unpack[_Options]
) -> Callable[[Callable[P, R]], HessianDiagonalTransform[P, R]]: ...
@takes_options
def hessian_diagonal(
    f: Callable[..., Any] | None = None,
    /,
    *,
    wrt: Wrt = None,
    of: Of = None,
    has_aux: bool = False,
    typecheck: bool = True,
) -> Any:
    """The diagonal of the Hessian of a scalar function, exactly and without the whole Hessian.

    Where the program shows that second derivatives of different entries do not mix, or mix only in
    a product, a few directions are swept; otherwise one for each entry, a few at a time, so that
    the memory stays that of a few gradients, or the block of a small argument, where that takes
    less. `.plan(...)` says which, and what it costs.

    Args:
        f: A function with one real scalar output, or such a callable `eqx.Module`.
            Left out, the call makes a decorator.
        wrt: Which inputs, as for `jacobian`.
        of: Which output, where `f` returns several: the path of a scalar.
        has_aux: As for `jacobian`.
        typecheck: As for `jacobian`.

    Returns:
        A callable Equinox module with the signature of `f` that returns a `HessianDiagonal`: `D.x`
            has the structure and shapes of `x`; `D.value` and `D.grad` come from the same pass.
    """
    options = Options(
        wrt=wrt, of=of, has_aux=has_aux, holomorphic=None, typecheck=typecheck, scalar=True
    )
    return transform(HessianDiagonalTransform, f, options)


@overload
def laplacian(
    f: Callable[P, tuple[R, Any]], /, *, has_aux: Literal[True], **options: Unpack[_Options]
) -> LaplacianTransform[P, R]: ...
@overload
def laplacian(
    f: Callable[P, R], /, *, has_aux: Literal[False] = ..., **options: Unpack[_Options]
) -> LaplacianTransform[P, R]: ...
@overload
def laplacian(
    *, has_aux: Literal[True], **options: Unpack[_Options]
) -> Callable[[Callable[P, tuple[R, Any]]], LaplacianTransform[P, R]]: ...
@overload
def laplacian(
    *, has_aux: Literal[False] = ..., **options: Unpack[_Options]
) -> Callable[[Callable[P, R]], LaplacianTransform[P, R]]: ...
@takes_options
def laplacian(
    f: Callable[..., Any] | None = None,
    /,
    *,
    wrt: Wrt = None,
    of: Of = None,
    has_aux: bool = False,
    typecheck: bool = True,
) -> Any:
    """The Laplacian of a function: the sum of second derivatives by each coordinate.

    The coordinates are all entries of what `wrt` selects: `adk.laplacian(u, wrt="x")(x, params)`.
    Second derivatives are pushed along each of them. Of a scalar, under `jax.jit`, the program of
    the gradient is swept instead, as for `hessian_diagonal`, which is faster.

    Args:
        f: A function of real coordinates, or such a callable `eqx.Module`.
            Left out, the call makes a decorator.
        wrt: Which inputs are coordinates, as for `jacobian`.
        of: Which outputs, as for `jacobian`.
        has_aux: As for `jacobian`.
        typecheck: As for `jacobian`.

    Returns:
        A callable Equinox module with the signature of `f` that returns a `Laplacian`:
            `.laplacian` in the structure of the output, and `.value`.
    """
    options = Options(wrt=wrt, of=of, has_aux=has_aux, holomorphic=None, typecheck=typecheck)
    return transform(LaplacianTransform, f, options)


@overload
def divergence(
    f: Callable[P, tuple[R, Any]], /, *, has_aux: Literal[True], **options: Unpack[_Options]
) -> DivergenceTransform[P, R]: ...
@overload
def divergence(
    f: Callable[P, R], /, *, has_aux: Literal[False] = ..., **options: Unpack[_Options]
) -> DivergenceTransform[P, R]: ...
@overload
def divergence(
    *, has_aux: Literal[True], **options: Unpack[_Options]
) -> Callable[[Callable[P, tuple[R, Any]]], DivergenceTransform[P, R]]: ...
@overload
def divergence(
    *, has_aux: Literal[False] = ..., **options: Unpack[_Options]
) -> Callable[[Callable[P, R]], DivergenceTransform[P, R]]: ...
@takes_options
def divergence(
    f: Callable[..., Any] | None = None,
    /,
    *,
    wrt: Wrt = None,
    of: Of = None,
    has_aux: bool = False,
    typecheck: bool = True,
) -> Any:
    """The divergence of a vector field: the trace of its Jacobian, without the Jacobian.

    Args:
        f: A function with an output for each coordinate: leaves of the same shapes, in the same
            order, as what `wrt` selects.
        wrt: Which inputs are coordinates, as for `jacobian`.
        of: Which outputs are the field, as for `jacobian`.
        has_aux: As for `jacobian`.
        typecheck: As for `jacobian`.

    Returns:
        A callable Equinox module with the signature of `f` that returns a `Divergence`:
            `.divergence`, a scalar, and `.value`. It raises `NotDifferentiableError` if outputs
            and coordinates do not correspond.
    """
    options = Options(wrt=wrt, of=of, has_aux=has_aux, holomorphic=None, typecheck=typecheck)
    return transform(DivergenceTransform, f, options)


@overload
def curl(
    f: Callable[P, tuple[R, Any]], /, *, has_aux: Literal[True], **options: Unpack[_Options]
) -> CurlTransform[P, R]: ...
@overload
def curl(
    f: Callable[P, R], /, *, has_aux: Literal[False] = ..., **options: Unpack[_Options]
) -> CurlTransform[P, R]: ...
@overload
def curl(
    *, has_aux: Literal[True], **options: Unpack[_Options]
) -> Callable[[Callable[P, tuple[R, Any]]], CurlTransform[P, R]]: ...
@overload
def curl(
    *, has_aux: Literal[False] = ..., **options: Unpack[_Options]
) -> Callable[[Callable[P, R]], CurlTransform[P, R]]: ...
@takes_options
def curl(
    f: Callable[..., Any] | None = None,
    /,
    *,
    wrt: Wrt = None,
    of: Of = None,
    has_aux: bool = False,
    typecheck: bool = True,
) -> Any:
    """The curl of a vector field in three dimensions.

    Args:
        f: A function of three coordinates with three outputs: arrays of three entries, or three
            scalars by name.
        wrt: Which inputs are coordinates, as for `jacobian`.
        of: Which outputs are the field, as for `jacobian`.
        has_aux: As for `jacobian`.
        typecheck: As for `jacobian`.

    Returns:
        A callable Equinox module with the signature of `f` that returns a `Curl`: `.curl` in the
            structure of the output, and `.value`. It raises `NotDifferentiableError` if there are
            not three of each.
    """
    options = Options(wrt=wrt, of=of, has_aux=has_aux, holomorphic=None, typecheck=typecheck)
    return transform(CurlTransform, f, options)


@overload
def directional_derivative(
    f: Callable[P, tuple[R, Any]],
    /,
    *,
    has_aux: Literal[True],
    **options: Unpack[_DirectionalOptions],
) -> DirectionalDerivativeTransform[P, R]: ...
@overload
def directional_derivative(
    f: Callable[P, R], /, *, has_aux: Literal[False] = ..., **options: Unpack[_DirectionalOptions]
) -> DirectionalDerivativeTransform[P, R]: ...
@overload
def directional_derivative(
    *, has_aux: Literal[True], **options: Unpack[_DirectionalOptions]
) -> Callable[[Callable[P, tuple[R, Any]]], DirectionalDerivativeTransform[P, R]]: ...
@overload
def directional_derivative(
    *, has_aux: Literal[False] = ..., **options: Unpack[_DirectionalOptions]
) -> Callable[[Callable[P, R]], DirectionalDerivativeTransform[P, R]]: ...
@takes_options
def directional_derivative(
    f: Callable[..., Any] | None = None,
    /,
    *,
    order: int = 1,
    wrt: Wrt = None,
    of: Of = None,
    has_aux: bool = False,
    typecheck: bool = True,
) -> Any:
    """The derivative of any order along a direction, `d**k/dt**k f(x + t * v)` at `t = 0`.

    Up to the fifth order it is pushed, one order inside the other, which doubles the program each
    time. Above that it is found by Taylor mode (`jax.experimental.jet`), whose cost grows with the
    square of the order, where all primitives of the program have tested rules for it.

    Args:
        f: A function, or a callable `eqx.Module`.
        order: Of the derivative, a positive integer.
        wrt: Which inputs move, as for `jacobian`.
        of: Which outputs, as for `jacobian`.
        has_aux: As for `jacobian`.
        typecheck: As for `jacobian`.

    Returns:
        A callable Equinox module that takes the arguments of `f` and `direction=`: a record or a
            dict by argument name, or the bare argument where only one moves; what it leaves out
            does not move. It returns a `DirectionalDerivative`: `.derivative` in the structure of
            the output, and `.value`.

    Raises:
        SelectionError: If the order is not a positive integer.
    """
    options = Options(wrt=wrt, of=of, has_aux=has_aux, holomorphic=None, typecheck=typecheck)
    return transform(
        lambda function, given: DirectionalDerivativeTransform(function, given, order), f, options
    )
