"""The same derivatives by other packages, each as its documentation recommends.

Packages that are not installed are left out, so that the other benchmarks do without them.
"""

import importlib
import importlib.metadata
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

import equinox as eqx
import jax
import lineax as lx
from jax.flatten_util import ravel_pytree
from problem import Problem

PACKAGES = ("equinox", "lineax", "asdex", "sparsejac")
PARTIAL = "sparsejac"  # stores only entries of the pattern; the others return blocks like JAX

_SPARSE = 0.5  # a pattern with more of its entries filled is nothing for a sparse method

_Call = Callable[..., Any]


def peers(problem: Problem) -> dict[str, _Call]:
    """The ways of other packages to all blocks of a dense derivative, by name.

    A name begins with that of the package. What a package does once for a function, such as the
    search for a pattern of zeros and its coloring, is done when its way is traced, and so counts
    as a part of the first call. sparsejac, which has to be told the pattern, is given it, where
    half of the entries at least are zeros.
    """
    if problem.layout != "dense":
        return {}
    found = {**_equinox(problem), **_lineax(problem)}
    asdex = installed("asdex")
    if asdex is not None:
        found |= _asdex(asdex, problem)
        sparsejac = installed("sparsejac")
        if sparsejac is not None:
            by_pattern = _sparsejac(asdex, sparsejac, problem)
            found |= {} if by_pattern is None else {PARTIAL: by_pattern}
    return found


def installed(name: str) -> ModuleType | None:
    """A package, if it is there."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def versions() -> str:
    """The packages and their versions, for the caption of a table."""
    there = [name for name in PACKAGES if installed(name) is not None]
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in there)


def package(name: str) -> str:
    """The package of a way."""
    return name.partition(" ")[0]


def matrix(problem: Problem) -> Any:
    """The derivative as one dense matrix, to compare sparse results with."""
    flat, x = _flat(problem)
    if problem.order == 2:
        return jax.jit(jax.hessian(flat))(x)
    try:
        return jax.jit(jax.jacfwd(flat))(x)
    except TypeError:  # a rule for reverse mode only
        return jax.jit(jax.jacrev(flat))(x)


def _of_one(problem: Problem) -> tuple[_Call, Callable[[tuple[Any, ...]], Any]]:
    """The function of a single pytree, and how that is made of the arguments."""
    f = problem.function
    if len(problem.arguments) == 1:
        return f, lambda arguments: arguments[0]
    return lambda arguments: f(*arguments), lambda arguments: arguments


def _equinox(problem: Problem) -> dict[str, _Call]:
    f, together = _of_one(problem)
    if problem.order == 2:
        return {"equinox": lambda *xs: eqx.filter_hessian(f)(together(xs))}
    return {
        "equinox fwd": lambda *xs: eqx.filter_jacfwd(f)(together(xs)),
        "equinox rev": lambda *xs: eqx.filter_jacrev(f)(together(xs)),
    }


def _lineax(problem: Problem) -> dict[str, _Call]:
    f, together = _of_one(problem)
    of_interest: Any = jax.grad(f) if problem.order == 2 else f

    def way(jac: Literal["fwd", "bwd"]) -> _Call:
        def blocks(*xs: Any) -> Any:
            operator = lx.JacobianLinearOperator(lambda x, _: of_interest(x), together(xs), jac=jac)
            materialised: Any = lx.materialise(operator)
            if isinstance(materialised, lx.MatrixLinearOperator):
                return materialised.matrix
            return materialised.pytree

        return blocks

    return {"lineax fwd": way("fwd"), "lineax bwd": way("bwd")}


def _asdex(asdex: Any, problem: Problem) -> dict[str, _Call]:
    f, given, argnums = problem.function, problem.arguments, problem.argnums
    make = asdex.jacobian if problem.order == 1 else asdex.hessian

    def way(mode: str) -> _Call:
        def blocks(*xs: Any) -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", asdex.DenseColoringWarning)
                every = make(f, *given, argnums=argnums, mode=mode, output_format="dense")
            return every(*xs)

        return blocks

    modes = ("fwd", "rev") if problem.order == 1 else ("fwd_over_rev", "rev_over_rev")
    return {f"asdex {mode}": way(mode) for mode in modes}


def _sparsejac(asdex: Any, sparsejac: Any, problem: Problem) -> _Call | None:
    flat, x = _flat(problem)
    detect = asdex.jacobian_sparsity if problem.order == 1 else asdex.hessian_sparsity
    try:
        pattern = detect(flat, x)
    except Exception:  # whatever the search meets that it does not know
        return None
    if pattern.density > _SPARSE or pattern.nnz == 0 or pattern.m == 1:
        return None
    of_interest = flat if problem.order == 1 else jax.grad(flat)
    make = sparsejac.jacfwd if pattern.n <= pattern.m else sparsejac.jacrev
    entries = pattern.to_bcoo()

    def blocks(*xs: Any) -> Any:
        with jax.ensure_compile_time_eval():  # it colors outside of traces only
            every = make(of_interest, entries)
        return every(ravel_pytree(xs)[0])

    return blocks


def _flat(problem: Problem) -> tuple[_Call, Any]:
    """The function from vector to vector, or of a Hessian, to a number; and its argument."""
    x, unravel = ravel_pytree(problem.arguments)

    def flat(x: Any) -> Any:
        y = problem.function(*unravel(x))
        return y if problem.order == 2 else ravel_pytree(y)[0]

    return flat, x
