"""Hooks of the build."""

import functools
import importlib
import linecache
import os
import re
from pathlib import Path
from typing import Any

import notebooks

# What an example prints may name a line of its source. A code block has no file, and the name that
# it has instead is long: a table that has to fit a line would be laid out for that.
_NAME = "example.py"

# What is printed is as wide on every page, whatever the terminal that the build is run from.
_COLUMNS = 80

# Output is text without tags but those at its ends.
_OUTPUT = re.compile(r'(<div class="language-text[^>]*>.*?<code>)(.*?)(</code></pre>)', re.DOTALL)
_CHARACTER = re.compile(r"&[^;]*;|.", re.DOTALL)
# Docstrings say in words what is returned where a type says less, and words are no code.
_WORDS = re.compile(r"(<td>\s*)<code>((?:An?|The|What) [^<]*)</code>")
_DRAWING = re.compile(r'<svg class="(?:plot|figure)"[^>]*?\bwidth="([\d.]+pt)".*?</svg>', re.DOTALL)
_GAP = re.compile(r"(?<=\S) {2,}(?=\S)")


def on_config(config: Any) -> Any:
    """Runs code blocks as a file of a short name, and prints for the width of a page."""
    os.environ["COLUMNS"] = str(_COLUMNS)
    # There is no public way to name a code block.
    blocks: Any = importlib.import_module("markdown_exec._internal.formatters.python")
    if not hasattr(blocks.exec_python, "__wrapped__"):  # `mkdocs serve` comes here again
        blocks.exec_python = _named(blocks.exec_python)
    return config


def _named(run: Any) -> Any:
    @functools.wraps(run)
    def named(code: str, filename: str, exec_globals: dict[str, Any] | None = None) -> None:  # noqa: ARG001
        # For tracebacks, which say where an example broke.
        linecache.cache[_NAME] = (len(code), None, code.splitlines(keepends=True), _NAME)
        run(code, _NAME, exec_globals)

    return named


def on_files(files: Any, config: Any) -> Any:
    """Adds the notebook of the tutorial, which its page links to."""
    # Where this file is tested and its types are checked, there is no MkDocs.
    file = importlib.import_module("mkdocs.structure.files").File
    page = Path(config["docs_dir"], "tutorial.md").read_text(encoding="utf-8")
    files.append(file.generated(config, "tutorial.ipynb", content=notebooks.written(page)))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Marks messages in output and words in the tables of the reference; puts drawings in boxes."""
    html = _WORDS.sub(_in_words, html)
    # On a narrow screen, one scrolls to the rest of a drawing, whose letters stay readable.
    html = _DRAWING.sub(r'<div class="drawing" style="--width: \1">\g<0></div>', html)
    return _OUTPUT.sub(lambda found: found[1] + _wrapped(found[2]) + found[3], html)


def _in_words(found: re.Match[str]) -> str:
    return found[1] + re.sub("`(.*?)`", r"<code>\1</code>", found[2])


def _wrapped(text: str) -> str:
    return "\n".join(map(_wrapped_line, text.split("\n")))


def _wrapped_line(line: str) -> str:
    """A line that is long, and not one of a table, may be broken, and goes on indented."""
    if len(_CHARACTER.findall(line)) <= _COLUMNS or len(_GAP.findall(line)) > 1:
        return line
    indent = len(line) - len(line.lstrip(" ")) + 2
    return f'<span class="wrapped" style="--indent: {indent}ch">{line}</span>'
