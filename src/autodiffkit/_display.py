"""What all results share that show themselves: in a terminal, in a notebook, in treescope."""

import keyword
from collections.abc import Iterable
from typing import Any

from autodiffkit._display_html import as_html
from autodiffkit._display_text import Display, as_text
from autodiffkit._fitting import terminal_width


def reached(kind: type, name: str) -> str:
    """The code that reaches an argument: `.x`, or `['x']` where the attribute is something else."""
    if name.isidentifier() and not keyword.iskeyword(name) and not hasattr(kind, name):
        return f".{name}"
    return f"[{name!r}]"


class Displayed:
    """Something that shows itself as `_display` says."""

    def _display(self) -> Display:
        """What there is to see."""
        raise NotImplementedError

    @property
    def _kind(self) -> type:
        """The class that people know it by."""
        return type(self)

    def _children(self) -> Iterable[tuple[str, Any]] | None:
        """What treescope shows inside, each with the code that follows the object's to reach it.

        `None` where a tree would say no more than the table does, or would have too many branches.
        """
        return None

    def __repr__(self) -> str:
        return as_text(self._display(), terminal_width())

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        # Only treescope calls this, which is no dependency.
        from autodiffkit import _treescope  # noqa: PLC0415

        children = self._children()
        if children is None:
            return _treescope.render_text(repr(self), path)
        return _treescope.render(
            self._kind, children, path, subtree_renderer, self._display().title
        )

    def _repr_html_(self) -> str:
        """The same for notebooks, as a table."""
        try:
            return as_html(self._display())
        except Exception as error:  # a notebook would show a traceback in the place of the result
            # What is in a result may be anything at all, put there by `jax.tree.map`.
            why = f"it cannot be shown: {type(error).__name__}: {error}"
            return as_html(Display(type(self).__name__, (why,)))
