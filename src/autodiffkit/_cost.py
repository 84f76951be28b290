"""What the equations of a linear program cost: operations and bytes, counted, not measured."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
from jax.extend.core import primitives

from autodiffkit._jax_compat import scan_counts
from autodiffkit._jaxprs import among, has_program

# How often a `while_loop` is taken to run, which its program does not say.
_TRIPS = 16

# The bytes that a processor moves in the time of one operation: about a fifth, both on
# processors with few cores and on accelerators (30 TFLOP/s beside 3 TB/s give a tenth).
_OPERATIONS_PER_BYTE = 5.0

# What it costs to start a kernel, in operations: a few microseconds, in which a processor with
# few cores does far less than an accelerator.
_LAUNCH = 6e4
_LAUNCH_OF_ACCELERATORS = 3e7


def launch() -> float:
    """What it costs to start a kernel where JAX computes by default."""
    return _LAUNCH if _is_cpu() else _LAUNCH_OF_ACCELERATORS


def _is_cpu() -> bool:
    return jax.default_backend() == "cpu"


class Cost(NamedTuple):
    """Floating-point operations and bytes of a batch of directions through equations.

    Args:
        flops: Operations of each direction.
        moved: Bytes that each direction reads and writes.
        once_flops: Operations that serve all directions of a batch, such as what a
            checkpointed body computes again.
        once_moved: Bytes that are read once for all directions, such as a matrix.
        kernels: Kernels that are started for a batch. Compilers fuse most equations with
            others; these are those that they do not.
    """

    flops: float = 0.0
    moved: float = 0.0
    once_flops: float = 0.0
    once_moved: float = 0.0
    kernels: float = 0.0

    def times(self, count: float) -> "Cost":
        """The same, so many times."""
        return Cost(*(count * a for a in self))

    def batch(self, directions: int) -> "Work":
        """The work of so many directions in one batch."""
        if not directions:
            return Work()
        return Work(
            self.once_flops + directions * self.flops,
            self.once_moved + directions * self.moved,
            self.kernels,
        )


class Work(NamedTuple):
    """Floating-point operations, bytes moved, and kernels started, altogether."""

    flops: float = 0.0
    moved: float = 0.0
    kernels: float = 0.0

    def plus(self, other: "Work") -> "Work":
        """Both, one after the other."""
        flops, moved, kernels = other
        return Work(self.flops + flops, self.moved + moved, self.kernels + kernels)

    def minus(self, other: "Work") -> "Work":
        """What is left of it without a part."""
        return Work(*(a - b for a, b in zip(self, other, strict=True)))

    def time(self, kernels: float = math.inf) -> float:
        """What it takes, in the time of one operation, if so many kernels cost nothing."""
        launches = max(0.0, self.kernels - kernels)
        return self.flops + _OPERATIONS_PER_BYTE * self.moved + launch() * launches


def total(costs: Iterable[Cost]) -> Cost:
    """All of them, one after the other."""
    sums = [math.fsum(column) for column in zip(*costs, strict=True)]
    return Cost(*sums) if sums else Cost()


def size(atom: Any) -> int:
    """The number of entries."""
    return math.prod(getattr(atom.aval, "shape", ()))


def nbytes(atom: Any) -> int:
    """The number of bytes."""
    return size(atom) * getattr(getattr(atom.aval, "dtype", None), "itemsize", 0)


# Equations ----------------------------------------------------------------------


def equation_cost(equation: Any, linear: Sequence[bool], mode: str) -> Cost:
    """What one equation costs.

    Args:
        equation: An equation of a jaxpr.
        linear: Which of its inputs carry tangents; if none does, all of it is done once.
        mode: `"fwd"` to push through it, `"rev"` to pull.
    """
    name = equation.primitive.name
    if name not in _ALIKE:
        bodies = _BODIES.get(equation.primitive)
        if bodies is not None:
            return bodies(equation, linear, mode)
        for inner in jex.jaxprs_in_params(equation.params):
            if len(inner.invars) == len(equation.invars):
                return _body_cost(inner, linear, mode)[0]
    flops = _FLOPS.get(name, _elementwise)(equation)
    results = float(sum(map(nbytes, equation.outvars)))
    inputs = [0 if isinstance(x, jex.Literal) else nbytes(x) for x in equation.invars]
    kernels = float(_UNFUSED.get((name, mode), lambda _: name in _ALONE)(equation))
    if not any(linear):
        return Cost(0.0, 0.0, flops, results + sum(inputs), kernels)
    moving: float = sum(n for n, flag in zip(inputs, linear, strict=True) if flag)
    once = sum(inputs) - moving
    if name in _PARTS:
        # Pushing reads no more than it writes; pulling adds to an array of the whole size.
        if mode == "fwd":
            moving = results
        else:
            flops += _PADDED * size(equation.invars[0])
    return Cost(flops, results + moving, 0.0, once, kernels)


def equation_costs(equation: Any, linear: Sequence[bool]) -> tuple[Cost, Cost]:
    """What it costs to push, and to pull, through one equation."""
    push = equation_cost(equation, linear, "fwd")
    if equation.primitive.name in _ALIKE:
        return push, push
    return push, equation_cost(equation, linear, "rev")


def trailing_batch(equation: Any, linear: Sequence[bool]) -> float:
    """Whether directions along the last axis suit an equation: positive if so, by its weight.

    A product `W @ x` leaves them there; `x @ W`, convolutions and loops have them first, and
    whatever is elementwise takes either.
    """
    if equation.primitive is primitives.dot_general_p:
        return _dot_general(equation) * (1 if linear[1] and not linear[0] else -1)
    if equation.primitive.name == "conv_general_dilated":
        return -_convolution(equation)
    if equation.primitive.name not in _ALIKE and has_program(equation):
        cost = equation_cost(equation, linear, "fwd")
        return -max(cost.flops, 1.0)
    return 0.0


def _body_cost(jaxpr: Any, linear: Sequence[bool], mode: str) -> tuple[Cost, list[bool]]:
    """The cost of a nested jaxpr, and which of its outputs carry tangents."""
    tangents = {v for v, flag in zip(jaxpr.invars, linear, strict=True) if flag}
    costs: list[Cost] = []
    for equation in jaxpr.eqns:
        flags = among(equation.invars, tangents)
        costs.append(equation_cost(equation, flags, mode))
        if equation.primitive is primitives.dot_general_p and sum(flags) == 1:
            costs.append(_leading_batch(equation, flags, mode))
        if any(flags):
            tangents.update(equation.outvars)
    return total(costs), among(jaxpr.outvars, tangents)


def _leading_batch(equation: Any, linear: Sequence[bool], mode: str) -> Cost:
    """What a product costs more where directions come first, as they do in a body.

    Pushed through `W @ x`, and pulled through `x @ W`, they come out last and are moved.
    """
    moved = equation.outvars[0] if mode == "fwd" else equation.invars[0]
    if linear[1] if mode == "fwd" else linear[0]:
        return Cost(moved=2.0 * nbytes(moved))
    return Cost()


def _scan(equation: Any, linear: Sequence[bool], mode: str) -> Cost:
    parameters = equation.params
    start, carried = scan_counts(equation)
    carry = slice(start, start + carried)
    return _loop(parameters["jaxpr"].jaxpr, linear, mode, carry).times(parameters["length"])


def _while(equation: Any, linear: Sequence[bool], mode: str) -> Cost:
    parameters = equation.params
    start = parameters["body_nconsts"]
    flags = linear[parameters["cond_nconsts"] :]
    return _loop(parameters["body_jaxpr"].jaxpr, flags, mode, slice(start, None)).times(_TRIPS)


def _loop(body: Any, linear: Sequence[bool], mode: str, carry: slice) -> Cost:
    flags = list(linear)
    while True:
        cost, results = _body_cost(body, flags, mode)
        before = flags[carry]
        flags[carry] = [a or b for a, b in zip(before, results, strict=False)]
        if flags[carry] == before:
            return cost._replace(kernels=_kernels_of_step(cost, mode))


def _kernels_of_step(cost: Cost, mode: str) -> float:
    """The kernels of a step of a loop: on an accelerator, all that some loops take.

    What is pushed goes along in the loop of the values. What is pulled takes a loop that stores
    residuals, and one back. A CPU starts none for the small arrays of loops.
    """
    if _is_cpu():
        return 0.0
    return max(cost.kernels, 1.0) * (1 if mode == "fwd" else 2)


def _cond(equation: Any, linear: Sequence[bool], mode: str) -> Cost:
    branches = [_body_cost(b.jaxpr, linear[1:], mode)[0] for b in equation.params["branches"]]
    return max(branches, key=lambda cost: cost.batch(1).time())


def _linear_solve(equation: Any, _: Sequence[bool], mode: str) -> Cost:
    solve = equation.params["jaxprs"].solve.jaxpr
    count = len(equation.outvars)
    flags = [False] * (len(solve.invars) - count) + [True] * count
    return _body_cost(solve, flags, mode)[0]


_BODIES: dict[Any, Callable[[Any, Sequence[bool], str], Cost]] = {
    primitives.scan_p: _scan,
    primitives.while_p: _while,
    primitives.cond_p: _cond,
    primitives.linear_solve_p: _linear_solve,
}


# Operations -----------------------------------------------------------------------


def _elementwise(equation: Any) -> float:
    # A callback may have neither.
    return float(max(map(size, (*equation.outvars, *equation.invars)), default=0))


def _dot_general(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return 2.0 * size(equation.outvars[0]) * math.prod(shape[axis] for axis in contracted)


def _convolution(equation: Any) -> float:
    kernel = equation.invars[1].aval.shape
    features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return 2.0 * size(equation.outvars[0]) * math.prod(kernel) / max(1, features)


def _fft(equation: Any) -> float:
    count = max(size(equation.invars[0]), size(equation.outvars[0]))
    lengths = math.prod(equation.params["fft_lengths"])
    return 5.0 * count * math.log2(max(2, lengths))


def _sorted(equation: Any) -> float:
    return _elementwise(equation) * math.log2(max(2, size(equation.outvars[0])))


def _triangular_solve(equation: Any) -> float:
    return float(size(equation.invars[1]) * equation.invars[0].aval.shape[-1])


def _factorisation(equation: Any) -> float:
    shape = equation.invars[0].aval.shape
    return float(size(equation.invars[0]) * min(shape[-2:]))


def _movement(_: Any) -> float:
    return 0.0


_MOVEMENTS = (
    *("broadcast_in_dim", "reshape", "transpose", "squeeze", "expand_dims", "copy", "rev", "pad"),
    *("concatenate", "stack", "unstack", "split", "slice", "dynamic_slice", "gather"),
    *("dynamic_update_slice", "convert_element_type", "real", "imag", "complex"),
)

_FLOPS: dict[str, Callable[[Any], float]] = {
    "dot_general": _dot_general,
    "conv_general_dilated": _convolution,
    "fft": _fft,
    "sort": _sorted,
    "cumsum": _sorted,
    "triangular_solve": _triangular_solve,
    **dict.fromkeys(("cholesky", "lu", "qr", "eigh", "svd", "eig"), _factorisation),
    **dict.fromkeys(_MOVEMENTS, _movement),
}

# What takes a part of an array.
_PARTS = frozenset({"slice", "dynamic_slice", "gather", "split", "unstack"})

# What an entry of a part costs that is padded and added, in operations: XLA asks of each entry of
# the whole whether it lies in the part (0.19 ns on a CPU, whatever the size of the part is).
_PADDED = 7.0

# XLA fuses up to so many parts with their concatenation.
_FUSED_PARTS = 8

# The most frequent of those without a body that cost the same in either direction.
_ALIKE = frozenset({
    *("mul", "add", "sub", "neg", "div", "add_any", "dot_general", "convert_element_type"),
    *("broadcast_in_dim", "reshape", "transpose", "reduce_sum", "squeeze", "select_n"),
})

# What is a kernel of its own, and what makes kernels of the equations before it.
_ALONE = frozenset({
    *("dot_general", "conv_general_dilated", "fft", "sort", "cumsum", "scatter-add", "scatter"),
    *("triangular_solve", "cholesky", "lu", "qr", "eigh", "svd", "eig"),
})
_UNFUSED: dict[tuple[str, str], Callable[[Any], int]] = {
    ("concatenate", "fwd"): lambda equation: _kernels_of_parts(len(equation.invars)),
    ("stack", "fwd"): lambda equation: _kernels_of_parts(len(equation.invars)),
    ("gather", "rev"): lambda _: 1,  # scatters
}


def _kernels_of_parts(count: int) -> int:
    return count if count > _FUSED_PARTS else 0
