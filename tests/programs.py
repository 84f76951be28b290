"""Programs composed at random: graphs of small operations between named leaves.

`compose(seed, rules)` gives a smooth function of `(params, x)`, whose values and derivatives
stay of the order of one. The letters of `rules` are operations that JAX differentiates in one
direction only, in the order in which they lie on one path from the inputs to the outputs:
"w" a `while_loop` (pushed forward only), "v" a `custom_vjp` (pulled back only). With
`exact=True` only operations are used whose tangent map needs no variable that is smaller
than both its operand and its result, so that the graph tells the size of every useful cut.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Rng = np.random.Generator


class Step(NamedTuple):
    """An operation, the variables that it reads, and how many it makes."""

    name: str
    function: Callable[..., Any]
    reads: tuple[int, ...]
    count: int


@dataclasses.dataclass
class Graph:
    """The variables of a program, in order: the sources, which have no parents, come first.

    `parents[i]` are the variables that variable `i` varies with, directly.
    """

    structs: list[Any]
    parents: list[tuple[int, ...]]

    def size(self, i: int) -> int:
        """How many directions a variable has: an entry, or a part of a complex one."""
        struct = self.structs[i]
        return struct.size * (2 if jnp.issubdtype(struct.dtype, jnp.complexfloating) else 1)

    def descendants(self, start: int) -> list[int]:
        """The variables that vary with a variable, itself included."""
        found = {start} if self.size(start) else set()
        for i in range(start + 1, len(self.structs)):
            if self.size(i) and found.intersection(self.parents[i]):
                found.add(i)
        return sorted(found)


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A function of `(params, x)`, with the graph that it was composed of."""

    graph: Graph
    steps: list[Step]
    outputs: list[int]
    values: list[np.ndarray]
    call: str

    def __call__(self, params, x):
        values = jax.tree.leaves((params, x))
        for step in self.steps:
            values.extend(_tuple(step.function(*(values[i] for i in step.reads))))
        first, *rest = (values[i] for i in self.outputs)
        return {"first": first, "rest": rest}

    def arguments(self, dtype: Any) -> tuple[Any, Any]:
        """The point at which the program is differentiated."""
        return self.tree([jnp.asarray(value, dtype) for value in self.values])

    @staticmethod
    def tree(leaves: Sequence[Any]) -> tuple[Any, Any]:
        """The arguments that have these leaves."""
        first, *middle, last = leaves
        return {"a": first, "b": middle}, last

    def flat(self, *leaves: Any) -> list[Any]:
        """The floating outputs as a function of the leaves."""
        outs = jax.tree.leaves(self(*self.tree(leaves)))
        return [out for out in outs if jnp.issubdtype(out.dtype, jnp.inexact)]

    @property
    def sources(self) -> range:
        """The variables that are leaves of the arguments."""
        return range(len(self.values))

    @property
    def targets(self) -> list[int]:
        """The variables behind the floating outputs."""
        structs = self.graph.structs
        return [i for i in self.outputs if jnp.issubdtype(structs[i].dtype, jnp.inexact)]

    def __repr__(self) -> str:
        structs = self.graph.structs
        shapes = [f"{s.dtype}{list(s.shape)}" for s in structs]
        made = len(self.values)
        lines = [f"{self.call} returns {self.outputs}", f"sources {shapes[:made]}"]
        for step in self.steps:
            names = range(made, made + step.count)
            made += step.count
            reads = ", ".join(map(str, step.reads))
            lines.append("; ".join(f"{i} {shapes[i]}" for i in names) + f" = {step.name}({reads})")
        return "\n  ".join(lines)


def _tuple(out: Any) -> tuple[Any, ...]:
    return out if isinstance(out, tuple) else (out,)


# Operations ----------------------------------------------------------------------


class Op(NamedTuple):
    """An operation on operands of the given kinds.

    The first `blind` operands decide the result without varying it.
    """

    name: str
    kinds: tuple[str, ...]
    function: Callable[..., Any]
    exact: bool = False
    blind: int = 0


def fits(kind: str, x: Any, first: Any = None) -> bool:
    """Whether a variable is of the kind, or goes with the first operand."""
    if kind == "same":
        return (x.shape, x.dtype) == (first.shape, first.dtype)
    if kind == "empty":
        return x.size == 0
    wanted = jnp.complexfloating if kind == "complex" else jnp.floating
    axes = {"scalar": 0, "vector": 1, "complex": 1, "matrix": 2, "columns": 1}.get(kind, x.ndim)
    fitting = x.size > 0 and jnp.issubdtype(x.dtype, wanted) and x.ndim == axes
    return fitting and (kind != "columns" or x.shape == first.shape[1:])


def times_constant(rows: int) -> Callable[[Any], Any]:
    """A product with a matrix of numbers that look random, scaled like an average."""

    def matmul(x):
        weight = np.cos(np.arange(1, rows * x.size + 1) ** 2).reshape(rows, -1)
        return (2 * weight / np.sqrt(x.size)).astype(x.dtype) @ x

    return matmul


def scan(x, y):
    def step(carry, entry):
        carry = jnp.tanh(carry + entry * jnp.roll(carry, 1))
        return carry, jnp.sum(carry)

    return lax.scan(step, x, y)


def cond(x, y, bound=100):
    return lax.cond(
        jnp.sum(x) < bound, lambda x, y: (x * y, x), lambda x, y: (jnp.sin(x), 0.5 * y), x, y
    )


@jax.custom_jvp
def soft(x, y):
    return jnp.tanh(x) * y


@soft.defjvp
def _soft_jvp(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    return soft(x, y), (1 - jnp.tanh(x) ** 2) * y * dx + jnp.tanh(x) * dy


# Name, kinds of the operands, what is done. The exact ones are as `compose` says.
def fourier(x):
    """A complex matrix to multiply a real vector by: the operands of a product may differ."""
    kind = "complex128" if x.dtype == "float64" else "complex64"
    return np.exp(0.7j * np.arange(3 * x.size).reshape(3, -1)).astype(kind)


_EXACT: list[tuple[str, str, Callable[..., Any]]] = [
    ("tanh", "real", jnp.tanh),
    ("sin", "real", jnp.sin),
    ("arctan", "real", jnp.arctan),
    ("log", "real", lambda x: jnp.log1p(x**2)),
    ("sqrt", "real", lambda x: jnp.sqrt(1 + x**2)),
    ("quotient", "real", lambda x: x / (1 + x**2)),
    ("affine", "real", lambda x: 0.7 * x + 0.2),
    ("flip", "vector", jnp.flip),
    ("cumsum", "vector", lambda x: 0.5 * jnp.cumsum(x)),
    ("mean", "real", lambda x: jnp.sum(x) / x.size),
    ("row sums", "matrix", lambda x: 0.5 * jnp.sum(x, axis=1)),
    ("flatten", "matrix", lambda x: x.T.reshape(-1)),
    ("broadcast", "scalar", lambda x: jnp.broadcast_to(x, 3)),
    *((f"matmul to {rows}", "vector", times_constant(rows)) for rows in (1, 2, 3, 6)),
    ("matvec", "matrix columns", lambda a, x: 0.5 * a @ x),
    ("product", "real same", lambda x, y: 0.6 * x * y),
    ("difference", "real same", lambda x, y: x - y),
    ("scale", "scalar real", lambda s, x: s * x),
    ("outer", "vector vector", lambda x, y: x[:, None] * y[None, :]),
    ("dot", "vector same", lambda x, y: x @ y / x.size),
    ("concatenate", "vector vector", lambda x, y: jnp.concatenate([x, y])),
    ("stack", "scalar scalar", lambda *scalars: jnp.stack(scalars)),
    ("head", "vector", lambda x: x[:2]),
    ("tail", "vector", lambda x: x[1:]),
    ("entry", "vector", lambda x: x[0]),
    ("nothing", "vector", lambda x: x[:0]),
    ("add empty sum", "empty real", lambda e, x: x + jnp.sum(e)),
    ("rfft", "vector", jnp.fft.rfft),
    ("low waves", "vector", lambda x: jnp.fft.rfft(x)[:2]),
    ("mixed product", "vector", lambda x: lax.dot(fourier(x), x)),
    (
        "mixed rows",
        "complex real",
        lambda z, x: 0.3 * lax.dot(z.reshape(-1, 1), x.reshape(1, -1))[0],
    ),
    ("rotate", "complex", lambda z: z * np.exp(0.4j * np.arange(1, z.size + 1)).astype(z.dtype)),
    ("bend", "complex", lambda z: lax.complex(jnp.tanh(z.real), z.imag)),  # not holomorphic
    ("complex product", "complex same", lambda z, w: 0.3 * z * jnp.conj(w)),
    ("irfft", "complex", lambda z: jnp.fft.irfft(z, n=6)),
    ("real part", "complex", lambda z: z.real),
]

_COMPOSED: list[tuple[str, str, Callable[..., Any]]] = [
    ("scan", "vector same", scan),
    ("cond", "real same", cond),
    ("cond, other branch", "real same", lambda x, y: cond(x, y, -100)),
    ("checkpoint", "real", jax.checkpoint(lambda x: jnp.sin(jnp.sum(x) * jnp.sin(x)))),
    ("jit", "vector real", jax.jit(lambda x, y: (jax.jit(jnp.sin)(x) * jnp.sum(y), jnp.cos(y)))),
    ("custom_jvp", "real same", soft),
    ("softmax", "vector", jax.nn.softmax),
    ("logsumexp", "vector", jax.nn.logsumexp),
    ("scalars", "vector", lambda x: jnp.stack([x[0] * e + 0.5 * jnp.sin(x[-1]) for e in x])),
    ("scatter", "vector", lambda x: jnp.zeros(6, x.dtype).at[np.arange(x.size) // 2].add(x)),
    ("filter", "vector", lambda x: jnp.fft.irfft(jnp.tanh(0.3 * jnp.fft.rfft(x)), n=x.size)),
]

_BLIND: list[tuple[str, str, Callable[..., Any]]] = [
    ("chosen entry", "real vector", lambda i, x: x[jnp.where(jnp.sum(i) < 100, x.size - 1, 0)]),
    ("constants", "real", lambda x: jnp.full(2, 1.5, x.dtype)),
    ("integers", "real", lambda x: (jnp.sum(x) < 100).astype(jnp.int32) * np.arange(3, dtype="i4")),
]

OPS = {
    name: Op(name, tuple(kinds.split()), function, table is _EXACT, int(table is _BLIND))
    for table in (_EXACT, _COMPOSED, _BLIND)
    for name, kinds, function in table
}
_WEIGHTS = dict.fromkeys(["product", "scale", "matvec", "concatenate", "integers"], 2)
_RARE = ["mixed product", "mixed rows", "rotate", "bend", "complex product", "real part"]
_WEIGHTS |= dict.fromkeys([*_RARE, "add empty sum"], 7)


# What JAX differentiates in one direction -----------------------------------------------


def loop(x):
    """Three turns, by a counter."""

    def body(state):
        return state[0] + 1, jnp.sin(state[1]) + 0.3 * state[1]

    return lax.while_loop(lambda state: state[0] < 3, body, (0, x))[1]


def linear_loop(x):
    """Two turns of a linear map, by a counter and by the values."""

    def body(state):
        return state[0] + 1, 0.5 * state[1] + 0.2 * jnp.sum(state[1])

    def go_on(state):
        return (state[0] < 2) & (jnp.sum(state[1]) < 100)

    return lax.while_loop(go_on, body, (0, x))[1]


@jax.custom_vjp
def rule(x):
    return x + 0.3 * x**2


rule.defvjp(lambda x: (x + 0.3 * x**2, x), lambda x, g: ((1 + 0.6 * x) * g,))


@jax.custom_vjp
def rule_of_two(x, y):
    return jnp.sin(x) * y


# As people write them, with the function itself: JAX then has no forward mode over reverse.
rule_of_two.defvjp(
    lambda x, y: (rule_of_two(x, y), (x, y)),
    lambda xy, g: (jnp.cos(xy[0]) * xy[1] * g, jnp.sin(xy[0]) * g),
)

_WRAPPERS: list[tuple[str, Callable[..., Any]]] = [
    (" in jit", jax.jit),
    (" in cond", lambda f: lambda x, *y: lax.cond(jnp.sum(x) < 100, f, lambda x, *y: x, x, *y)),
    (" in scan", lambda f: lambda x, *y: lax.scan(lambda c, _: (f(c, *y), None), x, length=2)[0]),
    (" in checkpoint", jax.checkpoint),
    *(4 * [("", lambda f: f)]),
]
_ONE_WAY = {
    "w": [Op("while", ("real",), loop), Op("linear while", ("real",), linear_loop)],
    "v": [Op("rule", ("real",), rule), Op("rule of two", ("real", "same"), rule_of_two)],
}


def one_way(rng: Rng, letter: str) -> Op:
    """An operation for a letter of the rules, at times inside of another one."""
    op = _ONE_WAY[letter][rng.integers(2)]
    name, wrap = _WRAPPERS[rng.integers(len(_WRAPPERS))]
    return op._replace(name=op.name + name, function=wrap(op.function))


# Composition ---------------------------------------------------------------------


class _Composer:
    def __init__(self, rng: Rng, exact: bool) -> None:
        self.rng = rng
        self.ops = [op for op in OPS.values() if op.exact or not exact]
        weights = np.array([_WEIGHTS.get(op.name, 1) for op in self.ops])
        self.weights = weights / weights.sum()
        self.graph = Graph([], [])
        self.steps: list[Step] = []
        self.sources = 0

    def pick(self, kind: str, first: Any, allowed: Sequence[int]) -> int | None:
        """A variable of the kind, more often one that is recent or not read yet."""
        found = [i for i in allowed if fits(kind, self.graph.structs[i], first)]
        if self.rng.random() < 0.6:
            found = sorted({*found} & {*self.unread()}) or found
        return found[int(len(found) * self.rng.random() ** 0.5)] if found else None

    def add(self, op: Op, allowed: Sequence[int] | None = None) -> bool:
        """Applies an operation, to a first operand that is allowed, if operands fit."""
        reads: list[int] = []
        structs = self.graph.structs
        for kind in op.kinds:
            among = range(len(structs)) if reads or allowed is None else allowed
            among = [i for i in among if i not in reads] if self.rng.random() < 0.8 else among
            i = self.pick(kind, structs[reads[0]] if reads else None, among)
            if i is None:
                return False
            reads.append(i)
        operands = [structs[i] for i in reads]
        made = _tuple(jax.eval_shape(op.function, *operands))
        if any(struct.size > 12 for struct in made):
            return False
        self.steps.append(Step(op.name, op.function, tuple(reads), len(made)))
        structs += made
        self.graph.parents += len(made) * [tuple(reads[op.blind :])]
        return True

    def any_op(self) -> Op:
        return self.ops[self.rng.choice(len(self.ops), p=self.weights)]

    def grow(self, count: int) -> None:
        while count > 0:
            count -= self.add(self.any_op())

    def waist(self, x: int) -> None:
        """Through one or two numbers to six, which a cut can use."""
        for name in (self.rng.choice(["matmul to 1", "matmul to 2"]), "tanh", "matmul to 6"):
            self.add(OPS[name], [x])
            x = len(self.graph.structs) - 1

    def chain(self, letters: str, steps: int) -> int:
        """One-way operations, each a function of the one before it; gives the last one."""
        last = len(self.graph.structs) - 1
        for letter in letters:
            self.grow(int(self.rng.integers(0, 1 + steps // (1 + len(letters)))))
            op = one_way(self.rng, letter)
            # At the latest the one before itself fits.
            while not self.add(op, self.graph.descendants(last)):
                pass
            last = len(self.graph.structs) - 1
        return last

    def read_all(self) -> None:
        """Leaves no input unused."""
        while left := [i for i in self.unread() if i < self.sources and self.graph.size(i)]:
            self.add(self.any_op(), left)

    def outputs(self, last: int) -> list[int]:
        """What depends on the chain, what nothing reads, and what is repeated or passed on."""
        rng, structs = self.rng, self.graph.structs
        while rest := [i for i in self.unread() if fits("complex", structs[i])]:
            self.add(OPS["irfft"], rest)
        real = [i for i in range(len(structs)) if fits("real", structs[i])]
        first = max(set(real) & set(self.graph.descendants(last)))
        unread = [i for i in self.unread() if i not in (first, *range(self.sources))]
        outputs = [first, *rng.permutation(unread)[:3].tolist()]
        for among in (outputs, range(self.sources), real):
            outputs += rng.choice(among, rng.binomial(1, 0.3)).tolist()
        return outputs

    def unread(self) -> list[int]:
        read = {i for step in self.steps for i in step.reads}
        return [i for i in range(len(self.graph.structs)) if i not in read]


@functools.cache
def compose(seed: int, rules: str = "", steps: int = 6, exact: bool = False) -> Program:
    """A program of about so many operations."""
    rng = np.random.default_rng([seed, exact, *map(ord, rules)])
    composer = _Composer(rng, exact)
    graph = composer.graph
    shapes = [(), (1,), (3,), (6,), (6,), (2, 3), (3, 6), (0,)]
    chosen = [shapes[i] for i in rng.choice(len(shapes), rng.integers(1, 4))]
    for shape in (*chosen, (int(rng.choice([3, 6, 6, 8])),)):
        graph.structs.append(jax.ShapeDtypeStruct(shape, jnp.float32))
        graph.parents.append(())
        composer.sources += 1
    values = [rng.uniform(-1.2, 1.2, struct.shape) for struct in graph.structs]
    x = len(values) - 1
    if rng.random() < 0.5:
        composer.waist(x)
    last = composer.chain(rules, steps) if rules else x
    composer.grow(max(1, steps - len(composer.steps)))
    if rng.random() < 0.6:
        composer.read_all()
    outputs = composer.outputs(last)
    call = f"compose({seed}, {rules!r}, {steps}, exact={exact})"
    return Program(graph, composer.steps, outputs, values, call)
