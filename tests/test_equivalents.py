"""The tables of equivalents hold what they promise, and the pages around them are complete."""

import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import autodiffkit as adk
from equivalents import Refusal, Row, equivalents, refusals

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in DOCS.glob("coming-from/*.md")}

TRANSFORMS = [
    name for name in dir(adk) if inspect.isfunction(getattr(adk, name)) and not name.startswith("_")
]


def f(x, y):
    return x**2 * y


NAMES = {"adk": adk, "jax": jax, "jnp": jnp, "f": f, "x": jnp.array([1.0, 2.0])}
GRADIENT = "jax.grad(f)(1.0, 2.0)"


# Tables --------------------------------------------------------------------------------------


def test_a_row_that_agrees_is_printed():
    rows = [
        Row(GRADIENT, "adk.grad(f)(1.0, 2.0).x"),
        Row("gradient(f, 1 | 2)", "G = adk.grad(f)(1.0, 2.0); G.x", GRADIENT, "https://a.b"),
    ]
    assert equivalents(NAMES, rows, "JAX").splitlines() == [
        '<div class="equivalents" markdown>',
        "",
        "| JAX | here |",
        "|---|---|",
        f"| `#!python {GRADIENT}` | `#!python adk.grad(f)(1.0, 2.0).x` |",
        r"| [`#!python gradient(f, 1 \| 2)`](https://a.b) "
        "| `#!python G = adk.grad(f)(1.0, 2.0)`<br>`#!python G.x` |",
        "",
        "</div>",
    ]
    assert "G" not in NAMES


@pytest.mark.parametrize(
    ("here", "message"),
    [
        ("adk.grad(f)(1.0, 2.0).y", "Not equal to tolerance"),
        ("adk.grad(f)(1.0, 2.0)", r"has 3 leaves, jax\.grad.* 1"),
        ("jnp.ones(1)", r"is \(1,\), jax\.grad.* is \(\)"),
    ],
)
def test_a_row_that_disagrees_fails(here, message):
    with pytest.raises(AssertionError, match=message):
        equivalents(NAMES, [Row(GRADIENT, here)], "JAX")


def test_a_row_without_numbers_fails():
    with pytest.raises(AssertionError, match="None has 0 leaves"):
        equivalents(NAMES, [Row("None", "None")], "JAX")


def test_what_raises_is_printed_with_what_is_said():
    rows = [
        Refusal(
            "jax.grad(f)(x, 2.0)", "adk.jacobian(f)(x, 2.0)", "a_b", "result.x.shape == (2, 2)"
        ),
        Refusal("jax.grad(f)(x, 2.0)", "adk.grad(f)(x, 2.0)", "the output must be one scalar"),
    ]
    said = "TypeError: Gradient only defined for scalar-output functions"
    kept, refused = refusals(NAMES, rows, "JAX").splitlines()[4:6]
    assert f"<br>{said} |" in kept
    assert kept.endswith(r"`#!python adk.jacobian(f)(x, 2.0)`<br>a\_b |")
    assert refused.endswith("<br>NotDifferentiableError: the output must be one scalar |")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Refusal(GRADIENT, "adk.grad(f)(1.0, 2.0)", "", "True"), r"jax\.grad.* did not raise"),
        (Refusal("1 / 0", "adk.grad(f)(1.0, 2.0)", "", "result.x == 3"), "x == 3 is not so of adk"),
        (Refusal("1 / 0", "adk.grad(f)(x, 2.0)", "words"), "did not say 'words', but NotDiff"),
        (Refusal("1 / 0", "adk.grad(f)(1.0, 2.0)", "words"), "did not say 'words', but None"),
    ],
)
def test_what_does_not_raise_as_promised_fails(row, message):
    with pytest.raises(AssertionError, match=message):
        refusals(NAMES, [row], "JAX")


def test_markup_in_messages_is_plain():
    row = Refusal("{'[a]*<b>': 1}['|']", "1", "ok", "result")
    assert r"<br>KeyError: '\|' |" in refusals(NAMES, [row], "Python")
    row = Refusal("int('[a]*<b>')", "1", "ok", "result")
    assert r"base 10: '\[a\]\*&lt;b>' |" in refusals(NAMES, [row], "Python")


# Pages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_page_for_users_of_jax_has_each_transform(name):
    assert f"adk.{name}(" in PAGES["jax"]


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_public(page):
    names = set(re.findall(r"\badk\.(\w+)", PAGES[page]))
    assert names
    assert {name for name in names if not hasattr(adk, name)} == set()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_what_is_different_and_what_stays(page):
    headings = re.findall("^## (.*)$", PAGES[page], re.MULTILINE)
    assert {"Equivalents", "What is different"} <= set(headings)
    assert headings[-1].startswith(("What stays with", "What is not here"))


@pytest.mark.parametrize(
    ("page", "site"),
    [
        ("pytorch", "https://docs.pytorch.org/docs/stable/"),
        ("differentiationinterface", "https://juliadiff.org/DifferentiationInterface.jl/"),
    ],
)
def test_what_cannot_be_run_is_compared_with_jax_and_links_to_its_documentation(page, site):
    made = re.findall(r"\bRow\(([^()]*)\)", PAGES[page])
    assert made
    for arguments in made:
        assert re.match(r'there, here, expected, f"{[A-Za-z]+}.*{', arguments), arguments
    assert f'"{site}' in PAGES[page]


@pytest.mark.parametrize("page", ["jax", "equinox"])
def test_what_can_be_run_is_run(page):
    assert "expected" not in PAGES[page]
    assert len(re.findall(r"\bRow\(\*row\)", PAGES[page])) == 1
