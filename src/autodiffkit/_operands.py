"""What a result is not: a tuple to unpack, a number, or an operand of arithmetic with arrays."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from autodiffkit._display import reached
from autodiffkit._errors import OperandError, some_of
from autodiffkit._leaves import describe_leaf


class Whole:
    """A result that is reached into by name.

    JAX's transforms return arrays and pairs, so that people unpack results and subtract them. Of
    that Python itself says no more than that it is impossible.
    """

    @property
    def _called(self) -> str:
        """What it is, for messages."""
        raise NotImplementedError

    @property
    def _contents(self) -> str:
        """What there is in the place of the entries of a tuple."""
        raise NotImplementedError

    @property
    def _operand(self) -> str:
        """What there is in the place of an operand."""
        raise NotImplementedError

    def _refuse_operand(self, symbol: str, other: Any, *, reflected: bool = False) -> NoReturn:
        is_number = isinstance(other, (bool, int, float, complex))
        sides = [self._called, repr(other) if is_number else describe_leaf(other)]
        left, right = reversed(sides) if reflected else sides
        raise OperandError(
            f"{left} {symbol} {right}: a result is no array, but arrays with names. "
            f"Take {self._operand}."
        )

    def _refuse_number(self, kind: str) -> NoReturn:
        raise OperandError(
            f"{kind}({self._called}): a result is no number, but arrays with names. "
            f"Take {self._operand}."
        )

    # Checkers are told nothing of these, so that they go on to refuse them.
    if TYPE_CHECKING:
        __iter__ = None
    else:

        def __iter__(self) -> NoReturn:
            raise OperandError(
                f"{self._called} is one object, and no tuple or list to unpack or to iterate over. "
                f"Take {self._contents}."
            )

        def __contains__(self, name: Any) -> bool:
            raise OperandError(
                f"{name!r} in {self._called}: a result is no collection. Take {self._contents}."
            )

        def __float__(self) -> float:
            self._refuse_number("float")

        def __int__(self) -> int:
            self._refuse_number("int")

        def __complex__(self) -> complex:
            self._refuse_number("complex")

        def __add__(self, other: Any) -> Any:
            self._refuse_operand("+", other)

        def __radd__(self, other: Any) -> Any:
            self._refuse_operand("+", other, reflected=True)

        def __sub__(self, other: Any) -> Any:
            self._refuse_operand("-", other)

        def __rsub__(self, other: Any) -> Any:
            self._refuse_operand("-", other, reflected=True)

        def __mul__(self, other: Any) -> Any:
            self._refuse_operand("*", other)

        def __rmul__(self, other: Any) -> Any:
            self._refuse_operand("*", other, reflected=True)

        def __truediv__(self, other: Any) -> Any:
            self._refuse_operand("/", other)

        def __rtruediv__(self, other: Any) -> Any:
            self._refuse_operand("/", other, reflected=True)

        def __pow__(self, other: Any) -> Any:
            self._refuse_operand("**", other)


def attributes(kind: type, names: Sequence[str]) -> str:
    """Arguments as a result of this class reaches them: `.x, .y`."""
    return some_of([reached(kind, name) for name in names])
