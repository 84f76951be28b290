"""What the build of the documentation makes of the pages."""

import os
import re
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


def test_code_blocks_have_the_name_of_a_file_and_columns_stay_columns(output):
    found = words(
        output("<code block: session tutorial; n1>:3:4  float32[3]\nx" + " " * 39 + "float32[2]")
    )
    assert found == "Before.example.py:3:4  float32[3]\nx               float32[2]\nAfter."


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


def test_what_is_printed_is_80_columns_wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    hooks.on_config({})
    assert os.environ["COLUMNS"] == "80"
