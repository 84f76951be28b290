"""Derivatives of functions of named arguments, with names and structure kept."""

from importlib.metadata import version as _version

from autodiffkit._api import grad as grad
from autodiffkit._api import hessian as hessian
from autodiffkit._api import hvp as hvp
from autodiffkit._api import jacobian as jacobian
from autodiffkit._api import linearize as linearize
from autodiffkit._errors import AnnotationError as AnnotationError
from autodiffkit._errors import AutodiffError as AutodiffError
from autodiffkit._errors import ModeError as ModeError
from autodiffkit._errors import NotDifferentiableError as NotDifferentiableError
from autodiffkit._errors import NotDifferentiatedError as NotDifferentiatedError
from autodiffkit._errors import ResultTooLargeError as ResultTooLargeError
from autodiffkit._errors import SelectionError as SelectionError
from autodiffkit._errors import SignatureError as SignatureError
from autodiffkit._errors import StructureError as StructureError
from autodiffkit._hessian import Hessian as Hessian
from autodiffkit._linear_map import LinearMap as LinearMap
from autodiffkit._plan import Plan as Plan
from autodiffkit._records import Record as Record
from autodiffkit._result import Gradient as Gradient
from autodiffkit._result import Jacobian as Jacobian

__version__ = _version("autodiffkit")
