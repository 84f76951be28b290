"""What differential operators return: the derivative beside the function's value."""

from collections.abc import Iterable
from typing import Any, ClassVar, Generic

import equinox as eqx
import jax
import jax.tree_util as jtu
from jaxtyping import Array

from autodiffkit._display import Displayed
from autodiffkit._display_text import Display
from autodiffkit._jax_compat import without_tracer
from autodiffkit._operands import Whole
from autodiffkit._paths import component
from autodiffkit._result import Gradient
from autodiffkit._structured_map import R_co, is_dunder
from autodiffkit._tables import leaf_display
from autodiffkit._trees import Values


class Evaluation(Displayed, Whole, eqx.Module, Generic[R_co]):
    """What the operators return: the function's value beside the derivative."""

    _value: Values
    _aux: Values
    _function: str = eqx.field(static=True)

    _field: ClassVar[str]  # which holds the derivative

    @property
    def value(self) -> R_co:
        """What the function returned (without the auxiliary data)."""
        return self._value.tree

    @property
    def aux(self) -> Any:
        """The auxiliary data that the function returned, `None` without `has_aux`."""
        return self._aux.tree

    @property
    def _called(self) -> str:
        return self._title

    @property
    def _operand(self) -> str:
        return f".{self._field}, which holds the derivative"

    @property
    def _contents(self) -> str:
        return f".value for what the function returned, and .{self._field}"

    @property
    def _title(self) -> str:
        return f"{type(self).__name__} of {self._function}"

    @property
    def _shown(self) -> dict[str, Any]:
        """What there is to see, by the names of attributes."""
        return {self._field: getattr(self, self._field), "value": self.value}

    def _children(self) -> Iterable[tuple[str, Any]]:
        shown = {name: jax.tree.map(without_tracer, x) for name, x in self._shown.items()}
        return [(f".{name}", child) for name, child in shown.items()]

    def _display(self) -> Display:
        keyed, _ = jtu.tree_flatten_with_path(self._shown)
        leaves = [(tuple(map(component, keys)), leaf) for keys, leaf in keyed]
        leaves.sort(key=lambda named: named[0][0] == "value")  # a dict is flattened by its keys
        return leaf_display(self._title, leaves)


class Laplacian(Evaluation[R_co]):
    """The Laplacian of a function and its value.

    Attributes:
        laplacian: In the structure and shapes of the output.
    """

    laplacian: Any

    _field = "laplacian"


class Divergence(Evaluation[R_co]):
    """The divergence of a vector field and its value.

    Attributes:
        divergence: A scalar.
    """

    divergence: Array

    _field = "divergence"


class Curl(Evaluation[R_co]):
    """The curl of a vector field in three dimensions and its value.

    Attributes:
        curl: In the structure of the output.
    """

    curl: Any

    _field = "curl"


class DirectionalDerivative(Evaluation[R_co]):
    """A derivative along a direction and the function's value.

    Attributes:
        derivative: In the structure and shapes of the output.
    """

    derivative: Any

    _field = "derivative"

    @property
    def _title(self) -> str:
        return f"Derivative of {self._function} along a direction"


class HessianDiagonal(Evaluation[R_co]):
    """The diagonal of a Hessian, the gradient and the function's value.

    `D.x` has the structure and shapes of argument `x`; `D["x"]` is the same.

    Attributes:
        diagonal: A record by argument.
        grad: The gradient.
    """

    diagonal: Any
    grad: Gradient[R_co]

    _field = "diagonal"

    def __getattr__(self, name: str) -> Any:
        # Only reached when the usual lookup fails; see `Stored.__getattr__`.
        if is_dunder(name) or "diagonal" not in self.__dict__:
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, path: str) -> Any:
        part = self.grad._inputs.locate(f"hessian_diagonal({self.grad._function})", path)
        return part.pick(jax.tree.leaves(self.diagonal))

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.grad._inputs.names]

    def _display(self) -> Display:
        tree = self.grad._inputs.tree
        leaves = tree.treedef.flatten_up_to(self.diagonal)
        return leaf_display(self._title, [(tree.leaves[i].path, leaves[i]) for i in tree.selected])
