"""The public names: all of them, documented, and nothing else."""

import importlib.metadata
import inspect
from pathlib import Path

import numpy as np
import pytest

import autodiffkit as adk

NAMES = [
    "AnnotationError",
    "AutodiffError",
    "CheckedBlock",
    "Compiled",
    "Curl",
    "DerivativeReport",
    "DirectionalDerivative",
    "Divergence",
    "Eigh",
    "Gradient",
    "Hessian",
    "HessianDiagonal",
    "Jacobian",
    "Laplacian",
    "LinearMap",
    "MatrixError",
    "MissingPackageError",
    "ModeError",
    "NonfiniteFinding",
    "NonfiniteReport",
    "NotDifferentiableError",
    "NotDifferentiatedError",
    "OperandError",
    "OperatorPlan",
    "Plan",
    "Record",
    "ResultTooLargeError",
    "SVD",
    "SelectionError",
    "SignatureError",
    "Slogdet",
    "StructureError",
    "SymmetricMatrix",
    "check_derivatives",
    "curl",
    "directional_derivative",
    "divergence",
    "find_nonfinite",
    "fisher",
    "gauss_newton",
    "grad",
    "hessian",
    "hessian_diagonal",
    "hvp",
    "jacobian",
    "laplacian",
    "linearize",
    "plot_function",
    "testing",
]


def test_these_names_are_public():
    assert [name for name in sorted(dir(adk)) if not name.startswith("_")] == NAMES


def test_the_version_is_that_of_the_distribution():
    assert adk.__version__ == importlib.metadata.version("autodiffkit")


@pytest.mark.parametrize("name", NAMES)
def test_each_is_documented_in_the_code_and_in_the_reference(name):
    assert inspect.getdoc(getattr(adk, name))
    reference = Path(__file__).parents[1] / "docs" / "api.md"
    assert f"::: autodiffkit.{name}\n" in reference.read_text(encoding="utf-8") + "\n"


def test_exceptions_are_of_the_builtin_kinds_that_people_catch():
    assert issubclass(adk.NotDifferentiatedError, (AttributeError, KeyError))
    assert issubclass(adk.ResultTooLargeError, MemoryError)
    assert issubclass(adk.MissingPackageError, ImportError)
    assert issubclass(adk.MatrixError, np.linalg.LinAlgError)
    for error in (adk.ModeError, adk.SelectionError, adk.StructureError):
        assert issubclass(error, ValueError)
    for error in (adk.NotDifferentiableError, adk.OperandError, adk.SignatureError):
        assert issubclass(error, TypeError)
