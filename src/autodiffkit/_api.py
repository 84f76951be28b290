"""The transforms: `jacobian`, `hessian`, `grad`, `linearize`, `hvp`."""

from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypedDict, TypeVar, Unpack, overload

from autodiffkit._flat_call import Options
from autodiffkit._limits import Limits
from autodiffkit._options import takes_options
from autodiffkit._planning import Layout, Mode
from autodiffkit._selection import Blocks, Of, Wrt
from autodiffkit._transforms import (
    GradTransform,
    HessianTransform,
    HvpTransform,
    JacobianTransform,
    LinearizeTransform,
)

P = ParamSpec("P")
R = TypeVar("R")


class _Options(TypedDict, total=False):
    """The options that all transforms share."""

    wrt: Wrt
    of: Of
    mode: Mode
    holomorphic: bool
    typecheck: bool
    layout: Layout
    chunk_size: int | None
    memory_limit: int | float | str | None
    progress: bool


class _HessianOptions(_Options, total=False):
    """Those of second derivatives."""

    blocks: Blocks


def transform(
    kind: Callable[[Any, Options], Any], f: Callable[..., Any] | None, options: Options
) -> Any:
    """The wrapped function; without a function, the decorator that waits for one."""
    if f is None:
        return lambda function: kind(function, options)
    return kind(f, options)


@overload
def jacobian(
    f: Callable[P, tuple[R, Any]], /, *, has_aux: Literal[True], **options: Unpack[_Options]
) -> JacobianTransform[P, R]: ...
@overload
def jacobian(
    f: Callable[P, R], /, *, has_aux: Literal[False] = ..., **options: Unpack[_Options]
) -> JacobianTransform[P, R]: ...
@overload
def jacobian(
    f: Callable[P, Any], /, *, has_aux: bool, **options: Unpack[_Options]
) -> JacobianTransform[P, Any]: ...
@overload
def jacobian(
    *, has_aux: Literal[True], **options: Unpack[_Options]
) -> Callable[[Callable[P, tuple[R, Any]]], JacobianTransform[P, R]]: ...
@overload
def jacobian(
    *, has_aux: Literal[False] = ..., **options: Unpack[_Options]
) -> Callable[[Callable[P, R]], JacobianTransform[P, R]]: ...
@takes_options
def jacobian(
    f: Callable[..., Any] | None = None,
    /,
    *,
    wrt: Wrt = None,
    of: Of = None,
    mode: Mode = "auto",
    has_aux: bool = False,
    holomorphic: bool = False,
    typecheck: bool = True,
    layout: Layout = "dense",
    chunk_size: int | None = None,
    memory_limit: int | float | str | None = None,
    progress: bool = False,
) -> Any:
    """The Jacobian of a function of named arguments, each of which may be any pytree.

    The function runs once per call, for its value and its derivatives together. There is no
    hidden `jit`: for speed, write `jax.jit(adk.jacobian(f))`.

    Args:
        f: A function or a callable `eqx.Module` that returns a pytree of arrays. Left out,
            the call makes a decorator: `@adk.jacobian(wrt="x")`.
        wrt: Which inputs: an argument name, a path (`"params.layers.0.weight"`), a glob
            (`"params.*.bias"`, where a wildcard may span several steps), a tuple of these, or a
            predicate `(path, leaf) -> bool`. `None` means every real or complex floating leaf
            of every argument that the caller passed, Python floats included. A default that
            the caller leaves out, and a callable module's own leaves (`"self"`), are
            constants unless `wrt` names them.
        of: Which outputs: a path, a glob or a tuple of these. `None` means all floating ones.
        mode: `"auto"` takes the cheapest set of sweeps: forward mode, reverse mode, or both on
            either side of a cut through the function (Griewank and Walther, *Evaluating
            Derivatives*, 2008; the cut is a minimum cut, Ford and Fulkerson, 1956). Of what
            costs about the same it is forward mode. `"fwd"` and `"rev"` insist.
        has_aux: Whether `f` returns a pair `(output, aux)`, of which the second is kept as
            `J.aux` and not differentiated.
        holomorphic: Whether `f` is holomorphic, with complex inputs and outputs.
        typecheck: Whether the jaxtyping annotations of `f` are checked by beartype whenever it
            runs or is traced: arguments and output, names of dimensions across all of them.
            Other annotations are left alone.
        layout: `"dense"` blocks have the output's axes and then the input's, as in JAX.
            `"compact"` blocks have the axes once and first along which output and input are
            independent element by element, such as the examples of a batch: `(batch, out, in)`.
            They are found in the program, never assumed; `J.shared_axes` says which they are.
        chunk_size: At most so many directions are swept together; what the function keeps for its
            derivative is computed once for all chunks. What is larger than the work is no limit.
        memory_limit: The bytes of temporaries that the sweeps may use, a number or text such as
            `"512MiB"`: the plan picks the chunks from an estimate. Outside of `jit` that is
            corrected by what the compiled sweeps hold. The result itself and what the function
            keeps are not counted.
        progress: Whether a bar shows the chunks as they are done, under `jit`, too. Without one
            of the limits, long sweeps are divided into a few chunks for it.

    Returns:
        A callable Equinox module with the signature of `f` that returns a `Jacobian`: `J.x` is
            the block for argument `x`, of the output's shape followed by that of `x`, in the
            promotion of both dtypes. Its `.plan(...)` tells which sweeps would run.
    """
    limits = Limits(chunk_size, memory_limit, progress)
    options = Options(wrt, of, mode, has_aux, holomorphic, typecheck, layout, limits=limits)
    return transform(JacobianTransform, f, options)


@overload
def grad(
    f: Callable[P, tuple[R, Any]], /, *, has_aux: Literal[True], **options: Unpack[_Options]
) -> GradTransform[P, R]: ...
@overload
def grad(
    f: Callable[P, R], /, *, has_aux: Literal[False] = ..., **options: Unpack[_Options]
) -> GradTransform[P, R]: ...
@overload
def grad(
    f: Callable[P, Any], /, *, has_aux: bool, **options: Unpack[_Options]
) -> GradTransform[P, Any]: ...
@overload
def grad(
    *, has_aux: Literal[True], **options: Unpack[_Options]
) -> Callable[[Callable[P, tuple[R, Any]]], GradTransform[P, R]]: ...
@overload
def grad(
    *, has_aux: Literal[False] = ..., **options: Unpack[_Options]
) -> Callable[[Callable[P, R]], GradTransform[P, R]]: ...
@takes_options
def grad(
    f: Callable[..., Any] | None = None,
    /,
    *,
    wrt: Wrt = None,
    of: Of = None,
    mode: Mode = "auto",
    has_aux: bool = False,
    holomorphic: bool = False,
    typecheck: bool = True,
    layout: Layout = "dense",
    chunk_size: int | None = None,
    memory_limit: int | float | str | None = None,
    progress: bool = False,
) -> Any:
    """The gradient of a function with one real scalar output.

    Args:
        f: A function or a callable `eqx.Module`. Left out, the call makes a decorator.
        wrt: Which inputs, as for `jacobian`.
        of: Which output, where `f` returns several: the path of a scalar.
        mode: As for `jacobian`.
        has_aux: As for `jacobian`.
        holomorphic: As for `jacobian`.
        typecheck: As for `jacobian`.
        layout: As for `jacobian`; one output shares no axis, so `"dense"` is all there is.
        chunk_size: As for `jacobian`.
        memory_limit: As for `jacobian`.
        progress: As for `jacobian`.

    Returns:
        A callable Equinox module with the signature of `f` that returns a `Gradient`: `G.x` has
            the structure and the shapes of argument `x`; `G.value` is what `f` returned.
    """
    limits = Limits(chunk_size, memory_limit, progress)
    options = Options(
        wrt, of, mode, has_aux, holomorphic, typecheck, layout, scalar=True, limits=limits
    )
    return transform(GradTransform, f, options)


@overload
def hessian(
    f: Callable[P, tuple[R, Any]], /, *, has_aux: Literal[True], **options: Unpack[_HessianOptions]
) -> HessianTransform[P, R]: ...
@overload
def hessian(
    f: Callable[P, R], /, *, has_aux: Literal[False] = ..., **options: Unpack[_HessianOptions]
) -> HessianTransform[P, R]: ...
@overload
def hessian(
    f: Callable[P, Any], /, *, has_aux: bool, **options: Unpack[_HessianOptions]
) -> HessianTransform[P, Any]: ...
@overload
def hessian(
    *, has_aux: Literal[True], **options: Unpack[_HessianOptions]
) -> Callable[[Callable[P, tuple[R, Any]]], HessianTransform[P, R]]: ...
@overload
def hessian(
    *, has_aux: Literal[False] = ..., **options: Unpack[_HessianOptions]
) -> Callable[[Callable[P, R]], HessianTransform[P, R]]: ...
@takes_options
def hessian(
    f: Callable[..., Any] | None = None,
    /,
    *,
    wrt: Wrt = None,
    of: Of = None,
    mode: Mode = "auto",
    has_aux: bool = False,
    holomorphic: bool = False,
    typecheck: bool = True,
    layout: Layout = "dense",
    blocks: Blocks = None,
    chunk_size: int | None = None,
    memory_limit: int | float | str | None = None,
    progress: bool = False,
) -> Any:
    """The second derivatives of a function of named arguments.

    A Hessian is the Jacobian of the gradient; of several outputs, of the Jacobian. The
    function runs once per call, for its value and both derivatives together.

    Args:
        f: A function or a callable `eqx.Module`. Left out, the call makes a decorator.
        wrt: Which inputs, as for `jacobian`. `None` means everything: the Hessian of
            `loss(params, X, y)` then includes the blocks by the data.
        of: As for `jacobian`.
        mode: How the first derivative is differentiated, as for `jacobian`. The first
            derivative itself always takes the mode that suits it.
        has_aux: As for `jacobian`.
        holomorphic: As for `jacobian`.
        typecheck: As for `jacobian`.
        layout: As for `jacobian`. A `"compact"` block has the axes once and first that its second
            argument shares with the output or with the first argument.
        chunk_size: As for `jacobian`.
        memory_limit: As for `jacobian`.
        progress: As for `jacobian`.
        blocks: Which blocks, as pairs of paths or globs of what is differentiated: of
            `[("w", "b")]` there is `H.w.b` alone. `"diagonal"` means those of each argument with
            itself. The others are neither swept nor stored, so what needs all of them, such as
            `H.mv`, is refused.

    Returns:
        A callable Equinox module with the signature of `f` that returns a `Hessian`: `H.x.y` is
            the block of the output's shape followed by those of `x` and of `y`; `H.value` and, of
            a scalar, `H.grad` come from the same pass.
    """
    limits = Limits(chunk_size, memory_limit, progress)
    options = Options(wrt, of, mode, has_aux, holomorphic, typecheck, layout, blocks, limits=limits)
    return transform(HessianTransform, f, options)


@overload
def linearize(
    f: Callable[P, tuple[R, Any]], /, *, has_aux: Literal[True], **options: Unpack[_Options]
) -> LinearizeTransform[P, R]: ...
@overload
def linearize(
    f: Callable[P, R], /, *, has_aux: Literal[False] = ..., **options: Unpack[_Options]
) -> LinearizeTransform[P, R]: ...
@overload
def linearize(
    f: Callable[P, Any], /, *, has_aux: bool, **options: Unpack[_Options]
) -> LinearizeTransform[P, Any]: ...
@overload
def linearize(
    *, has_aux: Literal[True], **options: Unpack[_Options]
) -> Callable[[Callable[P, tuple[R, Any]]], LinearizeTransform[P, R]]: ...
@overload
def linearize(
    *, has_aux: Literal[False] = ..., **options: Unpack[_Options]
) -> Callable[[Callable[P, R]], LinearizeTransform[P, R]]: ...
@takes_options
def linearize(
    f: Callable[..., Any] | None = None,
    /,
    *,
    wrt: Wrt = None,
    of: Of = None,
    mode: Mode = "auto",
    has_aux: bool = False,
    holomorphic: bool = False,
    typecheck: bool = True,
    layout: Layout = "dense",
    chunk_size: int | None = None,
    memory_limit: int | float | str | None = None,
    progress: bool = False,
) -> Any:
    """The Jacobian as a linear map that is applied and not stored.

    Args:
        f: A function or a callable `eqx.Module`. Left out, the call makes a decorator.
        wrt: Which inputs, as for `jacobian`.
        of: As for `jacobian`.
        mode: The mode in which `.as_matrix()` sweeps; products need none.
        has_aux: As for `jacobian`.
        holomorphic: As for `jacobian`.
        typecheck: As for `jacobian`.
        layout: `"dense"`; there are no blocks that another one would be for.
        chunk_size: As for `jacobian`.
        memory_limit: As for `jacobian`.
        progress: As for `jacobian`.

    Returns:
        A callable Equinox module with the signature of `f` that runs `f` once and returns a
            `LinearMap`: `L.mv(x=dx)` pushes a tangent, `L.rmv(dy)` pulls a cotangent back.
    """
    limits = Limits(chunk_size, memory_limit, progress)
    options = Options(wrt, of, mode, has_aux, holomorphic, typecheck, layout, limits=limits)
    return transform(LinearizeTransform, f, options)


@overload
def hvp(
    f: Callable[P, tuple[R, Any]], /, *, has_aux: Literal[True], **options: Unpack[_Options]
) -> HvpTransform[P, R]: ...
@overload
def hvp(
    f: Callable[P, R], /, *, has_aux: Literal[False] = ..., **options: Unpack[_Options]
) -> HvpTransform[P, R]: ...
@overload
def hvp(
    f: Callable[P, Any], /, *, has_aux: bool, **options: Unpack[_Options]
) -> HvpTransform[P, Any]: ...
@overload
def hvp(
    *, has_aux: Literal[True], **options: Unpack[_Options]
) -> Callable[[Callable[P, tuple[R, Any]]], HvpTransform[P, R]]: ...
@overload
def hvp(
    *, has_aux: Literal[False] = ..., **options: Unpack[_Options]
) -> Callable[[Callable[P, R]], HvpTransform[P, R]]: ...
@takes_options
def hvp(
    f: Callable[..., Any] | None = None,
    /,
    *,
    wrt: Wrt = None,
    of: Of = None,
    mode: Mode = "auto",
    has_aux: bool = False,
    holomorphic: bool = False,
    typecheck: bool = True,
    layout: Layout = "dense",
    chunk_size: int | None = None,
    memory_limit: int | float | str | None = None,
    progress: bool = False,
) -> Any:
    """The Hessian of a scalar function as a linear map: Hessian-vector products.

    Args:
        f: A function with one scalar output, or such a callable `eqx.Module`. Left out, the call
            makes a decorator.
        wrt: Which inputs, as for `jacobian`.
        of: Which output, where `f` returns several: the path of a scalar.
        mode: The mode in which `.as_matrix()` sweeps; products need none.
        has_aux: As for `jacobian`.
        holomorphic: As for `jacobian`.
        typecheck: As for `jacobian`.
        layout: `"dense"`; there are no blocks that another one would be for.
        chunk_size: As for `jacobian`.
        memory_limit: As for `jacobian`.
        progress: As for `jacobian`.

    Returns:
        A callable Equinox module with the signature of `f` that runs `f` once and returns a
            `LinearMap`: `H.mv(x=dx)` is a record by argument; `H.grad` and `H.value` come from
            the same pass.
    """
    limits = Limits(chunk_size, memory_limit, progress)
    options = Options(
        wrt, of, mode, has_aux, holomorphic, typecheck, layout, scalar=True, limits=limits
    )
    return transform(HvpTransform, f, options)
