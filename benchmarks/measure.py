"""Timing: variants visited in random order within each repeat, so that all see the same noise."""

import inspect
import math
import random
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from peers import PARTIAL, matrix, package, peers
from problem import Problem

import autodiffkit as adk

OURS = "adk"
BY_HAND = "by hand"
JAX = "JAX"
PLAIN_MODES = ("fwd", "rev", "hessian", "rev of rev")

_BUDGET = 2.0  # seconds for the repeats of one problem
_FIRST_BUDGET = 2.0  # seconds after which no first call is repeated
_FIRST_ROUNDS = 3
_SAMPLE = 200e-6  # seconds; a call that takes less is timed in batches
_BATCH = 20  # calls at most in one sample
_REPEATS = range(9, 501)  # as few and as many as the budget may choose
_HOPELESS = 4.0  # a plain mode this many times slower than the other is not timed further


class Spread(NamedTuple):
    """The quartiles of a sample."""

    low: float
    median: float
    high: float


class Timing(NamedTuple):
    """Seconds: the median of many calls, and tracing, lowering and compiling before them.

    `warm` comes from a few calls where the mode was too slow to be timed further, and is
    `None` where only first calls count. `temporaries` are the bytes that XLA counts.
    """

    warm: float | None
    first: float
    temporaries: int | None = None


class PlanInShort(NamedTuple):
    """The fields of a plan that are for programs."""

    mode: str
    forward_sweeps: int
    reverse_sweeps: int
    cut_size: int

    def __str__(self) -> str:
        sweeps = {"fwd": self.forward_sweeps, "rev": self.reverse_sweeps}
        return " + ".join(f"{name} {count}" for name, count in sweeps.items() if count) or "none"


class Peer(NamedTuple):
    """The best way of another package: its times over ours, and its temporaries over ours.

    The last is `None` where ours has none.
    """

    way: str
    ratio: Spread
    first_ratio: float
    temporaries_ratio: float | None


class Result(NamedTuple):
    """What was measured of a problem.

    `best` is the better plain mode, or what was written by hand where there is none. `ratio` is
    its time over ours, from pairs of the same repeat; above 1 we were faster. `over_hand` is our
    time over that of what was written by hand. `first_ratio` is our first call over that of
    `best`, `deviation` the largest difference between the blocks, relative to the largest
    entry. Without anything to compare with, these are `None`. `peers` has the time of the best
    way of each other package over ours, and `raised` the ways that raise.
    """

    timings: dict[str, Timing]
    plan: PlanInShort
    best: str | None = None
    ratio: Spread | None = None
    over_hand: Spread | None = None
    first_ratio: float | None = None
    deviation: float | None = None
    repeats: int = 0
    batch: int = 0
    peers: dict[str, Peer] | None = None
    raised: tuple[str, ...] = ()


def compare(
    problem: Problem,
    repeats: int | None = None,
    *,
    with_peers: bool = False,
    every: bool = False,
) -> Result:
    """Times the variants of a problem; without a number of repeats, as many as fit.

    With peers, or if `every` variant is wanted, a plain mode that is hopeless is timed, too.
    """
    functions = variants(problem) | (peers(problem) if with_peers else {})
    possible = {
        name: function
        for name, function in functions.items()
        if name in (OURS, BY_HAND) or _is_possible(function, problem.arguments)
    }
    raised = tuple(name for name in functions if name not in possible)
    calls, first = first_calls(problem, possible)
    if list(calls) == [OURS]:
        warm = interleaved(calls, problem.arguments, repeats or _REPEATS[0], 1)[OURS]
        timing = _timing(calls[OURS], statistics.median(warm), first[OURS])
        return Result({OURS: timing}, plan_of(problem), raised=raised)
    values = {name: jax.block_until_ready(call(*problem.arguments)) for name, call in calls.items()}
    pilot = {name: _pilot(call, problem.arguments) for name, call in calls.items()}
    kept = list(pilot) if with_peers or every else _worth_timing(pilot)
    batch = min(_BATCH, math.ceil(_SAMPLE / min(pilot.values())))
    if repeats is None:
        fitting = int(_BUDGET / (batch * sum(pilot[name] for name in kept)))
        repeats = min(max(fitting, _REPEATS[0]), _REPEATS[-1])
    warm = interleaved({name: calls[name] for name in kept}, problem.arguments, repeats, batch)
    medians = {**pilot, **{name: statistics.median(seconds) for name, seconds in warm.items()}}
    best = min(_plain(warm) or [BY_HAND], key=medians.__getitem__)
    if PARTIAL in values:
        values[PARTIAL] = values[PARTIAL].todense()
    others = {best, BY_HAND} & set(values)
    timings = {name: _timing(call, medians[name], first[name]) for name, call in calls.items()}
    return Result(
        timings=timings,
        plan=plan_of(problem),
        best=best,
        ratio=ratio_of(warm[best], warm[OURS]),
        over_hand=ratio_of(warm[OURS], warm[BY_HAND]) if BY_HAND in warm else None,
        first_ratio=first[OURS] / first[best],
        deviation=max(
            *(deviation(values[OURS], values[name]) for name in others),
            *_deviations_of_peers(problem, values),
        ),
        repeats=repeats,
        batch=batch,
        peers=_best_of_packages(warm, timings),
        raised=raised,
    )


def _deviations_of_peers(problem: Problem, values: dict[str, Any]) -> list[float]:
    whole = [name for name in values if name not in (OURS, BY_HAND, PARTIAL, *PLAIN_MODES)]
    found = [deviation(values[name], values[OURS]) for name in whole]
    if PARTIAL in values:
        found.append(deviation(values[PARTIAL], matrix(problem)))
    return [0.0, *found]


def _best_of_packages(warm: dict[str, list[float]], timings: dict[str, Timing]) -> dict[str, Peer]:
    ways: dict[str, list[str]] = {}
    for name in warm:
        if name not in (OURS, BY_HAND):
            library = JAX if name in PLAIN_MODES else package(name)
            ways.setdefault(library, []).append(name)
    best = {
        name: min(of, key=lambda way: statistics.median(warm[way])) for name, of in ways.items()
    }
    return {
        name: Peer(
            way,
            ratio_of(warm[way], warm[OURS]),
            timings[way].first / timings[OURS].first,
            _temporaries_ratio(timings[way], timings[OURS]),
        )
        for name, way in best.items()
    }


def _temporaries_ratio(theirs: Timing, ours: Timing) -> float | None:
    if not ours.temporaries or theirs.temporaries is None:
        return None
    return theirs.temporaries / ours.temporaries


def _is_possible(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
    """Whether JAX differentiates in this mode: some rules serve one of them only."""
    try:
        jax.eval_shape(function, *arguments)
    except Exception:  # whatever a rule raises
        return False
    return True


def _timing(call: Any, warm: float, first: float) -> Timing:
    analysis = call.memory_analysis()
    return Timing(warm, first, None if analysis is None else int(analysis.temp_size_in_bytes))


def compare_first_calls(problem: Problem, *, slow: bool) -> Result:
    """Times first calls only; those of JAX, forward, if slowness is welcome."""
    wanted = (OURS, "fwd") if slow else (OURS,)
    # The result as it is returned: to ask for all blocks at once is what takes so long.
    every = {**variants(problem), OURS: adk.jacobian(problem.function)}
    _, first = first_calls(problem, {name: every[name] for name in wanted})
    timings = {name: Timing(None, seconds) for name, seconds in first.items()}
    ratio = first[OURS] / first["fwd"] if slow else None
    return Result(timings, plan_of(problem), "fwd" if slow else None, first_ratio=ratio)


def variants(problem: Problem) -> dict[str, Callable[..., Any]]:
    """The derivative by all arguments: ours, plain JAX's, and what was written by hand."""
    names = list(inspect.signature(problem.function).parameters)
    argnums = problem.argnums
    transform = _transform(problem)

    def blocks(*arguments: Any) -> Any:
        # Blocks alone on all sides: the value, which comes along here, would be extra there.
        result = transform(*arguments)
        if problem.layout == "dense":
            return result.to_jax(argnums)
        return result[names[0]] if argnums == 0 else tuple(result[name] for name in names)

    found = {OURS: blocks, **_plain_modes(problem, argnums)}
    if problem.by_hand is not None:
        found[BY_HAND] = problem.by_hand.function
    return found


def _plain_modes(problem: Problem, argnums: int | tuple[int, ...]) -> dict[str, Callable[..., Any]]:
    if problem.layout != "dense":
        return {}
    f = problem.function
    if problem.order == 1:
        return {"fwd": jax.jacfwd(f, argnums), "rev": jax.jacrev(f, argnums)}
    twice = jax.jacrev(jax.jacrev(f, argnums), argnums)
    return {"hessian": jax.hessian(f, argnums), "rev of rev": twice}


def _transform(problem: Problem) -> Callable[..., Any]:
    make: Callable[..., Any] = adk.jacobian if problem.order == 1 else adk.hessian
    options = {} if problem.layout == "dense" else {"layout": problem.layout}
    return make(problem.function, **options)


def plan_of(problem: Problem) -> PlanInShort:
    """The plan that our variant follows."""
    transform: Any = _transform(problem)
    plan = transform.plan(*problem.arguments)
    return PlanInShort(plan.mode, plan.forward_sweeps, plan.reverse_sweeps, plan.cut_size)


def first_calls(
    problem: Problem, functions: dict[str, Callable[..., Any]]
) -> tuple[dict[str, Callable[..., Any]], dict[str, float]]:
    """Compiles each function, several times if that is quick, and says how long it took.

    All caches are emptied before each, or the first one would trace for those after it.
    """
    calls: dict[str, Callable[..., Any]] = {}
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    order = list(functions.items())
    shuffle = random.Random(0).shuffle
    begin = time.perf_counter()
    for _ in range(_FIRST_ROUNDS):
        shuffle(order)
        for name, function in order:
            jax.clear_caches()
            start = time.perf_counter()
            calls[name] = jax.jit(function).lower(*problem.arguments).compile()
            seconds[name].append(time.perf_counter() - start)
        if time.perf_counter() - begin > _FIRST_BUDGET:
            break
    in_order = {name: calls[name] for name in functions}
    return in_order, {name: statistics.median(seconds[name]) for name in functions}


def _plain(names: Iterable[str]) -> list[str]:
    return [name for name in names if name in PLAIN_MODES]


def _worth_timing(pilot: dict[str, float]) -> list[str]:
    """All variants but the plain modes that are far behind the other."""
    fastest = min((pilot[name] for name in _plain(pilot)), default=0.0)
    hopeless = [name for name in _plain(pilot) if pilot[name] > _HOPELESS * fastest]
    return [name for name in pilot if name not in hopeless]


def interleaved(
    calls: dict[str, Callable[..., Any]],
    arguments: tuple[Any, ...],
    repeats: int,
    batch: int,
    *,
    wait: Callable[[Any], Any] = jax.block_until_ready,
) -> dict[str, list[float]]:
    """Seconds a call, by variant and repeat; each repeat visits all variants.

    What is returned is waited for as `wait` does.
    """
    warm: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls.items())
    shuffle = random.Random(0).shuffle
    for _ in range(repeats):
        shuffle(order)  # or the one after the slowest would always find the caches cold
        for name, call in order:
            warm[name].append(_sample(call, arguments, batch, wait))
    return warm


def _sample(
    call: Callable[..., Any],
    arguments: tuple[Any, ...],
    batch: int,
    wait: Callable[[Any], Any] = jax.block_until_ready,
) -> float:
    start = time.perf_counter()
    for _ in range(batch):
        wait(call(*arguments))
    return (time.perf_counter() - start) / batch


def _pilot(call: Callable[..., Any], arguments: tuple[Any, ...]) -> float:
    return statistics.median(_sample(call, arguments, 1) for _ in range(5))


def ratio_of(numerator: list[float], denominator: list[float]) -> Spread:
    """The quartiles of the ratios within a repeat."""
    return spread([a / b for a, b in zip(numerator, denominator, strict=True)])


def spread(values: list[float]) -> Spread:
    """The quartiles; of a single value, the value."""
    return Spread(*statistics.quantiles(values)) if len(values) > 1 else Spread(*values * 3)


def deviation(ours: Any, theirs: Any) -> float:
    """The largest difference of two results, relative to the largest entry; `inf` for NaN.

    Raises:
        ValueError: If their structures or shapes differ.
    """
    if jax.tree.map(jnp.shape, ours) != jax.tree.map(jnp.shape, theirs):
        raise ValueError("The results to compare have different structures.")
    pairs = list(zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))
    scale = max(float(jnp.max(jnp.abs(b))) for _, b in pairs) or 1.0
    worst = [float(jnp.max(jnp.abs(a - b))) / scale for a, b in pairs]
    return math.inf if any(math.isnan(value) for value in worst) else max(worst)
