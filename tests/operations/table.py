"""The operations as tables, for the documentation."""

import itertools

import jax
import jax.numpy as jnp

import autodiffkit as adk
from operations.omitted import FUNCTIONS, PRIMITIVES
from operations.registry import OPERATIONS, Operation, parts

_MODULES = {"jss": "jax.scipy.special", "jsl": "jax.scipy.linalg"}
_MODES = {"both": "both", "fwd": "forward", "rev": "reverse"}


def kept_apart(operation: Operation) -> str:
    """Which axes of a batch of the operation are kept apart, by tracing a compact Jacobian of it.

    Returns:
        "entries": all of each operand; "axes": the batch and some more of an operand; "batch"; or
        "none".
    """
    if not operation.batched or operation.alone:
        return "none"
    function, primals = parts(operation, operation.dtypes[0])
    batch = [jnp.stack([x, x]) for x in primals]
    try:
        J = jax.eval_shape(adk.jacobian(jax.vmap(function), layout="compact"), *batch)
    except adk.SelectionError:
        return "none"
    ranks = [x.ndim for x in jax.eval_shape(jax.vmap(function), *batch)]
    shared = list(J.shared_axes.values())
    counts = [len(x) for x in shared]
    width = len(batch)
    if not all(counts):
        connected = [n for n in counts if n]
        return "none" if not connected else "batch"
    full = all(n == ranks[k // width] for k, n in enumerate(counts))
    return "entries" if full else "axes" if max(counts) > 1 else "batch"


def families() -> list[tuple[str, list[Operation]]]:
    """The headings with their operations."""
    groups = itertools.groupby(OPERATIONS.values(), key=lambda x: x.family)
    merged: dict[str, list[Operation]] = {}
    for title, members in groups:
        merged.setdefault(title, []).extend(members)
    return list(merged.items())


def shown(name: str) -> str:
    """A name as code, followed by what is special."""
    head, _, rest = name.partition(", ")
    prefix, dot, last = head.partition(".")
    head = f"{_MODULES.get(prefix, prefix)}{dot}{last}"
    return f"`{head}`" + (f", {rest}" if rest else "")


def rows(operations: list[Operation]) -> str:
    """A table of operations."""
    lines = ["| operation | numbers | JAX's modes | kept apart | notes |", "|---|---|---|---|---|"]
    lines += [
        f"| {shown(x.name)} | {' and '.join(x.kinds)} | {_MODES[x.modes]} | {kept_apart(x)} "
        f"| {_notes(x)} |"
        for x in operations
    ]
    return "\n".join(lines)


def _notes(operation: Operation) -> str:
    found = [operation.note] if operation.note else []
    if operation.alone:
        found.append("JAX pushes single directions only")
    return "; ".join(found)


def tables() -> str:
    """All of them, each under its heading."""
    return "\n\n".join(f"### {title}\n\n{rows(members)}" for title, members in families())


def omitted() -> str:
    """What is left out, by reason."""
    reasons: dict[str, list[str]] = {}
    for name, why in PRIMITIVES.items():
        reasons.setdefault(why, []).append(f"`{name}`")
    for prefix, names in FUNCTIONS.items():
        for name, why in names.items():
            reasons.setdefault(why, []).append(shown(f"{prefix}.{name}"))
    return "\n".join(
        ["| why | what |", "|---|---|"]
        + [f"| {why} | {', '.join(names)} |" for why, names in reasons.items()]
    )
