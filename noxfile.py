"""The project's sessions: `nox -s demo` is the main job, `nox -s tests` the tests.

Each session makes an environment of its own and installs what it needs.
"""

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
    install(session, "tests")
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    files = session.posargs or ["tests", "tests/devices.py"]
    session.run("pytest", "-m", "extensive", *files, env=flags)


@nox.session(default=False)
def checks(session: nox.Session) -> None:
    """The check of derivatives, on the whole registry of functions and not on a sample."""
    install(session, "tests")
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


@nox.session(default=False)
def wheel(session: nox.Session) -> None:
    """Builds the wheel and imports it from an environment that holds nothing else."""
    session.install("build")
    with tempfile.TemporaryDirectory() as folder:
        session.run("python", "-m", "build", "--wheel", "--outdir", folder)
        (path,) = Path(folder).glob("*.whl")
        session.install(str(path))
        session.run("python", "-c", "import autodiffkit; print(autodiffkit.__version__)")
