"""A linear operation that changes nothing and counts the directions that are swept through it."""

import collections
from typing import Any

import jax
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

# How many directions went through, by the place of the probe and the way they went. Outside of
# any sweep a value counts as one, too.
SEEN: collections.Counter[tuple[str, str]] = collections.Counter()

_probe = Primitive("probe")


def probe(x: Any, place: str) -> Any:
    """The same array; whatever is pushed or pulled through is counted when it runs."""
    return _probe.bind(x, place=place, way="fwd", count=1)


def _run(x: Any, *, place: str, way: str, count: int) -> Any:
    def count_and_return(x: Any) -> Any:
        SEEN[place, way] += count
        return np.asarray(x)

    return jax.pure_callback(count_and_return, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def _batch(args: Any, axes: Any, *, place: str, way: str, count: int) -> Any:
    count *= args[0].shape[axes[0]]
    return _probe.bind(args[0], place=place, way=way, count=count), axes[0]


def _transpose(cotangent: Any, x: Any, *, place: str, way: str, count: int) -> Any:
    if type(cotangent) is ad.Zero:
        return [ad.Zero(x.aval)]
    way = {"fwd": "rev", "rev": "fwd"}[way]
    return [_probe.bind(cotangent, place=place, way=way, count=count)]


_probe.def_impl(jax.jit(_run, static_argnames=("place", "way", "count")))
_probe.def_abstract_eval(lambda x, **_: x)
ad.deflinear2(_probe, _transpose)
batching.primitive_batchers[_probe] = _batch
mlir.register_lowering(_probe, mlir.lower_fun(_run, multiple_results=False))
