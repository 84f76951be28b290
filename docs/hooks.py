"""Hooks of the build."""

import re
from typing import Any

# What an example prints may name a line of its source. A code block has no file, and the name
# that it has instead is long.
_NAME = re.compile(r"&lt;code block: [^&]*&gt;")
_PRINTED = re.compile(r"<pre.*?</pre>", re.DOTALL)


def on_page_content(html: str, **_: Any) -> str:
    """Gives the code blocks of a page the name of a file."""
    return _PRINTED.sub(lambda found: _renamed(found.group(), "example.py"), html)


def _renamed(text: str, name: str) -> str:
    longest = max((len(found) for found in _NAME.findall(text)), default=0)
    excess = longest - len("&lt;&gt;") + len("<>") - len(name)
    if longest:
        # Columns were padded to the long name; between words no other run of spaces is as wide.
        text = re.sub(f"(?<=\\S) {{{excess}}}( {{2,}})", r"\1", text)
    return _NAME.sub(name, text)
