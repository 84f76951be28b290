"""The project's sessions: `nox -s demo` is the main job, `nox -s tests` the tests.

Each session makes an environment of its own and installs what it needs.
"""

import shutil
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests", "lint", "typing", "docs"]
nox.options.default_venv_backend = "virtualenv"

PROJECT = nox.project.load_toml("pyproject.toml")

# Compilation is most of the time of tests, and what is compiled runs a few times. What XLA decides
# is the same; LLVM takes less care with it.
QUICKLY = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def install(session: nox.Session, *groups: str, extras: str = "") -> None:
    """Installs the package and the development dependencies of the groups."""
    session.install(f".{extras}", *nox.project.dependency_groups(PROJECT, *groups))


@nox.session
def tests(session: nox.Session) -> None:
    """The tests, on two processes, with coverage of the package."""
    install(session, "tests", extras="[plot]")
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    report = "--cov-report=term-missing:skip-covered"
    session.run("pytest", "-n", "2", "--cov", report, env={"XLA_FLAGS": QUICKLY})


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """The properties of 5000 random programs, or of as many as `-- --programs 20000` says.

    A failure is printed as the source of a program and its call, reduced to what matters.
    """
    install(session, "tests", extras="[plot]")
    session.run(
        "pytest",
        "tests/test_properties.py",
        "tests/test_properties_of_calls.py",
        *("-n", "2", "--programs", "5000"),
        *session.posargs,
        env={"XLA_FLAGS": QUICKLY},
    )


@nox.session(default=False)
def breadth(session: nox.Session) -> None:
    """Every operation that JAX differentiates, in every mode, dtype and kind of program."""
    install(session, "tests", extras="[plot]")
    quick = {"AUTODIFFKIT_BREADTH": "1", "XLA_FLAGS": QUICKLY}
    session.run("pytest", "-n", "2", "tests/test_operations.py", *session.posargs, env=quick)
    two = {**quick, "XLA_FLAGS": f"{QUICKLY} --xla_force_host_platform_device_count=2"}
    session.run("pytest", "tests/test_operations.py", "-k", "shard_map or sharding", env=two)


@nox.session(name="tests-lowest")
def tests_lowest(session: nox.Session) -> None:
    """The tests with the lowest versions that pyproject.toml declares."""
    metadata = PROJECT["project"]
    declared = [*metadata["dependencies"], *metadata["optional-dependencies"]["plot"]]
    session.install(*(requirement.replace(">=", "==") for requirement in declared))
    session.install("--no-deps", ".")
    session.install(*nox.project.dependency_groups(PROJECT, "tests"))
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session(name="tests-extensive")
def tests_extensive(session: nox.Session) -> None:
    """The tests that take long, and those of divided arrays, on four devices of the host."""
    install(session, "tests", extras="[plot]")
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    files = session.posargs or ["tests", "tests/devices.py"]
    session.run("pytest", "-m", "extensive", *files, env=flags)


@nox.session(default=False)
def checks(session: nox.Session) -> None:
    """The check of derivatives, on the whole registry of functions and not on a sample."""
    install(session, "tests", extras="[plot]")
    env = {"AUTODIFFKIT_TEST_ALL": "1"}
    session.run("pytest", "tests/test_check.py", *session.posargs, env=env)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def typing(session: nox.Session) -> None:
    """Static types, strictly, by both of the common checkers."""
    install(session, "typing", "tests", extras="[plot]")
    session.run("pyright", *session.posargs)
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, every example of it executed; `-- serve` shows it while it is edited."""
    install(session, "docs", extras="[plot]")
    if "serve" in session.posargs:
        session.run("mkdocs", "serve")
        return
    session.run("mkdocs", "build", "--strict")


@nox.session(name="docs-browser", default=False)
def docs_browser(session: nox.Session) -> None:
    """The built documentation in headless Chromium, which has to be installed.

    `-- --site site` looks at what is built already, and `-- --screenshots shots` leaves pictures
    of every page, light and dark, wide and narrow, for a person to look at.
    """
    install(session, "docs", "browser", extras="[plot]")
    given = any(argument.startswith("--site") for argument in session.posargs)
    with tempfile.TemporaryDirectory() as folder:
        if not given:
            session.run("mkdocs", "build", "--strict", "--site-dir", folder)
        site = [] if given else ["--site", folder]
        session.run("pytest", "tests/browser", *site, *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """The main job: a nonlinear regression with the structured Jacobian, on published data."""
    install(session, extras="[plot]")
    session.run("python", "examples/enzyme_kinetics.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Run times, first calls and memory beside JAX and other packages, interleaved in one run."""
    install(session, "bench")
    session.run("python", "benchmarks/run.py", *(session.posargs or ["--practice"]))


# What is installed is imported from there, differentiates, and has its marker and its licence.
USE = """
import importlib.metadata as metadata
import pathlib
import sys

import autodiffkit as adk

J = adk.jacobian(lambda x, y: x * y)(2.0, 3.0)
assert (float(J.x), float(J.y), float(J.value)) == (3.0, 2.0, 6.0)
folder = pathlib.Path(adk.__file__).parent
assert folder.is_relative_to(sys.prefix) and (folder / "py.typed").is_file(), folder
(licence,) = [path for path in metadata.files("autodiffkit") if path.name == "LICENSE"]
assert "Apache License" in licence.read_text()
print(metadata.version("autodiffkit"), J, sep="\\n")
"""


@nox.session(default=False, python=nox.project.python_versions(PROJECT))
def package(session: nox.Session) -> None:
    """Builds the sdist and a wheel from it, and uses each in an empty environment.

    On every Python of the classifiers. Then tests that came with the sdist run against the wheel.
    """
    session.install("build", "twine")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        session.run("python", "-m", "build", "--outdir", name)
        (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
        session.run("twine", "check", "--strict", str(wheel), str(sdist))
        with session.chdir(name):
            for built in (sdist, wheel):
                environment = folder / f"with{built.suffix}"
                session.run("python", "-m", "venv", str(environment))
                python = str(environment / "bin" / "python")
                session.run(python, "-m", "pip", "install", "--quiet", str(built), external=True)
                session.run(python, "-c", USE, external=True)
        shutil.unpack_archive(sdist, name, filter="data")
        with session.chdir(sdist.with_name(sdist.name.removesuffix(".tar.gz"))):
            needed = [f"{wheel}[plot]", *nox.project.dependency_groups(PROJECT, "tests")]
            session.run(python, "-m", "pip", "install", "--quiet", *needed, external=True)
            visible = [f"tests/test_{name}.py" for name in ("exports", "packages", "readme")]
            session.run(python, "-m", "pytest", *(session.posargs or visible), external=True)
