"""The package's own annotations, checked by jaxtyping and beartype while it is used."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
USES = (
    "test_seed_examples.py",
    "test_selection.py",
    "test_calls.py",
    "test_products.py",
)


BEARTYPE = tuple(int(part) for part in version("beartype").split(".")[:2])


@pytest.mark.skipif(BEARTYPE < (0, 23), reason="beartype reads generics of a ParamSpec since 0.23")
def test_the_package_keeps_to_its_own_annotations():
    """In a process of its own: the hook has to be there before the package is imported."""
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        "--jaxtyping-packages=autodiffkit,checker.check",
        # Of arguments of the wrong kind the hook speaks first; and leaks are looked for elsewhere.
        *("-k", "not what_is_wrong_is_named and not leaks"),
        *(str(TESTS / name) for name in USES),
    ]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
