"""What the README shows is what its examples print."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import readme_figure

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)


def rounded(text):
    """Long decimals by their first four places, which processors agree on."""
    return re.sub(r"\d+\.\d{5,}", lambda found: f"{float(found[0]):.4f}", text).split()


def test_there_are_examples():
    assert len(EXAMPLES) == 1


@pytest.mark.parametrize(("code", "printed"), EXAMPLES)
def test_an_example_prints_what_is_shown(code, printed, tmp_path):
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert rounded(done.stdout) == rounded(printed)


def labels(figure):
    """What is written in a figure, whose letters are drawn."""
    return re.findall(r"<!-- (.*?) -->", figure)


def colours(figure):
    return sorted(set(re.findall("#[0-9a-f]{6}", figure)))


@pytest.fixture(scope="module")
def drawn():
    return readme_figure.figures()


def test_the_figures_are_those_of_the_example(drawn):
    """`python docs/readme_figure.py` writes them again."""
    assert len(drawn) == 2
    for path, figure in drawn.items():
        kept = path.read_text(encoding="utf-8")
        assert labels(kept) == labels(figure)
        assert {"x", "params.b", "params.w", "t", "output"} <= set(labels(kept))
        assert colours(kept) == colours(figure)


def test_there_is_a_figure_for_light_and_for_dark_pages(drawn):
    names = [f"docs/figures/{path.name}" for path in drawn]
    assert sorted(re.findall(r'src(?:set)?="([^"]+)"', README)) == sorted(names)
    one, other = map(colours, drawn.values())
    assert set(one) ^ set(other) == set(readme_figure.TEXT.values())


def test_it_is_short():
    before, _, _ = README.partition("## Two commands")
    assert len(before.splitlines()) < 50
    assert len(README.splitlines()) < 80
