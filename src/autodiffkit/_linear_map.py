"""What every derivative is: a linear map between structured spaces."""

import itertools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array

from autodiffkit._errors import (
    ModeError,
    NotDifferentiatedError,
    StructureError,
    columns,
    listed,
)
from autodiffkit._plan import make_plan
from autodiffkit._program import Linear
from autodiffkit._records import Record
from autodiffkit._signature import Inputs
from autodiffkit._sweeps import LinearSweeps
from autodiffkit._trees import LeafSpec, Tree, Values, is_complex, promote, show

Labels = tuple[tuple[str, slice], ...]


class StructuredMap(eqx.Module):
    """Products with structured vectors, shared by all derivatives.

    A subclass says what its domain and codomain are and multiplies lists of leaves.
    """

    # To be supplied: the two spaces, and the products of flat leaves.

    @property
    def _domain(self) -> Tree:
        raise AttributeError("_domain")

    @property
    def _codomain(self) -> Tree:
        raise AttributeError("_codomain")

    @property
    def _name(self) -> str:
        raise AttributeError("_name")

    def _apply(self, tangents: list[Array | None]) -> list[Array]:
        raise AttributeError("_apply")

    def _apply_transpose(self, cotangents: list[Array | None]) -> list[Array]:
        raise AttributeError("_apply_transpose")

    # What users call.

    def mv(self, vector: Any = None, /, **arguments: Any) -> Any:
        """The product with a structured vector.

        Args:
            vector: A `Record` or a dict by argument name, or the bare argument when only
                one was differentiated. Leaves have the shapes of the arguments' leaves.
            **arguments: The same by keyword: `J.mv(x=dx)`.

        Returns:
            The product, in the structure of the output; of a Hessian, a record by argument.
            What the vector leaves out counts as zero.

        Raises:
            StructureError: If a leaf fits nothing in the derivative, or has another shape.
        """
        if arguments and vector is not None:
            raise StructureError(
                f"{self._name}.mv: give the vector either by position or by keyword, not both."
            )
        given = arguments if arguments else vector
        tangents = collect_vector(self._domain, given, f"{self._name}.mv")
        return self._codomain.unflatten(self._apply(tangents))

    def rmv(self, vector: Any, /) -> Any:
        """The product of the transpose (not conjugated) with a structured vector.

        Args:
            vector: In the structure of the output; of a Hessian of a scalar, like `mv`'s.

        Returns:
            A record by argument.

        Raises:
            StructureError: If a leaf fits nothing in the derivative, or has another shape.
        """
        cotangents = collect_vector(self._codomain, vector, f"{self._name}.rmv")
        return self._domain.unflatten(self._apply_transpose(cotangents))

    def __matmul__(self, vector: Any) -> Any:
        return self.mv(vector)

    @property
    def T(self) -> "Transposed":  # noqa: N802  # the name that matrices have for it
        """The transpose (not conjugated), with `mv`, `rmv`, `T` and `as_matrix`."""
        return Transposed(self)

    def as_matrix(self) -> Array:
        """The matrix of the map on its leaves laid end to end."""
        raise AttributeError("as_matrix")

    def as_lineax(self) -> lx.AbstractLinearOperator:
        """The map as a `lineax` operator over the same pytrees.

        Its input structure is a record by argument and its output structure that of the
        function's output (of a Hessian, a record by argument).

        Raises:
            StructureError: If the map is only R-linear, which no lineax operator is.
        """
        self._refuse_partly_complex("as_lineax")
        return lx.FunctionLinearOperator(self.mv, self._domain.structure, self._tags)

    @property
    def _tags(self) -> frozenset[object]:
        return frozenset()

    def _refuse_partly_complex(self, method: str) -> None:
        domain, codomain = self._domain.specs, self._codomain.specs
        kinds = {is_complex(spec.dtype) for spec in (*domain, *codomain)}
        if len(kinds) > 1:
            raise StructureError(
                f"{self._name}.{method}: the map between real and complex arrays is only "
                "R-linear, so it has no matrix over one field. Use mv and rmv, or split the "
                "complex arrays into real and imaginary parts."
            )


class Transposed(StructuredMap):
    """The transpose of a derivative; a view, nothing is copied."""

    _map: StructuredMap

    @property
    def _domain(self) -> Tree:
        return self._map._codomain

    @property
    def _codomain(self) -> Tree:
        return self._map._domain

    @property
    def _name(self) -> str:
        return f"{self._map._name}.T"

    def _apply(self, tangents: list[Array | None]) -> list[Array]:
        return self._map._apply_transpose(tangents)

    def _apply_transpose(self, cotangents: list[Array | None]) -> list[Array]:
        return self._map._apply(cotangents)

    @property
    def T(self) -> Any:  # noqa: N802  # as above
        """The map that was transposed."""
        return self._map

    def as_matrix(self) -> Array:
        """The transposed matrix."""
        return self._map.as_matrix().T

    @property
    def _tags(self) -> frozenset[object]:
        return self._map._tags

    def __repr__(self) -> str:
        return f"transpose of {self._map!r}"


class LinearMap(StructuredMap):
    """A derivative that is applied and not stored: a Jacobian or Hessian without its matrix.

    `adk.linearize(f)(...)` and `adk.hvp(f)(...)` evaluate the function once and return this;
    each product then costs about as much as the function. It is a pytree, whose leaves are
    the function's value and the residuals of the linear program.
    """

    _linear: Linear
    _value: Values
    _aux: Values
    _gradient: Any  # of a map that `hvp` made; else None
    _inputs: Inputs = eqx.field(static=True)
    _outputs: Tree = eqx.field(static=True)
    _function: str = eqx.field(static=True)
    _mode: str = eqx.field(static=True)
    _holomorphic: bool = eqx.field(static=True)

    @property
    def value(self) -> Any:
        """What the function returned (without the auxiliary data)."""
        return self._value.tree

    @property
    def aux(self) -> Any:
        """The auxiliary data that the function returned, `None` without `has_aux`."""
        return self._aux.tree

    @property
    def grad(self) -> Any:
        """The gradient, of a map made by `adk.hvp`.

        Raises:
            AttributeError: For a map made by `adk.linearize`.
        """
        if self._gradient is None:
            raise NotDifferentiatedError(
                f"{self._name} keeps no gradient; .rmv(1.0) pulls one back, and adk.grad "
                "or adk.hvp return it."
            )
        return self._gradient

    @property
    def _domain(self) -> Tree:
        return self._inputs.tree

    @property
    def _codomain(self) -> Tree:
        return self._outputs

    @property
    def _name(self) -> str:
        return f"{'linearize' if self._gradient is None else 'hvp'}({self._function})"

    @property
    def _tags(self) -> frozenset[object]:
        return frozenset() if self._gradient is None else frozenset({lx.symmetric_tag})

    def _apply(self, tangents: list[Array | None]) -> list[Array]:
        self._refuse_batched()
        vector = _filled(tangents, self._domain.specs)
        blocked = self._linear.push_obstacle()
        if blocked is None:
            return self._linear(*vector)
        # What can be pulled back can be pushed, by transposing the pull once more.
        if self._linear.pull_obstacle() is None:
            again = self._linear.transpose()
            if again.pull_obstacle() is None:
                return again.transpose()(*vector)
        raise self._impossible("mv", blocked)

    def _apply_transpose(self, cotangents: list[Array | None]) -> list[Array]:
        self._refuse_batched()
        blocked = self._linear.pull_obstacle()
        if blocked is not None:
            raise self._impossible("rmv", blocked)
        return self._linear.transpose()(*_filled(cotangents, self._codomain.specs))

    def _impossible(self, method: str, why: str) -> ModeError:
        whole = "adk.jacobian" if self._gradient is None else "adk.hessian"
        return ModeError(
            f"{self._name}.{method} is impossible for this function. {whole} may still "
            f"compute the whole matrix, which has {method} as well." + listed([why])
        )

    def _refuse_batched(self) -> None:
        shapes = [struct.shape for struct in self._linear.program.residuals]
        refuse_batched(self._name, self._linear.residuals, shapes)

    def as_matrix(self) -> Array:
        """The matrix, `(m, n)`, with the dtype that the blocks promote to.

        Rows follow the leaves of the output (of `hvp`, of the arguments), columns the
        differentiated leaves in signature order, each leaf in C order. It is swept in the
        `mode` that was given to the transform.

        Raises:
            ModeError: If no mode is possible for the whole of the function.
        """
        self._refuse_batched()
        sources, targets = self._domain.specs, self._codomain.specs
        sweeps = LinearSweeps(self._linear, sources, targets, holomorphic=self._holomorphic)
        plan = make_plan(
            f"{self._name}.as_matrix",
            sources,
            targets,
            self._mode,
            sweeps.obstacle,
            holomorphic=self._holomorphic,
        )
        return matrix(sweeps.run(plan.mode), sources, targets)

    @property
    def row_labels(self) -> Labels:
        """Paths of the output's leaves (of `hvp`, of the arguments') with their rows."""
        return labels(self._codomain.specs)

    @property
    def column_labels(self) -> Labels:
        """Paths of the differentiated leaves with their columns."""
        return labels(self._domain.specs)

    def __repr__(self) -> str:
        kind = "Jacobian" if self._gradient is None else "Hessian"
        domain, codomain = self._domain, self._codomain
        return (
            f"{kind} of {self._function} as a linear map, {codomain.size} by {domain.size}"
            + listed(["from", *_ends(domain.specs), "to", *_ends(codomain.specs)])
        )


def _ends(specs: Sequence[LeafSpec]) -> list[str]:
    return ["  " + line for line in columns([(show(s.path) or "output", str(s)) for s in specs])]


# Leaves -----------------------------------------------------------------------


def collect_vector(space: Tree, vector: Any, call: str) -> list[Array | None]:
    """The leaves of a structured vector in the order of the space; absent ones are `None`.

    A space whose structure is a record (the arguments) also takes a dict by argument name
    and, when there is one argument only, that argument bare.
    """
    names = _record_names(space)
    if names is None or isinstance(vector, Record):
        return space.collect(vector, (), call)
    by_name = isinstance(vector, dict) and set(map(str, vector)) <= set(names)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]  # a dict of any kind
    if len(names) == 1 and not (by_name and _fits(space, vector, call)):
        return space.collect(vector, (names[0],), call)
    if not by_name:
        example = ", ".join(f"{name}=..." for name in names)
        raise StructureError(
            f"{call}: several arguments were differentiated ({', '.join(names)}); name what "
            f"the vector holds: ({example}), a dict by name, or an adk.Record."
        )
    return space.collect(vector, (), call)


def _record_names(space: Tree) -> tuple[str, ...] | None:
    node = space.treedef.node_data()
    return node[1] if node is not None and node[0] is Record else None


def _fits(space: Tree, vector: Any, call: str) -> bool:
    try:
        space.collect(vector, (), call)
    except StructureError:
        return False
    return True


def _filled(vector: list[Array | None], specs: Sequence[LeafSpec]) -> list[Array]:
    return [
        jnp.zeros(spec.shape, spec.dtype) if leaf is None else leaf
        for leaf, spec in zip(vector, specs, strict=True)
    ]


def multiply(
    blocks: Sequence[Sequence[Array]],
    vector: list[Array | None],
    outs: Sequence[LeafSpec],
    *,
    transpose: bool,
) -> list[Array]:
    """The product of blocks, or of their transpose, with a vector of leaves.

    Products have the highest precision, and low-precision dtypes accumulate in float32.
    A product that is complex where the result is real keeps its real part: that is the
    derivative along the vector (JAX's conventions for maps between real and complex).
    """
    results: list[Array] = []
    for i, spec in enumerate(outs):
        total: Array | None = None
        for j, leaf in enumerate(vector):
            if leaf is None:
                continue
            block = blocks[j][i] if transpose else blocks[i][j]
            # block has axes [output..., source...]; what is contracted comes last or first
            left, right = (leaf, block) if transpose else (block, leaf)
            dtype = promote([left.dtype, right.dtype])
            wide = promote([dtype, jnp.float32])
            term = jnp.tensordot(
                left.astype(dtype),
                right.astype(dtype),
                axes=leaf.ndim,
                precision=jax.lax.Precision.HIGHEST,
                preferred_element_type=wide,
            )
            total = term if total is None else _sum(total, term)
        if total is None:
            total = jnp.zeros(spec.shape, spec.dtype)
        elif is_complex(total.dtype) and not is_complex(spec.dtype):
            total = total.real
        results.append(total.astype(spec.dtype))
    return results


def _sum(left: Array, right: Array) -> Array:
    dtype = promote([left.dtype, right.dtype])
    return left.astype(dtype) + right.astype(dtype)


def matrix(
    blocks: Sequence[Sequence[Array]], sources: Sequence[LeafSpec], targets: Sequence[LeafSpec]
) -> Array:
    """The blocks as one matrix, in the dtype that all of them promote to."""
    dtype = promote(block.dtype for row in blocks for block in row)
    # block has axes [output..., source...]; the matrix [row, column]
    rows = [
        jnp.concatenate(
            [
                block.reshape(target.size, source.size).astype(dtype)
                for block, source in zip(row, sources, strict=True)
            ],
            axis=1,
        )
        for row, target in zip(blocks, targets, strict=True)
    ]
    return jnp.concatenate(rows, axis=0)


def labels(specs: Sequence[LeafSpec]) -> Labels:
    """Paths of leaves laid end to end, each with its slice."""
    ends = list(itertools.accumulate(spec.size for spec in specs))
    starts = [0, *ends]
    return tuple(
        (show(spec.path), slice(start, end))
        for spec, start, end in zip(specs, starts, ends, strict=False)
    )


def refuse_batched(name: str, arrays: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> None:
    """Refuses matrix methods on a result that `vmap` has batched.

    Raises:
        StructureError: If an array does not have the shape that it was made with.
    """
    for array, shape in zip(arrays, shapes, strict=True):
        if jnp.shape(array) != shape:
            raise StructureError(
                f"{name}: this result has an array of shape {list(jnp.shape(array))} where its "
                f"structure says {list(shape)}. After jax.vmap it is still a pytree, but its "
                "matrix methods belong inside the function that is mapped."
            )
