"""Hooks of the build."""

import importlib
import os
import re
from pathlib import Path
from typing import Any

import notebooks

# What is printed is as wide on every page, whatever the terminal that the build is run from.
_COLUMNS = 80

# What an example prints may name a line of its source. A code block has no file, and the name
# that it has instead is long.
_NAME = re.compile(r"&lt;code block: [^&]*&gt;")
_PRINTED = re.compile(r"<pre.*?</pre>", re.DOTALL)

# Output is text without tags but those at its ends.
_OUTPUT = re.compile(r'(<div class="language-text[^>]*>.*?<code>)(.*?)(</code></pre>)', re.DOTALL)
_CHARACTER = re.compile(r"&[^;]*;|.", re.DOTALL)
_GAP = re.compile(r"(?<=\S) {2,}(?=\S)")


def on_config(config: Any) -> Any:
    """Sets the width of what the examples print."""
    os.environ["COLUMNS"] = str(_COLUMNS)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the notebook of the tutorial, which its page links to."""
    # Where this file is tested and its types are checked, there is no MkDocs.
    file = importlib.import_module("mkdocs.structure.files").File
    page = Path(config["docs_dir"], "tutorial.md").read_text(encoding="utf-8")
    files.append(file.generated(config, "tutorial.ipynb", content=notebooks.written(page)))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Gives the code blocks of a page the name of a file, and marks lines that are messages."""
    html = _PRINTED.sub(lambda found: _renamed(found.group(), "example.py"), html)
    return _OUTPUT.sub(lambda found: found[1] + _wrapped(found[2]) + found[3], html)


def _renamed(text: str, name: str) -> str:
    longest = max((len(found) for found in _NAME.findall(text)), default=0)
    excess = longest - len("&lt;&gt;") + len("<>") - len(name)
    if longest:
        # Columns were padded to the long name; between words no other run of spaces is as wide.
        text = re.sub(f"(?<=\\S) {{{excess}}}( {{2,}})", r"\1", text)
    return _NAME.sub(name, text)


def _wrapped(text: str) -> str:
    return "\n".join(map(_wrapped_line, text.split("\n")))


def _wrapped_line(line: str) -> str:
    """A line that is long, and not one of a table, may be broken, and goes on indented."""
    if len(_CHARACTER.findall(line)) <= _COLUMNS or len(_GAP.findall(line)) > 1:
        return line
    indent = len(line) - len(line.lstrip(" ")) + 2
    return f'<span class="wrapped" style="--indent: {indent}ch">{line}</span>'
