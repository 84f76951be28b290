"""What `linearize` and `hvp` return: a derivative as a linear program with its residuals."""

from typing import Any

import equinox as eqx
import lineax as lx
from jaxtyping import Array

from autodiffkit._block_table import BlockTable
from autodiffkit._errors import ModeError, NotDifferentiatedError, listed
from autodiffkit._hessian import Hessian
from autodiffkit._inputs import Inputs
from autodiffkit._limits import Limits
from autodiffkit._linear_map import LinearMap
from autodiffkit._program import Linear, reason
from autodiffkit._result import Gradient, Jacobian
from autodiffkit._structured_map import R_co
from autodiffkit._trees import Tree, Values
from autodiffkit._vectors import filled, refuse_batched


class Linearized(LinearMap[R_co]):
    """A `LinearMap` that came from a function."""

    _linear: Linear
    _value: Values
    _aux: Values
    _gradient: Any  # of a map that `hvp` made; else None
    _inputs: Inputs = eqx.field(static=True)
    _outputs: Tree = eqx.field(static=True)
    _function: str = eqx.field(static=True)
    _mode: str = eqx.field(static=True)
    _holomorphic: bool = eqx.field(static=True)
    _limits: Limits = eqx.field(static=True)

    @property
    def value(self) -> R_co:
        """What the function returned (without the auxiliary data)."""
        return self._value.tree

    @property
    def aux(self) -> Any:
        """The auxiliary data that the function returned, `None` without `has_aux`."""
        return self._aux.tree

    @property
    def grad(self) -> Gradient[R_co]:
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
    def _arguments(self) -> Inputs:
        return self._inputs

    @property
    def _name(self) -> str:
        return f"{'linearize' if self._gradient is None else 'hvp'}({self._function})"

    @property
    def _contents(self) -> str:
        return ".value for what the function returned, and multiply with .mv and .rmv"

    @property
    def _title(self) -> str:
        kind = "Jacobian" if self._gradient is None else "Hessian"
        return f"{kind} of {self._function} as a linear map"

    @property
    def _tags(self) -> frozenset[object]:
        return frozenset() if self._gradient is None else frozenset({lx.symmetric_tag})

    @property
    def _sweep_mode(self) -> str:
        return self._mode

    @property
    def _is_holomorphic(self) -> bool:
        return self._holomorphic

    @property
    def _sweep_limits(self) -> Limits:
        return self._limits

    def _as_linear(self) -> Linear:
        return self._linear

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

    def _stored(self, blocks: BlockTable) -> Any:
        name, inputs = self._function, self._inputs
        parts = (blocks, self._value, self._aux)
        if self._gradient is None:
            return Jacobian._pack(parts, inputs, self._outputs, name)
        first = self._gradient
        return Hessian._pack((*parts, first._blocks), inputs, first._outputs, name)
