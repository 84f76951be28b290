"""What an operation is: a function, inputs where it is smooth, and how JAX differentiates it."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

Modes = Literal["both", "fwd", "rev"]


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation of JAX with the inputs at which it is differentiated.

    Args:
        name: What users call it.
        family: Under which heading it is listed.
        function: The operation of its arrays; it returns arrays in any structure.
        inputs: Makes the arrays in a dtype; what is not floating is held constant.
        kinds: "real", "complex" or both: which dtypes it takes.
        modes: In which modes JAX itself differentiates it.
        holomorphic: Whether it is, on complex arrays.
        smooth: Whether there is a second derivative in JAX.
        batched: Whether `jax.vmap` takes it.
        alone: Whether a single direction is all that JAX pushes through it, and no batch.
        combined: Whether several directions can be pushed through it, as part of a program. It
            cannot be where JAX calls a rule of the user's with nothing that is batched.
        cut: Whether a cut beside it pays, where it is part of a program.
        exact: Whether central differences show the derivative, which a rule may define freely.
        slow: Whether it takes so long to compile that it is left to the complete run.
        strict: Whether its rules in JAX keep to strict promotion of dtypes.
        note: What the table says of it.
        scale: By how much rounding is larger than usual.
        coarse: The relative error of an operation that rounds to few bits.
    """

    name: str
    family: str
    function: Callable[..., Any]
    inputs: Callable[[Any], tuple[Any, ...]]
    kinds: tuple[str, ...] = ("real",)
    modes: Modes = "both"
    holomorphic: bool = True
    smooth: bool = True
    batched: bool = True
    alone: bool = False
    combined: bool = True
    cut: bool = True
    exact: bool = True
    slow: bool = False
    strict: bool = True
    note: str = ""
    scale: float = 1.0
    coarse: float = 0.0

    @property
    def dtypes(self) -> tuple[str, ...]:
        """All dtypes that it takes."""
        widths = {"real": ("float32", "float64"), "complex": ("complex64", "complex128")}
        return tuple(dtype for kind in self.kinds for dtype in widths[kind])

    def arrays(self, dtype: str) -> tuple[Any, ...]:
        """Its inputs in a dtype."""
        return tuple(jnp.asarray(x) for x in self.inputs(dtype))

    def floats(self, *arrays: Any) -> list[Any]:
        """What it returns, but for integers and booleans, in the precision of the inputs."""
        # Functions of JAX do not all keep to the strict promotion that the tests ask for.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            leaves = [jnp.asarray(x) for x in jax.tree.leaves(self.function(*arrays))]
        return [x for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]

    def __str__(self) -> str:
        return self.name


OPERATIONS: dict[str, Operation] = {}

REAL, COMPLEX, BOTH = ("real",), ("complex",), ("real", "complex")


def family(title: str) -> Callable[..., None]:
    """What registers operations under a heading."""
    return functools.partial(_register, title)


def _register(
    title: str,
    name: str,
    function: Callable[..., Any],
    *operands: Any,
    low: float = 0.3,
    high: float = 1.3,
    **options: Any,
) -> None:
    """Registers an operation.

    Args:
        title: The family.
        name: The name; it may be followed by what is special, after a comma.
        function: The operation.
        *operands: The shape of each, with numbers between `low` and `high`; a function that makes
            it in a dtype; or an array that is held constant.
        low: See above.
        high: See above.
        **options: As of `Operation`.
    """
    assert name not in OPERATIONS, name

    def inputs(dtype: Any) -> tuple[Any, ...]:
        made = []
        for i, operand in enumerate(operands):
            if isinstance(operand, tuple):
                made.append(numbers(operand, dtype, low, high, start=7 * i))
            else:
                made.append(operand(dtype) if callable(operand) else operand)
        return tuple(made)

    OPERATIONS[name] = Operation(name, title, function, inputs, **options)


# Inputs -------------------------------------------------------------------------------


def numbers(
    shape: Sequence[int], dtype: Any, low: float = 0.3, high: float = 1.3, start: int = 0
) -> Any:
    """Numbers in no order, no two of them equal; complex ones have small imaginary parts."""
    size = int(np.prod(shape))
    steps = np.arange(1 + start, 1 + start + size)
    values = low + (high - low) * ((steps * 0.6180339887) % 1.0)
    if np.issubdtype(dtype, np.complexfloating):
        values = values + 0.4j * (high - low) * ((steps * 0.7548776662) % 1.0 - 0.45)
    return jnp.asarray(values.reshape(shape), dtype)


def within(*shape: int, low: float = 0.3, high: float = 1.3, start: int = 0) -> Any:
    """An operand with bounds of its own."""
    return lambda dtype: numbers(shape, dtype, low, high, start)


def matrix(*shape: int, shift: float = 2.0, start: int = 0) -> Any:
    """Matrices that are well conditioned and whose eigenvalues are all different."""

    def make(dtype: Any) -> Any:
        values = np.asarray(numbers(shape, dtype, -0.5, 0.5, start))
        diagonal = np.eye(*shape[-2:]) * (shift + 0.7 * np.arange(shape[-1]))
        return jnp.asarray(values + diagonal, dtype)

    return make


def positive(n: int, start: int = 0) -> Any:
    """A positive definite matrix: Hermitian, if it is complex."""

    def make(dtype: Any) -> Any:
        values = np.asarray(matrix(n, n, start=start)(dtype))
        return jnp.asarray((values + values.conj().T) / 2, dtype)

    return make


# A complex function of real parts ----------------------------------------------------------


def parts(operation: Operation, dtype: str) -> tuple[Callable[..., list[Any]], list[Any]]:
    """An operation between real arrays: real and imaginary parts, where it is complex.

    Returns:
        The function and its floating inputs; what else the operation takes is held.
    """
    arrays = operation.arrays(dtype)
    floating = [jnp.issubdtype(x.dtype, jnp.inexact) for x in arrays]
    moving = [x for x, flag in zip(arrays, floating, strict=True) if flag]
    is_complex = [jnp.iscomplexobj(x) for x in moving]
    pairs = [[x.real, x.imag] if flag else [x] for x, flag in zip(moving, is_complex, strict=True)]
    real = np.zeros(0, dtype).real.dtype

    def function(*values: Any) -> list[Any]:
        left = iter(values)
        whole = iter([
            jax.lax.complex(next(left), next(left)) if flag else next(left) for flag in is_complex
        ])
        outs = operation.floats(
            *(next(whole) if flag else x for x, flag in zip(arrays, floating, strict=True))
        )
        split = [[x.real, x.imag] if jnp.iscomplexobj(x) else [x] for x in outs]
        return [x.astype(real) for pair in split for x in pair]

    return function, [x for pair in pairs for x in pair]
