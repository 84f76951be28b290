"""Draws the figure of the README, from its example: `python docs/readme_figure.py`."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

import themed

_ROOT = Path(__file__).parent.parent
# The text of the figure, which has no background, on a light page and on a dark one.
TEXT = {"light": "#1f2328", "dark": "#e6e6e6"}


def figures() -> dict[Path, str]:
    """The figure for each kind of page, by the file that it belongs into."""
    readme = (_ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {"__name__": "readme"}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(found[1], names)  # noqa: S102  # it is the README's own
    with mpl.rc_context({"backend": "svg", "savefig.bbox": "tight"}):
        axes = names["J"].plot()
        drawn = themed.svg(axes.figure, "Jacobian of residual")
        plt.close(axes.figure)
    return {
        _ROOT / "docs" / "figures" / f"readme-{page}.svg": drawn.replace("currentColor", colour)
        for page, colour in TEXT.items()
    }


if __name__ == "__main__":
    for path, text in figures().items():
        path.write_text(text + "\n", encoding="utf-8")
