"""For tests of one's own functions: assertions about their derivatives."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from autodiffkit._api_check import CheckOptions, make_check
from autodiffkit._check import CheckTransform
from autodiffkit._check_report import DerivativeReport
from autodiffkit._options import takes_options

__all__ = ["assert_derivatives"]

P = ParamSpec("P")
R = TypeVar("R")


class _AssertTransform(CheckTransform[P, R]):
    """What `assert_derivatives` returns."""

    _verb = "assert_derivatives"

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> DerivativeReport:
        report = super().__call__(*args, **kwargs)
        if not report:
            raise AssertionError(str(report))
        return report


@overload
def assert_derivatives(
    f: Callable[P, R], /, **options: Unpack[CheckOptions]
) -> CheckTransform[P, R]: ...
@overload
def assert_derivatives(
    **options: Unpack[CheckOptions],
) -> Callable[[Callable[P, R]], CheckTransform[P, R]]: ...
@takes_options
def assert_derivatives(
    f: Callable[..., Any] | None = None, /, **options: Unpack[CheckOptions]
) -> Any:
    """Asserts that the derivatives of a function are right: `assert_derivatives(f)(x, params)`.

    Args:
        f: A function or a callable `eqx.Module`. Left out, the call makes a decorator.
        **options: Those of `autodiffkit.check_derivatives`.

    Returns:
        A callable with the signature of `f`. It returns the report, or raises an `AssertionError`
            with the table of the report if a block is wrong.
    """
    return make_check(_AssertTransform, f, **options)
