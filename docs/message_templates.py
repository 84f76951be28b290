"""Texts with fields, alternatives and lines: what the source says of a message."""

import dataclasses
import itertools
import re
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Field:
    """What is filled in when the message is made."""

    name: str


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several texts."""

    options: "tuple[Template, ...]"


@dataclasses.dataclass(frozen=True)
class Lines:
    """Indented lines below the text."""

    content: "Template"


Template = tuple[str | Field | Choice | Lines, ...]


Part = str | Field | Choice | Lines


def choice(*options: Template) -> Template:
    """One of several templates; choices among choices are one."""
    flat: list[Template] = []
    for option in options:
        match option:
            case (Choice(inner),):
                flat += inner
            case _:
                flat.append(option)
    unique = tuple(dict.fromkeys(flat))
    return unique[0] if len(unique) == 1 else (Choice(unique),)


def split(template: Template) -> list[Template]:
    """One template, or one for each way in which it begins."""
    match template:
        case (Choice(options), *rest):
            return [(*option, *rest) for option in options]
        case _:
            return [template]


def plain(template: Template) -> str:
    """With ⟨fields⟩, [alternatives] and indented lines."""
    return "".join(map(_plain_part, template))


def _plain_part(part: str | Field | Choice | Lines) -> str:
    match part:
        case str():
            return part
        case Field(name):
            return f"⟨{name}⟩"
        case Lines(content):
            return "\n  " + plain(content).replace("\n", "\n  ")
        case Choice(options):
            texts = list(dict.fromkeys(map(plain, options)))
            if len(texts) == 1:
                return texts[0]
            if _are_endings(texts):
                return max(texts, key=len)  # the plural
            lead = " " if all(x.startswith(" ") for x in texts if x) else ""
            return f"{lead}[{' | '.join(x.strip() for x in texts if x)}]"


def _are_endings(texts: Iterable[str]) -> bool:
    return {*texts} <= {"", "s", "y", "ies"}


def pattern(template: Template) -> str:
    """A regular expression of the texts that a template stands for."""
    return "".join(map(_pattern_part, template))


def _pattern_part(part: str | Field | Choice | Lines) -> str:
    match part:
        case str():
            return re.escape(part)
        case Field():
            return r"[\s\S]*?"
        case Lines():
            return r"(?:\n  .*)*"
        case Choice(options):
            return f"(?:{'|'.join(map(pattern, options))})"


_SENTENCE_ENDS = re.compile(r"[.;?]( |$)|^, or ")


def variants(template: Template) -> list[str]:
    """The text with each choice between whole sentences made."""
    choices: list[list[str]] = []
    for part in template:
        if isinstance(part, Choice) and any(_SENTENCE_ENDS.search(plain(x)) for x in part.options):
            choices.append([text for option in part.options for text in variants(option)])
        else:
            choices.append([_plain_part(part)])
    return list(dict.fromkeys("".join(texts) for texts in itertools.product(*choices)))


def is_bare(template: Template) -> bool:
    """Whether a template has no text of its own."""
    return any(isinstance(x, Field) for x in template) and not any(
        isinstance(x, (Choice, Lines)) or (isinstance(x, str) and re.search(r"[A-Za-z]{2}", x))
        for x in template
    )
