"""Linear equations applied to data of maps: to arrays, or only counted."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from autodiffkit._arrays import Arrays
from autodiffkit._counts import Computed, Counts
from autodiffkit._jaxprs import alone, among, has_body, is_floating
from autodiffkit._leaves import is_complex
from autodiffkit._maps import Axis, Data, Map, Part, in_order, product
from autodiffkit._naming import calls_custom_rule
from autodiffkit._network import Network
from autodiffkit._program import Linear
from autodiffkit._rule_kinds import Factor

# What each factor of a product goes through by itself, if at all.
_KEEPS_FACTORS = frozenset({"convert_element_type", "copy", "name"})


class EquationArrays(Arrays):
    """The equations of a linear map that is at hand."""

    def __init__(self, linear: Linear, *, keeps_factors: bool = True) -> None:
        self.keeps_factors = keeps_factors
        program = linear.program
        self._linear = program.linear
        inputs = program.jaxpr.invars[: len(program.residuals)]
        self._values: dict[Any, Any] = dict(zip(inputs, linear.residuals, strict=True))
        self._producers = {v: x for x in program.jaxpr.eqns for v in x.outvars}

    def constant(self, equation: Any, factor: Factor) -> Data:
        """As in `Equations`."""
        if factor.constant is None:
            return Data(
                tuple(Part(np.asarray(x, factor.map.dtype), ()) for x, _ in factor.map.data.parts)
            )
        ((_, axes),) = factor.map.data.parts
        value = self._value(equation.invars[factor.constant])
        if factor.kind == "select":
            value = _mask(value, factor.selected)
        sizes = [label.size for label in axes]
        return Data((Part(value if value.shape == (*sizes,) else value.reshape(sizes), axes),))

    def entrywise(
        self, equation: Any, operand: int, given: Map, dtype: Any, *, forward: bool
    ) -> Data:
        """As in `Equations`."""
        name, parts = equation.primitive.name, given.data.parts
        if name in _KEEPS_FACTORS and is_complex(dtype) == is_complex(given.dtype):
            return Data(tuple(self.cast(part, dtype) for part in parts))
        order = in_order(given.outs, given.ins)
        # What is linear can be done to one factor; what is not, over the complex numbers, to all.
        rest = parts[:-1] if name == "neg" else ()
        array, axes = self.whole(parts[len(rest) :], order, given.dtype)

        def run(x: Any) -> Any:
            operands: list[Any] = [
                x if k == operand else jnp.zeros(x.shape, other.aval.dtype)
                for k, other in enumerate(equation.invars)
            ]
            return equation.primitive.bind(*operands, **equation.params)

        array = jnp.asarray(array)
        if not forward:
            struct = jax.ShapeDtypeStruct(array.shape, dtype)
            (array,) = jax.linear_transpose(run, struct)(array)
        else:
            array = run(array)
        return Data((*rest, Part(array, axes)))

    def apply(
        self,
        equation: Any,
        arrays: Mapping[int, tuple[Data, Axis]],
        directions: Axis,
        wanted: Sequence[int],
        *,
        forward: bool,
    ) -> list[Any]:
        """As in `Equations`."""
        ends = equation.invars if forward else equation.outvars
        given: list[Any] = []
        for k, (data, axes) in arrays.items():
            aval = ends[k].aval
            along = directions if set(directions) & set(data.axes) else ()
            order = (*along, *axes)
            whole = self.broadcast(self.whole(data.parts, order, aval.dtype), order)
            shape = (product(along), *aval.shape) if along else aval.shape
            given.append(jnp.reshape(self.cast(whole, aval.dtype).array, shape))
        in_axes = [0 if set(directions) & set(data.axes) else None for data, _ in arrays.values()]
        if forward:
            run = self._pushing(equation, list(arrays), wanted)
        else:
            run = self._pulling(equation, list(arrays), wanted)
        if directions:
            results = jax.vmap(run, in_axes)(*given)
        else:
            if forward and calls_custom_rule(equation):
                # A rule that serves reverse mode refuses only when it is batched, or compiled.
                batch = [jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for x in given]
                jax.eval_shape(jax.vmap(run), *batch)
            results = run(*given)
        return list(results)

    def _pushing(
        self, equation: Any, moving: Sequence[int], wanted: Sequence[int]
    ) -> Callable[..., list[Any]]:
        run = self._applied(equation, moving)
        numbers = [r for r, x in enumerate(equation.outvars) if is_floating(x)]
        return lambda *arrays: [run(*arrays)[numbers.index(r)] for r in wanted]

    def _pulling(
        self, equation: Any, given: Sequence[int], wanted: Sequence[int]
    ) -> Callable[..., list[Any]]:
        # A rule for what holds a program may want to transpose all of it.
        moving = self._moving(equation) if has_body(equation) else list(wanted)
        run = self._applied(equation, moving)
        structs = [_struct(equation.invars[k]) for k in moving]
        outs = [(r, _struct(x)) for r, x in enumerate(equation.outvars) if is_floating(x)]
        pull = jax.linear_transpose(run, *structs)

        def pulled(*arrays: Array) -> list[Any]:
            cotangents = dict(zip(given, arrays, strict=True))
            found = pull([
                cotangents[r] if r in cotangents else jnp.zeros(x.shape, x.dtype) for r, x in outs
            ])
            return [found[moving.index(k)] for k in wanted]

        return pulled

    def _moving(self, equation: Any) -> list[int]:
        flags = among(equation.invars, self._linear)
        return [k for k, x in enumerate(equation.invars) if flags[k] and is_floating(x)]

    def _applied(self, equation: Any, moving: Sequence[int]) -> Callable[..., list[Any]]:
        """The equation as a function of some operands, to its floating-point results."""
        body, operands = alone(equation, is_floating)
        evaluate = jex.jaxpr_as_fun(jex.ClosedJaxpr(body, []))
        constants = {k: self._value(equation.invars[k]) for k in operands if k not in moving}

        def run(*arrays: Any) -> list[Any]:
            given = constants | dict(zip(moving, arrays, strict=True))
            return evaluate(*(given[k] for k in operands))

        return run

    def _value(self, atom: Any) -> Any:
        """The value of what is constant; what moves, but not here, is zero."""
        if isinstance(atom, jex.Literal):
            return np.asarray(atom.val, getattr(atom.aval, "dtype", None))
        if atom in self._linear:
            return jnp.zeros(atom.aval.shape, atom.aval.dtype)
        if atom not in self._values:
            equation = self._producers[atom]
            body, operands = alone(equation, lambda _: True)
            inputs = [self._value(equation.invars[k]) for k in operands]
            results = jex.jaxpr_as_fun(jex.ClosedJaxpr(body, []))(*inputs)
            self._values.update(zip(equation.outvars, results, strict=True))
        return self._values[atom]


class EquationCounts(Counts):
    """The equations of a network, only counted."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._network = network

    def constant(self, equation: Any, factor: Factor) -> Data:
        """As in `Equations`."""
        return Data(tuple(Part(object(), axes) for _, axes in factor.map.data.parts))

    def entrywise(
        self, equation: Any, operand: int, given: Map, dtype: Any, *, forward: bool
    ) -> Data:
        """As in `Equations`."""
        if equation.primitive.name in _KEEPS_FACTORS:
            return given.data
        order = in_order(given.outs, given.ins)
        rest = given.data.parts[:-1] if equation.primitive.name == "neg" else ()
        whole = self.whole(given.data.parts[len(rest) :], order, dtype)
        return Data((*rest, self.fused(whole.axes, whole, dtype=dtype)))

    def apply(
        self,
        equation: Any,
        arrays: Mapping[int, tuple[Data, Axis]],
        directions: Axis,
        wanted: Sequence[int],
        *,
        forward: bool,
    ) -> list[Any]:
        """As in `Equations`."""
        step = self._network.step_of[id(equation)]
        cost = step.push if forward else step.pull
        for data, axes in arrays.values():
            self.write(self.whole(data.parts, (*directions, *axes), np.float32), np.float32)
        self.work = self.work.plus(cost.batch(product(directions)))
        return [Computed() for _ in wanted]


def _mask(value: Any, selected: int) -> Any:
    """Where a choice is this one."""
    if value.dtype != bool:
        return jnp.equal(value, selected)
    return value if selected else jnp.logical_not(value)


def _struct(variable: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype)
