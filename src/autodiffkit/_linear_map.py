"""Linear maps that are applied and not stored: transposes, sums, multiples and products of maps."""

import abc
import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array

from autodiffkit._again import plan_again
from autodiffkit._block_table import BlockTable
from autodiffkit._display_text import Display, Table, plain_table
from autodiffkit._errors import NotDifferentiatedError, StructureError, columns, listed, shown_of
from autodiffkit._inputs import Inputs, inputs_of
from autodiffkit._jax_compat import is_eager
from autodiffkit._leaves import Ends, LeafSpec, describe_leaf, is_complex, is_numeric
from autodiffkit._limits import NO_LIMITS, Limits
from autodiffkit._memory import refuse_too_large
from autodiffkit._paths import legible, show
from autodiffkit._plan import Plan, log
from autodiffkit._program import Linear, as_linear
from autodiffkit._records import Record
from autodiffkit._structured_map import R_co, StructuredMap, ask_again, is_dunder
from autodiffkit._sweeps import LinearSweeps
from autodiffkit._trees import Tree
from autodiffkit._vectors import collect_vector, filled, refuse_batched

if TYPE_CHECKING:
    from autodiffkit._result import Gradient

_TABLE_ROWS = 24  # leaves of a space


class Composable(StructuredMap):
    """A map that is transposed, added, scaled and composed; nothing of it is stored."""

    _is_vector = False  # a gradient is one, too

    @property
    def _title(self) -> str:
        """What it is, for people."""
        return self._name

    @property
    def _operand(self) -> str:
        first = (*self._arguments.names, "x")[0]
        return f".materialise().{first}, a block that is stored, or multiply with .mv and .rmv"

    @property
    def _contents(self) -> str:
        return ".materialise(), whose blocks are stored, or multiply with .mv and .rmv"

    @abc.abstractmethod
    def as_matrix(self) -> Array:
        """The matrix of the map on its leaves laid end to end."""

    @property
    def T(self) -> "LinearMap[Any]":  # noqa: N802  # the name that matrices have for it
        """The transpose (not conjugated), as a `LinearMap`."""
        return Transposed(self)

    def __matmul__(self, other: Any) -> Any:
        """The product with another map, as a `LinearMap`; or with a structured vector."""
        if isinstance(other, Composable) and not other._is_vector:
            return Composed(self, other)
        return self.mv(other)

    def __add__(self, other: Any) -> "LinearMap[Any]":
        if isinstance(other, Composable):
            return Sum(self, other)
        return self._not_added("+", other)

    def __radd__(self, other: Any) -> Any:
        # `sum` begins with a zero.
        is_zero = isinstance(other, int) and other == 0
        return self if is_zero else self._refuse_operand("+", other, reflected=True)

    def __sub__(self, other: Any) -> "LinearMap[Any]":
        return Sum(self, -other) if isinstance(other, Composable) else self._not_added("-", other)

    def _not_added(self, symbol: str, other: Any) -> Any:
        if is_numeric(other) or isinstance(other, (Record, dict, list, tuple)):
            self._refuse_operand(symbol, other)
        return NotImplemented  # a class of the user's may know better

    def __neg__(self) -> "LinearMap[Any]":
        return Scaled(-1, self)

    def __mul__(self, factor: Any) -> "LinearMap[Any]":
        return NotImplemented if isinstance(factor, Composable) else Scaled(factor, self)

    def __rmul__(self, factor: Any) -> "LinearMap[Any]":
        return Scaled(factor, self)

    def __rmatmul__(self, other: Any) -> Any:
        raise StructureError(
            f"{self._name}: {describe_leaf(other)} @ the map is no product with a structured "
            "vector. Write .T @ vector, or .rmv(vector)."
        )

    def __truediv__(self, factor: Any) -> "LinearMap[Any]":
        if isinstance(factor, Composable):
            return NotImplemented
        return Scaled(1 / factor if is_numeric(factor) else factor, self)

    __array_ufunc__ = None  # a number of NumPy's leaves the product to `__rmul__`


class LinearMap(Composable, Generic[R_co]):
    """A linear map between structured spaces that is applied and not stored.

    `adk.linearize(f)(...)` and `adk.hvp(f)(...)` evaluate the function once and return one, which
    keeps the function's value; each product then costs about as much as the function. So are
    transposes (`.T`), sums, differences, multiples and products (`A @ B`) of maps and of stored
    derivatives, which have no value. It is a pytree, whose leaves are what the products need.
    """

    def __getattr__(self, name: str) -> NoReturn:
        # Only reached when the usual lookup fails; see `Derivative.__getattr__`.
        if is_dunder(name) or name.startswith("_"):
            raise AttributeError(name)
        ask_again(self, name)
        if name == "plot":
            raise NotDifferentiatedError(
                f"{self._name} has no attribute 'plot': it stores no blocks. Draw it with "
                ".materialise().plot(), which stores them."
            )
        raise NotDifferentiatedError(
            f"{self._name} has no attribute {name!r}: it stores no blocks. Multiply with mv and "
            "rmv, or use .materialise(), whose result has a block for each argument."
        )

    @property
    def value(self) -> R_co:
        """What the function returned (without the auxiliary data).

        Raises:
            NotDifferentiatedError: Of a map that was made of others.
        """
        self._has_no("value")

    @property
    def aux(self) -> Any:
        """The auxiliary data that the function returned, `None` without `has_aux`.

        Raises:
            NotDifferentiatedError: Of a map that was made of others.
        """
        self._has_no("auxiliary data")

    @property
    def grad(self) -> "Gradient[R_co]":
        """The gradient, of a map made by `adk.hvp` or `adk.gauss_newton`.

        Raises:
            NotDifferentiatedError: Of other maps.
        """
        self._has_no("gradient")

    def _has_no(self, what: str) -> NoReturn:
        raise NotDifferentiatedError(
            f"{self._name} has no {what}: it is made of other maps. Ask the one of them that "
            "came from the function."
        )

    @property
    def _sweep_mode(self) -> str:
        """In which mode the matrix is swept."""
        return "auto"

    @property
    def _sweep_limits(self) -> Limits:
        """What the sweeps for the matrix may take."""
        return NO_LIMITS

    @property
    def _is_holomorphic(self) -> bool:
        return False

    def _as_linear(self) -> Linear:
        """The map as one program."""
        structs = [spec.struct for spec in self._domain.specs]
        return as_linear(lambda *tangents: self._apply([*tangents]), structs)

    def _sweeps(self) -> LinearSweeps:
        self._refuse_batched()
        linear = self._as_linear()
        sources, targets = self._domain.specs, self._codomain.specs
        # Of matrices that are complex, nothing but the program says that they are holomorphic.
        is_complex_map = all(is_complex(spec.dtype) for spec in (*sources, *targets))
        holomorphic = self._is_holomorphic or (is_complex_map and linear.program.is_complex_linear)
        return LinearSweeps(linear, Ends(sources, targets, holomorphic))

    def _plan(self, call: str) -> Plan:
        """The plan for the matrix, which is not swept."""
        return plan_again(
            call, self._sweeps(), self._sweep_mode, abstract=True, limits=self._sweep_limits
        )[0]

    def _swept(self, method: str) -> BlockTable:
        """All blocks, by the plan for the program of the whole map."""
        call, sweeps = f"{self._name}.{method}", self._sweeps()
        _refuse_conjugating(call, sweeps)
        if is_eager(sweeps.residuals):
            ends, instead = sweeps.ends, "mv and rmv multiply without storing the matrix."
            refuse_too_large(call, ends.targets, ends.sources, sweeps.residuals, instead=instead)
        plan, schedule = plan_again(call, sweeps, self._sweep_mode, limits=self._sweep_limits)
        log(plan)
        return sweeps.run(schedule)

    def as_matrix(self) -> Array:
        """The matrix, `(m, n)`, with the dtype that the blocks promote to.

        Rows follow the leaves of the output (of `hvp`, of the arguments), columns the
        differentiated leaves in signature order, each leaf in C order. It is swept by the plan
        for the map as a whole, in the `mode` that was given to the transform.

        Returns:
            The matrix.

        Raises:
            ModeError: If no mode is possible for the whole of the map.
            ResultTooLargeError: If the matrix does not fit the memory there is.
        """
        return self._swept("as_matrix").matrix()

    def materialise(self) -> Any:
        """The map with its blocks stored, swept by the plan for the map as a whole.

        Returns:
            A `Jacobian`; of a map made by `adk.hvp` a `Hessian`. Of `adk.gauss_newton` and
                `adk.fisher`, of sums and multiples of symmetric maps, and of `L.T @ L` it is a
                `SymmetricMatrix`. The Jacobian of a map made of others has the value `None`.

        Raises:
            ModeError: If no mode is possible for the whole of the map.
            ResultTooLargeError: If the blocks do not fit the memory there is.
        """
        return self._stored(self._swept("materialise"))

    def _refuse_partly_complex(self, method: str) -> None:
        super()._refuse_partly_complex(method)
        if any(is_complex(spec.dtype) for spec in self._domain.specs):
            _refuse_conjugating(f"{self._name}.{method}", self._sweeps())

    def _stored(self, blocks: BlockTable) -> Any:
        # What stores blocks is a map, too, and comes after this module.
        from autodiffkit._result import stored  # noqa: PLC0415

        return stored(blocks, self._arguments, self._codomain, self._name, self._tags)

    @property
    def _kind(self) -> type:
        return LinearMap

    def _children(self) -> Iterable[tuple[str, Any]] | None:
        return [(f".{name}", getattr(self, name)) for name in ("in_structure", "out_structure")]

    def _display(self) -> Display:
        domain, codomain = self._domain, self._codomain
        title = f"{self._title}, {codomain.size} by {domain.size}"
        return Display(title, ("from", _space(domain.specs), "to", _space(codomain.specs)))

    @property
    def _title(self) -> str:
        return f"{self._name} as a linear map"


def _refuse_conjugating(call: str, sweeps: LinearSweeps) -> None:
    """Refuses the matrix of a map between complex arrays that may conjugate, or take real parts."""
    ends = sweeps.ends
    if ends.holomorphic:
        return
    if all(any(is_complex(x.dtype) for x in side) for side in (ends.sources, ends.targets)):
        raise StructureError(
            f"{call}: the map between complex arrays is only R-linear, so it has no matrix over "
            "the complex numbers. Use mv and rmv, or split the complex arrays into real and "
            "imaginary parts."
        )


def _space(specs: Sequence[LeafSpec]) -> Table:
    count = shown_of(len(specs), _TABLE_ROWS)
    rows = [(legible(s.path) or "output", str(s)) for s in specs[:count]]
    more = ""
    if len(specs) > count:
        more = f"... and {len(specs) - count} more leaves"
    return dataclasses.replace(plain_table(rows, "name", "fixed"), more=more, margin=2)


def _ends(specs: Sequence[LeafSpec]) -> list[str]:
    return ["  " + line for line in columns([(show(s.path) or "output", str(s)) for s in specs])]


class Derived(LinearMap[Any]):
    """A map that is made of others: from the space of the last one to that of the first."""

    _parts: tuple[Composable, ...]

    @property
    def _domain(self) -> Tree:
        return self._parts[-1]._domain

    @property
    def _codomain(self) -> Tree:
        return self._parts[0]._codomain

    @property
    def _arguments(self) -> Inputs:
        return self._parts[-1]._arguments

    @property
    def _is_holomorphic(self) -> bool:
        return any(isinstance(x, LinearMap) and x._is_holomorphic for x in self._parts)

    def _refuse_batched(self) -> None:
        for part in self._parts:
            part._refuse_batched()


class Transposed(Derived):
    """The transpose of a map; a view, nothing is copied."""

    def __init__(self, given: Composable) -> None:
        self._parts = (given,)

    @property
    def _domain(self) -> Tree:
        return self._parts[0]._codomain

    @property
    def _codomain(self) -> Tree:
        return self._parts[0]._domain

    @property
    def _arguments(self) -> Inputs:
        return inputs_of(self._domain)

    @property
    def _name(self) -> str:
        return f"{self._parts[0]._name}.T"

    @property
    def _tags(self) -> frozenset[object]:
        return self._parts[0]._tags

    def _apply(self, tangents: list[Array | None]) -> list[Array]:
        return self._parts[0]._apply_transpose(tangents)

    def _apply_transpose(self, cotangents: list[Array | None]) -> list[Array]:
        return self._parts[0]._apply(cotangents)

    @property
    def T(self) -> Any:  # noqa: N802  # as above
        """The map that was transposed."""
        return self._parts[0]

    def as_matrix(self) -> Array:
        """The transposed matrix."""
        return self._parts[0].as_matrix().T

    @property
    def _title(self) -> str:
        return f"transpose of {self._parts[0]._title}"


class Sum(Derived):
    """The sum of two maps between the same spaces."""

    def __init__(self, first: Composable, second: Composable) -> None:
        self._parts = (first, second)
        self._check_same(first._domain, second._domain)
        self._check_same(first._codomain, second._codomain)

    @property
    def _name(self) -> str:
        first, second = self._parts
        return f"({first._name} + {second._name})"

    @property
    def _tags(self) -> frozenset[object]:
        first, second = self._parts
        return first._tags & second._tags

    def _apply(self, tangents: list[Array | None]) -> list[Array]:
        first, second = (part._apply(tangents) for part in self._parts)
        return [a + b for a, b in zip(first, second, strict=True)]

    def _apply_transpose(self, cotangents: list[Array | None]) -> list[Array]:
        first, second = (part._apply_transpose(cotangents) for part in self._parts)
        return [a + b for a, b in zip(first, second, strict=True)]

    def _check_same(self, first: Tree, second: Tree) -> None:
        ours, theirs = ({s.path: str(s) for s in tree.specs} for tree in (first, second))
        if list(ours.items()) == list(theirs.items()):
            return
        differ = [path for path in {**ours, **theirs} if ours.get(path) != theirs.get(path)]
        rows = [
            (show(path) or "output", ours.get(path, "none"), theirs.get(path, "none"))
            for path in differ
        ]
        if not rows:
            first_order, second_order = (", ".join(map(show, x)) for x in (ours, theirs))
            rows = [("order", first_order, second_order)]
        raise StructureError(
            f"{self._name}: maps that are added go between the same spaces, with the same names. "
            "Select the same arguments and outputs of both (wrt=, of=)."
            + listed(columns([("", "first", "second"), *rows]))
        )


class Scaled(Derived):
    """A multiple of a map."""

    _factor: Array

    def __init__(self, factor: Any, given: Composable) -> None:
        if not is_numeric(factor) or jnp.shape(factor) != ():
            raise StructureError(
                f"{given._name}: a linear map is multiplied by one number; got "
                f"{describe_leaf(factor)}. For a product with a structured vector write @ or mv."
            )
        specs = (*given._domain.specs, *given._codomain.specs)
        self._parts = (given,)
        self._factor = jnp.asarray(factor)
        if is_complex(self._factor.dtype) and not all(is_complex(s.dtype) for s in specs):
            raise StructureError(
                f"{given._name}: a map of real arrays is not multiplied by a complex number. "
                "Multiply by its real and its imaginary part."
            )

    @property
    def _name(self) -> str:
        factor = self._factor
        is_known = factor.shape == () and is_eager([factor]) and factor.dtype.kind in "fi"
        shown = f"{float(factor):g}" if is_known else "c"
        return f"({shown} * {self._parts[0]._name})"

    @property
    def _operand(self) -> str:
        given = self._parts[0]
        return f"the block of {given._name} and multiply that: {given._operand}"

    @property
    def _tags(self) -> frozenset[object]:
        return self._parts[0]._tags & {lx.symmetric_tag}  # it may have become negative

    def _apply(self, tangents: list[Array | None]) -> list[Array]:
        return self._times(self._parts[0]._apply(tangents))

    def _apply_transpose(self, cotangents: list[Array | None]) -> list[Array]:
        return self._times(self._parts[0]._apply_transpose(cotangents))

    def _times(self, leaves: Sequence[Array]) -> list[Array]:
        return [leaf * self._factor.astype(leaf.dtype) for leaf in leaves]

    def _refuse_batched(self) -> None:
        super()._refuse_batched()
        refuse_batched(self._name, [self._factor], [()])


class Composed(Derived):
    """The product of two maps: first the right one, and then the left one of what it gives."""

    _is_gram: bool = eqx.field(static=True)  # a real map after its own transpose

    def __init__(self, left: Composable, right: Composable) -> None:
        self._parts = (left, right)
        is_real = not any(is_complex(s.dtype) for s in right._domain.specs + right._codomain.specs)
        mirrors = (left, right), (right, left)
        self._is_gram = is_real and any(
            isinstance(x, Transposed) and x._parts[0] is y for x, y in mirrors
        )
        try:
            jax.eval_shape(self._joint, *self._between)
        except StructureError as error:
            raise StructureError(
                f"{self._name}: what the right map gives is not what the left one takes. Write the "
                "map that is applied first on the right, and select its outputs with of=."
                + listed([
                    "given",
                    *_ends(right._codomain.specs),
                    "taken",
                    *_ends(left._domain.specs),
                ])
            ) from error

    @property
    def _between(self) -> list[jax.ShapeDtypeStruct]:
        return [spec.struct for spec in self._parts[1]._codomain.specs]

    def _joint(self, *leaves: Array) -> list[Array]:
        """The leaves of a product of the right map as what the left one multiplies."""
        left, right = self._parts
        space = left._domain
        vector = right._codomain.unflatten(leaves)
        return filled(collect_vector(space, vector, self._name), space.specs)

    @property
    def _name(self) -> str:
        left, right = self._parts
        return f"({left._name} @ {right._name})"

    @property
    def _tags(self) -> frozenset[object]:
        if self._is_gram:
            return frozenset({lx.symmetric_tag, lx.positive_semidefinite_tag})
        return frozenset()

    def _apply(self, tangents: list[Array | None]) -> list[Array]:
        left, right = self._parts
        return left._apply([*self._joint(*right._apply(tangents))])

    def _apply_transpose(self, cotangents: list[Array | None]) -> list[Array]:
        left, right = self._parts
        back = jax.linear_transpose(self._joint, *self._between)
        return right._apply_transpose([*back(left._apply_transpose(cotangents))])
