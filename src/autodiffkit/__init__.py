"""Derivatives of functions of named arguments, with names and structure kept."""

from importlib.metadata import version as _version

from autodiffkit import testing as testing
from autodiffkit._ahead import Compiled as Compiled
from autodiffkit._api import grad as grad
from autodiffkit._api import hessian as hessian
from autodiffkit._api import hvp as hvp
from autodiffkit._api import jacobian as jacobian
from autodiffkit._api import linearize as linearize
from autodiffkit._api_check import check_derivatives as check_derivatives
from autodiffkit._api_nonfinite import find_nonfinite as find_nonfinite
from autodiffkit._api_operators import curl as curl
from autodiffkit._api_operators import directional_derivative as directional_derivative
from autodiffkit._api_operators import divergence as divergence
from autodiffkit._api_operators import hessian_diagonal as hessian_diagonal
from autodiffkit._api_operators import laplacian as laplacian
from autodiffkit._check_report import CheckedBlock as CheckedBlock
from autodiffkit._check_report import DerivativeReport as DerivativeReport
from autodiffkit._errors import AnnotationError as AnnotationError
from autodiffkit._errors import AutodiffError as AutodiffError
from autodiffkit._errors import MatrixError as MatrixError
from autodiffkit._errors import MissingPackageError as MissingPackageError
from autodiffkit._errors import ModeError as ModeError
from autodiffkit._errors import NotDifferentiableError as NotDifferentiableError
from autodiffkit._errors import NotDifferentiatedError as NotDifferentiatedError
from autodiffkit._errors import OperandError as OperandError
from autodiffkit._errors import ResultTooLargeError as ResultTooLargeError
from autodiffkit._errors import SelectionError as SelectionError
from autodiffkit._errors import SignatureError as SignatureError
from autodiffkit._errors import StructureError as StructureError
from autodiffkit._gauss_newton import fisher as fisher
from autodiffkit._gauss_newton import gauss_newton as gauss_newton
from autodiffkit._hessian import Hessian as Hessian
from autodiffkit._linear_algebra import SVD as SVD
from autodiffkit._linear_algebra import Eigh as Eigh
from autodiffkit._linear_algebra import Slogdet as Slogdet
from autodiffkit._linear_map import LinearMap as LinearMap
from autodiffkit._nonfinite_report import NonfiniteFinding as NonfiniteFinding
from autodiffkit._nonfinite_report import NonfiniteReport as NonfiniteReport
from autodiffkit._operator_plan import OperatorPlan as OperatorPlan
from autodiffkit._operator_results import Curl as Curl
from autodiffkit._operator_results import DirectionalDerivative as DirectionalDerivative
from autodiffkit._operator_results import Divergence as Divergence
from autodiffkit._operator_results import HessianDiagonal as HessianDiagonal
from autodiffkit._operator_results import Laplacian as Laplacian
from autodiffkit._plan import Plan as Plan
from autodiffkit._plot_function import plot_function as plot_function
from autodiffkit._records import Record as Record
from autodiffkit._result import Gradient as Gradient
from autodiffkit._result import Jacobian as Jacobian
from autodiffkit._symmetric import SymmetricMatrix as SymmetricMatrix

__version__ = _version("autodiffkit")
