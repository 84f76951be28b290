"""`check_derivatives`: a function's derivatives by all ways there are, compared."""

import dataclasses
import numbers as kinds_of_numbers
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import numpy as np

from autodiffkit._check_report import CheckedBlock, DerivativeReport
from autodiffkit._diagnosis import Diagnosis
from autodiffkit._errors import (
    NotDifferentiableError,
    SelectionError,
    SignatureError,
    columns,
    listed,
)
from autodiffkit._faults import Causes
from autodiffkit._flat_call import Options
from autodiffkit._function import name_of
from autodiffkit._inputs import is_index
from autodiffkit._jax_compat import is_eager
from autodiffkit._jaxprs import inlined
from autodiffkit._paths import show
from autodiffkit._products import Flat, numbers, roundoff
from autodiffkit._program import reason
from autodiffkit._subject import Settings, Subject
from autodiffkit._transforms import Transform
from autodiffkit._ways import CountedCall, compare

P = ParamSpec("P")
R = TypeVar("R")

_SAME = 64.0  # roundings by which two runs may differ, where sums have no fixed order


# What `check_derivatives` is passed if nothing else is said.
_DEFAULTS = {"full": False, "directions": 1, "rtol": None, "atol": 0.0, "seed": 0}


class CheckTransform(Transform[P, R]):
    """What `adk.check_derivatives` returns."""

    _settings: Settings = eqx.field(static=True)
    _orders: tuple[int, ...] = eqx.field(static=True)

    _verb = "check_derivatives"
    _has_blocks = False

    def __init__(
        self, function: Callable[P, R], options: Options, settings: Settings, orders: Any
    ) -> None:
        super().__init__(function, options)
        call = f"{self._verb}({name_of(function)})"
        self._orders = _checked_orders(call, orders)
        self._settings = _checked_settings(call, settings)

    @property
    def _chosen(self) -> dict[str, Any]:
        settings, orders = self._settings, self._orders
        given = dataclasses.asdict(settings)
        given["directions"] = given.pop("count")
        found = {k: x for k, x in given.items() if x != _DEFAULTS[k]}
        if orders != (1, 2):
            found["order"] = orders[0] if len(orders) == 1 else orders
        return super()._chosen | found

    def _of(self, function: Any) -> "CheckTransform[P, R]":
        return type(self)(function, self._options, self._settings, self._orders)

    @property
    def annotations(self) -> Mapping[str | tuple[str, ...], Any]:
        """None: the results are no blocks."""
        return MappingProxyType({})

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> DerivativeReport:
        return check(CountedCall(self._flat(args, kwargs)), self._settings, self._orders)


def check(flat: CountedCall, settings: Settings, orders: tuple[int, ...]) -> DerivativeReport:
    """Compares the derivatives of a call, and says what is wrong with those that do not agree."""
    point = flat.selected
    outs = _evaluate_twice(flat)
    targets, sources = flat.outputs.specs, flat.inputs.specs
    notes: list[str] = []

    def function(*leaves: Any) -> list[Any]:
        return flat(*leaves)[0]

    program = _traced(function, point, notes)
    subject = Subject(
        function,
        point,
        settings,
        outs=outs,
        program=program,
        traceable=program is not None,
        holomorphic=flat.holomorphic,
    )
    causes = None if program is None else Causes(program, point)
    found, said = compare(flat, subject, causes, orders)
    diagnosis = Diagnosis(subject, causes, targets, sources, settings)
    blocks = [diagnosis.block(x) for x in found]
    said = [*said, *diagnosis.of_gradients(found, blocks)]
    notes = [_compared_with(subject), *notes, *said, *_impossible(subject)]
    return DerivativeReport(flat.name, _worst_first(blocks), tuple(notes), flat.runs[0])


def _worst_first(blocks: Sequence[CheckedBlock]) -> tuple[CheckedBlock, ...]:
    return tuple(sorted(blocks, key=lambda x: (x.passed, -x.ratio)))


# Evaluation -----------------------------------------------------------------------


def _evaluate_twice(flat: CountedCall) -> list[Any]:
    """The outputs, after two runs that gave the same.

    Raises:
        SignatureError: If there are no values.
        NotDifferentiableError: If the runs gave different ones.
    """
    one = flat(*flat.selected)[0]
    if not is_eager([*flat.selected, *one]):
        raise SignatureError(
            f"{flat.call} compares numbers, and there are none under jax.jit, jax.vmap or another "
            "transformation. Call it outside."
        )
    two = flat(*flat.selected)[0]
    rows: list[tuple[str, str]] = []
    for spec, x, y in zip(flat.outputs.specs, one, two, strict=True):
        a, b = numbers(x), numbers(y)
        with np.errstate(invalid="ignore"):
            same = (np.abs(a - b) <= _SAME * roundoff(x.dtype) * np.abs(a)) | (a == b)
        same |= np.isnan(a) & np.isnan(b)
        if not np.all(same):
            rows.append((show(spec.path) or "output", f"{np.sum(~same)} of {a.size} entries"))
    if rows:
        raise NotDifferentiableError(
            f"{flat.call}: two runs of the function with the same arguments gave different values, "
            "so differences say nothing. Pass what is random or changes as an argument, such as a "
            "jax.random.key." + listed(columns(rows))
        )
    return one


def _traced(function: Flat, point: Sequence[Any], notes: list[str]) -> Any:
    """The function as a program with its constants, if it can be traced."""
    try:
        return inlined(jax.make_jaxpr(function)(*point))
    except Exception as error:  # control flow on values, or whatever the function does with them
        notes.append(f"the function cannot be traced: {reason(error)}")
        return None


def _compared_with(subject: Subject) -> str:
    ways = {"differences": "central differences", "complex step": "complex steps"}
    reference = subject.reference
    return f"compared with {ways[reference.name]} (rounding {reference.roundoff:.1e})"


def _impossible(subject: Subject) -> list[str]:
    """What JAX refused, in words."""
    said = {
        "forward": "forward mode is impossible",
        "reverse": "reverse mode is impossible",
        "forward, of gradients": "forward mode gives no gradients",
        "plan, of gradients": "second derivatives are not compared",
    }
    return [
        f"{said.get(way, f'{way} mode is impossible')}: {why}" for way, why in subject.notes.items()
    ]


# Options ------------------------------------------------------------------------------


def _checked_orders(call: str, orders: Any) -> tuple[int, ...]:
    given = (orders,) if is_index(orders) else orders
    if isinstance(given, (tuple, list)) and given and all(map(is_index, given)):
        found = sorted({int(order) for order in given})
        if set(found) <= {1, 2} and not any(isinstance(order, bool) for order in given):
            return tuple(found)
    raise SelectionError(
        f"{call}: order={orders!r} is no choice of derivatives to check. Pass 1, 2 or (1, 2)."
    )


def _checked_settings(call: str, settings: Settings) -> Settings:
    count: Any = settings.count
    if isinstance(count, bool) or not is_index(count) or count < 1:
        raise SelectionError(
            f"{call}: directions={count!r} is no number of random directions. Pass 1 or more, or "
            "full=True, which takes one for each entry."
        )
    seed: Any = settings.seed
    if isinstance(seed, bool) or not is_index(seed) or seed < 0:
        raise SelectionError(f"{call}: seed={seed!r} is no seed. Pass a whole number, 0 or more.")
    for name, value in (("rtol", settings.rtol), ("atol", settings.atol)):
        if value is None and name == "rtol":
            continue
        number: Any = value
        is_number = isinstance(number, kinds_of_numbers.Real) and number is not True
        if not is_number or not 0 <= float(number) < np.inf:
            raise SelectionError(f"{call}: {name}={number!r} is no tolerance. Pass 0 or more.")
    return dataclasses.replace(settings, count=int(count), seed=int(seed))
