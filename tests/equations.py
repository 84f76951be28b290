"""Linear functions of one equation each, for every primitive that has a rule.

The axes that a case expects are written as in `named_axes`, for all of its operands and results.
Without a colon, the data have them all.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import primitives

F32, C64, BF16 = "float32", "complex64", "bfloat16"


@dataclasses.dataclass(frozen=True)
class Case:
    """A linear function.

    Args:
        primitive: The name of the primitive.
        title: What is special.
        axes: As above.
        function: The function of the operands.
        operands: Their shapes and dtypes.
        only: The direction that it can be swept in, if it is not both.
    """

    primitive: str
    title: str
    axes: str
    function: Callable[..., Any]
    operands: tuple[Any, ...]
    only: str | None = None

    def __str__(self) -> str:
        return f"{self.primitive}: {self.title}"


CASES: list[Case] = []


def numbers(*shape: int, dtype: Any = F32) -> np.ndarray:
    """Numbers between 0.3 and 1.3 in no order, with imaginary parts if they are complex."""
    values = (np.arange(1, 1 + int(np.prod(shape))) * 0.6180339887) % 1.0 + 0.3
    if np.issubdtype(dtype, np.complexfloating):
        values = values + 1j * (1.1 - values[::-1])
    return values.reshape(shape).astype(dtype)


def case(
    primitive: str,
    title: str,
    axes: str,
    function: Callable[..., Any],
    *operands: Any,
    only: str | None = None,
) -> None:
    """Registers a case; operands are shapes, with a dtype at the end unless it is float32."""
    structs = []
    for operand in operands:
        *shape, dtype = operand if operand and isinstance(operand[-1], str) else (*operand, F32)
        structs.append(jax.ShapeDtypeStruct(tuple(shape), dtype))
    CASES.append(Case(primitive, title, axes, function, tuple(structs), only))


# Entry by entry -------------------------------------------------------------------

case("neg", "matrix", "ij->ij:", lambda x: -x, (2, 3))
case("neg", "scalar", "->:", lambda x: -x, ())
case("neg", "axis of size 1", "1j->1j:", lambda x: -x, (1, 3))
case("convert_element_type", "to fewer bits", "ij->ij:", lambda x: x.astype(BF16), (2, 3))
case("convert_element_type", "to more bits", "ij->ij:", lambda x: x.astype(F32), (2, 3, BF16))
case("convert_element_type", "to complex", "ij->ij:", lambda x: x.astype(C64), (2, 3))
case("copy", "matrix", "ij->ij:", primitives.copy_p.bind, (2, 3))
case("real", "matrix", "ij->ij:", lax.real, (2, 3, C64))
case("imag", "matrix", "ij->ij:", lax.imag, (2, 3, C64))
case("conj", "matrix", "ij->ij:", lax.conj, (2, 3, C64))
case("conj", "of what is real", "ij->ij:", lax.conj, (2, 3))
case("complex", "both", "ij,ij->ij:", lax.complex, (2, 3), (2, 3))
case("complex", "both the same", "ij->ij:", lambda x: lax.complex(x, x), (2, 3))
case("complex", "real part", "i->i:", lambda x: lax.complex(x, np.zeros(3, F32)), (3,))
case("complex", "imaginary part", "i->i:", lambda x: lax.complex(np.zeros(3, F32), x), (3,))
case("name", "matrix", "ij->ij:", lambda x: checkpoint_name(x, "kept"), (2, 3), only="push")
case("reduce_precision", "matrix", "ij->ij:", lambda x: lax.reduce_precision(x, 8, 7), (2, 3))

for primitive in (lax.add_p, lax.sub_p, primitives.add_jaxvals_p):
    name, bind = primitive.name, primitive.bind
    case(name, "two operands", "ij,ij->ij:", bind, (2, 3), (2, 3))
    case(name, "the same twice", "ij->ij:", lambda x, bind=bind: bind(x, x), (2, 3))
    case(name, "axes of size 1", "1j,1j->1j:", bind, (1, 3), (1, 3))
    case(name, "complex", "i,i->i:", bind, (3, C64), (3, C64))
    if name != "add_any":
        case(name, "rows", "ij,1j->ij:", bind, (2, 3), (1, 3))
        case(name, "columns first", "i1,ij->ij:", bind, (2, 1), (2, 3))
        case(name, "scalar last", "ij,->ij:", bind, (2, 3), ())
        case(name, "scalar first", ",ij->ij:", bind, (), (2, 3))
        case(name, "rows and columns", "i1,1j->ij:", bind, (2, 1), (1, 3))

multiply = functools.partial(lax.mul_p.bind, out_dtype=None)
for name, bind in {"mul": multiply, "div": lax.div_p.bind}.items():

    def by(*shape, bind=bind, dtype=F32):
        return lambda x: bind(x, numbers(*shape, dtype=dtype))

    case(name, "entry by entry", "ij->ij:ij", by(2, 3), (2, 3))
    case(name, "by rows", "ij->ij:j", by(1, 3), (2, 3))
    case(name, "by columns", "ij->ij:i", by(2, 1), (2, 3))
    case(name, "by a scalar", "ij->ij:", by(), (2, 3))
    case(name, "a row", "1j->ij:ij", by(2, 3), (1, 3))
    case(name, "a row by a column", "1j->ij:i", by(2, 1), (1, 3))
    case(name, "a scalar", "->ij:ij", by(2, 3), ())
    case(name, "scalars", "->:", by(), ())
    case(name, "complex", "ij->ij:ij", by(2, 3, dtype=C64), (2, 3, C64))
case("mul", "constant first", "ij->ij:i", lambda x: multiply(numbers(2, 1), x), (2, 3))

MASK = numbers(2, 3) > 0.8
WHICH = np.array([[0, 1, 2], [2, 1, 1]], "int32")
case("select_n", "two", "ij,ij->ij:ij", lambda x, y: lax.select_n(MASK, x, y), (2, 3), (2, 3))
case("select_n", "one", "ij->ij:ij", lambda x: lax.select_n(MASK, x, 0 * MASK.astype(F32)), (2, 3))
case("select_n", "other", "ij->ij:ij", lambda x: jnp.where(MASK, x, np.float32(0)), (2, 3))
case("select_n", "the same twice", "ij->ij:ij", lambda x: lax.select_n(MASK, x, x), (2, 3))
case("select_n", "complex", "i,i->i:i", lambda *x: lax.select_n(MASK[0], *x), (3, C64), (3, C64))
for title, which in {"boolean": np.array(True), "number": np.array(1, "int32")}.items():
    case(
        "select_n",
        f"all by a {title}",
        "ij,ij->ij:",
        lambda x, y, which=which: lax.select_n(which, x, y),
        (2, 3),
        (2, 3),
    )
case("select_n", "three", "ij,ij,ij->ij:ij", lambda *x: lax.select_n(WHICH, *x), *3 * [(2, 3)])

# Products, sums and shapes -----------------------------------------------------------


def dot(equation, *shape, constant_first=False, dtype=F32, **options):
    """An einsum with a constant as one `dot_general`."""
    first, second, out = equation.replace("->", ",").split(",")
    batch = [x for x in first if x in second and x in out]
    common = [x for x in first if x in second and x not in out]
    places = [
        tuple([s.index(x) for x in which] for s in (first, second)) for which in (common, batch)
    ]
    constant = numbers(*shape, dtype=dtype)

    def function(x):
        pair = (constant, x) if constant_first else (x, constant)
        return lax.dot_general(*pair, tuple(places), **options)

    return function


HIGHEST = {"precision": lax.Precision.HIGHEST, "preferred_element_type": np.dtype(F32)}
case("dot_general", "rows by a matrix", "ij->ik:jk", dot("ij,jk->ik", 3, 4), (2, 3))
case(
    "dot_general",
    "a matrix by columns",
    "jk->ik:ij",
    dot("ij,jk->ik", 2, 3, constant_first=True),
    (3, 4),
)
case("dot_general", "vectors", "i->:i", dot("i,i->", 3), (3,))
case("dot_general", "outer", "i->ij:j", dot("i,j->ij", 3), (2,))
case(
    "dot_general",
    "two axes, in another order",
    "ijk->il:jkl",
    dot("ijk,kjl->il", 4, 3, 2),
    (2, 3, 4),
)
case("dot_general", "batch", "bij->bik:bjk", dot("bij,bjk->bik", 2, 4, 3), (2, 3, 4))
case(
    "dot_general",
    "batches, constant first",
    "jcb->bcij:bci",
    dot("bci,jcb->bcij", 2, 3, 2, constant_first=True),
    (4, 3, 2),
)
case("dot_general", "batch only", "ij->ij:ij", dot("ij,ij->ij", 2, 3), (2, 3))
case("dot_general", "axes of size 1", "1j->1k:jk", dot("ij,jk->ik", 3, 2), (1, 3))
case("dot_general", "over one entry", "i1->ik:k", dot("ij,jk->ik", 1, 2), (3, 1))
case("dot_general", "complex", "ij->ik:jk", dot("ij,jk->ik", 3, 2, dtype=C64), (2, 3, C64))
case(
    "dot_general",
    "wider result",
    "ij->ik:jk",
    dot("ij,jk->ik", 3, 2, dtype=jnp.bfloat16, **HIGHEST),
    (2, 3, BF16),
)
case("reduce_sum", "some axes", "ijk->j:", lambda x: jnp.sum(x, (0, 2)), (2, 3, 4))
case("reduce_sum", "all axes", "ij->:", jnp.sum, (2, 3))
case("reduce_sum", "one entry", "1j->j:", lambda x: jnp.sum(x, 0), (1, 3))
case("broadcast_in_dim", "a new axis", "i->ai:", lambda x: jnp.broadcast_to(x[None], (2, 3)), (3,))
case(
    "broadcast_in_dim",
    "one of size 1",
    "i->1i1:",
    lambda x: lax.broadcast_in_dim(x, (1, 3, 1), (1,)),
    (3,),
)
case(
    "broadcast_in_dim", "rows", "1j->ij:", lambda x: lax.broadcast_in_dim(x, (2, 3), (0, 1)), (1, 3)
)
case("broadcast_in_dim", "scalar", "->ij:", lambda x: lax.broadcast_in_dim(x, (2, 3), ()), ())
case("transpose", "three axes", "ijk->kij:", lambda x: jnp.transpose(x, (2, 0, 1)), (2, 3, 4))
case("transpose", "one of size 1", "i1->1i:", jnp.transpose, (3, 1))
case("reshape", "to two axes", "(ij)->ij:", lambda x: x.reshape(2, 3), (6,))
case("reshape", "to one axis", "ij->(ij):", jnp.ravel, (2, 3))
case("reshape", "regrouped", "i(jk)l->(ij)(kl):", lambda x: x.reshape(4, 15), (2, 6, 5))
case("reshape", "not factorable", "ij->kl", lambda x: x.reshape(6, 2), (4, 3))
case("reshape", "factorable in part", "aij->akl:ijkl", lambda x: x.reshape(5, 3, 2), (5, 2, 3))
case("reshape", "transposed first", "ij->kl", lambda x: lax.reshape(x, (3, 4), (1, 0)), (4, 3))
case("reshape", "around size 1", "1i1j->i1j:", lambda x: x.reshape(2, 1, 3), (1, 2, 1, 3))
case("reshape", "scalar", "->1:", lambda x: x.reshape(1), ())
case("squeeze", "matrix", "i1->i:", lambda x: lax.squeeze(x, (1,)), (3, 1))
case("squeeze", "to a scalar", "11->:", lambda x: lax.squeeze(x, (0, 1)), (1, 1))
