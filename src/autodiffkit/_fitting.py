"""Text that fits a number of columns: widths of characters, names cut in the middle, wrapping."""

import functools
import itertools
import re
import shutil
import unicodedata
from collections.abc import Callable, Sequence

ELLIPSIS = "…"

_DEFAULT = 80  # where there is no terminal: in a file, in a notebook, in documentation
_NARROWEST = 20

# How much of what is left of a name comes before the ellipsis, in the order that is tried. The end
# of a path mostly tells more than its beginning.
_SHARES = (0.35, 0.2, 0.5, 0.0, 0.65, 0.8, 1.0)


def terminal_width() -> int:
    """The columns of the terminal, or of the variable `COLUMNS`; without either, 80."""
    return max(shutil.get_terminal_size((_DEFAULT, 24)).columns, _NARROWEST)


def printable(text: str) -> str:
    """The text as one would write it between quotes in Python: no line breaks, no invisibles."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable() and character != "\\":
        return character
    return character.encode("unicode_escape").decode("ascii")


def told_apart(texts: Sequence[str]) -> list[str]:
    """Texts of which those that look the same, such as composed and decomposed letters, do not."""
    looks: dict[str, set[str]] = {}
    for text in texts:
        looks.setdefault(unicodedata.normalize("NFC", text), set()).add(text)
    return [
        text
        if len(looks[unicodedata.normalize("NFC", text)]) == 1
        else text.encode("ascii", "backslashreplace").decode("ascii")
        for text in texts
    ]


def width_of(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return len(text) if text.isascii() else sum(map(_character_width, text))


def _character_width(character: str) -> int:
    # Marks sit on the letter before them, and so does what selects a variant of it.
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def padded(text: str, width: int) -> str:
    """The text with as many spaces as are missing."""
    return text + " " * (width - width_of(text))


def _cut(text: str, width: int) -> int:
    """How many characters of a text fit a number of columns, marks with their letters."""
    taken = 0
    for i, character in enumerate(text):
        taken += _character_width(character)
        if taken > width:
            return i
    return len(text)


def _clipped(text: str, width: int, share: float) -> str:
    """A text with an ellipsis in the place of what does not fit, at dots if there are some near."""
    if width_of(text) <= width:
        return text
    end = _tail(text, width - 1 - round((width - 1) * share))
    dot = end.find(".")
    before = text[: len(text) - len(end)]
    if 0 <= dot <= len(end) // 2 and not before.endswith("."):
        end = end[dot + 1 :]
    room = width - 1 - width_of(end)
    start = text[: _cut(text, room)] if share else ""
    dot = start.rfind(".")
    if len(start) // 2 <= dot:
        start = start[: dot + 1]
    return start + ELLIPSIS + end


def _tail(text: str, width: int) -> str:
    """As much of the end of a text as fits, without a mark whose letter does not."""
    stop = len(text)
    while stop > 0 and width_of(text[stop - 1 :]) <= width:
        stop -= 1
    while stop < len(text) and not _character_width(text[stop]):
        stop += 1
    return text[stop:]


def shortened(texts: Sequence[str], width: int) -> list[str] | None:
    """Texts cut in the middle to at most so many columns, between words if that tells them apart.

    Returns:
        A text for each, `None` if two that differ would look the same.
    """
    different = list(dict.fromkeys(texts))
    long = [text for text in different if width_of(text) > width]
    ways: list[Callable[[str], str]] = [
        *(functools.partial(_between_words, width=width, share=share) for share in _SHARES),
        functools.partial(_inner_words, width=width, ends=_common_words(long)),
        *(functools.partial(_clipped, width=width, share=share) for share in _SHARES),
    ]
    for way in ways:
        clipped = {text: way(text) if text in long else text for text in different}
        if len(set(clipped.values())) == len(different):
            return [clipped[text] for text in texts]
    return None


def _parts(text: str) -> list[str]:
    """The words of a name, each with what separates it from the next one."""
    return re.findall(r"[^._/\- ]*[._/\- ]|[^._/\- ]+", text)


def _last_border(text: str) -> int:
    """The end of the last word that something separates from what follows."""
    return len("".join(_parts(text + "x")[:-1]))


def _between_words(text: str, width: int, share: float) -> str:
    """A text with an ellipsis in the place of some of its words; as it is cut where none fits."""
    end = _whole_words(_parts(text), width - 1 - round((width - 1) * share))
    if not end and share < 1:
        return _clipped(text, width, share)
    start = _clipped(text, width - width_of(end), 1.0).removesuffix(ELLIPSIS) if share else ""
    border = _last_border(start)
    if 2 * border >= len(start):
        start = start[:border]
    return start + ELLIPSIS + end


def _whole_words(words: Sequence[str], width: int) -> str:
    """As many words from the end as fit."""
    found = ""
    for word in reversed(words):
        if width_of(word) + width_of(found) > width:
            break
        found = word + found
    return found


def _inner_words(text: str, width: int, ends: int) -> str:
    """The words before those in which all end, `…the_first_…`; as it is cut where none fits."""
    words = _parts(text)
    inner = _whole_words(words[: len(words) - ends], width - 2)
    return f"{ELLIPSIS}{inner}{ELLIPSIS}" if ends and inner else _clipped(text, width, 0.35)


def _common_words(texts: Sequence[str]) -> int:
    """How many words all texts end in."""
    words = [_parts(text)[::-1] for text in texts]
    columns = itertools.takewhile(lambda column: len({*column}) == 1, zip(*words, strict=False))
    return sum(1 for _ in columns)


def narrowest(texts: Sequence[str], least: int) -> int:
    """The smallest number of columns, from `least` on, to which texts can be shortened."""
    natural = max(map(width_of, texts), default=0)
    return next((w for w in range(least, natural) if shortened(texts, w) is not None), natural)


def wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    """Lines of a text: broken at spaces, or inside of words that are too long for a line.

    Args:
        text: One line.
        width: The columns there are.
        indent: By how much the lines after the first one are indented.

    Returns:
        The lines.
    """
    lines: list[str] = []
    line, room, lead = "", width, ""
    for word in _words(text):
        while True:
            spaces = word[: len(word) - len(word.lstrip(" "))]
            if width_of(line) + width_of(word) <= room:
                line += word
                break
            if line.strip():
                lines.append(lead + line)
                line, lead, room = "", " " * indent, max(width - indent, 2)
                word = word[len(spaces) :]  # noqa: PLW2901  # what is left of it
                continue
            fits = max(_cut(word, room), 1)
            whole = word.rfind("/", 0, fits) + 1 or _last_border(word[:fits])
            fits = whole if 3 * whole >= fits else fits
            lines.append(lead + word[:fits])
            line, lead, room = "", " " * indent, max(width - indent, 2)
            word = word[fits:]  # noqa: PLW2901  # as above
    return [*lines, lead + line] if line or not lines else lines


def _words(text: str) -> list[str]:
    """The words of a text, each with the spaces before it."""
    words: list[str] = []
    start = 0
    while start < len(text):
        stop = start
        while stop < len(text) and text[stop] == " ":
            stop += 1
        while stop < len(text) and text[stop] != " ":
            stop += 1
        words.append(text[start:stop])
        start = stop
    return words
