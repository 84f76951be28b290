"""Linear programs inside of `jax.shard_map`: derivatives of what one device computes."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.extend.core as jex

from autodiffkit._errors import RefusalError
from autodiffkit._jax_compat import struct_of, typed, varying, varying_struct
from autodiffkit._jaxprs import alone, inlined


def local(jaxpr: Any, arity: int) -> Any:
    """A linear program whose inputs vary from device to device wherever its outputs do.

    Inside of `jax.shard_map` a value may be the same on all devices, as parameters are, and be
    joined with values that differ. Pushed forward, a direction gives the derivative of what each
    device computes. Pulled back, the shares of all devices are added up: JAX's two modes disagree.
    Where the inputs count as the device's own, both modes give what pushing does.

    Args:
        jaxpr: A jaxpr without constants that is linear in its last inputs.
        arity: How many these are.

    Returns:
        The program; the same one where nothing varies, or nothing else does.

    Raises:
        RefusalError: If one output varies along an axis of the mesh and another does not,
            or the program cannot be traced so.
    """
    sources, targets = jaxpr.invars[len(jaxpr.invars) - arity :], jaxpr.outvars
    ends = [varying(x.aval) for x in targets]
    every = frozenset[str]().union(*ends)
    if all(every <= varying(x.aval) for x in sources):
        return jaxpr
    axes = ", ".join(map(repr, sorted(every)))
    if any(every != end for end in ends):
        raise RefusalError(
            f"inside jax.shard_map, one output varies along {axes} and another does not, so that "
            "derivatives by what is the same on all devices are of two kinds"
        )
    moving = {x: varying_struct(x.aval, every) for x in sources}
    try:
        closed = jax.make_jaxpr(_evaluated(jaxpr))(
            *(moving.get(x, struct_of(x.aval)) for x in jaxpr.invars)
        )
    except Exception as error:
        raise RefusalError(
            f"inside jax.shard_map, what is the same along {axes} enters an operation that holds a "
            "program; make it vary first with jax.lax.pcast(..., to='varying')"
        ) from error
    return inlined(closed)[0]


def _evaluated(jaxpr: Any) -> Any:
    """The program as a function that takes inputs that vary along more axes."""

    def run(*inputs: Any) -> list[Any]:
        values: dict[Any, Any] = dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, jex.Literal) else values[atom]

        for equation in jaxpr.eqns:
            if equation.primitive.name == "pvary":
                results = [
                    typed(read(x), varying_struct(x.aval, equation.params["axes"]))
                    for x in equation.invars
                ]
            else:
                body, operands = alone(equation, lambda _: True)
                given = [read(equation.invars[k]) for k in operands]
                results = jex.jaxpr_as_fun(jex.ClosedJaxpr(body, []))(*_alike(given))
            values.update(zip(equation.outvars, results, strict=True))
        return [read(x) for x in jaxpr.outvars]

    return run


def _alike(values: Sequence[Any]) -> list[Any]:
    """Values that vary along the same axes, as the operands of a primitive have to."""
    every = frozenset[str]().union(*(varying(jax.typeof(x)) for x in values))
    return [typed(x, varying_struct(jax.typeof(x), every)) for x in values]
