"""`check_derivatives`: whether derivatives are right, and what is wrong if not."""

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypedDict, TypeVar, Unpack, overload

from autodiffkit._api import transform
from autodiffkit._check import CheckTransform
from autodiffkit._flat_call import Options
from autodiffkit._options import takes_options
from autodiffkit._planning import Mode
from autodiffkit._selection import Of, Wrt
from autodiffkit._subject import Settings

P = ParamSpec("P")
R = TypeVar("R")


class CheckOptions(TypedDict, total=False):
    """The options of a check."""

    order: int | Sequence[int]
    full: bool
    directions: int
    rtol: float | None
    atol: float
    seed: int
    wrt: Wrt
    of: Of
    mode: Mode
    has_aux: bool
    holomorphic: bool
    typecheck: bool


@overload
def check_derivatives(
    f: Callable[P, R], /, **options: Unpack[CheckOptions]
) -> CheckTransform[P, R]: ...
@overload
def check_derivatives(
    **options: Unpack[CheckOptions],
) -> Callable[[Callable[P, R]], CheckTransform[P, R]]: ...
@takes_options
def check_derivatives(
    f: Callable[..., Any] | None = None,
    /,
    *,
    order: int | Sequence[int] = (1, 2),
    full: bool = False,
    directions: int = 1,
    rtol: float | None = None,
    atol: float = 0.0,
    seed: int = 0,
    wrt: Wrt = None,
    of: Of = None,
    mode: Mode = "auto",
    has_aux: bool = False,
    holomorphic: bool = False,
    typecheck: bool = True,
) -> Any:
    """Checks the derivatives of a function: all ways to them have to agree, block by block.

    The ways are JAX's forward mode, its reverse mode, what `adk.jacobian` and `adk.hessian`
    compute by their plans, and differences, which use no derivative. Differences are central and
    extrapolated (Ridders, 1982), with steps that depend on the dtype, in a wider dtype where the
    function takes one; where the program is analytic they are complex steps (Squire and Trapp,
    1998). Second derivatives are compared with those of the gradients, both halves of the Hessian
    with each other. Where ways disagree, the report says why.

    By default each argument's leaf moves along random directions, so that the cost does not depend
    on sizes. A function that JAX can trace is traced about ten times and evaluated twice as it is;
    its compiled program is then evaluated six times for each leaf, direction and order, and up to
    20 times where differences do not settle. What cannot be traced is run as often.

    Args:
        f: A function or a callable `eqx.Module`. Left out, the call makes a decorator.
        order: Which derivatives: 1, 2, or both. Second derivatives by complex arguments are not
            one array; with both orders they are left out, with 2 alone they are refused.
        full: Whether along each entry and not along random directions: every entry of each block
            is compared. It takes as many evaluations as there are entries, times six.
        directions: The number of random directions of each leaf, and weights of each output.
        rtol: The relative tolerance. `None` means three times the square root of the rounding of
            the least precise dtype of the block: 1e-3 in float32, 4.5e-8 in float64.
        atol: An absolute tolerance on top of what rounding and differences may be wrong by.
        seed: Of the random directions; the same seed gives the same report.
        wrt: Which inputs, as for `jacobian`.
        of: Which outputs, as for `jacobian`.
        mode: That of the plans, as for `jacobian`.
        has_aux: As for `jacobian`.
        holomorphic: As for `jacobian`.
        typecheck: As for `jacobian`.

    Returns:
        A callable Equinox module with the signature of `f` that returns a `DerivativeReport`,
            which is true if all blocks agree.

    Raises:
        SelectionError: If an option is none of those above.
    """
    return make_check(
        CheckTransform,
        f,
        order=order,
        full=full,
        directions=directions,
        rtol=rtol,
        atol=atol,
        seed=seed,
        wrt=wrt,
        of=of,
        mode=mode,
        has_aux=has_aux,
        holomorphic=holomorphic,
        typecheck=typecheck,
    )


def make_check(
    kind: type[CheckTransform[Any, Any]],
    f: Callable[..., Any] | None,
    *,
    order: int | Sequence[int] = (1, 2),
    full: bool = False,
    directions: int = 1,
    rtol: float | None = None,
    atol: float = 0.0,
    seed: int = 0,
    **options: Any,
) -> Any:
    """A check of this kind, with the options of `check_derivatives`."""
    settings = Settings(full, directions, rtol, atol, seed)
    return transform(
        lambda function, given: kind(function, given, settings, order), f, Options(**options)
    )
