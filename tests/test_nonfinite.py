"""`find_nonfinite`: planted causes are found at their line, and nothing else is."""

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import autodiffkit as adk

ZERO_ONE = np.array([0.0, 1.0], np.float32)


@dataclasses.dataclass(frozen=True)
class Planted:
    """A function with a planted cause, and what has to be found."""

    function: Callable[..., Any]
    arguments: Callable[[], tuple[Any, ...]]
    primitive: str
    at: str  # the text that the operation begins with in the source
    kinds: tuple[str, ...]
    cause: str
    words: tuple[str, ...]  # in the remedy
    index: tuple[int, ...] = ()
    operands: tuple[Any, ...] | None = None
    loops: int = 0


PLANTED: list[Any] = []


def planted(
    arguments: Callable[[], tuple[Any, ...]],
    primitive: str,
    at: str,
    kinds: str,
    cause: str,
    *words: str,
    **more: Any,
) -> Callable[..., Any]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        case = Planted(
            function, arguments, primitive, at, tuple(kinds.split()), cause, words, **more
        )
        PLANTED.append(pytest.param(case, id=function.__name__))
        return function

    return register


def at(*arrays: Any) -> Callable[[], tuple[Any, ...]]:
    return lambda: tuple(map(jnp.asarray, arrays))


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


# Slopes ----------------------------------------------------------------------------------


@planted(
    at(f32(0, 0, 0)),
    "sqrt",
    "jnp.linalg.norm",
    "forward reverse",
    "root at zero",
    "double where",
    "under the root",
    operands=(0.0,),
)
def norm_at_zero(x):
    scaled = 2.0 * x
    return jnp.linalg.norm(scaled)


@planted(
    at(ZERO_ONE),
    "sqrt",
    "jnp.sqrt",
    "reverse",
    "root at zero",
    "double where",
    index=(0,),
    operands=(0.0,),
)
def masked_root(x):
    return jnp.where(x > 0, jnp.sqrt(x), 0.0)


@planted(
    at(ZERO_ONE),
    "div",
    "jnp.sin(x) / x",
    "reverse",
    "0/0",
    "double where",
    "limit",
    index=(0,),
    operands=(0.0, 0.0),
)
def masked_quotient(x):
    return jnp.where(x == 0, 1.0, jnp.sin(x) / x)


@planted(at(ZERO_ONE), "pow", "x**0.5", "forward reverse", "power of zero", "base", index=(0,))
def power_below_one(x):
    return x**0.5


@planted(at(f32(1, 0.5)), "acos", "jnp.arccos", "forward reverse", "edge of the domain", "arctan2")
def angle(x):
    return jnp.arccos(x)[0]


@planted(
    at(f32(1e-30, 1)),
    "div",
    "1.0 / x",
    "forward reverse",
    "division by a small number",
    "jnp.maximum",
    index=(0,),
)
def reciprocal_of_little(x):
    return 1.0 / x


@planted(
    at(np.eye(3, dtype=np.float32)),
    "eigh",
    "jnp.linalg.eigh",
    "forward reverse",
    "degenerate eigenvalues",
    "eigvalsh",
    "tie",
)
def eigenvectors(m):
    return jnp.linalg.eigh(m)[1]


@planted(
    at(f32(100, 1)),
    "mul",
    "jnp.exp(x) * x",
    "reverse",
    "zero times infinity",
    "mask it before",
    index=(0,),
)
def masked_overflow(x):
    return jnp.where(x < 10, jnp.exp(x) * x, 0.0)


# Values ----------------------------------------------------------------------------------


@planted(at(ZERO_ONE), "div", "x / x", "value", "0/0", "limit", index=(0,))
def nought_by_nought(x):
    return x / x


@planted(at(ZERO_ONE), "div", "1.0 / x", "value", "division by zero", "divisor", index=(0,))
def reciprocal_of_zero(x):
    return jnp.exp(-x) * (1.0 / x)


@planted(at(ZERO_ONE), "log", "jnp.log", "value", "logarithm at zero", "xlogy", index=(0,))
def entropy(x):
    return -jnp.sum(x * jnp.log(x))


@planted(at(f32(-1, 1)), "sqrt", "jnp.sqrt", "value", "outside of the domain", "clip", index=(0,))
def root_of_a_negative(x):
    return jnp.sqrt(x)


@planted(at(f32(1000, 1)), "exp", "jnp.exp(x) ", "value", "overflow", "softmax", index=(0,))
def softmax_by_hand(x):
    top = jnp.exp(x) + 0.0
    return top / top.sum()


@planted(
    at(f32(-1, -2)),
    "sub",
    "jax.nn.softmax",
    "value",
    "infinity minus infinity",
    "unmasked",
    index=(0,),
)
def all_masked(x):
    return jax.nn.softmax(jnp.where(x > 0, x, -jnp.inf))


@planted(
    at(np.array([300.0, 1.0], np.float16)),
    "mul",
    "x * x",
    "value",
    "overflow",
    "float32",
    index=(0,),
)
def half_overflow(x):
    return x * x


@planted(
    at(np.array([300.0, 1.0], jnp.bfloat16)),
    "exp",
    "jnp.exp",
    "value",
    "overflow",
    "clip",
    index=(0,),
)
def bfloat_overflow(x):
    return jnp.exp(x)


@planted(
    at(f32(1e5, 1)), "convert_element_type", "x.astype", "value", "overflow", "finfo", index=(0,)
)
def cast_overflow(x):
    return x.astype(jnp.float16) * 2


@planted(at(ZERO_ONE), "add", "x + LIMIT", "value", "constant", "mask")
def infinite_constant(x):
    return x + LIMIT


LIMIT = np.float32(np.inf)


# Inside of others --------------------------------------------------------------------------


@planted(at(f32(3)), "log", "jnp.log", "value", "logarithm at zero", "double where", loops=1)
def in_a_while(x):
    def body(state):
        i, y = state
        return i + 1, jnp.where(i == 2, jnp.log(y - 3.0), y)

    return lax.while_loop(lambda state: state[0] < 7, body, (0, x))[1]


@planted(at(ZERO_ONE), "sqrt", "jnp.sqrt", "forward reverse", "root at zero", "norm", index=(0,))
def in_a_branch(x):
    return lax.cond(x[1] > 0, lambda y: jnp.sqrt(y), lambda y: y / 0.0, x)


@planted(at(ZERO_ONE), "sqrt", "jnp.sqrt", "forward reverse", "root at zero", "norm", index=(0,))
def in_a_checkpoint(x):
    return jax.checkpoint(lambda y: jnp.sqrt(jnp.sin(y)))(x)


@planted(at(ZERO_ONE), "sqrt", "jnp.sqrt", "forward reverse", "root at zero", "norm", index=(0,))
def in_a_nested_jit(x):
    return jax.jit(lambda y: jax.jit(lambda z: jnp.sqrt(z))(y))(x)


@jax.custom_jvp
def _pushed_badly(x):
    return jnp.sqrt(x)


@_pushed_badly.defjvp
def _push_badly(primals, tangents):
    (x,), (t,) = primals, tangents
    return jnp.sqrt(x), t * (1.0 / x)


@planted(
    at(ZERO_ONE),
    "custom_jvp_call",
    "_pushed_badly",
    "forward reverse",
    "custom rule",
    "Mend the rule",
    index=(0,),
)
def custom_jvp_rule(x):
    return _pushed_badly(x) + 0.0


@jax.custom_vjp
def _pulled_badly(x):
    return jnp.sqrt(x)


def _pull_badly(x, cotangent):
    return (cotangent / x,)


_pulled_badly.defvjp(lambda x: (jnp.sqrt(x), x), _pull_badly)


@planted(
    at(ZERO_ONE),
    "custom_vjp_call",
    "_pulled_badly",
    "reverse",
    "custom rule",
    "Mend the rule",
    index=(0,),
)
def custom_vjp_rule(x):
    return _pulled_badly(x) + 0.0


def unwrapped(report):
    """What a report prints, in one line."""
    return " ".join(str(report).split())


def line_and_column(function, text):
    """Where a text is in the body of a function: `tests/a.py:12:4`."""
    lines, first = inspect.getsourcelines(function)
    start = next(i for i, line in enumerate(lines) if line.startswith("def "))
    number = next(i for i, line in enumerate(lines) if i > start and text in line)
    path = Path(inspect.getfile(function)).relative_to(Path.cwd())
    return f"{path}:{first + number}:{lines[number].index(text)}"


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_cause_is_found_at_its_line(case):
    report = adk.find_nonfinite(case.function)(*case.arguments())
    assert not report
    assert [finding.kind for finding in report.findings][: len(case.kinds)] == list(case.kinds)
    for finding in report.findings[: len(case.kinds)]:
        assert finding.primitive == case.primitive
        assert finding.source.split(" (")[0] == line_and_column(case.function, case.at)
        assert finding.line == int(finding.source.split(":")[1])
        assert finding.cause == case.cause
        assert all(word in finding.remedy for word in case.words)
        assert len(finding.loops) == case.loops
        assert finding.outputs == ("output",)
        if case.index:
            assert finding.index == case.index
        if case.operands is not None:
            assert finding.operands == case.operands
        assert not np.isfinite(finding.made)
        assert finding.remedy in unwrapped(report)
    if case.kinds == ("value",):
        assert report.value == ("output",)
        assert not np.all(np.isfinite(case.function(*case.arguments())))
    else:
        assert report.value == ()
