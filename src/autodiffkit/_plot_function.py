"""`plot_function`: a function of one number with its derivatives."""

import math
import operator
from collections.abc import Callable, Sequence
from inspect import Parameter
from typing import TYPE_CHECKING, Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from autodiffkit._api_operators import directional_derivative
from autodiffkit._derivative import without_values
from autodiffkit._errors import (
    ModeError,
    NotDifferentiableError,
    SelectionError,
    SignatureError,
    StructureError,
    listed,
)
from autodiffkit._function import Function, as_function
from autodiffkit._hessian import Hessian
from autodiffkit._inputs import is_index
from autodiffkit._jax_compat import is_staging
from autodiffkit._leaves import describe_leaf, is_complex, is_inexact, is_numeric, with_article
from autodiffkit._linear_map import LinearMap
from autodiffkit._operator_results import Evaluation
from autodiffkit._plotting import axes_for, need_matplotlib, plain, with_fonts
from autodiffkit._program import reason
from autodiffkit._result import Gradient, Jacobian
from autodiffkit._stored import Stored
from autodiffkit._taylor import NO_VALUES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def plot_function(  # noqa: PLR0917  # in the order in which they are said
    f: Callable[..., Any],
    left: Any,
    right: Any,
    n: int = 100,
    order: int = 2,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws a scalar function of one number with its derivatives as curves.

    All points are computed at once, by `jax.vmap` of the function and of
    `adk.directional_derivative`; a function with Python control flow on its argument is computed
    point by point. Where a value is not finite the curve has a gap, and where the function itself
    is not, its derivatives have one too.

    Args:
        f: A function of one real number that returns one.
        left: Where the curves begin, a real number.
        right: Where they end.
        n: At how many points they are computed, 2 or more.
        order: The highest derivative, 0 for none.
        ax: Axes to draw into. `None` makes a figure.

    Returns:
        The axes, with a line for the function and for each derivative: `f`, `f'`, `f''`, or
        the function's own name in the place of `f`.

    Raises:
        MissingPackageError: If matplotlib is not installed.
        ModeError: If JAX cannot push derivatives through the function.
        NotDifferentiableError: If the function returns something other than a real number.
        SelectionError: If the limits, `n`, `order` or `ax` make no sense.
        SignatureError: If `f` is no function, or does not take one number.
        StructureError: While JAX traces a function, where there are no values to draw.

    Examples:
        ```python
        adk.plot_function(jnp.tanh, -3, 3)
        adk.plot_function(functools.partial(model, rate=0.5), 0, 10, order=1)
        ```
    """
    if not callable(f):
        raise SignatureError(
            f"plot_function: a function is drawn; got {describe_leaf(f)}. Pass the function and "
            "then the limits: adk.plot_function(f, left, right)."
        )
    function = as_function(f)
    call = f"plot_function({function.name})"
    name = _argument(call, function)
    if is_staging():
        raise StructureError(
            f"{call}: while JAX traces a function there are no values to draw. Call it outside."
        )
    ends = _limit(call, "left", left), _limit(call, "right", right)
    count = _integer(call, "n", n, 2)
    highest = _integer(call, "order", order, 0)
    points = _points(call, ends, count)
    need_matplotlib(call)
    curves = [_evaluated(call, name, f, points, 0)]
    if highest and not is_inexact(curves[0].dtype):
        raise NotDifferentiableError(
            f"{call}: the function returns {curves[0].dtype}, which has no derivatives. Return a "
            "floating-point number, or pass order=0."
        )
    gaps = ~np.isfinite(curves[0])
    for k in range(1, highest + 1):
        curve = _evaluated(call, name, f, points, k).copy()
        # Formulas of derivatives often have values where the function has none, as log's does.
        curve[gaps] = np.nan
        curves.append(curve)
    axes = axes_for(call, ax, (6.4, 3.8))
    title = function.name if function.name.isidentifier() else "f"
    labels = [_label(title, k) for k in range(highest + 1)]
    lines = [
        axes.plot(np.asarray(points), curve, label=label)[0]
        for curve, label in zip(curves, labels, strict=True)
    ]
    # The whole interval is shown, also where there is no curve.
    axes.update_datalim([(float(x), 0.0) for x in (points[0], points[-1])], updatey=False)
    axes.set_xlabel(plain(name))
    _legend(axes, lines, labels, is_new=ax is None)
    return with_fonts(axes)


def _legend(axes: "Axes", lines: Sequence[Any], labels: Sequence[str], *, is_new: bool) -> None:
    """Names the curves: beside a figure of our own, and in the emptiest corner of other axes."""
    outside: dict[str, Any] = {
        "loc": "upper left",
        "bbox_to_anchor": (1.01, 1),
        "borderaxespad": 0,
    }
    # matplotlib leaves out of a legend what begins with an underscore, but not texts set later.
    placeholders = ["f" * len(label) for label in labels]
    # Where it may lie over a curve, it has a frame that the curve is seen through.
    legend = axes.legend(lines, placeholders, **(outside if is_new else {}))
    legend.set_frame_on(not is_new)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)


# What comes in ---------------------------------------------------------------------------


def _argument(call: str, function: Function) -> str:
    """The name of the one argument.

    Returns:
        The name; of a function that does not tell, `x`.

    Raises:
        SignatureError: If there is another number of arguments without a default.
    """
    parameters = list(function.signature.parameters.values())
    positional = [x for x in parameters if x.kind in _POSITIONAL]
    needed = [x for x in positional if x.default is Parameter.empty]
    keywords = [
        x for x in parameters if x.kind is Parameter.KEYWORD_ONLY and x.default is Parameter.empty
    ]
    variadic = any(x.kind is Parameter.VAR_POSITIONAL for x in parameters)
    if not positional and not variadic:
        raise SignatureError(
            f"{call}: {function} takes no positional argument, and one number is passed to it. "
            "Wrap it: lambda x: ..."
        )
    if len(needed) > 1 or keywords:
        first = (needed or positional)[0].name if needed or positional else "x"
        given = ", ".join(f"{x.name}=..." for x in (*needed[1:], *keywords))
        raise SignatureError(
            f"{call}: {function} takes several arguments, and is drawn by one. Fix the others: "
            f"functools.partial(f, {given}), or lambda {first}: f({first}, {given})."
        )
    return positional[0].name if positional else "x"


_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def _limit(call: str, name: str, value: Any) -> float:
    """An end of the interval as a number.

    Returns:
        The number.

    Raises:
        SelectionError: If it is not a real and finite one.
        StructureError: If it is traced.
    """
    if isinstance(value, jax.core.Tracer):
        raise StructureError(
            f"{call}: {name} is traced by JAX and has no value. Call it outside of the function "
            "that is traced."
        )
    kind = np.asarray(value).dtype.kind if is_numeric(value) else ""
    if not is_numeric(value) or np.shape(value) != () or kind in "bc":
        raise SelectionError(
            f"{call}: {name} should be a real number; got {describe_leaf(value)}. Pass where the "
            "curve begins and where it ends."
        )
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SelectionError(f"{call}: {name}={number} is not finite. Pass finite limits.")
    return number


def _integer(call: str, name: str, value: Any, least: int) -> int:
    """An option that is an integer.

    Returns:
        The integer.

    Raises:
        SelectionError: If it is none, or too small.
    """
    if isinstance(value, (bool, np.bool_)) or not is_index(value) or operator.index(value) < least:
        raise SelectionError(
            f"{call}: {name}={value!r} should be an integer of at least {least}. Pass "
            f"{'a number of points' if name == 'n' else 'the highest derivative to draw'}."
        )
    return operator.index(value)


def _points(call: str, ends: tuple[float, float], count: int) -> jax.Array:
    """The points of the curve, in JAX's own floating-point type.

    Returns:
        An array of them.

    Raises:
        SelectionError: If the limits are in the wrong order, or the same number in that type.
    """
    left, right = ends
    if left >= right:
        raise SelectionError(
            f"{call}: left={left:g} should be less than right={right:g}. Exchange them, or pass an "
            "interval of some length."
        )
    dtype = jnp.zeros(()).dtype
    with np.errstate(over="ignore"):
        rounded = np.asarray([left, right], dtype)
    if not np.all(np.isfinite(rounded)) or rounded[0] >= rounded[1]:
        raise SelectionError(
            f"{call}: in {dtype} the limits {left!r} and {right!r} are one number or not finite. "
            'Set jax.config.update("jax_enable_x64", True), or pass other limits.'
        )
    # In double precision, so that the ends are what was passed and nothing overflows on the way.
    steps = np.linspace(0.0, 1.0, count)
    return jnp.asarray((left * (1 - steps) + right * steps).astype(dtype))


# What comes out --------------------------------------------------------------------------


def _evaluated(call: str, name: str, f: Callable[..., Any], points: jax.Array, order: int) -> Any:
    """A derivative of the function at all points."""

    def at(x: Any) -> Any:
        return f(x)

    derive: Any = directional_derivative(at, order=order) if order else at

    def value(x: Any) -> Any:
        found = derive(x, direction=jnp.ones_like(x)).derivative if order else derive(x)
        return _scalar(call, name, found)

    try:
        try:
            return np.asarray(jax.vmap(value)(points))
        except NO_VALUES:
            # There is Python control flow on the argument.
            return np.asarray([np.asarray(value(x)) for x in points])
    except ModeError as error:
        raise _refused(call, error) from error


def _refused(call: str, error: ModeError) -> ModeError:
    """Why JAX pushes nothing through the function.

    Returns:
        The exception, with the call of the user's in the place of the one below it.
    """
    causes: list[Exception] = [error]
    while isinstance(cause := causes[-1].__cause__, Exception):
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, NO_VALUES):
            return without_values(call, cause, "pass order=0")
    return ModeError(
        f"{call}: derivatives are pushed forward, and this function cannot be. Pass order=0, or "
        "draw what reverse mode gives: lambda x: adk.grad(f)(x).x." + listed([reason(causes[-1])])
    )


def _scalar(call: str, name: str, found: Any) -> Any:
    """What the function returned, if it is one real number.

    Returns:
        The number as an array.

    Raises:
        NotDifferentiableError: If it is something else.
    """
    if not is_numeric(found) or np.shape(found) != ():
        is_ours = isinstance(found, (Stored, LinearMap, Evaluation))
        what = "None" if found is None else with_article(type(found).__name__)
        what = describe_leaf(found) if is_numeric(found) else what
        raise NotDifferentiableError(
            f"{call}: the function should return one number, and returns {what}"
            f"{' of this package' if is_ours else ''}. Pass one that does{_instead(name, found)}."
        )
    if is_complex(jnp.result_type(found)):
        raise NotDifferentiableError(
            f"{call}: the function returns complex numbers. Draw their real part, their imaginary "
            "part or their modulus: lambda x: jnp.real(f(x))."
        )
    return jnp.asarray(found)


def _instead(name: str, found: Any) -> str:
    """What draws a part of what a function returns, after "Pass one that does"."""
    match found:
        case Gradient():
            return f": f itself with order=1, or lambda {name}: adk.grad(f)({name}).{name}"
        case Jacobian():
            return f": f itself with order=1, or lambda {name}: adk.jacobian(f)({name}).{name}"
        case Hessian():
            part = f"adk.hessian(f)({name}).{name}.{name}"
            return f": f itself with order=2, or lambda {name}: {part}"
        case _:
            part = _part(found)
            return f": lambda {name}: f({name}){part}" if part else ""


def _part(found: Any) -> str:
    """How to select a number of what a function returns."""
    if is_numeric(found):
        return f"[{', '.join('0' * np.ndim(found))}]"
    if isinstance(found, (list, tuple)) and found:
        return "[0]"
    if isinstance(found, dict) and found:
        key: Any = next(iter(found))
        return f"[{key!r}]"
    if isinstance(found, Evaluation):
        return ".derivative"
    return ".as_matrix()[0, 0]" if isinstance(found, (Stored, LinearMap)) else ""


def _label(name: str, order: int) -> str:
    """`f`, `f'`, `f''`, and from the fourth derivative on the number."""
    if order <= 3:
        return name + "'" * order
    return f"{name}⁽{str(order).translate(_SUPERSCRIPTS)}⁾"
