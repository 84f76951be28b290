"""What the wheel and the sdist contain and say of themselves; `nox -s package` installs them."""

import email
import email.policy
import hashlib
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from trove_classifiers import classifiers as known_classifiers

import autodiffkit as adk

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
STEM = f"autodiffkit-{adk.__version__}"
# Written by a person or by a script of the repository; anything else is there by mistake.
SUFFIXES = {".css", ".ipynb", ".js", ".json", ".md", ".png", ".py", ".svg", ".toml", ".txt"}
SUFFIXES |= {".typed", ".yml"}


def files_of_the_repository():
    """Its files, also those that are about to be added; in an unpacked sdist all that it holds."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    files = {path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()}
    made = re.compile(r"\.|__pycache__$|build$|dist$|site$|.*\.egg-info$")
    written = {path for path in files if not any(made.match(part) for part in path.parts)}
    return {path.as_posix() for path in written} - {"PKG-INFO"} | {".gitignore"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with both, built by the backend itself, which needs no network."""
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{STEM}-py3-none-any.whl",
        f"{STEM}.tar.gz",
    ]
    return folder


@pytest.fixture
def wheel(built):
    with zipfile.ZipFile(built / f"{STEM}-py3-none-any.whl") as opened:
        yield opened


@pytest.fixture
def sdist(built):
    with tarfile.open(built / f"{STEM}.tar.gz") as opened:
        yield opened


@pytest.fixture
def metadata(wheel):
    text = wheel.read(f"{STEM}.dist-info/METADATA").decode()
    return email.message_from_string(text, policy=email.policy.compat32)


def test_the_wheel_is_the_package_with_its_licence_and_no_more(wheel):
    package = {
        name.removeprefix("src/")
        for name in files_of_the_repository()
        if name.startswith("src/autodiffkit/")
    }
    assert {"autodiffkit/__init__.py", "autodiffkit/py.typed"} <= package
    information = {"METADATA", "RECORD", "WHEEL", "licenses/LICENSE"}
    assert set(wheel.namelist()) == package | {f"{STEM}.dist-info/{name}" for name in information}
    assert wheel.read(f"{STEM}.dist-info/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


def test_the_sdist_is_the_repository(sdist):
    held = {name.removeprefix(f"{STEM}/") for name in sdist.getnames()}
    needed = {name for name in files_of_the_repository() if not name.startswith(".ci/")}
    assert held == needed | {"PKG-INFO"}
    # It can be tested and documented, and says what one may do with it.
    assert {"LICENSE", "README.md", "noxfile.py", "mkdocs.yml", "tests/conftest.py"} <= held
    assert {"docs/tutorial.md", "examples/enzyme_kinetics.py", "benchmarks/run.py"} <= held


def test_nothing_is_there_by_mistake(sdist):
    sizes = {member.name: member.size for member in sdist.getmembers() if member.isfile()}
    assert {Path(name).suffix for name in sizes} - {""} <= SUFFIXES
    bare = {Path(name).name for name in sizes if not Path(name).suffix}
    assert bare == {".gitignore", "LICENSE", "PKG-INFO"}
    assert {name: size for name, size in sizes.items() if size > 500_000} == {}


def test_the_licence_is_the_unmodified_apache_licence():
    # The digest of https://www.apache.org/licenses/LICENSE-2.0.txt.
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def test_the_metadata_is_complete(metadata):
    assert metadata["Version"] == adk.__version__ == PROJECT["version"]
    assert metadata["Summary"]
    assert len(metadata["Summary"]) < 100
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Author"] == "The autodiffkit developers"
    assert metadata["Keywords"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_classifiers_exist_and_agree_with_the_rest(metadata):
    given = metadata.get_all("Classifier")
    assert given == sorted(set(given))
    assert set(given) <= set(known_classifiers)
    for topic in ["Development Status", "Intended Audience", "Topic", "Typing"]:
        assert any(name.startswith(f"{topic} :: ") for name in given), topic
    # With a licence expression, classifiers of licences are not allowed.
    assert not any(name.startswith("License ::") for name in given)
    versions = [name.split(" :: ")[-1] for name in given if re.search(r":: 3\.\d+$", name)]
    assert metadata["Requires-Python"] == f">={versions[0]}"


def test_dependencies_of_development_are_not_in_the_metadata(metadata):
    required = [re.match(r"[\w-]+", text)[0] for text in metadata.get_all("Requires-Dist")]
    optional = [text for text in metadata.get_all("Requires-Dist") if "extra ==" in text]
    assert len(required) == len(PROJECT["dependencies"]) + len(optional)
    assert not {"pytest", "hypothesis", "nox", "mkdocs-material", "hatchling"} & set(required)


def test_links_of_the_readme_lead_to_files_of_the_sdist(sdist):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    relative = [link for link in links if not re.match(r"[a-z]+:", link)]
    held = set(sdist.getnames())
    assert [link for link in relative if f"{STEM}/{link}" not in held] == []
