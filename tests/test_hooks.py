"""What the build of the documentation makes of the pages."""

import os
import re
import sys
import traceback
import types
from html import escape

import pytest

import hooks


@pytest.fixture
def output():
    """The page of one output, as Markdown makes it, after the hook."""

    def made(text, language="text"):
        code = f"<code>{escape(text, quote=False)}\n</code>"
        block = f'<div class="language-{language} highlight"><pre><span></span>{code}</pre></div>'
        return hooks.on_page_content(f"<p>Before.</p>{block}<p>After.</p>")

    return made


def words(html):
    return re.sub("<[^>]*>", "", html)


@pytest.fixture
def blocks(monkeypatch):
    """What runs the code blocks of pages, which is not there where only tests are run."""
    module = types.ModuleType("python")

    def exec_python(code, filename, exec_globals=None):
        exec(compile(code, filename, "exec"), exec_globals)

    module.exec_python = exec_python
    monkeypatch.setitem(sys.modules, "markdown_exec._internal.formatters.python", module)
    monkeypatch.setenv("COLUMNS", "200")
    return module


def test_code_blocks_have_the_name_of_a_file_also_in_tracebacks(blocks):
    hooks.on_config({})
    hooks.on_config({})  # of a site that is served, once more for each change
    with pytest.raises(ZeroDivisionError) as caught:
        blocks.exec_python("x = 1\nx / 0", "<code block: session tutorial; n1>", {})
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (frame.filename, frame.lineno, frame.line) == ("example.py", 2, "x / 0")


def test_a_long_message_is_marked_and_goes_on_indented(output):
    message = "    " + "what is wrong " * 8
    found = output(f"short\n{message}\nshort")
    assert found.count('<span class="wrapped" style="--indent: 6ch">') == 1
    assert f">{message}</span>\nshort" in found
    assert words(found) == f"Before.short\n{message}\nshort\nAfter."


@pytest.mark.parametrize(
    "text",
    ["x" * 80, "<&>" * 26, "  ".join(["a column"] * 12)],
    ids=["80 characters", "characters that HTML writes longer", "a row of a table"],
)
def test_other_lines_are_left_as_they_are(output, text):
    assert "wrapped" not in output(text)


def test_source_is_left_as_it_is(output):
    assert "wrapped" not in output("x = 1  # " + "very long " * 10, language="python")


def test_drawings_are_in_boxes_that_scroll():
    plot = '<svg class="plot" role="img" xmlns="x" width="569.9pt" height="1pt"><g>\n</g></svg>'
    icon = '<svg class="icon" width="1pt"></svg>'
    found = hooks.on_page_content(f"<p>{icon}</p>{plot}{plot}")
    box = f'<div class="drawing" style="--width: 569.9pt">{plot}</div>'
    assert found == f"<p>{icon}</p>{box}{box}"


def test_words_in_the_column_of_types_are_no_code():
    def page(text):
        return f"<tr><td>\n  <code>{text}</code></td><td>A b: <code>x</code></td></tr>"

    assert hooks.on_page_content(page("A module of `f`, a `Jacobian`")) == (
        "<tr><td>\n  A module of <code>f</code>, a <code>Jacobian</code></td>"
        "<td>A b: <code>x</code></td></tr>"
    )
    assert hooks.on_page_content(page("Array | None")).startswith("<tr><td>\n  <code>Array | None")


def test_what_is_printed_is_80_columns_wide(blocks):
    hooks.on_config({})
    assert os.environ["COLUMNS"] == "80"
