"""The page for contributors lists what there is: sessions, files, places."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
NOXFILE = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))


def section(heading):
    (found,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return found


def sessions():
    """The names by which nox knows them, with the decorators."""
    for node in NOXFILE.body:
        for decorator in getattr(node, "decorator_list", []):
            given = {
                x.arg: ast.literal_eval(x.value)
                for x in getattr(decorator, "keywords", [])
                if isinstance(x.value, ast.Constant)
            }
            if ast.unparse(decorator).startswith("nox.session"):
                yield given.get("name", node.name)


def defaults():
    (found,) = (
        ast.literal_eval(node.value)
        for node in NOXFILE.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "nox.options.sessions"
    )
    return found


def rows(heading):
    return re.findall(r"^\| (`.*?) \| (.+?) \|", section(heading), re.MULTILINE)


def test_all_sessions_are_listed_and_the_defaults_are_first():
    listed = [name.strip("`") for name, _ in rows("Sessions")]
    assert sorted(listed) == sorted(sessions())
    assert listed[:4] == defaults()
    assert "`nox` runs the first four" in section("Sessions")
    assert f"nox -s {' '.join(defaults())}\n" in section("Set up")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"nox -s ([\w-]+)", PAGE))))
def test_a_session_that_is_named_exists(name):
    assert name in set(sessions())


def test_all_files_that_tests_share_are_listed():
    listed = [
        name
        for names, _ in rows("How tests are organised")
        for name in re.findall("`(.*?)`", names)
    ]
    there = [
        path.name for path in (ROOT / "tests").glob("*.py") if not path.name.startswith("test_")
    ]
    assert sorted(listed) == sorted([*there, "operations/"])


def test_files_that_are_named_exist():
    folders = [ROOT, ROOT / "tests", ROOT / "src" / "autodiffkit", ROOT / "tests" / "operations"]
    named = set(re.findall(r"`([\w/]+\.(?:py|md|toml|yml))`", PAGE))
    assert len(named) > 20
    assert {
        name for name in named if not any((folder / name).is_file() for folder in folders)
    } == set()


def test_the_coverage_that_is_promised_is_the_one_that_is_demanded():
    (demanded,) = re.findall(r"^fail_under = (\d+)", (ROOT / "pyproject.toml").read_text(), re.M)
    assert f"at least {demanded} % of the package" in PAGE
