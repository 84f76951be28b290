"""The pages of the documentation: what the build of the site does not check, or takes long to."""

import ast
import functools
import inspect
import itertools
import re
import sys
import unicodedata
from pathlib import Path
from typing import NamedTuple

import pytest

import autodiffkit as adk
import messages
import test_readme
from autodiffkit._transforms import Transform

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CONFIG = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
INCLUDED = DOCS / "benchmarks"  # parts of a page, and no pages
PAGES = sorted(
    path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if INCLUDED not in path.parents
)

# Python that is shown and not executed when the site is built: the page, how the block begins,
# and why. Everything else in Python has to be executed.
EXCUSED: dict[tuple[str, str], str] = {}


# Files that hooks make as the site is built.
MADE = ["tutorial.ipynb"]


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    options: dict[str, str]
    text: str

    @property
    def place(self):
        return f"{self.page}:{self.line}"

    @property
    def is_executed(self):
        return self.options.get("exec", "").lower() in {"1", "on", "true", "yes"}


@functools.cache
def text_of(page):
    return (DOCS / page).read_text(encoding="utf-8")


def blocks_of(page):
    fenced = r"^(?P<fence>`{3,}|~{3,})(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=fence)\s*$"
    for found in re.finditer(fenced, text_of(page), re.DOTALL | re.MULTILINE):
        language, _, rest = found["info"].strip().partition(" ")
        options = dict(re.findall(r'([\w-]+)="([^"]*)"', rest))
        line = text_of(page).count("\n", 0, found.start()) + 1
        yield Block(page, line, language, options, found["text"])


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


# Code is executed, and its output is shown ----------------------------------------


def is_python(language):
    return language.lower() in {"python", "py", "python3", "pycon", "ipython"}


def excuse(block):
    """What excuses the block from being executed, as a key of `EXCUSED`."""
    for page, start in EXCUSED:
        if block.page == page and block.text.startswith(start):
            return page, start
    return None


def test_every_block_has_a_language():
    assert [block.place for block in BLOCKS if not block.language] == []


def test_python_is_executed_or_excused_with_a_reason():
    shown = [block for block in BLOCKS if is_python(block.language) and not block.is_executed]
    assert [block.place for block in shown if excuse(block) is None] == []
    assert set(EXCUSED) == {excuse(block) for block in shown}, "an excuse that nothing needs"
    assert all(len(reason.split()) > 3 for reason in EXCUSED.values())


def test_python_of_the_readme_is_what_its_test_runs():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^```(?:python|py)\b", readme, re.MULTILINE)) == len(
        test_readme.EXAMPLES
    )


def test_what_code_prints_is_shown():
    """An executed block that is seen and prints has a kind of result, or its output is Markdown."""
    hidden = [
        block.place
        for block in BLOCKS
        if block.is_executed
        and "source" in block.options
        and any(calls_print(statement) for statement in ast.parse(block.text).body)
        and not {"result", "html"} & set(block.options)
    ]
    assert hidden == []


def calls_print(statement):
    """Whether it prints as it runs; a function may print later."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return False
    calls = (node for node in ast.walk(statement) if isinstance(node, ast.Call))
    return any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls)


def test_expected_errors_are_seen_to_be_raised():
    """A block that shows an error has an `else`, so that the build fails if there is none."""
    missing = [
        block.place
        for block in BLOCKS
        if block.is_executed
        for node in ast.walk(ast.parse(block.text))
        if isinstance(node, ast.Try) and not node.orelse
    ]
    assert missing == []


# Pages and links -------------------------------------------------------------------


def test_all_pages_are_in_the_navigation_once():
    nav = CONFIG[CONFIG.index("\nnav:") : CONFIG.index("\nhooks:")]
    assert sorted(re.findall(r": (\S+\.md)$", nav, re.MULTILINE)) == PAGES
    assert "/benchmarks/*.md" in CONFIG[CONFIG.index("\nexclude_docs:") :]


QUESTIONS = [page for page in PAGES if page.startswith("how-to/") and page != "how-to/index.md"]


def test_all_questions_are_in_their_index():
    assert (
        sorted(f"how-to/{name}" for name in links(text_of("how-to/index.md")) if "/" not in name)
        == QUESTIONS
    )


@pytest.mark.parametrize("page", [page for page in QUESTIONS if page != "how-to/traps.md"])
def test_a_question_says_where_it_was_asked(page):
    *_, end = text_of(page).rstrip().split("\n\n")
    issue = r"\[(?:[\w-]+)?#(\d+)\]\(https://github\.com/[\w-]+/[\w-]+/issues/\1\)"
    assert end.startswith("Asked in ")
    assert re.search(issue, end)
    assert len(re.findall(issue, end)) == end.count("](")


def prose(text):
    """Markdown without code and comments."""
    text = re.sub(r"^(`{3,}|~{3,}).*?^\1\s*$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    return re.sub(r"(`+).*?\1", lambda found: "`" * (len(found[0]) > 2), text)


def links(text):
    """The targets of links and images, but for those to other sites."""
    targets = re.findall(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)", prose(text))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def slug(heading):
    """The anchor that the `toc` extension gives to a heading."""
    heading = re.sub(r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])", r"\1", heading)  # links
    heading = re.sub(r"<[^>]*>|[`*]", "", heading)
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


@functools.cache
def anchors(page):
    text = text_of(page)
    if "from messages import page" in text:
        text += "\n" + messages.page()
    text = re.sub(r"^(`{3,}|~{3,}).*?^\1\s*$", "", text, flags=re.DOTALL | re.MULTILINE)
    found, counts = set(re.findall(r'\bid="([^"]+)"', text)), {}
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", text, re.MULTILINE):
        if explicit := re.search(r"\{[^}]*#([\w-]+)[^}]*\}\s*$", heading):
            found.add(explicit[1])
            continue
        name = slug(heading)
        counts[name] = counts.get(name, -1) + 1
        found.add(f"{name}_{counts[name]}" if counts[name] else name)
    return found


def broken(text, page):
    """The links in a text on this page that lead nowhere."""
    for target in links(text):
        name, _, anchor = target.partition("#")
        path = (DOCS / page).parent / name if name else DOCS / page
        if name.endswith("/"):  # the address of a page, from that of this one
            path = ((DOCS / page).with_suffix("") / name).resolve().with_suffix(".md")
        if name in MADE:
            continue
        if not path.is_file() or (anchor and path.suffix == ".md" and not leads_to(path, anchor)):
            yield target


def leads_to(path, anchor):
    if anchor.startswith("autodiffkit."):
        return f"::: {anchor}" in text_of("api.md") or is_member_of_a_rendered_class(anchor)
    return anchor in anchors(path.resolve().relative_to(DOCS).as_posix())


def is_member_of_a_rendered_class(anchor):
    owner, _, member = anchor.rpartition(".")
    if f"::: {owner}\n" not in text_of("api.md"):
        return False
    return hasattr(getattr(adk, owner.rpartition(".")[2], None), member)


def test_what_hooks_make_is_made():
    hooks = (DOCS / "hooks.py").read_text(encoding="utf-8")
    assert [name for name in MADE if f'"{name}"' not in hooks] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_and_anchors_lead_somewhere(page):
    assert list(broken(text_of(page), page)) == []


def test_links_that_are_made_as_the_site_is_built_lead_somewhere():
    """Those in docstrings are relative to the API reference, as those of messages to their page."""
    docstrings = [
        inspect.getdoc(thing) or ""
        for name, module in sorted(sys.modules.items())
        if name.split(".")[0] == "autodiffkit"
        for thing in [module, *vars(module).values()]
        if getattr(thing, "__module__", name) == name
    ]
    texts = [(messages.page(), "troubleshooting.md"), *((text, "api.md") for text in docstrings)]
    assert [target for text, page in texts for target in broken(text, page)] == []


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_links_of_files_beside_the_site_lead_somewhere(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = [target.partition("#")[0] for target in links(text)]
    assert [target for target in targets if target and not (ROOT / target).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_references_to_the_api_are_to_what_it_has(page):
    """`[text][autodiffkit.Jacobian]`, which mkdocstrings resolves."""
    references = re.findall(r"\]\[(autodiffkit[\w.]*)\]", prose(text_of(page)))
    known = [
        f"::: {name}\n" in text_of("api.md") + "\n" or is_member_of_a_rendered_class(name)
        for name in references
    ]
    assert [name for name, is_known in zip(references, known, strict=True) if not is_known] == []


# The reference has all public names --------------------------------------------------

CLASSES = [
    value for name, value in sorted(vars(adk).items()) if inspect.isclass(value) and name[0] != "_"
]


def public_members(cls):
    """Names, with the class that has them, of what the package itself defines."""
    for name in dir(cls):
        owner = next((base for base in cls.__mro__ if name in vars(base)), None)
        if name[0] != "_" and owner and owner.__module__.partition(".")[0] == "autodiffkit":
            yield name, owner


def rendered(name):
    """The options under `::: name` in the API reference, or None if it is not there."""
    found = re.search(rf"^::: {re.escape(name)}\n((?: +.*\n)*)", text_of("api.md") + "\n", re.M)
    return found and found[1]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_public_members_are_in_the_reference(cls):
    options = rendered(f"autodiffkit.{cls.__name__}")
    assert options is not None
    fields = getattr(cls, "_fields", ())
    for name, owner in public_members(cls):
        # What has no docstring is left out of the reference.
        if name not in fields and name not in getattr(cls, "__annotations__", {}):
            member = inspect.getattr_static(cls, name)
            assert inspect.getdoc(getattr(member, "__func__", member)), name
        assert owner is cls or "inherited_members: true" in options, name


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_public_fields_are_described(cls):
    documented = re.findall(r"^ +(\w+):", cls.__doc__ or "", re.MULTILINE)
    documented += attribute_docstrings(cls)
    fields = [name for name in getattr(cls, "__annotations__", {}) if name[0] != "_"]
    assert [name for name in fields if name not in documented] == []


def attribute_docstrings(cls):
    """The attributes that have a string below them, which the reference shows."""
    (body,) = (
        n.body for n in ast.parse(inspect.getsource(cls)).body if isinstance(n, ast.ClassDef)
    )
    for first, second in itertools.pairwise(body):
        is_text = isinstance(second, ast.Expr) and isinstance(second.value, ast.Constant)
        if isinstance(first, ast.AnnAssign) and isinstance(first.target, ast.Name) and is_text:
            yield first.target.id


def test_what_a_transform_can_do_is_in_the_reference():
    names = [name for name, _ in public_members(Transform)]
    assert "plan" in names
    for name in names:
        assert rendered(f"autodiffkit._transforms.Transform.{name}") is not None, name
        member = inspect.getattr_static(Transform, name)
        assert inspect.getdoc(getattr(member, "__func__", member)), name


def test_helpers_for_tests_are_in_the_reference():
    assert rendered("autodiffkit.testing") is not None
    assert all(inspect.getdoc(getattr(adk.testing, name)) for name in adk.testing.__all__)
