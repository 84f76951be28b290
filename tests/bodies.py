"""Linear functions of one equation that holds a program: loops, branches, solvers and calls."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas
from jax.sharding import PartitionSpec

from equations import F32, case, numbers

W = numbers(3, 3) / 2

# Loops -------------------------------------------------------------------------------


def scan(body, *, reverse=False, length=2):
    """A scan with a carry alone."""
    return lambda *c: lax.scan(lambda c, _: (body(*c), None), c, length=length, reverse=reverse)[0]


def folded(c, xs, *, reverse=False):
    """Rows mixed with a carry, which is returned at each step."""
    return lax.scan(lambda c, x: (c @ W + x, 2 * c), c, xs, reverse=reverse)


case("scan", "carry", "bi->bj", scan(lambda c: (c @ W,)), (2, 3))
case("scan", "carry, entry by entry", "bi->bi", scan(lambda c: (c * W[:2],)), (2, 3))
case("scan", "carry and rows", "bi,tbj->bk,sbl", folded, (2, 3), (4, 2, 3))
case(
    "scan",
    "from the end",
    "bi,tbj->bk,sbl",
    functools.partial(folded, reverse=True),
    (2, 3),
    (4, 2, 3),
)
case("scan", "rows of zeros", "bi->bk,sbl", lambda c: folded(c, np.zeros((4, 2, 3), F32)), (2, 3))
case(
    "scan",
    "what it closes over",
    "ij->kj,tj",
    lambda a: lax.scan(lambda c, x: (c + x * a, jnp.sum(a, 0)), np.zeros((2, 3), F32), numbers(4)),
    (2, 3),
)
case("scan", "transposed at each step", "ij->kl", scan(lambda c: (c.T,)), (3, 3))
case("scan", "rotated", "ij->kj", scan(lambda c: (jnp.roll(c, 1, 0),)), (3, 2))
case("scan", "swapped", "ij,ij->ij,ij", scan(lambda a, b: (2 * b, 3 * a)), (2, 3), (2, 3))
case(
    "scan",
    "side by side",
    "ij,kj->lj,mj",
    scan(lambda a, b: (2 * a + b[:1], b + a)),
    (2, 3),
    (2, 3),
)
case("scan", "apart", "ij,kl->ij,kl", scan(lambda a, b: (2 * a, 3 * b)), (2, 3), (2, 3))
case(
    "scan",
    "constant result",
    "bi->bj,tb",
    lambda c: lax.scan(lambda c, _: (c @ W, c[:, 0]), c, length=2),
    (2, 3),
)
case("scan", "nothing is carried", "tbi->tbj", lambda x: lax.map(lambda r: r @ W, x), (4, 2, 3))
case(
    "scan",
    "a jit within a jit",
    "bi->bj",
    scan(lambda c: (jax.jit(lambda y: jax.jit(jnp.sin)(numbers(1, 3)) * (y @ W))(c),)),
    (2, 3),
)
case(
    "scan",
    "a scan within",
    "bi->bj",
    scan(lambda c: (folded(c, np.zeros((2, 2, 3), F32))[1][1],)),
    (2, 3),
)


def loop(body, count=2):
    """A `while_loop` that counts its steps."""

    def function(*c):
        return lax.while_loop(lambda s: s[0] < count, lambda s: (s[0] + 1, *body(*s[1:])), (0, *c))[
            1:
        ]

    return function


case("while", "carry", "bi->bj", loop(lambda c: (c @ W,)), (2, 3), only="push")
case(
    "while",
    "two carries",
    "bi,bj->bk,bl",
    loop(lambda a, b: (a @ W + b, b + a)),
    (2, 3),
    (2, 3),
    only="push",
)
case(
    "while",
    "what it closes over",
    "ij->ij",
    lambda a: loop(lambda c: (c + 2 * a,))(jnp.zeros((2, 3)))[0],
    (2, 3),
    only="push",
)
case("while", "transposed at each step", "ij->kl", loop(lambda c: (c.T,)), (3, 3), only="push")

# Branches and calls ----------------------------------------------------------------------


def switch(*branches):
    """The second of some branches, as a program cannot know."""
    return lambda *x: lax.switch(jnp.asarray(1), branches, *x)


case("cond", "two branches", "bi->bj", switch(lambda x: x, lambda x: x @ W), (2, 3))
case(
    "cond",
    "entry by entry",
    "ij->ij",
    switch(lambda x: 2 * x, lambda x: -x, lambda x: x * W[:2]),
    (2, 3),
)
case("cond", "zero", "ij->ij", switch(lambda x: 2 * x, jnp.zeros_like), (2, 3))
case("cond", "transposed in one", "ij->kl", switch(lambda x: x, lambda x: x.T), (3, 3))
case(
    "cond",
    "two operands",
    "ij,ij->ij,ij",
    switch(lambda x, y: (x, y), lambda x, y: (x + y, x - y)),
    (2, 3),
    (2, 3),
)
case(
    "cond",
    "two results",
    "bi->bj,b",
    switch(lambda x: (x @ W, x[:, 0]), lambda x: (x, x[:, 1])),
    (2, 3),
)

case("remat2", "linear", "bi->bj", jax.checkpoint(lambda x: x @ W), (2, 3))
case(
    "remat2", "entry by entry", "ij,ij->ij", jax.checkpoint(lambda x, y: 2 * x + y), (2, 3), (2, 3)
)


def linearized(function, *points):
    """The tangent map of a function at points that look random."""
    return jax.linearize(function, *(numbers(*shape) for shape in points))[1]


rows = jax.checkpoint(lambda x: jnp.tanh(jnp.tanh(x @ W) * x))
case("remat2", "tangent map", "bi->bj", linearized(rows, (2, 3)), (2, 3))
entries = jax.checkpoint(lambda x, y: (jnp.sin(x) * y, x / y))
case(
    "remat2",
    "tangent map, entry by entry",
    "ij,ij->ij,ij",
    linearized(entries, (2, 3), (2, 3)),
    (2, 3),
    (2, 3),
)

DEVICE = jax.devices()[0]
placed = functools.partial(jax.jit, out_shardings=jax.sharding.SingleDeviceSharding(DEVICE))
case("jit", "placed", "bi->bj", placed(lambda x: jax.jit(lambda y: y @ W)(x)), (2, 3))
custom = jax.custom_jvp(lambda x: x @ W)
custom.defjvp(lambda x, t: (x[0] @ W, t[0] @ W))
case("custom_jvp_call", "linear", "bi->bj", custom, (2, 3))


@jax.custom_vjp
def pulled(x):
    """A function whose rule is not looked into."""
    return 2 * x


pulled.defvjp(lambda x: (2 * x, None), lambda _, y: (2 * y,))
case("custom_lin", "tangent map", "ij->kl", linearized(pulled, (2, 3)), (2, 3), only="pull")

# Solvers, and what is not looked into ---------------------------------------------------------

MATRIX = W + 2 * np.eye(3, dtype=F32)
MATRICES = np.stack([MATRIX, MATRIX.T])


def solve(a, b, symmetric=False):
    """A linear system whose solver is another function than its matrix product."""
    product, solver = (lambda x: a @ x), (lambda _, y: np.linalg.inv(a) @ y)
    return lax.custom_linear_solve(
        product, b, solver, lambda _, y: np.linalg.inv(a).T @ y, symmetric=symmetric
    )


case("custom_linear_solve", "matrix", "ij->kj", lambda b: jnp.linalg.solve(MATRIX, b), (3, 2))
case("custom_linear_solve", "vector", "i->j", lambda b: jnp.linalg.solve(MATRIX, b), (3,))
case("custom_linear_solve", "batch", "bij->bkj", lambda b: jnp.linalg.solve(MATRICES, b), (2, 3, 2))
case(
    "custom_linear_solve",
    "one matrix for a batch",
    "bij->klm",
    lambda b: jax.vmap(lambda y: jnp.linalg.solve(MATRIX, y))(b),
    (2, 3, 2),
)
case("custom_linear_solve", "own solver", "ij->kj", lambda b: solve(MATRIX, b), (3, 2))
case(
    "custom_linear_solve",
    "symmetric",
    "ij->kj",
    lambda b: solve(MATRIX + MATRIX.T, b, symmetric=True),
    (3, 2),
)
case(
    "custom_linear_solve",
    "two systems",
    "ij,kl->mj,nl",
    lambda *b: lax.custom_linear_solve(
        lambda x: tuple(MATRIX @ y for y in x),
        b,
        lambda _, y: tuple(np.linalg.inv(MATRIX) @ z for z in y),
        lambda _, y: tuple(np.linalg.inv(MATRIX).T @ z for z in y),
    ),
    (3, 2),
    (3, 2),
)

MESH = jax.make_mesh((1,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
SPEC = PartitionSpec("devices")
case(
    "shard_map",
    "rows",
    "ij->kl",
    jax.shard_map(lambda x: 2 * x, mesh=MESH, in_specs=SPEC, out_specs=SPEC),
    (2, 3),
)


def doubled(operand, result):
    """A kernel."""
    result[...] = 2 * operand[...]


twice = pallas.pallas_call(doubled, out_shape=jax.ShapeDtypeStruct((2, 3), F32), interpret=True)
case("pallas_call", "rows", "ij->kl", twice, (2, 3), only="push")
