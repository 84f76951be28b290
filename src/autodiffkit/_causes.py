"""Which of the usual causes it is that a number is not finite.

The causes are told apart by the operation and by the numbers that it read where it happened.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from autodiffkit import _remedies as remedies
from autodiffkit._errors import shown_of
from autodiffkit._leaves import describe_array
from autodiffkit._naming import comes_from_jax, describe, name_of_primitive, place_of
from autodiffkit._origins import Origin, is_bad
from autodiffkit._remedies import Cause

# What users call an operation that a program has under another name.
_WORDS = {
    "integer_pow": "power",
    "pow": "power",
    "div": "division",
    "convert_element_type": "cast",
    "custom_linear_solve": "solve",
    "triangular_solve": "solve",
}


@dataclasses.dataclass(frozen=True)
class Case:
    """An origin where the first bad number is.

    Attributes:
        name: Of the operation.
        kind: As of the origin.
        index: Of the number.
        made: The number.
        operands: The numbers that it was made of; `None` where that is not one of them.
        given: The tangents or cotangents that came there, likewise.
        origin: The origin.
    """

    name: str
    kind: str
    index: tuple[int, ...]
    made: Any
    operands: tuple[Any, ...]
    given: tuple[Any, ...]
    origin: Origin

    @property
    def x(self) -> Any:
        """The first operand there."""
        return self.operands[0] if self.operands else None

    @property
    def y(self) -> Any:
        """The second operand there."""
        return self.operands[1] if len(self.operands) > 1 else None

    @property
    def is_derivative(self) -> bool:
        """Whether a derivative is what is not finite."""
        return self.kind != "value"

    @property
    def is_masked(self) -> bool:
        """Whether nothing is pulled from there: the derivative is 0 times infinity."""
        return self.kind == "reverse" and 0 in self.given and self.made != self.made


def case_of(origin: Origin) -> Case:
    """The origin where its first number is that is not finite."""
    found = origin.entries
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(found)), found.shape))
    shape = found.shape

    equation = origin.step.equation
    name = equation.primitive.name
    is_whole = name in _DECOMPOSITIONS | _SOLVERS | _CONTRACTIONS

    def at(array: Any) -> Any:
        if is_whole or not isinstance(getattr(array, "dtype", None), np.dtype):  # nor a key
            return None
        if array.size == 1:
            return number(np.asarray(array).reshape(())[()])
        # An axis of one entry serves for all.
        fits = array.ndim == len(shape) and all(
            a in {1, b} for a, b in zip(array.shape, shape, strict=True)
        )
        place = tuple(min(i, n - 1) for i, n in zip(index, array.shape, strict=False))
        return number(np.asarray(array)[place]) if fits else None

    return Case(
        name,
        origin.kind,
        index,
        number(np.asarray(origin.made)[index]),
        tuple(map(at, origin.operands)),
        tuple(map(at, origin.given)),
        origin,
    )


def number(x: Any) -> Any:
    """A Python number."""
    return x.item() if x.dtype.kind in "biufc" else float(x)


# What happened ------------------------------------------------------------------------


def describe_case(case: Case) -> str:
    """What happened there, in a line: `sqrt(0.0): the cotangent 1.0 is pulled back as inf`."""
    equation, step = case.origin.step.equation, case.origin.step
    name = _called_function(equation) if step.by_rule else _WORDS.get(case.name, case.name)
    arrays = list(zip(case.operands, case.origin.operands, strict=True))
    count = shown_of(len(arrays), _SHOWN)
    inside = ", ".join(_shown(x, array) for x, array in arrays[:count])
    inside += ", ..." if len(arrays) > count else ""
    if case.name == "integer_pow":
        inside += f", {equation.params['y']}"
    where = f" at index {case.index}" if case.index else ""
    call = f"{name}({inside})"
    if case.kind == "value":
        return f"{call} is {short(case.made)}{where}"
    if case.kind == "forward":
        came = [x for x in case.given if x is not None]
        what = f"the tangent {short(came[0])}" if len(came) == 1 else "the tangent"
        return f"{call}: {what} is pushed on as {short(case.made)}{where}"
    came = [x for x in case.given if x is not None]
    what = f"the cotangent {short(came[0])}" if len(came) == 1 else "the cotangent"
    return f"{call}: {what} is pulled back as {short(case.made)}{where}"


_SHOWN = 3  # so many operands


def _shown(x: Any, array: Any) -> str:
    return describe_array(array.shape, array.dtype) if x is None else short(x)


def short(x: Any) -> str:
    """A number as people write it."""
    text = f"{x:.6g}"
    return f"{text}.0" if isinstance(x, float) and text.lstrip("-").isdigit() else text


# Causes -------------------------------------------------------------------------------


def cause_of(case: Case) -> Cause:
    """The cause of a case; where it is none of the usual ones, that."""
    if case.origin.step.by_rule and case.is_derivative:
        return _of_rule(case)
    if case.origin.is_constant:
        return remedies.CONSTANT
    usual = next(
        (cause for names, applies, cause in _CAUSES if _is_one(case, names, applies)), None
    )
    if usual is None:
        return _unusual(case)
    if case.is_masked and "where" not in usual.remedy:
        problem = f"{usual.problem}, and 0 times infinity is NaN"
        return Cause(usual.name, problem, f"{remedies.DOUBLE_WHERE} {usual.remedy}")
    return usual


def _is_one(case: Case, names: set[str], applies: Callable[[Case], bool]) -> bool:
    return case.name in names and applies(case)


def _unusual(case: Case) -> Cause:
    if case.origin.reads_bad:
        return remedies.READ
    if case.is_derivative:
        return Cause(
            "infinite slope",
            f"the derivative of {case.name} is not finite there",
            "Keep away from the point, or give the function a rule of its own (jax.custom_jvp)."
            + (f" {remedies.DOUBLE_WHERE}" if case.is_masked else ""),
        )
    if np.isinf(case.made):
        return remedies.OVERFLOW
    return Cause(
        "undefined",
        f"{case.name} has no value there",
        "Look at what it reads; keep its arguments where it is defined.",
    )


def _of_rule(case: Case) -> Cause:
    rule, is_of_jax = _rule_origin(case.origin.step.equation)
    within = case.origin.within
    by = ""
    if within is not None:
        # Where JAX has traced the rule before, it has the line of another call.
        is_known = place_of(within) != place_of(case.origin.step.equation)
        by = f", by {describe(within) if is_known else name_of_primitive(within)}"
    if is_of_jax:
        return Cause(
            "infinite slope",
            f"the derivative that JAX has for {rule} is not finite there{by}",
            f"Keep away from the point. {remedies.DOUBLE_WHERE}",
        )
    return Cause(
        "custom rule",
        f"it comes from the custom rule {rule}{by}",
        "Mend the rule: treat the point as a case of its own. The double where works in rules, "
        "too.",
    )


def _rule_origin(equation: Any) -> tuple[str, bool]:
    """The rule that an equation calls for its derivative, and whether it is one of JAX.

    Returns:
        `f_jvp at model.py:12`; of JAX the function, `slogdet`.
    """
    rules = (equation.params.get(name) for name in ("jvp_jaxpr_fun", "bwd"))
    found = [str(x.debug_info.func_src_info) for x in rules if hasattr(x, "debug_info")]
    if not found or comes_from_jax(found[0]):
        return _called_function(equation), True
    return found[0].replace(f"{Path.cwd()}/", ""), False


def _called_function(equation: Any) -> str:
    """The name of the function that an equation calls which has a rule of its own."""
    called = str(equation.params["call_jaxpr"].jaxpr.debug_info.func_src_info)
    return called.partition(" at ")[0]


def _always(_: Case) -> bool:
    return True


def _is_zero(x: Any) -> bool:
    return x is not None and x == 0


def _near(x: Any, value: float) -> bool:
    return x is not None and not isinstance(x, complex) and abs(abs(x) - value) < 1e-12


def _negative(x: Any) -> bool:
    return x is not None and not isinstance(x, complex) and x < 0


def _infinite(x: Any) -> bool:
    return x is not None and bool(np.isinf(x))


def _outside(low: float, high: float) -> Callable[[Case], bool]:
    return lambda c: c.x is not None and not isinstance(c.x, complex) and not low <= c.x <= high


def _overflows(case: Case) -> bool:
    return bool(np.isinf(case.made)) and not case.origin.reads_bad


def _equal_values(case: Case) -> bool:
    """Whether eigenvalues or singular values are equal, or as good as equal."""
    values = [np.asarray(x) for x in case.origin.results if x.ndim and x.ndim < _rank(case)]
    for found in values:
        gaps = np.abs(np.diff(np.sort(np.abs(found) if case.name == "svd" else found, axis=-1)))
        if np.any(gaps == 0) or (case.name == "svd" and np.any(found == 0)):
            return True
    return False


def values_of(case: Case) -> str:
    """The eigenvalues or singular values of a decomposition, as far as there are a few."""
    ranks = {"eigh": "eigenvalues", "svd": "singular values"}
    found = [x for x in case.origin.results if x.ndim == 1 and x.size <= 8]
    if case.name not in ranks or not found:
        return ""
    return f"{ranks[case.name]} {', '.join(short(float(x)) for x in np.asarray(found[0]))}"


def _rank(case: Case) -> int:
    return max(x.ndim for x in case.origin.operands)


def _tiny_divisor(c: Case) -> bool:
    return c.y is not None and 0 < abs(c.y) < 1 and not _infinite(c.x)


def _inf_minus_inf(c: Case) -> bool:
    return _infinite(c.x) and _infinite(c.y)


def _zero_times(c: Case) -> bool:
    # In a derivative, the zero is the tangent or cotangent.
    infinite = c.origin.reads_bad
    return infinite and c.made != c.made


def _value(test: Callable[[Case], bool]) -> Callable[[Case], bool]:
    return lambda c: not c.is_derivative and test(c)


def _slope(test: Callable[[Case], bool]) -> Callable[[Case], bool]:
    return lambda c: c.is_derivative and test(c)


_ROOTS = {"sqrt", "rsqrt", "cbrt"}
_LOGS = {"log", "log1p", "log2"}
_EXPS = {"exp", "exp2", "expm1", "sinh", "cosh"}
_ARCS = {"acos", "asin", "atanh", "erf_inv"}
_DECOMPOSITIONS = {"eigh", "eig", "svd", "qr", "householder_product", "schur"}
# These have no operand of one number that a number of theirs is made of either.
_CONTRACTIONS = {"dot_general", "conv_general_dilated", "fft", "sort"}
_SOLVERS = {"custom_linear_solve", "triangular_solve", "lu", "cholesky"}
_SUMS = {"add", "sub", "add_any", "reduce_sum", "cumsum", "cumlogsumexp"}
_PRODUCTS = {
    "mul",
    "dot_general",
    "conv_general_dilated",
    "reduce_prod",
    "cumprod",
    "square",
    "integer_pow",
    "pow",
    "div",
}

# The first that applies counts.
_CAUSES: list[tuple[set[str], Callable[[Case], bool], Cause]] = [
    # The small floats have no infinity.
    (
        {"convert_element_type", "reduce_precision"},
        _value(lambda c: not c.origin.reads_bad),
        remedies.CAST,
    ),
    (_EXPS, lambda c: bool(np.isinf(c.made)) or any(map(is_bad, c.origin.results)), remedies.EXP),
    ({"div"}, lambda c: _is_zero(c.x) and _is_zero(c.y), remedies.NOUGHT),
    ({"div"}, lambda c: _is_zero(c.y), remedies.DIVISION),
    ({"div"}, _tiny_divisor, remedies.TINY),
    (_ROOTS, lambda c: _negative(c.x) and c.name != "cbrt", remedies.DOMAIN),
    ({"rsqrt"}, _value(lambda c: _is_zero(c.x)), remedies.DIVISION),
    (_ROOTS, lambda c: _is_zero(c.x), remedies.ROOT),
    ({"log1p"}, lambda c: c.x is not None and c.x == -1, remedies.LOG),
    ({"log", "log2"}, lambda c: _is_zero(c.x), remedies.LOG),
    (_LOGS, lambda c: _negative(c.x), remedies.DOMAIN),
    (_ARCS, lambda c: _near(c.x, 1.0), remedies.EDGE),
    (_ARCS, _outside(-1, 1), remedies.DOMAIN),
    ({"acosh"}, _slope(lambda c: _near(c.x, 1.0)), remedies.EDGE),
    ({"acosh"}, lambda c: c.x is not None and c.x < 1, remedies.DOMAIN),
    ({"atan2"}, _slope(lambda c: _is_zero(c.x) and _is_zero(c.y)), remedies.ANGLE),
    ({"qr", "householder_product"}, _slope(_always), remedies.SINGULAR),
    ({"lgamma", "digamma", "polygamma", "zeta", "tan"}, _always, remedies.POLE),
    (_DECOMPOSITIONS, _slope(_equal_values), remedies.EIGEN),
    (_SOLVERS, _always, remedies.SINGULAR),
    ({"pow", "integer_pow"}, lambda c: _is_zero(c.x), remedies.POWER),
    ({"pow"}, lambda c: _negative(c.x) and c.made != c.made, remedies.NEGATIVE_BASE),
    ({"add", "sub", "add_any"}, _inf_minus_inf, remedies.MASKED_ALL),
    (_PRODUCTS, _zero_times, remedies.ZERO_TIMES),
    (_SUMS | _PRODUCTS, _overflows, remedies.OVERFLOW),
]
