"""Hypothesis strategies: programs as sources with the arguments of a call, and selections.

A program is the text of a function and of a call of it, so that what a failing example prints
can be run as it is. It is composed of the templates in `templates.py`, one line each.
"""

import dataclasses
import functools
import itertools
import keyword
import unicodedata
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
from hypothesis import Phase
from hypothesis import strategies as st

from templates import KINDS, ONE_WAY, PAIRS, SINGULAR, TABLE, Draw, Fields, Var, spelled
from vocabulary import NAMES, PLAIN, array

LARGEST = 24  # entries of a variable: programs are small, so that there can be many


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A function of named arguments, and a call of it.

    Args:
        source: The text of the function `f`.
        call: That of the arguments of a call.
        rules: The directions that it cannot be differentiated against: of "w" and "v".
        dtypes: Of its variables.
    """

    source: str
    call: str
    rules: str
    dtypes: frozenset[str]

    @functools.cached_property
    def function(self) -> Any:
        return self._function(NAMES)

    @functools.cached_property
    def plain(self) -> Any:
        """The same function without loops that stop by themselves and custom rules."""
        return self._function(PLAIN)

    def _function(self, names: dict[str, Any]) -> Any:
        scope = dict(names)
        exec(compile(self.source, "program.py", "exec"), scope)
        return scope["f"]

    def arguments(self, values: str = "normal", shift: int = 0) -> tuple[tuple, dict]:
        """Those of the call; others of the same shapes with another shift."""

        def shifted(dtype, shape, seed):
            return array(dtype, shape, seed + shift, values)

        return eval(f"taken({self.call})", {**NAMES, "array": shifted, "taken": _taken})

    @property
    def precision(self) -> float:
        """How far apart two ways to compute a derivative may be, relative to its largest entry."""
        return max(_PRECISION.get(dtype, 0.0) for dtype in self.dtypes)

    def __repr__(self) -> str:
        return f"\n{self.source}\nf({self.call})\n"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


def _taken(*args: Any, **kwargs: Any) -> tuple[tuple, dict]:
    return args, kwargs


_PRECISION = {"float64": 1e-9, "complex128": 1e-9, "float32": 1e-3, "complex64": 1e-3}
_PRECISION["bfloat16"] = 0.3


# Names -----------------------------------------------------------------------------------

# Plain ones first; then those of methods and attributes of results, and what Python reserves.
_COMMON = ["x", "y", "params", "t", "state"]
_TAKEN = ["value", "T", "mv", "rmv", "tree", "of", "wrt", "aux", "self", "args", "kwargs", "f"]
_TAKEN += ["mode", "as_matrix", "to_jax", "grad", "row_labels", "solve", "vector", "plot", "dtype"]
_TAKEN += ["_value", "_table", "__class__", "__len__", "_names", "shared_axes", "cls", "_", "__x"]
_UNUSUAL = ["σ", "Δt", "é", "ℝ", "名前", "x_1", "µ", "ﬁt", "match", "type", "print", "jaxtyping"]


def _is_name(text: str) -> bool:
    return text.isidentifier() and not keyword.iskeyword(text) and text not in NAMES


def identifiers() -> Any:
    """Names of arguments, as Python stores them."""
    letters = st.text("abcxyz_0AZéλℵ१", min_size=1, max_size=4)
    names = st.sampled_from(_COMMON + _TAKEN + _UNUSUAL) | letters
    return names.map(lambda name: unicodedata.normalize("NFKC", name)).filter(
        # Sources have variables of their own, v0 and so on.
        lambda name: _is_name(name) and not (name[0] == "v" and name[1:].isdigit())
    )


_KEYS = ["w", "b", "a.b", "0", "", "é", "x*", "[k]", "value", " "]


# Arguments ---------------------------------------------------------------------------------

_SHAPES = [(3,), (), (2,), (2, 3), (3, 3), (1,), (4,), (1, 3), (6,), (2, 2, 2), (3, 1)]


class _Arguments:
    """Trees of leaves, as text, with the way to each leaf."""

    def __init__(self, draw: Draw, dtypes: list[str], *, odd: bool) -> None:
        self.draw, self.dtypes, self.odd = draw, dtypes, odd
        self.seeds = itertools.count()
        self.leaves: list[tuple[str, Var]] = []

    def leaf(self, way: str, *, plain: bool = False) -> str:
        """An array, or at times something else that a call may pass."""
        kind = "array" if plain else self.draw(st.sampled_from(_LEAVES[: None if self.odd else 7]))
        if kind in _CONSTANTS:
            return _CONSTANTS[kind]
        if kind == "float":
            self.leaves.append((f"jnp.asarray({way})", Var("", (), "float64")))
            return f"0.{3 + next(self.seeds)}"
        shape = self.draw(st.sampled_from(_SHAPES))
        dtype = {"int": "int32", "bool": "bool"}.get(kind) or self.draw(
            st.sampled_from(self.dtypes)
        )
        if kind == "empty":
            shape = self.draw(st.sampled_from([(0,), (2, 0), (0, 3)]))
        self.leaves.append((way, Var("", shape, dtype)))
        return f"array({dtype!r}, {shape}, {next(self.seeds)})"

    def tree(self, way: str, depth: int = 2) -> str:
        kinds = ["leaf", "leaf", "leaf", "dict", "list", "tuple", "Point", "Pair", "State", "empty"]
        kind = self.draw(st.sampled_from(kinds if depth else kinds[:1]))
        if kind == "leaf":
            return self.leaf(way)
        if kind == "empty":
            return self.draw(st.sampled_from(["()", "[]", "{}"]))
        if kind == "dict":
            keys = self.draw(st.lists(st.sampled_from(_KEYS), min_size=1, max_size=2, unique=True))
            entries = [(key, self.tree(f"{way}[{key!r}]", depth - 1)) for key in keys]
            return "{" + ", ".join(f"{key!r}: {text}" for key, text in entries) + "}"
        if kind in {"list", "tuple"}:
            count = self.draw(st.integers(1, 2))
            texts = [self.tree(f"{way}[{i}]", depth - 1) for i in range(count)]
            return f"[{', '.join(texts)}]" if kind == "list" else f"({', '.join(texts)},)"
        fields = {"Point": "place charge", "Pair": "first second", "State": "level rate"}[kind]
        texts = [self.tree(f"{way}.{field}", depth - 1) for field in fields.split()]
        return f"{kind}({', '.join(texts)})"


_LEAVES = ["array", "array", "array", "array", "int", "float", "empty"]
_LEAVES += ["bool", "none", "text", "number", "truth", "function", "key"]
_CONSTANTS = {"none": "None", "text": "'text'", "number": "3", "truth": "True"}
_CONSTANTS |= {"function": "jnp.tanh", "key": "jax.random.key(0)"}


def _signature(draw: Draw, arguments: _Arguments, names: list[str]) -> tuple[str, str]:
    """The parameters of a function, and the arguments of a call."""
    kinds = draw(st.tuples(*[st.integers(0, 2) for _ in names]))
    parameters, passed, keywords = [], [], False
    for i, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        is_last = i == len(names) - 1 and i > 0
        if is_last and kind == 2 and not keywords:  # the rest of the positional arguments
            parameters.append(f"*{name}")
            passed += [arguments.leaf(f"{name}[{i}]", plain=True) for i in range(2)]
        elif is_last and kind == 2:
            parameters.append(f"**{name}")
            passed += [f"q_{k}=" + arguments.leaf(f"{name}['q_{k}']", plain=True) for k in "ab"]
        else:
            text = arguments.leaf(name, plain=True) if i == 0 else arguments.tree(name)
            if kind == 1 and i and not keywords:  # from here on by keyword
                keywords = True
                parameters += ["*"] if draw(st.booleans()) else []
            parameters.append(name)
            passed.append(f"{name}={text}" if keywords else text)
    return ", ".join(parameters), ", ".join(passed)


# Programs ------------------------------------------------------------------------------------


class _Composer:
    def __init__(self, draw: Draw, dtypes: list[str]) -> None:
        self.draw, self.dtypes = draw, dtypes
        self.variables: list[Var] = []
        self.lines: list[str] = []
        self.rules = ""
        self.row: tuple[str, ...] = ()

    def pick(self, fitting: list[Var]) -> Var:
        """Half of the time the last one, which makes programs deep."""
        if not self.draw(st.booleans()):
            return fitting[-1]
        return fitting[-1 - self.draw(st.integers(0, len(fitting) - 1))]

    def step(self, table: list[tuple[str, ...]]) -> None:
        """Adds a line; where operands or the result do not fit, a simple one."""
        fitting = [row for row in table if self.firsts(*row[:2])]
        number = self.draw(st.integers(0, max(0, len(fitting) - 1)))
        for row in (*fitting[number : number + 1], TABLE[0]):
            kind, pair, template, *rules = row
            first = self.pick(self.firsts(kind, pair))
            operands = [first, self.pick(self.seconds(pair, first))] if pair else [first]
            if self.line(spelled(template, Fields(self.draw, operands, self.dtypes))):
                self.rules += "".join(rules)
                self.row = row
                return

    def firsts(self, kind: str, pair: str) -> list[Var]:
        return [x for x in self.variables if KINDS[kind](x) and (not pair or self.seconds(pair, x))]

    def seconds(self, pair: str, first: Var) -> list[Var]:
        return [y for y in self.variables if PAIRS[pair](first, y)]

    def line(self, text: str) -> bool:
        """Adds a variable with this source, unless it is too large."""
        structs = {
            x.name: jax.ShapeDtypeStruct(x.shape, jnp.dtype(x.dtype)) for x in self.variables
        }
        try:
            made: Any = jax.eval_shape(_evaluator(text), structs)
        except Exception as error:
            error.add_note(f"in {text}, where {structs}")
            raise
        if made.size > LARGEST:
            return False
        name = f"v{len(self.variables)}"
        self.lines.append(f"{name} = {text}")
        self.variables.append(Var(name, made.shape, str(made.dtype)))
        return True

    def outputs(self) -> str:
        """The last variable and others, among them inputs, repeated ones and constants."""
        draw, last = self.draw, self.variables[-1].name
        count = draw(st.integers(0, 2))
        others = [self.pick(self.variables).name for _ in range(count)]
        if draw(st.integers(0, 5)) == 5:
            others.append(draw(st.sampled_from(["jnp.ones(2, 'float32')", "None", last])))
        if not others:
            return draw(st.sampled_from(["{0}", "({0},)", "{{'energy': {0}}}"])).format(last)
        rest = ", ".join(others)
        return draw(
            st.sampled_from([
                "({0}, {1})",
                "[{1}, {0}]",
                "{{'a': {0}, 'b': ({1},)}}",
                "Pair({0}, [{1}])",
            ])
        ).format(last, rest)


def _evaluator(text: str) -> Any:
    code = compile(text, "line.py", "eval")
    return lambda variables: eval(code, {**NAMES, **variables})


_PALETTES = [["float64"], ["float64"], ["float64", "float32"], ["float32"]]
_LOW = ["float32", "bfloat16", "float64"]


@st.composite
def programs(
    draw: Draw,
    rules: bool = True,
    scalar: bool = False,
    steps: int = 8,
    precise: bool = False,
    singular: bool = False,
    odd: bool = True,
    names: Any = None,
    waist: bool = True,
) -> Program:
    """Programs with the arguments of a call.

    Args:
        draw: Given by hypothesis.
        rules: Whether there may be operations that JAX differentiates in one direction only.
        scalar: Whether there is one output, a real number.
        steps: At most so many operations.
        precise: Whether everything is float64.
        singular: Whether derivatives may be infinite or undefined.
        odd: Whether there may be leaves that are no arrays.
        names: A strategy for lists of the names of arguments.
        waist: Whether the program may be narrow in the middle.
    """
    low = not precise and draw(st.integers(0, 7)) == 7
    dtypes = _LOW if low else ["float64"] if precise else draw(st.sampled_from(_PALETTES))
    arguments = _Arguments(draw, dtypes, odd=odd)
    anything = st.lists(identifiers(), min_size=1, max_size=3, unique=True)
    chosen = draw(anything if names is None else names)
    parameters, call = _signature(draw, arguments, chosen)
    composer = _Composer(draw, dtypes)
    for way, var in arguments.leaves:
        composer.variables.append(dataclasses.replace(var, name=f"v{len(composer.variables)}"))
        composer.lines.append(f"{composer.variables[-1].name} = {way}")
    # What has kinks is told apart by its rounding, and bfloat16 rounds much.
    table = [row for row in TABLE if not (low and row[0].startswith("wide"))]
    with_rules = rules and draw(st.integers(0, 2)) == 2
    for _ in range(draw(st.integers(1, steps))):
        one_way = with_rules and draw(st.integers(0, 2)) == 2
        among = ONE_WAY if one_way else table
        if singular and draw(st.integers(0, 2)) == 2:
            among = SINGULAR
        composer.step(among)
    if waist and draw(st.integers(0, 3)) == 3:
        _narrow(composer)
    if scalar:
        _sum(composer)
        returned = composer.variables[-1].name
    else:
        _real(composer)
        returned = composer.outputs()
    body = "".join(f"    {line}\n" for line in [*composer.lines, f"return {returned}"])
    return Program(
        f"def f({parameters}):\n{body}",
        call,
        "".join(sorted({*composer.rules})),
        frozenset(x.dtype for x in composer.variables),
    )


def _narrow(composer: _Composer) -> None:
    """Through one or two numbers to five."""
    draw = composer.draw
    wide = [x for x in composer.variables if KINDS["axes"](x)]
    x = composer.pick(wide) if wide else composer.variables[0]
    k = draw(st.integers(1, 2))
    composer.line(f"const('{x.dtype}', ({k}, {x.size}), 5) @ jnp.ravel({x})")
    y = composer.variables[-1]
    composer.line(f"const('{y.dtype}', (5, {k}), 6) @ jnp.tanh({y})")


def _real(composer: _Composer) -> None:
    """Ends with something that can be differentiated."""
    x = composer.variables[-1]
    if not (x.is_real or x.is_complex):
        composer.line(f"jnp.sin({composer.variables[0]})")


def _sum(composer: _Composer) -> None:
    """Ends with a number, of the last few real variables."""
    real = [x for x in composer.variables if x.is_real][-3:]
    terms = [f"jnp.sum(jnp.sin({x})).astype('{real[-1].dtype}')" for x in real]
    composer.line(" + ".join(terms))


def composed(row: tuple[str, ...]) -> bool:
    """Whether an operation of a table finds operands among variables of all kinds."""
    found: list[bool] = []

    @hypothesis.settings(max_examples=1, database=None, deadline=None, phases=[Phase.generate])
    @hypothesis.given(st.data())
    def compose(data: Any) -> None:
        composer = _Composer(data.draw, ["float64", "float32"])
        kinds = itertools.product(
            [(0,), *_SHAPES[::-1]], ["float64", "float32", "int32", "complex128"]
        )
        composer.variables = [Var(f"v{i}", *kind) for i, kind in enumerate(kinds)]
        composer.step([row])
        found.append(composer.row is row)

    compose()
    return all(found)


# Options -------------------------------------------------------------------------------------


def modes(rules: str) -> Any:
    """Those in which JAX can differentiate a program with these rules."""
    return st.sampled_from({
        "": ["auto", "fwd", "rev"], "w": ["auto", "fwd"], "v": ["auto", "rev"]
    }.get(rules, ["auto"]))  # fmt: skip


LIMITS = st.one_of(
    st.integers(1, 7).map(lambda n: {"chunk_size": n}),
    st.sampled_from(["64KiB", 10**5, "1MB", 3e6]).map(lambda n: {"memory_limit": n}),
)
OPTIONS = st.one_of(st.just({}), LIMITS, st.just({"layout": "compact"}))
HOW = st.sampled_from(["eager", "eager", "jit", "vmap"])


@st.composite
def selections(draw: Draw, paths: list[str]) -> tuple[Any, list[str]]:
    """A selection among the paths of leaves, and those that it means."""
    kind = draw(st.sampled_from(["path", "argument", "tuple", "glob", "predicate", "none"]))
    some = draw(st.lists(st.sampled_from(paths), min_size=1, unique=True))
    name = some[0].partition(".")[0]
    ordered = [path for path in paths if path in some]
    return {
        "path": (some[0], some[:1]),
        "argument": (name, [p for p in paths if p == name or p.startswith(f"{name}.")]),
        "tuple": ((*some,), ordered),
        "glob": (f"{name}*", [p for p in paths if p.startswith(name)]),
        "predicate": (lambda path, _: path in some, ordered),
        "none": (None, paths),
    }[kind]
