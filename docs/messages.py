"""Every message of the package, with cause and remedy, read from its source.

The troubleshooting page prints what `page` returns. A message is a template: its text, with a
field such as ⟨call⟩ in the place of what is known only when it is raised.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Sequence

from message_sources import error_classes, made
from message_templates import Template, pattern, plain, variants


@dataclasses.dataclass(frozen=True)
class Message:
    """A message that the package raises.

    Attributes:
        kind: The name of the exception's class.
        template: The text.
        note: A remedy that is shown below the text and not in it, or nothing.
        places: The files and lines where the exception is made.
    """

    kind: str
    template: Template
    note: Template
    places: tuple[str, ...]

    @property
    def text(self) -> str:
        """The message as it is printed, with ⟨fields⟩ and [alternatives]."""
        below = f"\n{plain(self.note)}" if self.note else ""
        return plain(self.template) + below

    @property
    def pattern(self) -> str:
        """A regular expression of the texts that the exception may have, without the note."""
        return pattern(self.template)

    @property
    def cause(self) -> str:
        """The sentences that say what is wrong."""
        return self._parts[0]

    @property
    def remedies(self) -> list[str]:
        """What to do: one remedy, or one for each alternative of the text."""
        return self._parts[1] + ([plain(self.note)] if self.note else [])

    @functools.cached_property
    def _parts(self) -> tuple[str, list[str]]:
        read = [_clauses(_PREFIX.sub("", text)) for text in variants(self.template)]
        causes = [[_sentence(x) for x, is_remedy in found if not is_remedy] for found in read]
        remedies = [[_sentence(x) for x, is_remedy in found if is_remedy] for found in read]
        if len({*map(tuple, remedies)}) == 1:
            known = [" ".join(remedies[0])] if remedies[0] else []
        else:
            known = list(dict.fromkeys(itertools.chain.from_iterable(remedies)))
        longest = [x for x in known if not any(y != x and y.startswith(x[:-1]) for y in known)]
        # What only some of the alternatives add is not the cause of all.
        return " ".join(min(causes, key=len)), longest


@functools.cache
def messages() -> tuple[Message, ...]:
    """All messages, each once, in the order of files and lines."""
    found: dict[tuple[str, str], Message] = {}
    for kind, template, note, place in made():
        message = Message(kind, template, note, (place,))
        known = found.get((kind, message.text))
        if known is not None:
            message = dataclasses.replace(known, places=(*known.places, place))
        found[kind, message.text] = message
    return tuple(found.values())


# The page -----------------------------------------------------------------------------


def page() -> str:
    """The messages of all classes as Markdown."""
    found = messages()
    kinds = list(dict.fromkeys([*error_classes(), *(m.kind for m in found)]))
    return "\n".join(_section(kind, [m for m in found if m.kind == kind]) for kind in kinds)


def _section(kind: str, found: Sequence[Message]) -> str:
    if not found:
        return ""
    own = kind in error_classes()
    intro = error_classes()[kind] if own else "One of Python's own."
    # Addresses, because links of what is printed are not looked at when the site is built.
    more = f" [Examples](../errors/#{kind.lower()})." if own else ""
    lines = [f"### {kind}", "", intro.replace("\n", " ") + more, ""]
    for message in found:
        lines += [
            f"#### {_prose(message.cause).rstrip('.')}",
            "",
            "```text",
            message.text,
            "```",
            "",
        ]
        remedies = [_prose(remedy) for remedy in message.remedies]
        if len(remedies) == 1:
            lines += [f"**Remedy:** {remedies[0]}", ""]
        else:
            lines += ["**Remedy:**", "", *(f"- {remedy}" for remedy in remedies), ""]
    return "\n".join(lines)


_CODE = re.compile(
    r"(?<![\w.'`⟩\]])("
    r"(?:J|(?=\.))\.T @ \w+|@(?:[\w.]|⟨\w+⟩)*(?<!\.)"  # products and decorators
    r"|(?:adk|jax|jnp|J|(?=\.[a-z]))(?:\.(?:\w+|⟨\w+⟩)(?:\([^()]*\))*)+"  # functions, methods
    r"|J\[[^\]]*\]"
    r"|\w+=(?:⟨[^⟩]*⟩|\([^()]*\)|'[^']*'|\w+|\.\.\.)?"  # options
    r"|r?mv\b|[a-z]+_\w+"
    r")"
)


def _prose(text: str) -> str:
    """Text as Markdown, with what is code marked as such."""
    pieces = re.split(r"(`[^`]*`)", _CODE.sub(lambda found: f"`{found.group()}`", text))
    return "".join(x if x.startswith("`") else re.sub(r"([*_\[\]>#])", r"\\\1", x) for x in pieces)


# Cause and remedy -----------------------------------------------------------------------

# A message begins with the call that it is about.
_PREFIX = re.compile(r"^(?:⟨call⟩|[a-z_]+)(?:\.[\w⟨⟩]+)?: ")

# A clause remedies if it tells what to do, in the imperative, or offers something: a call or an
# option that does it, or what there is to choose from.
_IMPERATIVES = [
    "accept",
    "add",
    "allow",
    "ask",
    "call",
    "convert",
    "decide",
    "differentiate",
    "donate",
    "draw",
    "exchange",
    "fix",
    "gather",
    "give",
    "hold",
    "leave",
    "let",
    "make",
    "mend",
    "multiply",
    "name",
    "pass",
    "pickle",
    "plot",
    "print",
    "reach",
    "reduce",
    "register",
    "return",
    "run",
    "select",
    "set",
    "take",
    "use",
    "wrap",
    "write",
]
_TELLS = re.compile(
    rf"(?:for [^,]*? |otherwise |do (?:not )?)?(?:{'|'.join(_IMPERATIVES)})\b", re.IGNORECASE
)
_OFFERS = re.compile(
    r"(?:\[?adk\.\w|\.\w+[( ]|mv and rmv |wrt=.* would fit|did you mean|there is ⟨"
    r"|it is one of |it holds ⟨)",
    re.IGNORECASE,
)


def _clauses(text: str) -> list[tuple[str, bool]]:
    """The sentences of a text, and what semicolons divide; of each, whether it is a remedy."""
    first = text.split("\n", maxsplit=1)[0]
    found = re.split(r"(?<=[.?;])\s+(?![^\[\]]*\])", first.strip())
    # What ends in a colon introduces the lines below the message.
    return [
        (x, bool(_TELLS.match(x) or _OFFERS.match(x))) for x in found if x[-1:] not in {"", ":"}
    ]


def _sentence(text: str) -> str:
    text = re.sub(r"[;:,]$", "", text.strip())
    text = text if text.endswith((".", "?")) else f"{text}."
    is_word = re.match(r"[a-z]+ ", text) and not text.startswith("mv ")
    return text[0].upper() + text[1:] if is_word else text
