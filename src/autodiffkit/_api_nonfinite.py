"""`find_nonfinite`: typed, documented, thin."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypedDict, TypeVar, Unpack, overload

from autodiffkit._api import transform
from autodiffkit._flat_call import Options
from autodiffkit._nonfinite import NonfiniteTransform
from autodiffkit._options import takes_options
from autodiffkit._selection import Of, Wrt

P = ParamSpec("P")
R = TypeVar("R")


class _Options(TypedDict, total=False):
    wrt: Wrt
    of: Of
    has_aux: bool
    holomorphic: bool
    typecheck: bool


@overload
def find_nonfinite(
    f: Callable[P, R], /, **options: Unpack[_Options]
) -> NonfiniteTransform[P, R]: ...
@overload
def find_nonfinite(
    **options: Unpack[_Options],
) -> Callable[[Callable[P, R]], NonfiniteTransform[P, R]]: ...
@takes_options
def find_nonfinite(
    f: Callable[..., Any] | None = None,
    /,
    *,
    wrt: Wrt = None,
    of: Of = None,
    has_aux: bool = False,
    holomorphic: bool = False,
    typecheck: bool = True,
) -> Any:
    """Where a value or a derivative of a function is NaN or infinite, and what usually helps.

    The function is run operation by operation, and so are its derivatives, forward and in reverse:
    what makes a number that is not finite out of finite ones, and reaches an output or a block of
    the Jacobian, is found. What is masked before it gets there is not: an infinity in the scores of
    an attention is none of the findings if all derivatives are finite.

    Args:
        f: A function or a callable `eqx.Module`. Left out, the call makes a decorator.
        wrt: Which inputs, as for `jacobian`.
        of: Which outputs, as for `jacobian`.
        has_aux: As for `jacobian`.
        holomorphic: As for `jacobian`.
        typecheck: As for `jacobian`.

    Returns:
        A callable Equinox module with the signature of `f` that returns a `NonfiniteReport`:
            printed, it explains; `bool(report)` is `True` if everything is finite; `.first` is the
            first finding. It needs values and is called outside of `jax.jit`. Its `.plan(...)` is
            that of the Jacobian.
    """
    options = Options(wrt=wrt, of=of, has_aux=has_aux, holomorphic=holomorphic, typecheck=typecheck)
    return transform(NonfiniteTransform, f, options)
