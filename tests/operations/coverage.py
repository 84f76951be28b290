"""Which primitives the operations have, and which are left out."""

import functools
from typing import Any

import jax
import jax.extend.core as jex
from jax.interpreters import ad

from operations.registry import OPERATIONS, Operation, parts

# What JAX differentiates without an entry in its table of primitives.
OTHERS = {"custom_jvp_call", "custom_vjp_call", "shard_map"}


@functools.cache
def primitives_of(operation: Operation) -> frozenset[str]:
    """The primitives that depend on the inputs of an operation, also in programs inside."""
    dtype = operation.dtypes[0]
    function, primals = parts(operation, dtype)
    found: set[str] = set()

    def visit(jaxpr, moving):
        moving = set(moving)
        for equation in jaxpr.eqns:
            inputs = [x for x in equation.invars if not isinstance(x, jex.Literal)]
            if moving.isdisjoint(inputs):
                continue
            found.add(equation.primitive.name)
            moving.update(equation.outvars)
            for body in jex.jaxprs_in_params(equation.params):
                visit(body, body.invars)

    jaxpr = jax.make_jaxpr(function)(*primals).jaxpr
    visit(jaxpr, jaxpr.invars)
    return frozenset(found)


def cover() -> list[Operation]:
    """Few operations that have all primitives with derivatives, but for those that take long."""
    known = OTHERS | {primitive.name for primitive in ad.primitive_jvps}
    quick = [x for x in OPERATIONS.values() if not x.slow]
    left = known & set().union(*map(primitives_of, quick))
    chosen = []
    # Simple operations first: what they have, larger ones need not be asked for.
    for operation in sorted(quick, key=lambda x: len(primitives_of(x))):
        if left & primitives_of(operation):
            left -= primitives_of(operation)
            chosen.append(operation)
    return chosen


def functions_of(module: Any) -> set[str]:
    """The public functions of a module."""
    return {
        name
        for name in dir(module)
        if name[0].islower() and not name.endswith("_p") and _is_function(module, name)
    }


def _is_function(module: Any, name: str) -> bool:
    value = getattr(module, name)
    return callable(value) and not isinstance(value, type) and hasattr(value, "__name__")


def registered(prefix: str) -> set[str]:
    """The functions of a module that are in the registry, also among other words of a name."""
    words = {word for name in OPERATIONS for word in name.split(", ")}
    start = f"{prefix}."
    return {word.removeprefix(start) for word in words if word.startswith(start)}
