"""What a check of derivatives found, as a table by path."""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from autodiffkit._display import Displayed
from autodiffkit._display_text import Column, Display, Table
from autodiffkit._errors import shown_of
from autodiffkit._plot_report import Bar, draw_report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Finding = Literal[
    "agrees",
    "stop_gradient",
    "custom rule",
    "kink",
    "jump",
    "zero",
    "not finite",
    "asymmetric",
    "disagrees",
    "not compared",
]

_TABLE_ROWS = 24
_EXPLAINED = 8
_PASSED = ("agrees", "stop_gradient")
_HEAD = (
    Column("order"),
    Column("of", "name"),
    Column("with respect to", "name", "wrt"),
    Column("worst entry", "name", "entry"),
    Column("error"),
    Column("tolerance", "extra"),
    Column("finding"),
)


@dataclasses.dataclass(frozen=True)
class CheckedBlock:
    """One block of a derivative, as a check found it.

    Attributes:
        order: 1 for a block of the Jacobian, 2 for one of the Hessian.
        of: The path of the output, empty where the function returns a single array.
        wrt: The path of the input, or of both.
        finding: `"agrees"`, or what is wrong: `"custom rule"`, `"kink"`, `"jump"`, `"zero"`,
            `"not finite"`, `"asymmetric"`, `"disagrees"` where no cause was found, and
            `"not compared"` where there is nothing to compare with. `"stop_gradient"` is no fault:
            what differences see beyond the derivative is what it holds constant.
        entry: The worst entry, such as `"y[2]"`; along random directions, that of a product. Empty
            if it is the sum of all entries that is compared, as forward and reverse mode are.
        error: By how much two ways disagree there.
        tolerance: By how much they may.
        values: What each way gives there.
        explanation: What is wrong, and where in the source.
    """

    order: int
    of: str
    wrt: tuple[str, ...]
    finding: Finding
    entry: str
    error: float
    tolerance: float
    values: Mapping[str, complex]
    explanation: str
    _names: tuple[str, ...] = ()  # the paths as tables write them

    @property
    def passed(self) -> bool:
        """Whether there is nothing wrong with it."""
        return self.finding in _PASSED

    @property
    def ratio(self) -> float:
        """The error in tolerances."""
        if math.isnan(self.error):
            return math.inf
        if not self.tolerance:
            return math.inf if self.error else 0.0
        return self.error / self.tolerance

    @property
    def _cells(self) -> tuple[str, ...]:
        of, *wrt = self._names or (self.of, *self.wrt)
        return (
            str(self.order),
            of or "output",
            ", ".join(wrt),
            self.entry or "-",
            f"{self.error:.2g}",
            f"{self.tolerance:.2g}",
            self.finding,
        )


@dataclasses.dataclass(frozen=True, repr=False)
class DerivativeReport(Displayed):
    """Derivatives of a function by several ways, compared: true if they agree.

    `print(report)` shows the blocks, those that are wrong or worst first, and what is wrong.

    Attributes:
        function: The name of the function.
        blocks: All blocks that were compared, worst first.
        notes: What could not be compared, and why; which differences were taken.
        evaluations: How many times the function ran.
    """

    function: str
    blocks: tuple[CheckedBlock, ...]
    notes: tuple[str, ...]
    evaluations: int

    def __bool__(self) -> bool:
        return all(block.passed for block in self.blocks)

    @property
    def worst(self) -> CheckedBlock | None:
        """The block with the largest error in tolerances, one that is wrong first."""
        return self.blocks[0] if self.blocks else None

    @property
    def failed(self) -> tuple[CheckedBlock, ...]:
        """The blocks with something wrong."""
        return tuple(block for block in self.blocks if not block.passed)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draws the error of each block beside its tolerance, on a logarithmic scale.

        Blocks that fail have another colour and their finding beside their name. An error of
        zero is at the left end of the scale, and one that is not finite at the right end. Of more
        than 40 blocks, or than can be read in small axes, the worst are drawn.

        Args:
            ax: Axes to draw into. `None` makes a figure.

        Returns:
            The axes.

        Raises:
            MissingPackageError: If matplotlib is not installed.
            SelectionError: If `ax` is something else.
        """
        bars = [
            Bar(
                (block.of or "output", *block.wrt),
                *(block.finding, block.error, block.tolerance, block.passed),
            )
            for block in self.blocks
        ]
        call = f"check_derivatives({self.function}).plot"
        return draw_report(call, f"Derivatives of {self.function}: {self._verdict}", bars, ax)

    @property
    def _verdict(self) -> str:
        count, failed = len(self.blocks), len(self.failed)
        if failed:
            return f"{failed} of {count} blocks {'fails' if failed == 1 else 'fail'}"
        if count == 1:
            return "the one block passes"
        return f"all {count} blocks pass" if count else "nothing was compared"

    def _display(self) -> Display:
        count = len(self.blocks)
        most = shown_of(count, _TABLE_ROWS)
        more = f"... and {count - most} more blocks" if count > most else ""
        rows = tuple(block._cells for block in self.blocks[:most])
        table = Table(_HEAD, rows, more)
        said = [f"{x.finding}: {x.explanation}" for x in self.blocks if x.explanation]
        most = shown_of(len(said), _EXPLAINED)
        if len(said) > most:
            said[most:] = [f"... and {len(said) - most} more such lines, in .blocks"]
        notes = [f"note: {note}" for note in self.notes]
        return Display(f"Derivatives of {self.function}: {self._verdict}", (table, *said, *notes))
