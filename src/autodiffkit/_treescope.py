"""Results as `treescope` renders them: trees with names, and arrays in them.

Imported by what treescope calls, and by nothing else: the package does without it.
"""

from collections.abc import Callable, Iterable
from typing import Any

from treescope import rendering_parts as parts

from autodiffkit._fitting import printable

# The renderer of a child, which is called with the child and the code that leads to it.
Renderer = Callable[..., Any]


def render(
    kind: type,
    children: Iterable[tuple[str, Any]],
    path: str | None,
    renderer: Renderer,
    title: str = "",
) -> Any:
    """An object with named children, each under the code that reaches it.

    Args:
        kind: The class of the object.
        children: What follows the object in code, `".x"` or `"['x']"`, with the child.
        path: The code that leads to the object.
        renderer: Treescope's.
        title: What it is, as a comment.

    Returns:
        Treescope's rendering.
    """
    lines: list[Any] = []
    for step, child in children:
        label = f"{step[1:]}=" if step.startswith(".") else f"{step}="
        inside = renderer(child, path=None if path is None else path + step)
        comma = parts.siblings(",", parts.fold_condition(collapsed=parts.text(" ")))
        lines.append(parts.build_full_line_with_annotations(printable(label), inside, comma))
    name = parts.maybe_qualified_type_name(kind)
    # What treescope prints as code to be run again is not, here.
    first = parts.siblings(parts.roundtrip_condition(roundtrip=parts.text("<")), name, "(")
    last = parts.siblings(")", parts.roundtrip_condition(roundtrip=parts.text(">")))
    note = parts.comment_color(parts.text(f"  # {printable(title)}")) if title else None
    return parts.build_foldable_tree_node_from_children(
        prefix=first, children=lines, suffix=last, path=path, first_line_annotation=note
    )


def render_text(text: str, path: str | None) -> Any:
    """Lines as they are, of what has too many children."""
    lines = parts.on_separate_lines([parts.text(line) for line in text.split("\n")])
    return parts.build_one_line_tree_node(lines, path=path)
