"""The tutorial as a notebook: made of the page, it runs, and shows what the page shows."""

import contextlib
import io
import json
import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbclient
import nbformat
import pytest

import autodiffkit as adk
import notebooks

PAGE = (Path(__file__).parent.parent / "docs" / "tutorial.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook after it ran in a kernel of its own."""
    made = notebooks.notebook(PAGE)
    folder = tmp_path_factory.mktemp("notebook")
    client = nbclient.NotebookClient(
        made, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    return client.execute()


def cells(notebook, kind):
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def printed(cell):
    return "".join(each.text for each in cell.outputs if each.output_type == "stream")


def shown(cell):
    kinds = {"display_data", "execute_result"}
    return [each.data for each in cell.outputs if each.output_type in kinds]


def test_it_runs_without_errors_or_warnings(executed):
    code = cells(executed, "code")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {
        "stream",
        "display_data",
        "execute_result",
    }
    assert {each.name for each in outputs if each.output_type == "stream"} == {"stdout"}


def test_it_shows_what_the_page_shows(executed):
    """Printed text is that of the same code outside of a notebook, block by block."""
    names = {"display": lambda value: None}
    with mpl.rc_context({"backend": "svg"}):
        for cell in cells(executed, "code"):
            text = io.StringIO()
            with contextlib.redirect_stdout(text):
                exec(cell.source, names)
            assert printed(cell) == text.getvalue()
        plt.close("all")


def test_results_are_displayed_as_notebooks_display_them(executed):
    named = {cell.source: shown(cell) for cell in cells(executed, "code")}
    for name, kind in [("J", adk.Jacobian), ("H", adk.Hessian)]:
        (data,) = named[name]
        assert data["text/plain"].startswith(f"{kind.__name__} of f")
        assert ("text/html" in data) == hasattr(kind, "_repr_html_")
    (plans,) = [data for source, data in named.items() if ".plan(" in source]
    assert len(plans) == 3
    assert all(("text/html" in data) == hasattr(adk.Plan, "_repr_html_") for data in plans)


def test_the_figure_is_drawn(executed):
    drawn = [
        data for cell in cells(executed, "code") for data in shown(cell) if "image/png" in data
    ]
    assert len(drawn) == PAGE.count('source="above" html="on"')


def test_it_has_the_headings_and_the_code_of_the_page():
    made = notebooks.notebook(PAGE)
    prose = "\n".join(cell.source for cell in cells(made, "markdown"))
    headings = re.findall(
        r"^#+ [^{\n]*[^{\s]", re.sub(r"^```.*?^```$", "", PAGE, flags=re.M | re.S), re.M
    )
    assert re.findall(r"^#+ .*", prose, re.M) == headings
    assert len(cells(made, "code")) == PAGE.count('source="above"')
    assert "markdown-exec" not in str(made)
    assert "](" not in prose
    assert "of the page" not in prose


def test_the_file_is_valid_and_always_the_same():
    text = notebooks.written(PAGE)
    assert text == notebooks.written(PAGE)
    nbformat.validate(json.loads(text))
    assert not any(cell["outputs"] for cell in json.loads(text)["cells"] if "outputs" in cell)


OPTIONS = 'exec="on" source="above"'


def code_of(page):
    return [part.text for part in notebooks.parts(page) if isinstance(part, notebooks.Code)]


def test_hidden_blocks_and_lines_are_left_out():
    page = f"""\
Before.

```python exec="on"
helper = 1
```

```python {OPTIONS}
x = 1
hidden()  # markdown-exec: hide
print(x, 2)
```
"""
    assert code_of(page) == ["x = 1\nprint(x, 2)"]


@pytest.mark.parametrize(
    ("code", "cell"),
    [
        ("print(J)", "J"),
        ("print(J)  # why", "J  # why"),
        ("print(J)\nprint(H)", "display(J)\nH"),
        ("print(f.plan(\n    1,\n))\nprint(J)", "display(f.plan(\n    1,\n))\nJ"),
        ('print("é", J)\nprint(J.x)', 'print("é", J)\nprint(J.x)'),
        ('axes.plot("é")  # é', 'axes.plot("é");  # é'),
        ("def f(x):\n    print(x)", "def f(x):\n    print(x)"),
    ],
)
def test_what_a_cell_shows_is_displayed_and_nothing_else(code, cell):
    page = f"# A page\n\n```python {OPTIONS}\n{code}\n```\n"
    assert notebooks.notebook(page).cells[1].source == cell


def test_links_and_attributes_of_the_site_are_left_out():
    page = "# A page { #a-page }\n\n[Modes](guide/modes.md#x), [`J`][adk.J], [JAX](https://docs.jax.dev).\n"
    (cell,) = notebooks.notebook(page).cells
    assert cell.source.startswith("# A page\n")
    assert cell.source.endswith("*Modes*, *`J`*, [JAX](https://docs.jax.dev).")


@pytest.mark.parametrize(
    "block", [f"    ```python {OPTIONS}\n    x\n    ```", "```python title=x\nx\n```"]
)
def test_code_that_would_be_missed_is_an_error(block):
    with pytest.raises(ValueError, match="block"):
        notebooks.notebook(f"# A page\n\n{block}\n")
