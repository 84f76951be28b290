"""A matrix of blocks in axes: colours, marks, lines between blocks, and words."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from autodiffkit._matrix_labels import Label, label_columns, label_rows
from autodiffkit._matrix_words import LARGE, SMALL, caption, decades, number, panel_names, tick
from autodiffkit._pixels import Pixels
from autodiffkit._plotting import (
    LINE,
    NOT_FINITE,
    ON_DARK,
    ON_LIGHT,
    below,
    font_size,
    literal,
)
from autodiffkit._raster import Raster, Rectangle, Sides

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Kind = Literal["auto", "heatmap", "spy"]

_SPARSE = 0.1  # a share of entries that are not zero, up to which a large matrix is a spy plot
_WRITTEN = 400  # entries, up to which their values are written of their own accord
_LEGIBLE = 6.5  # points of the font of values, unless they were asked for
_MARKED = 500  # pixels with entries that are not finite, up to which each is marked
_BELOW = 0.9  # the level of lines that do not cover the image
_SEEN = 4.0  # points of a pixel that need no mark to be seen
_SPOT = "#4c6ef5"  # what is not zero in a spy plot


class Style(NamedTuple):
    """How a matrix is drawn.

    Args:
        kind: Which plot.
        log: Whether colours are those of logarithms.
        values: Whether values are written; `None` if they fit.
        quantity: What an entry is.
    """

    kind: Kind
    log: bool
    values: bool | None
    quantity: str


class Drawing:
    """A matrix in axes whose units are its rows and columns, but for those of thin blocks."""

    def __init__(
        self, axes: "Axes", image: Raster, sides: Sides, room: tuple[float, float], style: Style
    ) -> None:
        self.axes, self.image, self.sides, self.room, self.style = axes, image, sides, room, style

    def draw(self, rows: list[Label], columns: list[Label], *, is_square: bool) -> "Axes":
        axes, image = self.axes, self.image
        down, across = image.pixels
        height, width = down.place(image.shape[0]), across.place(image.shape[1])
        rows, columns = _placed(rows, down), _placed(columns, across)
        axes.set_xlim(-0.5, width - 0.5)
        axes.set_ylim(height - 0.5, -0.5)
        axes.set_aspect("equal" if is_square else "auto")
        axes.grid(visible=False)
        handles = self._hatched()
        spy = self._is_spy
        if spy:  # a full first row is a hair's breadth that the frame would cover
            for spine in axes.spines.values():
                spine.set_zorder(_BELOW)
        scale = self._spots() if spy else self._heat()
        handles += self._not_finite()
        self._separate(rows, columns)
        label_rows(axes, rows, self.room[1] / height)
        label_columns(axes, columns, self.room[0] / width)
        if not spy:
            self._bar(scale)
            self._write(scale)
        self._caption(handles, spy=spy)
        return axes

    @property
    def _is_spy(self) -> bool:
        if self.style.kind != "auto":
            return self.style.kind == "spy"
        image = self.image
        height, width = image.shape
        return not image.is_exact and image.nonzero <= _SPARSE * height * width

    def _show(self, values: Any, hidden: Any, **options: Any) -> Any:
        """An image of the matrix; the last pixels may reach beyond its end."""
        for axis, side in enumerate(self.image.pixels):
            if np.any(side.repeats != 1):
                values, hidden = (np.repeat(x, side.repeats, axis) for x in (values, hidden))
        down, across = self.image.step
        count_down, count_across = values.shape
        extent = (-0.5, count_across * across - 0.5, count_down * down - 0.5, -0.5)
        limits = self.axes.get_xlim(), self.axes.get_ylim()
        shown = self.axes.imshow(
            np.ma.masked_array(values, hidden),
            extent=extent,
            aspect=self.axes.get_aspect(),
            interpolation="none",
            origin="upper",
            **options,
        )
        self.axes.set_xlim(limits[0])
        self.axes.set_ylim(limits[1])
        return shown

    def _heat(self) -> Any:
        from matplotlib.colors import Normalize, SymLogNorm  # noqa: PLC0415  # an extra

        image = self.image
        limit = image.limit
        low, colours = (0.0, "Purples") if image.is_modulus else (-limit, "RdBu_r")
        norm = Normalize(low, limit)
        if self.style.log:
            known = np.abs(image.values[image.covered & np.isfinite(image.values)])
            known = known[known > 0]
            least = float(known.min()) if known.size else limit
            threshold = min(max(least, 1e-8 * limit), limit / 10)
            norm = SymLogNorm(threshold, vmin=low, vmax=limit, base=10)
        hidden = ~image.covered | ~np.isfinite(image.values)
        return self._show(image.values, hidden, norm=norm, cmap=colours, zorder=1)

    def _spots(self) -> Any:
        from matplotlib.colors import ListedColormap  # noqa: PLC0415  # an extra

        hidden = ~self.image.covered | (self.image.values == 0)
        return self._show(
            np.ones(hidden.shape), hidden, cmap=ListedColormap([_SPOT]), vmin=0, vmax=1, zorder=1
        )

    # Marks, each of which gives the entries of a legend -----------------------------------

    def _hatched(self) -> list[Any]:
        """Blocks without entries that could be other than zero, below the image."""
        from matplotlib.collections import PatchCollection  # noqa: PLC0415  # an extra
        from matplotlib.patches import Rectangle as Patch  # noqa: PLC0415  # likewise

        down, across = self.image.pixels

        def patches(found: Sequence[Rectangle]) -> list[Any]:
            return [
                Patch((left - 0.5, top - 0.5), right - left, bottom - top)
                for x in found
                for top, bottom in [(down.place(x.top), down.place(x.bottom))]
                for left, right in [(across.place(x.left), across.place(x.right))]
            ]

        handles: list[Any] = []
        image = self.image
        for found, hatch, label in (
            (image.structural, "///", "zero by structure"),
            (image.zeros, "...", "zero at this point"),
            (image.missing, "xxx", "not computed"),
        ):
            shapes = patches(found)
            if not shapes:
                continue
            options: Any = {
                "facecolor": "none",
                "edgecolor": f"{LINE}90",
                "linewidth": 0,
                "hatch": hatch,
            }
            self.axes.add_collection(
                PatchCollection(shapes, zorder=0.5, label=label, **options), autolim=False
            )
            handles.append(Patch((0, 0), 1, 1, label=label, **options))
        return handles

    def _not_finite(self) -> list[Any]:
        from matplotlib.colors import ListedColormap  # noqa: PLC0415  # an extra
        from matplotlib.patches import Rectangle as Patch  # noqa: PLC0415  # likewise

        image = self.image
        if not image.not_finite:
            return []
        found = image.covered & ~np.isfinite(image.values)
        self._show(
            np.ones(found.shape),
            ~found,
            cmap=ListedColormap([NOT_FINITE]),
            vmin=0,
            vmax=1,
            zorder=1.1,
        )
        pixel = min(72 * x / n for x, n in zip(self.room, found.shape[::-1], strict=True))
        rows, columns = np.nonzero(found)
        label = f"not finite ({image.not_finite})"
        if pixel < _SEEN and len(rows) <= _MARKED:
            down, across = image.pixels
            self.axes.plot(
                across.middles[columns] - 0.5,
                down.middles[rows] - 0.5,
                linestyle="none",
                marker="s",
                markersize=6,
                markerfacecolor="none",
                markeredgecolor=NOT_FINITE,
                markeredgewidth=1.5,
                label="_not finite",
            )
        return [Patch((0, 0), 1, 1, facecolor=NOT_FINITE, edgecolor="none", label=label)]

    def _separate(self, rows: list[Label], columns: list[Label]) -> None:
        """Lines between blocks, the stronger ones between arguments and between panels."""
        down, across = self.image.pixels
        height, width = down.place(self.image.shape[0]), across.place(self.image.shape[1])
        panel = width / self.sides.panels
        level = _BELOW if self._is_spy else 2
        for labels, length, draw, room in (
            (rows, height, self.axes.axhline, self.room[1]),
            (columns, width, self.axes.axvline, self.room[0]),
        ):
            strong = {b.start for a, b in itertools.pairwise(labels) if a.argument != b.argument}
            panels = self.sides.panels if labels is columns else 1
            ends = {panel * k for k in range(1, panels)}
            weak = {b.start for b in labels} - strong - ends - {0, length}
            point = 72 * room / length
            for places, thick, colour in (
                (weak, 0.6, LINE),
                (strong - ends - {0, length}, 1.2, LINE),
                (ends, 3.0, self.axes.spines["left"].get_edgecolor()),  # each panel in a frame
            ):
                # Lines that would cover what they divide are left out.
                if places and (len(places) + 1) * (3 + thick) <= point * length:
                    for place in sorted(places):
                        draw(place - 0.5, color=colour, linewidth=thick, zorder=level)

    # Words -------------------------------------------------------------------------------

    def _bar(self, scale: Any) -> None:
        from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415  # an extra

        axes = self.axes
        bar = axes.inset_axes((1.02, 0, 0.05, 1))
        bar.set_axes_locator(_Beside(axes))
        figure: Any = axes.figure
        label = self.style.quantity
        label = f"modulus of the {label}" if self.image.is_modulus else label
        shown = figure.colorbar(scale, cax=bar, label=label)
        bar.minorticks_off()
        if self.style.log:
            places, texts = decades(scale.norm)
            shown.set_ticks(places, labels=texts)
        else:
            shown.locator = MaxNLocator(4 if self.room[1] < 2 else 7)
            if not SMALL <= self.image.limit < LARGE:
                # Else there would be a factor above the bar, where the title is.
                shown.formatter = FuncFormatter(tick)
            shown.update_ticks()

    def _write(self, scale: Any) -> None:
        """The values in the cells, if they can be read there."""
        image = self.image
        height, width = image.shape
        wanted = self.style.values
        if wanted is False or not image.is_exact:
            return
        if wanted is None and height * width > _WRITTEN:
            return
        cells = np.argwhere(image.covered | _of(image.zeros, image.shape))
        room = 72 * self.room[0] / width, 72 * self.room[1] / height
        down, across = image.pixels
        shown: dict[tuple[int, int], str] = {}
        size = 0.0
        for digits in (3, 2):
            shown = {(int(i), int(j)): number(image.values[i, j], digits) for i, j in cells}
            letters = max(map(len, shown.values()), default=1)
            size = min(font_size("font.size"), room[0] / (0.62 * letters + 0.3), room[1] / 1.3)
            if size >= _LEGIBLE:
                break
        if size < _LEGIBLE and wanted is None:
            return
        for (i, j), text in shown.items():
            options: Any = {}
            if image.covered[i, j]:
                options["color"] = _contrast(scale, image.values[i, j])
            self.axes.text(
                across.middles[j] - 0.5,
                down.middles[i] - 0.5,
                text,
                ha="center",
                va="center",
                fontsize=max(size, 3),
                zorder=3,
                **options,
            )

    def _columns(self, handles: Sequence[Any], font: float) -> int:
        """How many entries of the legend fit beside one another."""
        letters = max(len(handle.get_label()) for handle in handles)
        return max(1, min(len(handles), int(72 * self.room[0] / (font * (0.55 * letters + 5)))))

    def _caption(self, handles: list[Any], *, spy: bool) -> None:
        image, axes = self.image, self.axes
        width = image.shape[1]
        small = 0.9 * font_size("axes.labelsize")
        words = caption(image, self.sides, self.room[0], spy=spy, log=self.style.log)
        names = panel_names(self.sides)
        panel = image.pixels[1].place(width) / self.sides.panels
        for k, name in enumerate(names):
            axes.annotate(
                literal(name),
                ((k + 0.5) * panel - 0.5, 0),
                xycoords=("data", "axes fraction"),
                xytext=(0, -4),
                textcoords="offset points",
                ha="center",
                va="top",
            )
        lift = 1.4 * font_size("font.size") if names else 0
        axes.set_xlabel(words, fontsize=small, labelpad=4 + lift)
        if handles:
            axes.legend(
                handles=handles,
                loc="upper center",
                bbox_to_anchor=(0.5, 0),
                bbox_transform=below(axes, 10 + lift + 1.4 * small * (1 + words.count("\n"))),
                borderaxespad=0,
                ncols=self._columns(handles, small),
                frameon=False,
                fontsize=small,
            )


def _placed(labels: Sequence[Label], side: Pixels) -> list[Label]:
    """The same names in units of the axes."""
    return [x._replace(start=side.place(x.start), stop=side.place(x.stop)) for x in labels]


class _Beside:
    """Where the colour bar is: a little to the right of axes, as wide whatever their size.

    It is no closure, so that figures can be pickled.
    """

    def __init__(self, axes: "Axes") -> None:
        self._axes = axes

    def __call__(self, bar: Any, renderer: Any) -> Any:  # noqa: ARG002  # matplotlib passes both
        from matplotlib.transforms import Bbox  # noqa: PLC0415  # an extra

        figure: Any = self._axes.figure
        box, inch = self._axes.bbox, figure.dpi
        height = max(box.height, 1.2 * inch)
        bottom = (box.y0 + box.y1 - height) / 2
        place = Bbox.from_bounds(box.x1 + 0.12 * inch, bottom, 0.13 * inch, height)
        return place.transformed(figure.transSubfigure.inverted())


def _of(rectangles: Sequence[Rectangle], shape: tuple[int, int]) -> Any:
    found = np.zeros(shape, bool)
    for part in rectangles:
        found[part.top : part.bottom, part.left : part.right] = True
    return found


def _contrast(scale: Any, value: Any) -> str:
    """Dark text on light colours, and light text on dark ones."""
    if not np.isfinite(value):
        return ON_LIGHT
    colour = np.asarray(scale.to_rgba(float(value)))[:3]
    # The luminance of WCAG 2, whose contrast with both is the same at this number.
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return ON_LIGHT if linear @ [0.2126, 0.7152, 0.0722] > 0.1825 else ON_DARK
