"""Second derivatives as results."""

from typing import Any, ClassVar

from autodiffkit._block_table import BlockTable
from autodiffkit._errors import NotDifferentiatedError
from autodiffkit._pairs import bare, is_scalar
from autodiffkit._paths import Path
from autodiffkit._result import Derivative, Gradient
from autodiffkit._structured_map import R_co
from autodiffkit._symmetric import Symmetric


class Hessian(Symmetric, Derivative[R_co]):
    """The second derivatives of a function's outputs with respect to its arguments.

    `H.x.y` is the block by `x` and then by `y`, of the output's shape, then that of `x`, then
    that of `y`, in the structures of both arguments; with several outputs the output's
    structure is outside: `H.x.y["energy"]`. A Hessian is a pytree of arrays.
    """

    _verb: ClassVar[str] = "hessian"
    _quantity: ClassVar[str] = "second derivative"

    def _leaf_paths(self) -> list[Path]:
        first = [("grad", *path) for path in self._first.paths]
        return [*super()._leaf_paths(), *first]

    @property
    def _first(self) -> BlockTable:
        """The gradient's blocks, or the Jacobian's."""
        return self._parts[3]

    @property
    def _title(self) -> str:
        return f"Hessian of {self._function}"

    @property
    def grad(self) -> Gradient[R_co]:
        """The gradient, of a scalar function.

        Raises:
            NotDifferentiatedError: If the function has several outputs or an array.
        """
        if not is_scalar(self._outputs):
            raise NotDifferentiatedError(
                f"{self._name}.grad: the output is not one scalar, so there is no gradient; "
                f"adk.jacobian({self._function}) gives the first derivatives, and .of(path) "
                "selects one output."
            )
        outputs = bare(self._outputs)
        parts = (self._first, self._value, self._aux)
        return Gradient._pack(parts, self._inputs, outputs, self._function)

    def of(self, path: str, /) -> "Hessian[Any]":
        """The Hessian of a part of the output, by path.

        Returns:
            A Hessian whose output is that part.

        Raises:
            NotDifferentiatedError: If there is no such output, or it was not differentiated.
        """
        part, value = self._sub_output(path)
        count = len(self._domain.specs)
        rows = [count * i + k for i in part.indices for k in range(count)]
        blocks, first = self._blocks.take(rows), self._first.take(part.indices)
        outputs = part.tree.rebased()
        parts = (blocks, value, self._aux, first)
        return self._pack(parts, self._inputs, outputs, self._function)
