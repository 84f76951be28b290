"""Where in the source an equation comes from, as plans and messages say it."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any


def place(function: Callable[..., Any], text: str) -> str:
    """The first place of a text in the source of a function: `tests/a.py:12:4 (f)`."""
    lines, first = inspect.getsourcelines(function)
    number, line = next((i, line) for i, line in enumerate(lines) if text in line)
    path = Path(inspect.getfile(function))
    if "site-packages" in path.parts:
        path = Path(*path.parts[path.parts.index("site-packages") + 1 :])
    elif path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}:{first + number}:{line.index(text)} ({function.__code__.co_qualname})"
