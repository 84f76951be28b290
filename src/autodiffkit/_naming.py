"""Equations in the user's words, with lines of source; and whose rules they call."""

import functools
import re
import sys
import traceback
from pathlib import Path
from typing import Any

import jax
import jax.extend.core as jex
import jax.extend.source_info_util as source_info
from jax.extend.core import primitives

# A line of this package is none of the user's.
source_info.register_exclusion(str(Path(__file__).parent))


# What users call the primitives whose names in a program are others.
_NAMES = {"custom_lin": "custom_vjp", "while": "while_loop", "remat2": "checkpoint"}


def describe(equation: Any) -> str:
    """An equation in the user's words: `while_loop at model.py:12:9 (loss)`."""
    name, where = name_of_primitive(equation), place_of(equation)
    return f"{name} at {where}" if where else name


def name_of_primitive(equation: Any) -> str:
    """What users call the primitive of an equation."""
    name = equation.primitive.name
    return str(_NAMES.get(name, name))


def place_of(equation: Any) -> str:
    """Where an equation is in the user's source: `model.py:12:9 (loss)`, empty if unknown.

    Of what is in an installed package it also says where that was called.
    """
    info = equation.source_info
    where = str(source_info.summarize(info))
    place = short_place(where)
    if _INSTALLED.match(where):
        outwards = reversed(str(source_info.summarize(info, num_frames=_FRAMES)).split("\n"))
        called = next((x for x in outwards if not _is_library(x)), None)
        place += f", called at {short_place(called)}" if called else ""
    return place


def _is_library(where: str) -> bool:
    """Whether a place is in an installed package or in Python's own library."""
    return bool(_INSTALLED.match(where)) or where.startswith((_STANDARD, "<frozen"))


def short_place(where: str) -> str:
    """A place in source as people know the file.

    Args:
        where: `/home/me/project/model.py:12:9 (loss)`, or a path alone.

    Returns:
        The place from the working directory on; from the package on, where it is in an installed
        one; and `cell:12:9 (loss)` where it is in a cell of a notebook, whose file has a name that
        nobody has chosen.
    """
    where = _CELL.sub("cell", where)
    installed = _INSTALLED.match(where)
    return where[installed.end() :] if installed else where.removeprefix(f"{Path.cwd()}/")


_FRAMES = 128
_STANDARD = str(Path(traceback.__file__).parent)
_INSTALLED = re.compile(r".*[/\\](?:site|dist)-packages[/\\]")
# What the kernels of Jupyter call a cell, and IPython an input.
_CELL = re.compile(r"^(?:.*[/\\](?:ipykernel|xpython)_\d+[/\\]\d+\.py|<ipython-input-\d+-\w+>)")


# Whose a rule is ------------------------------------------------------------------


def calls_custom_rules(jaxpr: Any) -> bool:
    """Whether a jaxpr calls a derivative rule that is not JAX's own, also inside of bodies."""
    return any(map(calls_custom_rule, jaxpr.eqns))


def calls_custom_rule(equation: Any) -> bool:
    """Whether an equation does."""
    if equation.primitive is primitives.custom_lin_p:  # of a linear program
        return True
    if is_custom_rule(equation):
        return True
    return any(map(calls_custom_rules, jex.jaxprs_in_params(equation.params)))


def is_custom_rule(equation: Any) -> bool:
    """Whether an equation is the call of a function with a rule that is not JAX's own."""
    if equation.primitive not in _RULE_CALLS:
        return False
    body = equation.params["call_jaxpr"].jaxpr
    rules = (equation.params.get(name) for name in ("jvp_jaxpr_fun", "bwd"))
    origins = [x.debug_info.func_src_info for x in rules if hasattr(x, "debug_info")]
    if not _has_rule_of_jax(str(body.debug_info.func_src_info)):
        return True
    return not all(comes_from_jax(str(origin)) for origin in origins)


_RULE_CALLS = (primitives.custom_jvp_call_p, primitives.custom_vjp_call_p)


def is_of_jax(jaxpr: Any) -> bool:
    """Whether a jaxpr is the trace of one of JAX's own functions."""
    return comes_from_jax(str(jaxpr.debug_info.func_src_info))


def _path(origin: str) -> Path:
    """The file of `relu at .../jax/_src/nn/functions.py:62`."""
    return Path(origin.partition(" at ")[2].rpartition(":")[0])


@functools.lru_cache(maxsize=4096)
def comes_from_jax(origin: str) -> bool:
    """Whether a function is JAX's own, by what a jaxpr says of it."""
    return _path(origin).is_relative_to(Path(jax.__file__).parent)


@functools.lru_cache(maxsize=4096)
def _has_rule_of_jax(origin: str) -> bool:
    """Whether a function is one of those that JAX itself gives a rule.

    A user may give a rule to a function of JAX that has none.
    """
    if not comes_from_jax(origin):
        return False
    name = origin.partition(" at ")[0]
    parts = _path(origin).relative_to(Path(jax.__file__).parent.parent).with_suffix("").parts
    found = getattr(sys.modules.get(".".join(parts)), name, None)
    while found is not None and not isinstance(found, (jax.custom_jvp, jax.custom_vjp)):
        found = getattr(found, "__wrapped__", None)
    return found is not None
