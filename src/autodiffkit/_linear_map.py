"""What every derivative is: a linear map between structured spaces."""

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import equinox as eqx
import jax.tree_util as jtu
import lineax as lx
from jaxtyping import Array

from autodiffkit._errors import (
    ModeError,
    NotDifferentiatedError,
    StructureError,
    columns,
    listed,
)
from autodiffkit._inputs import Inputs
from autodiffkit._jax_compat import is_eager
from autodiffkit._leaves import Ends, LeafSpec, is_complex
from autodiffkit._memory import refuse_too_large
from autodiffkit._paths import Path, component, show
from autodiffkit._plan import log
from autodiffkit._planning import make_plan
from autodiffkit._program import Linear, reason
from autodiffkit._records import make_record
from autodiffkit._sweeps import LinearSweeps
from autodiffkit._trees import Tree, Values
from autodiffkit._vectors import (
    Labels,
    collect_vector,
    filled,
    labels,
    refuse_batched,
)

if TYPE_CHECKING:
    from autodiffkit._result import Gradient

R_co = TypeVar("R_co", covariant=True)


class StructuredMap(eqx.Module):
    """Products with structured vectors, shared by all derivatives.

    A subclass says what its domain and codomain are and multiplies lists of leaves.
    """

    # To be supplied: the two spaces, and the products of flat leaves.

    @property
    @abc.abstractmethod
    def _domain(self) -> Tree:
        """What is multiplied."""

    @property
    @abc.abstractmethod
    def _codomain(self) -> Tree:
        """What the product is."""

    @property
    @abc.abstractmethod
    def _name(self) -> str:
        """The derivative, for messages."""

    @abc.abstractmethod
    def _apply(self, tangents: list[Array | None]) -> list[Array]:
        """The product, leaf by leaf; `None` is zero."""

    @abc.abstractmethod
    def _apply_transpose(self, cotangents: list[Array | None]) -> list[Array]:
        """The product of the transpose."""

    @abc.abstractmethod
    def as_matrix(self) -> Array:
        """The matrix of the map on its leaves laid end to end."""

    def _leaf_paths(self) -> list[Path]:
        """The names of the leaves, for a function that returns a derivative."""
        keyed, _ = jtu.tree_flatten_with_path(self)
        return [tuple(map(component, keys)) for keys, _ in keyed]

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
        given = make_record(tuple(arguments), tuple(arguments.values())) if arguments else vector
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

    def _not_an_array(self, *_: Any, **__: Any) -> NoReturn:
        raise StructureError(
            f"{self._name} is no single array, but blocks with names. .as_matrix() gives the "
            "matrix, for a function that takes an array."
        )

    __jax_array__ = _not_an_array
    __array__ = _not_an_array

    def __matmul__(self, vector: Any) -> Any:
        return self.mv(vector)

    @property
    def T(self) -> "Transposed":  # noqa: N802  # the name that matrices have for it
        """The transpose (not conjugated), with `mv`, `rmv`, `T` and `as_matrix`."""
        return Transposed(self)

    def as_lineax(self) -> lx.AbstractLinearOperator:
        """The map as a `lineax` operator over the same pytrees.

        Its input structure is a record by argument and its output structure that of the
        function's output (of a Hessian, a record by argument).

        Returns:
            The operator.

        Raises:
            StructureError: If the map is only R-linear, which no lineax operator is.
        """
        self._refuse_partly_complex("as_lineax")
        try:
            return lx.FunctionLinearOperator(self.mv, self._domain.structure, self._tags)
        except StructureError:
            raise
        except Exception as error:
            self._not_lineax(error)

    @property
    def _tags(self) -> frozenset[object]:
        return frozenset()

    def _not_lineax(self, error: Exception) -> NoReturn:
        raise StructureError(
            f"{self._name}.as_lineax: lineax rebuilds the pytrees with derivatives as their "
            f"leaves, and one of them refuses: {type(error).__name__}: {error}. A class that "
            "checks its fields can do so outside its constructor; .as_matrix() needs no pytree."
        ) from error

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


def is_dunder(name: str) -> bool:
    """Whether all kinds of protocols may ask for an attribute of this name."""
    return name.startswith("__") and name.endswith("__")


def ask_again(instance: Any, name: str) -> None:
    """Lets a property that failed with an `AttributeError` say why.

    Python answers such a failure by calling `__getattr__`, where the error is lost.
    """
    failed = getattr(type(instance), name, None)
    if isinstance(failed, property) and failed.fget is not None:
        failed.fget(instance)


class LinearMap(StructuredMap, Generic[R_co]):
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

    def __getattr__(self, name: str) -> NoReturn:
        # Only reached when the usual lookup fails; see `Derivative.__getattr__`.
        if is_dunder(name) or "_inputs" not in self.__dict__:
            raise AttributeError(name)
        ask_again(self, name)
        whole = "adk.jacobian" if self._gradient is None else "adk.hessian"
        raise NotDifferentiatedError(
            f"{self._name} has no attribute {name!r}: it stores no blocks. Multiply with mv and "
            f"rmv, or use {whole}, whose result has a block for each argument."
        )

    @property
    def value(self) -> R_co:
        """What the function returned (without the auxiliary data)."""
        return self._value.tree

    @property
    def aux(self) -> Any:
        """The auxiliary data that the function returned, `None` without `has_aux`."""
        return self._aux.tree

    @property
    def grad(self) -> "Gradient[R_co]":
        """The gradient, of a map made by `adk.hvp`.

        Raises:
            NotDifferentiatedError: For a map made by `adk.linearize`.
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
        vector = filled(tangents, self._domain.specs)
        blocked = self._linear.push_obstacle()
        if blocked is None:
            return self._linear(*vector)
        # What can be pulled back can be pushed, by transposing the pull once more.
        if self._linear.pull_obstacle() is None:
            again = self._linear.transpose()
            if again.pull_obstacle() is None:
                return again.transpose()(*vector)
        raise self._impossible("mv", blocked) from blocked

    def _apply_transpose(self, cotangents: list[Array | None]) -> list[Array]:
        self._refuse_batched()
        blocked = self._linear.pull_obstacle()
        if blocked is not None:
            raise self._impossible("rmv", blocked) from blocked
        return self._linear.transpose()(*filled(cotangents, self._codomain.specs))

    def _impossible(self, method: str, why: Exception) -> ModeError:
        whole = "adk.jacobian" if self._gradient is None else "adk.hessian"
        return ModeError(
            f"{self._name}.{method} is impossible for this function. {whole} may still "
            f"compute the whole matrix, which has {method} as well." + listed([reason(why)])
        )

    def _refuse_batched(self) -> None:
        shapes = [struct.shape for struct in self._linear.program.residuals]
        refuse_batched(self._name, self._linear.residuals, shapes)

    def as_matrix(self) -> Array:
        """The matrix, `(m, n)`, with the dtype that the blocks promote to.

        Rows follow the leaves of the output (of `hvp`, of the arguments), columns the
        differentiated leaves in signature order, each leaf in C order. It is swept in the
        `mode` that was given to the transform.

        Returns:
            The matrix.

        Raises:
            ModeError: If no mode is possible for the whole of the function.
            ResultTooLargeError: If the matrix does not fit the memory there is.
        """
        self._refuse_batched()
        call = f"{self._name}.as_matrix"
        ends = Ends(self._domain.specs, self._codomain.specs, self._holomorphic)
        residuals = self._linear.residuals
        if is_eager(residuals):
            instead = "mv and rmv multiply without storing the matrix."
            refuse_too_large(call, ends.targets, ends.sources, residuals, instead=instead)
        sweeps = LinearSweeps(self._linear, ends)
        plan, schedule = make_plan(call, sweeps, self._mode)
        log(plan)
        return sweeps.run(schedule).matrix()

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
