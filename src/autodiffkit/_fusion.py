"""What compilers fuse: results that are computed where they are read, and never written."""

from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from autodiffkit._cost import Cost, Work, nbytes, total
from autodiffkit._network import Network, Step

# What is done entry by entry, or only moves entries, is computed where it is read.
_ENTRYWISE = frozenset({
    *("mul", "div", "neg", "add", "add_any", "sub", "select_n", "convert_element_type"),
    *("real", "imag", "complex", "reshape", "squeeze", "expand_dims", "transpose", "copy"),
    *("slice", "pad", "rev"),
})
_FUSED: Mapping[str, frozenset[str]] = {
    "fwd": _ENTRYWISE | {"broadcast_in_dim"},
    "rev": _ENTRYWISE | {"reduce_sum"},  # a broadcast, pulled
}

# What reads such results without their being written.
_READERS = _ENTRYWISE | {"broadcast_in_dim", "reduce_sum"}


def is_fused(name: str, mode: str) -> bool:
    """Whether a primitive is computed where its result is read."""
    return name in _FUSED[mode]


def reads_fused(name: str) -> bool:
    """Whether a primitive reads such results without their being written."""
    return name in _READERS


# By network, for as long as it exists, and mode: the costs of its steps.
_KNOWN: WeakKeyDictionary[Network, dict[str, list[Cost]]] = WeakKeyDictionary()


def fused_costs(network: Network, mode: str) -> list[Cost]:
    """What each step of a network takes in a sweep of all of them, from end to end.

    Args:
        network: The program.
        mode: `"fwd"` to push, `"rev"` to pull.

    Returns:
        By step: its cost, where what compilers fuse is neither written nor read again.
    """
    known = _KNOWN.setdefault(network, {})
    if mode not in known:
        known[mode] = _fused_costs(network, mode)
    return known[mode]


def sweep_work(network: Network, steps: Iterable[int], mode: str, count: int) -> Work:
    """What so many directions in one batch take through some steps."""
    costs = fused_costs(network, mode)
    return total(costs[i] for i in steps).batch(count)


def _fused_costs(network: Network, mode: str) -> list[Cost]:
    forward = mode == "fwd"
    names = [network.program.jaxpr.eqns[step.equation].primitive.name for step in network.steps]
    makers: dict[int, list[str]] = {}
    readers: dict[int, list[str]] = {}
    places: dict[int, int] = {}  # where a variable is read: pulled through a sum, it goes on twice
    for step, name in zip(network.steps, names, strict=True):
        before, after = _ends(step, forward)
        for v in before:
            readers.setdefault(v, []).append(name)
            places[v] = places.get(v, 0) + (1 if forward else len(after))
        for v in after:
            makers.setdefault(v, []).append(name)
    last = {*network.ends[1 if forward else 0]}
    padding = "pad" if forward else "slice"  # a slice, pulled

    def is_padded(v: int) -> bool:
        """Whether a variable was padded and is read at several places: XLA writes it."""
        return padding in makers.get(v, ()) and places.get(v, 0) > 1

    def is_made_here(v: int) -> bool:
        """Whether a variable is computed where it is read."""
        return _FUSED[mode].issuperset(makers.get(v, ())) and not is_padded(v)

    seen: set[int] = set()
    summed: set[int] = set()

    def are_read(variables: Iterable[int]) -> float:
        """The bytes of what is not an identity nor computed here, nor read for another step."""
        new = [v for v in variables if v not in seen]
        seen.update(new)
        return _bytes(network, (v for v in new if not is_made_here(v)))

    def are_written(variables: Iterable[int]) -> float:
        """The bytes of what has to be there; the parts of a sum are not, only the sum."""
        kept = [
            v
            for v in variables
            if v not in summed
            and (v in last or not is_made_here(v) or not _READERS.issuperset(readers[v]))
        ]
        summed.update(v for v in kept if is_made_here(v) or is_padded(v))
        return _bytes(network, kept)

    costs: list[Cost] = []
    alike: dict[Cost, Cost] = {}  # each once: a program has many steps, and few kinds of them
    for step, name in zip(network.steps, names, strict=True):
        cost = step.push if forward else step.pull
        if name in _READERS:
            before, after = _ends(step, forward)
            kernels = cost.kernels
            if name in _FUSED[mode]:
                kernels += sum(is_padded(v) and v not in summed and v not in last for v in after)
                written = are_written(after)
            else:
                written = _bytes(network, after)
            cost = cost._replace(moved=are_read(before) + written, kernels=kernels)
        costs.append(alike.setdefault(cost, cost))
    return costs


def _ends(step: Step, forward: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (step.inputs, step.outputs) if forward else (step.outputs, step.inputs)


def _bytes(network: Network, variables: Iterable[int]) -> float:
    avals: list[Any] = [network.variables[v] for v in variables]
    return float(sum(map(nbytes, avals)))
