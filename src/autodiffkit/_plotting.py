"""What plots share: matplotlib, which is imported when something is drawn, and the axes."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autodiffkit._errors import MissingPackageError, SelectionError
from autodiffkit._fitting import narrowest, printable, shortened, told_apart, width_of, wrapped
from autodiffkit._leaves import describe_leaf

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Transform

# Colours that are read on a light page and on a dark one. Text outside of boxes and cells, and
# what belongs to the axes, has the colours of `matplotlib.rcParams`.
PULLED = "#d1603d"
PUSHED = "#4c7fd9"
CUT = "#f5d76e"
BOX = "#ececec"
FAILED = "#d6336c"
LINE = "#808080"
NOT_FINITE = "#ffc400"
# Text on a colour that is light in every theme. One of the two has a contrast of 4.5 with any.
ON_LIGHT = "#050505"
ON_DARK = "#ffffff"

_RARE = "\u2e80"  # the first letter of those that the font of matplotlib itself does not have
_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK TC", "Noto Sans CJK KR"),
    *("Noto Sans JP", "Noto Sans SC", "Noto Sans TC", "Noto Sans KR"),
    *("Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "IPAexGothic"),
    *("Hiragino Sans", "PingFang SC", "PingFang HK", "Apple SD Gothic Neo", "Yu Gothic"),
    *("Microsoft YaHei", "SimHei", "Malgun Gothic", "Arial Unicode MS"),
    "Last Resort High-Efficiency",  # boxes in the place of letters, and no warnings
)
_WIDE = 0.6  # the width of a letter, in sizes of its font


def need_matplotlib(call: str) -> None:
    """Imports matplotlib, so that what is imported from it afterwards is there.

    Args:
        call: The call, for the message.

    Raises:
        MissingPackageError: If it is not installed.
    """
    try:
        importlib.import_module("matplotlib.figure")  # an extra, and slow to import
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{call}: plots are drawn by matplotlib, which is not installed. Run "
            "pip install autodiffkit[plot]."
        ) from error


def axes_for(call: str, ax: Any, size: tuple[float, float]) -> "Axes":
    """The axes to draw into.

    Args:
        call: The call, for the message.
        ax: What the user passed.
        size: Width and height in inches of the figure that is made where this is `None`.

    Returns:
        The axes that were passed, or those of a new figure.

    Raises:
        SelectionError: If something else was passed.
    """
    from matplotlib.axes import Axes  # noqa: PLC0415  # as above

    if ax is None:
        # By pyplot, so that notebooks and `plt.show()` find the figure.
        import matplotlib.pyplot as plt  # noqa: PLC0415

        figure: Any = plt.figure(figsize=size, layout="compressed")
        return figure.add_subplot()
    if not isinstance(ax, Axes) or ax.name != "rectilinear":
        kind = f"axes with the projection {ax.name!r}" if isinstance(ax, Axes) else _kind(ax)
        raise SelectionError(
            f"{call}: ax= takes plane axes of matplotlib; got {kind}. Pass one of those that "
            "plt.subplots() gives, or leave it out."
        )
    return ax


def _kind(ax: Any) -> str:
    return f"an array of shape {list(ax.shape)}" if hasattr(ax, "shape") else describe_leaf(ax)


def inches(ax: "Axes") -> tuple[float, float]:
    """Width and height of axes, as they are laid out now."""
    box = ax.get_window_extent()
    figure: Any = ax.figure
    return box.width / figure.dpi, box.height / figure.dpi


def font_size(name: str) -> float:
    """The size in points of a font by its name in `matplotlib.rcParams`."""
    from matplotlib import rcParams  # noqa: PLC0415  # as above
    from matplotlib.font_manager import FontProperties  # noqa: PLC0415

    settings: Any = rcParams
    return FontProperties(size=settings[name]).get_size_in_points()


def cell(ax: "Axes") -> tuple[float, float]:
    """Width and height of the part of the figure that axes share with nothing else, in inches."""
    figure: Any = ax.figure
    spec: Any = ax.get_subplotspec()
    if spec is None:
        return inches(ax)
    grid = spec.get_gridspec()
    return (
        figure.bbox.width / figure.dpi * len(spec.colspan) / grid.ncols,
        figure.bbox.height / figure.dpi * len(spec.rowspan) / grid.nrows,
    )


def set_title(ax: "Axes", title: str, room: float) -> None:
    """Writes a title that fits: on two lines, and at last in a smaller font.

    Args:
        ax: The axes.
        title: What is written.
        room: The inches that there are.
    """
    size = font_size("axes.titlesize")
    text, lines = printable(title), [""]
    for scale in (1.0, 0.85, 0.7, 0.6):
        lines = wrapped(text, max(8, int(72 * room / (_WIDE * scale * size))))
        if len(lines) <= 2:
            break
    if scale < 1:
        ax.set_title(literal("\n".join(lines)), fontsize=scale * size)
    else:
        ax.set_title(literal("\n".join(lines)))


def with_fonts(ax: "Axes") -> "Axes":
    """Sets texts in scripts that few fonts have, such as Chinese, in fonts that have them."""
    from matplotlib import rcParams  # noqa: PLC0415  # as above
    from matplotlib.font_manager import fontManager  # noqa: PLC0415
    from matplotlib.ticker import FixedLocator  # noqa: PLC0415

    legend: Any = ax.get_legend()
    axes: list[Any] = [ax.xaxis, ax.yaxis]
    texts: list[Any] = [ax.title, *(axis.label for axis in axes), *ax.texts]
    texts += legend.get_texts() if legend is not None else []
    for axis in axes:  # ticks that are numbers would be laid out for this, and have no such letters
        if isinstance(axis.get_major_locator(), FixedLocator):
            texts += [x for tick in axis.get_major_ticks() for x in (tick.label1, tick.label2)]
    rare = [text for text in texts if any(x >= _RARE for x in text.get_text())]
    if rare:
        settings: Any = rcParams
        installed = {font.name for font in fontManager.ttflist}
        families = [*settings["font.family"], *(x for x in _FONTS if x in installed)]
        for text in rare:
            text.set_fontfamily(families)
    return ax


def title_width(title: str) -> float:
    """About as many inches as a title takes."""
    return _WIDE * width_of(title) * font_size("axes.titlesize") / 72


def below(ax: "Axes", points: float) -> "Transform":
    """Fractions of the axes, moved down by a distance that does not depend on their size."""
    from matplotlib.transforms import ScaledTranslation  # noqa: PLC0415  # as above

    figure: Any = ax.figure
    return ax.transAxes + ScaledTranslation(0, -points / 72, figure.dpi_scale_trans)


def plain(text: str) -> str:
    """A text of the user's as it is drawn: on one line, and not as mathematics."""
    return literal(printable(text))


def literal(text: str) -> str:
    """A text of one line that is not read as mathematics."""
    from matplotlib import rcParams  # noqa: PLC0415  # as above

    settings: Any = rcParams
    return text.replace("$", r"\$") if settings["text.parse_math"] else text


def short_names(names: Sequence[str], width: int = 26) -> list[str]:
    """Names without their middles where they are long, of which different ones stay different.

    Args:
        names: Names as the user wrote them.
        width: Their letters, more only where two would look the same.

    Returns:
        A text for each, on one line, for `literal`.
    """
    texts = told_apart([printable(name) for name in names])
    return shortened(texts, narrowest(texts, width)) or texts
