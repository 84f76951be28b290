"""What in a program makes derivatives differ from differences, found equation by equation."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import numpy as np

from autodiffkit._branches import COMPARISONS, ROUNDING, STOP, decides, decisions, held
from autodiffkit._first_order import first_order
from autodiffkit._interpret import bind, body_of, interpret
from autodiffkit._jaxprs import alone, is_floating
from autodiffkit._leaves import is_inexact
from autodiffkit._naming import calls_custom_rules, describe, is_of_jax, short_place
from autodiffkit._products import Flat, moved, numbers, roundoff
from autodiffkit._second_order import second_order
from autodiffkit._subject import Settings, Subject

# Whose derivative is infinite at zero.
_VERTICAL = frozenset({"cbrt", "log", "pow", "rsqrt", "sqrt"})
# What is given a transpose, or a rule for one, by the user.
_GIVEN = frozenset({"custom_linear_solve", "linear_call"})
_RULES = {"custom_jvp_call": "jvp_jaxpr_fun", "custom_vjp_call": "bwd"}


class Cuts(NamedTuple):
    """What lies between an input and an output of a program.

    Args:
        reached: Whether the output depends on the input.
        smooth: Whether it does along a path on which all operations have derivatives.
        free: Whether it does along one on which none stops gradients.
        rounding: The equations on other paths that are constant but for jumps, in words.
        comparisons: Those that compare.
        stops: Those that stop gradients.
        inside: Equations that round inside of a loop or a branch on the way.
    """

    reached: bool
    smooth: bool
    free: bool
    rounding: list[str]
    comparisons: list[str]
    stops: list[str]
    inside: list[str]


class Rule(NamedTuple):
    """A derivative rule of the user's whose result is not the derivative of its function."""

    name: str
    order: int  # 0 if it returns another value than its function


@dataclasses.dataclass(frozen=True)
class _Reach:
    """What a variable depends on: inputs, and pairs of an input and an equation by number."""

    reached: frozenset[int] = frozenset()
    smooth: frozenset[int] = frozenset()
    free: frozenset[int] = frozenset()
    cuts: frozenset[tuple[int, int]] = frozenset()
    inside: frozenset[tuple[int, int]] = frozenset()
    rules: frozenset[int] = frozenset()


_NOTHING = _Reach()


class Causes:
    """A program and the point at which it was traced.

    Args:
        program: A program without constants, and the values of its first inputs.
        point: Those of the others.
    """

    def __init__(self, program: tuple[Any, list[Any]], point: Sequence[Any]) -> None:
        self._program = program
        self._jaxpr, self._constants = program
        self._point = list(point)
        self._equations: list[Any] = []  # in the order in which they are met
        self._hidden: list[tuple[Any, Any]] = []  # those inside of loops and branches, and these

    # Paths ------------------------------------------------------------------------

    def cuts(self, i: int, j: int) -> Cuts:
        """What lies between an input and an output."""
        reach = self._reaches[i]
        between = [self._equations[n] for k, n in sorted(reach.cuts) if k == j]
        inside = [
            f"{_words(self._hidden[n][0])} inside of {describe(self._hidden[n][1])}"
            for k, n in sorted(reach.inside)
            if k == j
        ]
        kinds: dict[str, list[str]] = {"rounding": [], "comparison": [], "stop": []}
        for equation in between:
            name = equation.primitive.name
            kind = "stop" if name == STOP else "comparison" if name in COMPARISONS else "rounding"
            kinds[kind].append(_words(equation))
        return Cuts(
            j in reach.reached,
            j in reach.smooth,
            j in reach.free,
            _distinct(kinds["rounding"]),
            _distinct(kinds["comparison"]),
            _distinct(kinds["stop"]),
            _distinct(inside),
        )

    @functools.cached_property
    def _reaches(self) -> list[_Reach]:
        def operands(values: Sequence[Any]) -> _Reach:
            found = [x for x in values if isinstance(x, _Reach)]
            parts = (frozenset[Any]().union(*x) for x in zip(*map(_fields, found), strict=True))
            return _Reach(*parts) if found else _NOTHING

        def apply(equation: Any, values: list[Any]) -> list[Any]:
            number = len(self._equations)
            self._equations.append(equation)
            reach = operands(values)
            for inner in _rounding_inside(equation):
                pairs = {(k, len(self._hidden)) for k in reach.reached}
                self._hidden.append((inner, equation))
                reach = dataclasses.replace(reach, inside=reach.inside | pairs)
            if equation.primitive.name in _GIVEN:
                reach = dataclasses.replace(reach, rules=reach.rules | {number})
            return [_passed(reach, equation, number, x) for x in equation.outvars]

        def call(equation: Any, _: list[Any], run: Callable[[], list[Any]]) -> list[Any]:
            number = len(self._equations)
            self._equations.append(equation)
            results = run()
            if not _is_rule_of_the_user(equation):
                return results
            found = [x if isinstance(x, _Reach) else _NOTHING for x in results]
            return [dataclasses.replace(x, rules=x.rules | {number}) for x in found]

        sources = [
            _Reach(frozenset({j}), frozenset({j}), frozenset({j})) for j in range(len(self._point))
        ]
        results = interpret(self._jaxpr, [*self._constants, *sources], apply, call)
        return [x if isinstance(x, _Reach) else _NOTHING for x in results]

    # Values -----------------------------------------------------------------------

    def choices(self, j: int, direction: np.ndarray) -> list[str]:
        """The equations that decide otherwise before the point than after it, in words."""
        step = 4 * roundoff(self._point[j].dtype) ** 0.5
        point, near = self._point, [-step * direction, step * direction]
        before, after = (
            decisions(self._program, [*point[:j], moved(point[j], x), *point[j + 1 :]])
            for x in near
        )
        found: list[str] = []
        for (equation, one), (_, two) in zip(before, after, strict=True):
            for x, y in zip(map(np.asarray, one), map(np.asarray, two), strict=True):
                places = np.argwhere(np.atleast_1d(x != y))
                if places.size:
                    at = f" (entry {places[0].tolist()})" if x.ndim else ""
                    found.append(_words(equation) + at)
        if not found:
            found = [
                f"{_words(equation)}, whose operand is zero"
                for equation, values in self._operands(self._point)
                if equation.primitive.name in _VERTICAL and np.any(values == 0)
            ]
        return _distinct(found)

    def _operands(self, point: Sequence[Any]) -> list[tuple[Any, np.ndarray]]:
        found: list[tuple[Any, np.ndarray]] = []

        def apply(equation: Any, values: list[Any]) -> list[Any]:
            if values:
                found.append((equation, np.asarray(values[0])))
            return bind(equation, values)

        wanted = (equation.primitive.name in _VERTICAL for equation in self._all_equations)
        if any(wanted):
            interpret(self._jaxpr, [*self._constants, *point], apply)
        return [x for x in found if x[0].primitive.name in _VERTICAL]

    @property
    def _all_equations(self) -> list[Any]:
        _ = self._reaches
        return self._equations

    def held(self, *, stops: bool) -> Flat:
        """The function with what it decides as it is here, and perhaps what stops gradients."""
        return held(self._program, self._point, stops=stops)

    @functools.cached_property
    def decides(self) -> bool:
        """Whether it decides anything."""
        return decides(self._jaxpr)

    # Rules --------------------------------------------------------------------------

    def guilty(self, i: int, order: int, settings: Settings) -> list[Rule]:
        """The rules on the way to an output that give another derivative than differences."""
        wanted = self._reaches[i].rules
        return [rule for n in sorted(wanted) for rule in self._tried(n, order, settings)]

    def suspects(self, i: int) -> list[str]:
        """All rules of the user's on the way to an output, also inside of loops."""
        entered = [self._equations[n] for n in sorted(self._reaches[i].rules)]
        inside = [x for equation in self._equations for x in _inside(equation)]
        return _distinct(map(_rule_name, [*entered, *filter(_is_rule_of_the_user, inside)]))

    def given(self, i: int) -> list[str]:
        """Those of them that are not JAX's own: of `jnp.linalg.solve`, say, the rules are."""
        entered = [self._equations[n] for n in sorted(self._reaches[i].rules)]
        inside = [x for equation in self._equations for x in _inside(equation)]
        return _distinct(map(_rule_name, filter(_is_given_by_the_user, [*entered, *inside])))

    @functools.cached_property
    def _calls(self) -> dict[int, list[Any]]:
        """The operands of each rule, by the equation's number."""
        found: dict[int, list[Any]] = {}
        count = 0

        def apply(equation: Any, values: list[Any]) -> list[Any]:
            nonlocal count
            if equation.primitive.name in _GIVEN:
                found[count] = values
            count += 1
            return bind(equation, values)

        def call(_: Any, values: list[Any], run: Callable[[], list[Any]]) -> list[Any]:
            nonlocal count
            found[count] = values
            count += 1
            return run()

        interpret(self._jaxpr, [*self._constants, *self._point], apply, call)
        return found

    @functools.cached_property
    def _verdicts(self) -> dict[tuple[int, int], list[Rule]]:
        return {}

    def _tried(self, number: int, order: int, settings: Settings) -> list[Rule]:
        key = number, order
        if key not in self._verdicts:
            equation, operands = self._equations[number], self._calls[number]
            found = _try_rule(equation, operands, order, settings)
            name = _rule_name(equation)
            self._verdicts[key] = [] if found is None else [Rule(name, found)]
        return self._verdicts[key]


def _fields(reach: _Reach) -> tuple[frozenset[Any], ...]:
    return reach.reached, reach.smooth, reach.free, reach.cuts, reach.inside, reach.rules


def _passed(reach: _Reach, equation: Any, number: int, variable: Any) -> _Reach:
    """What a result of an equation depends on."""
    name = equation.primitive.name
    if is_floating(variable) and name != STOP and name not in ROUNDING:
        return reach
    stops = name == STOP
    cuts = reach.cuts | {(j, number) for j in (reach.reached if stops else reach.smooth)}
    free = frozenset[int]() if stops else reach.free
    return dataclasses.replace(reach, smooth=frozenset[int](), free=free, cuts=cuts)


def _inside(equation: Any) -> Iterator[Any]:
    """The equations inside of a loop or a branch."""
    for jaxpr in jex.jaxprs_in_params(equation.params):
        for inner in jaxpr.eqns:
            yield inner
            yield from _inside(inner)


def _rounding_inside(equation: Any) -> list[Any]:
    return [
        x
        for x in _inside(equation)
        if x.primitive.name in ROUNDING
        or (
            x.primitive.name == "convert_element_type"
            and not is_inexact(x.params["new_dtype"])
            and is_inexact(x.invars[0].aval.dtype)
        )
    ]


# Rules ------------------------------------------------------------------------------


def _is_rule_of_the_user(equation: Any) -> bool:
    if equation.primitive.name not in _RULES:
        return False
    return calls_custom_rules(alone(equation, lambda _: False)[0])


def _is_given_by_the_user(equation: Any) -> bool:
    if equation.primitive.name in _GIVEN:
        return not all(map(is_of_jax, jex.jaxprs_in_params(equation.params)))
    return _is_rule_of_the_user(equation)


def _rule_name(equation: Any) -> str:
    """The rule in the user's words: `custom_jvp rule g_rule (a.py:13) of g, called at a.py:20`."""
    name = equation.primitive.name
    called = describe(equation).partition(" at ")[2]
    place = f", called at {called}" if called else ""
    if name not in _RULES:
        return f"the rules that {name} was given{place}"
    body = str(equation.params["call_jaxpr"].jaxpr.debug_info.func_src_info)
    info = getattr(equation.params[_RULES[name]], "debug_info", None)
    rule, _, where = str(getattr(info, "func_src_info", "") or "").partition(" at ")
    described = f" {rule} ({short_place(where)})" if where else ""
    kind = name.removesuffix("_call")
    return f"the {kind} rule{described} of {body.partition(' at ')[0]}{place}"


def _try_rule(equation: Any, operands: list[Any], order: int, settings: Settings) -> int | None:
    """At which order a rule's derivative is not that of its function; `None` if it is."""
    jaxpr, given = alone(equation, lambda x: is_inexact(x.aval.dtype))
    moving = [k for k in given if is_inexact(operands[k].dtype) and operands[k].size]
    if not moving or not jaxpr.outvars:
        return None
    entered = body_of(equation)
    floating = [n for n, x in enumerate(equation.outvars) if is_inexact(x.aval.dtype)]

    def filled(leaves: Sequence[Any]) -> list[Any]:
        values = dict(zip(moving, leaves, strict=True))
        return [values.get(k, x) for k, x in enumerate(operands)]

    def whole(*leaves: Any) -> list[Any]:
        values = filled(leaves)
        return jex.jaxpr_as_fun(jex.ClosedJaxpr(jaxpr, ()))(*(values[k] for k in given))

    def bare(*leaves: Any) -> list[Any]:
        if entered is None:
            return whole(*leaves)
        results = smooth(*filled(leaves))
        return [results[n] for n in floating]

    # With what it decides held, so that kinks next to the point do not count.
    smooth = held(entered, operands, stops=False) if entered is not None else whole
    point = [operands[k] for k in moving]
    subject = Subject(whole, point, dataclasses.replace(settings, full=False), reference=bare)
    if order == 1 and not _same_value(subject):
        return 0
    first = first_order(subject)
    if order == 1:
        return 1 if any(x.is_wrong for x in first) else None
    usable = [(x.block[0], x.block[1]) for x in first if not x.undefined]
    second = second_order(subject, usable)
    return 2 if any(x.is_wrong for x in second) else None


def _same_value(subject: Subject) -> bool:
    """Whether a rule returns what its function returns."""
    zeros = [jax.numpy.zeros_like(x) for x in subject.point]
    runs: list[Callable[[], Any]] = [
        lambda: jax.jvp(subject.function, subject.point, zeros)[0],
        lambda: jax.vjp(subject.function, *subject.point)[0],
    ]
    for run in runs:
        found = subject.attempt("value", run)
        if found is None:
            continue
        for i, (part, out) in enumerate(zip(subject.reference.parts, found, strict=True)):
            rtol, _ = subject.tolerances(i)
            expected = subject.reference.middle[part]
            with np.errstate(invalid="ignore"):
                error = np.abs(numbers(out).reshape(-1) - expected)
                if np.any(error > rtol * np.abs(expected) + _nothing_beside(expected)):
                    return False
    return True


def _nothing_beside(expected: np.ndarray) -> float:
    """What counts as nothing beside a vector."""
    finite = np.abs(expected[np.isfinite(expected)])
    return 1e-6 * float(finite.max()) if finite.size else 0.0


def _words(equation: Any) -> str:
    """An equation in the user's words."""
    text = describe(equation)
    if equation.primitive.name == "convert_element_type":
        kind = f"conversion to {np.dtype(equation.params['new_dtype'])}"
        return text.replace("convert_element_type", kind, 1)
    return text


def _distinct(texts: Any) -> list[str]:
    return list(dict.fromkeys(texts))
