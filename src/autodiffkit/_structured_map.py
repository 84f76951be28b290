"""Maps between structured spaces: products with structured vectors, by name."""

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import lineax as lx
from jaxtyping import Array

from autodiffkit._display import Displayed
from autodiffkit._errors import StructureError
from autodiffkit._inputs import Inputs
from autodiffkit._leaves import describe_array, is_complex, slices
from autodiffkit._operands import Whole
from autodiffkit._paths import Path, component
from autodiffkit._records import make_record
from autodiffkit._trees import Tree
from autodiffkit._vectors import Labels, collect_vector, joined, labels

R_co = TypeVar("R_co", covariant=True)


class _Bound(eqx.Module):
    """A method of a map and the map, which may have an argument that is named `self`."""

    _method: Callable[..., Any] = eqx.field(static=True)
    _map: Any

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._method(self._map, *args, **kwargs)

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self._method.__get__(self._map)


class _ByKeyword:
    """A method that takes arguments of any name: Equinox's own bound methods claim `self`."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self._method if instance is None else _Bound(self._method, instance)


if TYPE_CHECKING:
    F = TypeVar("F", bound=Callable[..., Any])

    def by_keyword(method: F) -> F:
        """As below; a checker sees the method."""
        ...

else:

    def by_keyword(method: Callable[..., Any]) -> Any:
        """Lets a method of a map take an argument that is named `self`."""
        return _ByKeyword(method)


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


def _leaves(space: Tree, vector: Any, call: str) -> list[Array | None]:
    if isinstance(vector, StructuredMap):
        vector = vector._as_vector(call)
    return collect_vector(space, vector, call)


class _NoArray:
    """What a map is as an array: none, which whoever takes it for one is told."""

    def __init__(self, name: str) -> None:
        self._name = name

    def refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise StructureError(
            f"{self._name} is no single array, but blocks with names. .as_matrix() gives the "
            "matrix, for a function that takes an array."
        )

    __jax_array__ = refuse
    __array__ = refuse
    __repr__ = refuse  # which JAX puts into a message of its own


class StructuredMap(Displayed, Whole, eqx.Module):
    """Products with structured vectors, shared by all derivatives.

    A subclass says what its domain and codomain are and multiplies lists of leaves.
    """

    @property
    def _called(self) -> str:
        return self._name

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

    @property
    @abc.abstractmethod
    def _arguments(self) -> Inputs:
        """The domain as arguments by name."""

    @abc.abstractmethod
    def _apply(self, tangents: list[Array | None]) -> list[Array]:
        """The product, leaf by leaf; `None` is zero."""

    @abc.abstractmethod
    def _apply_transpose(self, cotangents: list[Array | None]) -> list[Array]:
        """The product of the transpose."""

    @abc.abstractmethod
    def as_matrix(self) -> Array:
        """The matrix of the map on its leaves laid end to end."""

    @abc.abstractmethod
    def _refuse_batched(self) -> None:
        """Refuses to go on with arrays that `vmap` has batched."""

    def _leaf_paths(self) -> list[Path]:
        """The names of the leaves, for a function that returns a derivative."""
        keyed, _ = jtu.tree_flatten_with_path(self)
        return [tuple(map(component, keys)) for keys, _ in keyed]

    # What users call.

    @by_keyword
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
        tangents = self._collected("mv", vector, arguments)
        return self._codomain.unflatten(self._apply(tangents))

    def _collected(self, method: str, vector: Any, arguments: dict[str, Any]) -> list[Array | None]:
        call = f"{self._name}.{method}"
        if arguments and vector is not None:
            raise StructureError(
                f"{call}: the vector is given twice. Give it by position or by keyword, not both."
            )
        given = make_record(tuple(arguments), tuple(arguments.values())) if arguments else vector
        return _leaves(self._domain, given, call)

    def _pulled(self, method: str, vector: Any) -> list[Array | None]:
        return _leaves(self._codomain, vector, f"{self._name}.{method}")

    def _as_vector(self, call: str) -> Any:
        """What this is as a structured vector, if it is one."""
        raise StructureError(
            f"{call}: {self._name} is a linear map and no vector; write @ for a product of maps."
        )

    def rmv(self, vector: Any, /) -> Any:
        """The product of the transpose (not conjugated) with a structured vector.

        Real arguments of a complex output get the real part, as from `jax.vjp`.

        Args:
            vector: In the structure of the output; of a Hessian of a scalar, like `mv`'s.

        Returns:
            A record by argument.

        Raises:
            StructureError: If a leaf fits nothing in the derivative, or has another shape.
        """
        cotangents = self._pulled("rmv", vector)
        return self._domain.unflatten(self._apply_transpose(cotangents))

    def __jax_array__(self) -> Any:
        # Not refused at once: JAX asks before it leaves `c * J` to `J.__rmul__`.
        return _NoArray(self._name)

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        _NoArray(self._name).refuse()

    # The spaces.

    @property
    def in_structure(self) -> Any:
        """What is multiplied: `jax.ShapeDtypeStruct`s, in a record by argument."""
        return self._domain.structure

    @property
    def out_structure(self) -> Any:
        """What a product is: `jax.ShapeDtypeStruct`s in the structure of the output."""
        return self._codomain.structure

    @property
    def row_labels(self) -> Labels:
        """Paths of the output's leaves (of a Hessian, of the arguments') with their rows."""
        return labels(self._codomain.specs)

    @property
    def column_labels(self) -> Labels:
        """Paths of the differentiated leaves, each with its slice of the matrix's columns."""
        return labels(self._domain.specs)

    @by_keyword
    def ravel(self, vector: Any = None, /, **arguments: Any) -> Array:
        """A structured vector as a flat one, in the order of the matrix's columns.

        Args:
            vector: As for `mv`.
            **arguments: The same by keyword.

        Returns:
            An array `(n,)`, in the dtype that the arguments' leaves promote to.

        Raises:
            StructureError: If a leaf fits nothing in the derivative, or has another shape.
        """
        leaves = self._collected("ravel", vector, arguments)
        return joined(leaves, self._domain.specs)

    def unravel(self, flat: Any, /) -> Any:
        """A flat vector, such as a column of an outside algorithm's answer, with names again.

        Args:
            flat: An array `(n, ...)`, whose first axis is that of the matrix's columns. (`J.T` has
                the matrix's rows there: `J.T.unravel(u)`.)

        Returns:
            A record by argument, whose leaves have the shapes of the arguments' leaves and then
            the remaining axes of the array. They have the leaves' dtypes, unless the array is
            complex and the leaf is not.

        Raises:
            StructureError: If the array has another length.
        """
        return self._domain.unflatten(self._unraveled(flat))

    def _unraveled(self, flat: Any) -> list[Array]:
        array = jnp.asarray(flat)
        size = self._domain.size
        if array.ndim == 0 or array.shape[0] != size:
            raise StructureError(
                f"{self._name}.unravel: the first axis should have the {size} "
                f"entr{'y' if size == 1 else 'ies'} of "
                f"{', '.join(label for label, _ in self.column_labels) or 'the output'}; got "
                f"{describe_array(array.shape, array.dtype)}. Pass an entry or a row for each."
            )
        leaves: list[Array] = []
        for spec, part in zip(self._domain.specs, slices(self._domain.specs), strict=True):
            keeps = is_complex(array.dtype) and not is_complex(spec.dtype)
            leaf = array[part].reshape(spec.shape + array.shape[1:])
            leaves.append(leaf if keeps else leaf.astype(spec.dtype))
        return leaves

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
