"""Jaxprs taken apart and put together: inlining, pieces and keys."""

from collections.abc import Callable, Container, Hashable, Iterable, Sequence
from typing import Any

import jax.core
import jax.extend.core as jex
import numpy as np
from jax.extend.core import primitives

from autodiffkit._jax_compat import is_unspecified, rule_key
from autodiffkit._leaves import is_complex, is_inexact
from autodiffkit._naming import comes_from_jax


def make_jaxpr(inputs: Sequence[Any], outputs: Sequence[Any], equations: Sequence[Any]) -> Any:
    """A jaxpr of these equations, without constants and with the effects that they have."""
    effects = frozenset[Any]().union(*(equation.effects for equation in equations))
    info = jex.DebugInfo("autodiffkit", "autodiffkit", ("",) * len(inputs), ("",) * len(outputs))
    return jex.Jaxpr([], inputs, outputs, equations, effects, info)


# Inlining -----------------------------------------------------------------------


def inlined(closed: Any) -> tuple[Any, list[Any]]:
    """A jaxpr without nested `jit` equations whose constants are its first inputs.

    Outputs are variables of their own: one that is an input, or that is read by an equation,
    is copied.

    Returns:
        The jaxpr, and the constants to call it with.
    """
    jaxpr = closed.jaxpr
    variables, constants = list(jaxpr.constvars), list(closed.consts)
    equations: list[Any] = []

    def visit(inner: Any, names: dict[Any, Any], caller: Any) -> list[Any]:
        # Names are those of one jaxpr: JAX uses the same variable in several of them.
        def look_up(atom: Any) -> Any:
            return atom if isinstance(atom, jex.Literal) else names.get(atom, atom)

        for equation in inner.eqns:
            changes: dict[str, Any] = {}
            if names:
                changes["invars"] = list(map(look_up, equation.invars))
            if caller is not None:
                changes["source_info"] = caller.source_info
            called = called_by(equation)
            if called is None:
                if inner is not jaxpr:
                    changes["outvars"] = list(map(_renewed, equation.outvars))
                    names.update(zip(equation.outvars, changes["outvars"], strict=True))
                equations.append(equation.replace(**changes) if changes else equation)
                continue
            extra = list(map(_renewed, called.jaxpr.constvars))
            variables.extend(extra)
            constants.extend(called.consts)
            given = dict(zip(called.jaxpr.constvars, extra, strict=True))
            reads = changes.get("invars", equation.invars)
            given.update(zip(called.jaxpr.invars, reads, strict=True))
            # Inside of JAX, or where it was traced for another caller, lines say little.
            is_own = not comes_from_jax(str(called.jaxpr.debug_info.func_src_info))
            results = visit(called.jaxpr, given, None if is_own else equation.replace(**changes))
            names.update(zip(equation.outvars, results, strict=True))
        return list(map(look_up, inner.outvars))

    outputs = visit(jaxpr, {}, None)
    read = {x for equation in equations for x in equation.invars if not isinstance(x, jex.Literal)}
    read.update(variables, jaxpr.invars)
    copies = {x: _renewed(x) for x in outputs if not isinstance(x, jex.Literal) and x in read}
    equations += [
        jex.new_jaxpr_eqn([x], [copy], primitives.copy_p, {}, set()) for x, copy in copies.items()
    ]
    outputs = [x if isinstance(x, jex.Literal) else copies.get(x, x) for x in outputs]
    return make_jaxpr([*variables, *jaxpr.invars], outputs, equations), constants


def called_by(equation: Any) -> Any:
    """The closed jaxpr of a `jit`, or `Operation`, that asks for nothing but to be called."""
    if equation.primitive is not primitives.jit_p:
        return None
    parameters = equation.params
    placed = any(
        not is_unspecified(x) for x in (*parameters["in_shardings"], *parameters["out_shardings"])
    )
    laid_out = any(x is not None for x in (*parameters["in_layouts"], *parameters["out_layouts"]))
    if placed or laid_out or parameters["compiler_options_kvs"]:
        return None
    return parameters["jaxpr"]


def _renewed(variable: Any) -> Any:
    return type(variable)(variable.aval)


def separated(jaxpr: Any, moving: int, targets: int) -> tuple[Any, Any] | None:
    """Divides a program into what depends on its last inputs, and what does not.

    Args:
        jaxpr: A jaxpr without constants.
        moving: The number of the last inputs.
        targets: The number of the first outputs, which the second part computes.

    Returns:
        A program from the other inputs to the other outputs and residuals, and one from the
        residuals and the last inputs to the first outputs. `None` where that is not all: an
        equation holds a program, which may do both, it has an effect, or it makes something
        other than floating-point arrays of the last inputs; or another output depends on these.
    """
    start = len(jaxpr.invars) - moving
    linear = descendants(jaxpr, jaxpr.invars[start:])
    outputs, others = jaxpr.outvars[:targets], jaxpr.outvars[targets:]
    if any(among(others, linear)):
        return None
    wanted = {atom for atom in jaxpr.outvars if not isinstance(atom, jex.Literal)}
    first: list[Any] = []
    second: list[Any] = []
    for equation in reversed(jaxpr.eqns):
        if wanted.isdisjoint(equation.outvars) and not equation.effects:
            continue
        wanted.update(x for x in equation.invars if not isinstance(x, jex.Literal))
        if not any(among(equation.invars, linear)):
            first.append(equation)
        elif has_program(equation) or equation.effects or _makes_other_than_floats(equation):
            return None
        else:
            second.append(equation)
    first.reverse()
    second.reverse()
    read = dict.fromkeys(
        atom
        for atoms in (*(equation.invars for equation in second), outputs)
        for atom in atoms
        if not isinstance(atom, jex.Literal) and atom not in linear
    )
    return (
        make_jaxpr(jaxpr.invars[:start], [*others, *read], first),
        make_jaxpr([*read, *jaxpr.invars[start:]], outputs, second),
    )


def _makes_other_than_floats(equation: Any) -> bool:
    return not all(map(is_floating, equation.outvars))


def is_floating(variable: Any) -> bool:
    """Whether a variable of a jaxpr can have a tangent."""
    return is_inexact(getattr(variable.aval, "dtype", bool))


def is_repetitive(jaxpr: Any) -> bool:
    """Whether a jaxpr is much longer where each call of a nested `jit` is written out."""
    lengths: dict[int, int] = {}
    own: dict[int, int] = {}

    def length(jaxpr: Any) -> int:
        if id(jaxpr) not in lengths:
            called = [called_by(equation) for equation in jaxpr.eqns]
            own[id(jaxpr)] = len(called)
            lengths[id(jaxpr)] = sum(1 if x is None else length(x.jaxpr) for x in called)
        return lengths[id(jaxpr)]

    return length(jaxpr) > _REPETITIVE * sum(own.values())


_REPETITIVE = 2  # so many times longer


# Variables and bodies -------------------------------------------------------------


def among(atoms: Iterable[Any], variables: Container[Any]) -> list[bool]:
    """Which of the atoms are one of the variables."""
    return [not isinstance(atom, jex.Literal) and atom in variables for atom in atoms]


def has_program(equation: Any) -> bool:
    """Whether an equation holds a program."""
    return any(True for _ in jex.jaxprs_in_params(equation.params))


def has_body(equation: Any) -> bool:
    """Whether an equation holds a program or a function."""
    return has_program(equation) or any(map(callable, equation.params.values()))


# Pieces -------------------------------------------------------------------------


def alone(equation: Any, wanted: Callable[[Any], bool]) -> tuple[Any, list[int]]:
    """A jaxpr of one equation.

    Args:
        equation: The equation.
        wanted: Which results it returns.

    Returns:
        The jaxpr, and the numbers of the operands that it takes.
    """
    operands = [k for k, x in enumerate(equation.invars) if not isinstance(x, jex.Literal)]
    inputs = {k: _renewed(equation.invars[k]) for k in operands}
    own = equation.replace(invars=[inputs.get(k, x) for k, x in enumerate(equation.invars)])
    results = [x for x in equation.outvars if wanted(x)]
    return make_jaxpr(list(inputs.values()), results, [own]), operands


def descendants(jaxpr: Any, variables: Iterable[Any]) -> set[Any]:
    """The variables, and all that are computed from them."""
    found = set(variables)
    for equation in jaxpr.eqns:
        if any(among(equation.invars, found)):
            found.update(equation.outvars)
    return found


def piece(
    jaxpr: Any,
    linear: Container[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    *,
    keep: Container[int],
    apart: Container[Any] = (),
) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
    """The part of a linear jaxpr between some of its variables.

    An input that the part also computes, from other inputs, is the sum of both. What the
    part reads without computing it is absent: it has to be given, as zero.

    Args:
        jaxpr: A jaxpr whose first inputs are residuals.
        linear: Its linear variables.
        inputs: The linear variables that the part begins with.
        outputs: Those that it ends with.
        keep: The numbers of the linear equations that may belong to it.
        apart: Variables that are absent to the equations that read them, although the part
            may compute them.

    Returns:
        The residuals that the part reads, its inputs, the absent variables, and its
        equations.
    """
    producers = {v: i for i, equation in enumerate(jaxpr.eqns) for v in equation.outvars}
    used: set[int] = set()
    pending: list[Any] = [*outputs]
    while pending:
        atom = pending.pop()
        number = None if isinstance(atom, jex.Literal) else producers.get(atom)
        if number is None or number in used or (atom in linear and number not in keep):
            continue
        used.add(number)
        reads = jaxpr.eqns[number].invars
        pending.extend(x for x in reads if isinstance(x, jex.Literal) or x not in apart)

    seeds = {variable: variable for variable in inputs}
    computed = set(inputs)
    equations: list[Any] = []
    missing: dict[Any, Any] = {}  # what the part reads, by the variable that stands for it

    def read(atom: Any) -> Any:
        if isinstance(atom, jex.Literal):
            return atom
        if atom in apart and atom not in seeds:
            return missing.setdefault(atom, _renewed(atom))
        return atom if atom in computed else missing.setdefault(atom, atom)

    for number in sorted(used):
        equation = jaxpr.eqns[number]
        both = [variable for variable in equation.outvars if variable in seeds]
        for variable in both:
            seeds[variable] = _renewed(variable)
        others = {variable: _renewed(variable) for variable in both}
        results = [others.get(variable, variable) for variable in equation.outvars]
        equations.append(equation.replace(invars=list(map(read, equation.invars)), outvars=results))
        for variable in both:
            terms = [others[variable], seeds[variable]]
            equations.append(
                jex.new_jaxpr_eqn(terms, [variable], primitives.add_jaxvals_p, {}, set())
            )
        computed.update(equation.outvars)
    for atom in outputs:
        if not isinstance(atom, jex.Literal) and atom not in computed:
            missing.setdefault(atom, atom)
    residuals = [variable for variable in missing if variable not in linear]
    absent = [missing[variable] for variable in missing if variable in linear]
    return residuals, list(seeds.values()), absent, equations


# What a program says of itself ------------------------------------------------------


def is_self_contained(jaxpr: Any) -> bool:
    """Whether a jaxpr has no effects, and holds no function of the user's and no traced value.

    A function may depend on what changes, and a rule of the user's is run in each sweep.
    """
    return not jaxpr.effects and all(
        equation.primitive is not primitives.custom_lin_p
        and all(map(_says_all, equation.params.values()))
        for equation in jaxpr.eqns
    )


def _says_all(value: Any) -> bool:
    match value:
        case jex.ClosedJaxpr():
            consts = (isinstance(x, jax.core.Tracer) for x in value.consts)
            return not any(consts) and is_self_contained(value.jaxpr)
        case jex.Jaxpr():
            return is_self_contained(value)
        case tuple() | list():
            return all(map(_says_all, value))
        case dict():
            return all(map(_says_all, value.values()))
        case _ if isinstance(value, type) or not callable(value):
            return True
        case _:
            rule = rule_key(value)
            function = value if rule is None else rule[1]
            return str(getattr(function, "__module__", "")).split(".")[0] == "jax"


def is_complex_linear(jaxpr: Any, linear: Container[Any]) -> bool:
    """Whether a jaxpr is certainly linear over the complex numbers.

    It is where all linear variables are complex and none is conjugated; a body may hide
    either, so an equation that has one says no.
    """
    for equation in jaxpr.eqns:
        if any(among(equation.invars, linear)):
            complex_only = all(is_complex(v.aval.dtype) for v in equation.outvars)
            if not complex_only or equation.primitive.name == "conj" or has_body(equation):
                return False
    return True


# Keys ---------------------------------------------------------------------------


def jaxpr_key(jaxpr: Any) -> Any:
    """The text of a jaxpr in comparable form; what has no text counts by identity."""
    numbers: dict[Any, int] = {}

    def atom(x: Any) -> Any:
        if isinstance(x, jex.Literal):
            value = np.asarray(x.val)
            return ("literal", _type(x), value.tobytes())
        return numbers.setdefault(x, len(numbers))

    heads = [(atom(var), _type(var)) for var in (*jaxpr.constvars, *jaxpr.invars)]
    equations = [
        (
            equation.primitive,
            tuple(map(atom, equation.invars)),
            tuple((atom(var), _type(var)) for var in equation.outvars),
            tuple((name, _param_key(value)) for name, value in sorted(equation.params.items())),
        )
        for equation in jaxpr.eqns
    ]
    return tuple(heads), tuple(equations), tuple(map(atom, jaxpr.outvars))


def equation_key(equation: Any) -> Hashable | None:
    """What an equation does, in comparable form, whatever the names of its variables are.

    Returns:
        Primitive, types and parameters; `None` if the latter cannot be compared.
    """
    numbers: dict[Any, int] = {}
    reads = tuple(
        (x.aval, np.asarray(x.val).tobytes())
        if isinstance(x, jex.Literal)
        else (x.aval, numbers.setdefault(x, len(numbers)))
        for x in equation.invars
    )
    writes = tuple(x.aval for x in equation.outvars)
    key = equation.primitive, reads, writes, tuple(equation.params.items())
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _type(x: Any) -> Any:
    """The type of a variable in comparable form, weak or not: no primitive asks for that."""
    text = str(x.aval).removeprefix("~")
    sharding = getattr(x.aval, "sharding", None)
    # The text does not name the mesh of an array that is whole on all of its devices.
    return text if sharding is None or sharding.mesh.empty else (text, sharding)


def _param_key(value: Any) -> Any:
    match value:
        case jex.ClosedJaxpr():
            return jaxpr_key(value.jaxpr), tuple(map(id, value.consts))
        case jex.Jaxpr():
            return jaxpr_key(value)
        case tuple() | list():
            return tuple(map(_param_key, value))
        case dict():
            return tuple((key, _param_key(item)) for key, item in value.items())
        case _:
            key = rule_key(value) or (type(value), value)
            try:
                hash(key)
            except TypeError:
                return ("object", id(value))
            return key
