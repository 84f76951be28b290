"""What the rules say of each equation: the same derivative as JAX, and the axes that are kept."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bodies  # noqa: F401
import slices  # noqa: F401
from autodiffkit._algebra import added
from autodiffkit._body_rules import BODIES
from autodiffkit._equations import EquationArrays
from autodiffkit._maps import ONE, Map
from autodiffkit._network import Network
from autodiffkit._program import Linear, as_linear
from autodiffkit._rules import RULES
from autodiffkit._structured import Sweeper
from equations import CASES
from named_axes import (
    FAST,
    arrays_of,
    axes_written,
    dense_of,
    filled,
    parsed,
    structured,
    written,
)

TURNS = 5

# All kinds of maps are swept through these, and two of them through each case of the others.
PRODUCTS = {"mul", "div", "select_n", "dot_general", "reduce_sum", "reshape", "add", "concatenate"}


class Problem:
    """A case as a linear program and its network, swept in one direction.

    What is swept from are operands that are pushed from, or results that are pulled from.
    """

    def __init__(self, case, direction):
        self.case = case
        self.forward = direction == "push"
        self.linear = as_linear(self._push, case.operands)
        self.network = Network(self.linear.program, 2)
        ends = case.operands, tuple(self.linear.program.targets)
        variables = self.network.sources, self.network.targets
        self.starts, self.stops = ends if self.forward else ends[::-1]
        self.near, self.far = variables if self.forward else variables[::-1]

    def _push(self, *operands):
        return jax.tree.leaves(self.case.function(*operands))

    def run(self, *arrays):
        """The function, or its transpose."""
        if self.forward:
            return self._push(*arrays)
        return jax.linear_transpose(self._push, *self.case.operands)(list(arrays))

    def axes(self, s, t):
        """The axes that are expected of a block, from operand to result."""
        axes, colon, data = self.case.axes.partition(":")
        operands, results = (side.split(",") for side in axes.split("->"))
        ins, outs = parsed(operands[s]), parsed(results[t])
        there = {x for axis in (*ins, *outs) for x in axis}
        return written(ins, outs, there.intersection(data) if colon else there)

    def identity(self, linear, i):
        """The maps from one start, as the sweeper finds them."""
        sweeper = Sweeper(EquationArrays(linear), self.network)
        sweep = sweeper.push if self.forward else sweeper.pull
        maps = sweep(self.near[i], ONE, range(len(self.network.steps)))
        return [maps.get(v) for v in self.far]

    def attempt(self, sweep, *args):
        """What is swept, or for each stop the error."""
        try:
            return sweep(*args)
        except Exception as error:
            return [error] * len(self.stops)

    def through(self, linear, starts):
        """The maps that come of others that go through the only equation, all at once."""
        (step,) = self.network.steps
        operands, results = step.operands, step.results
        near, far = (operands, results) if self.forward else (results, operands)
        maps = {k: starts[self.near.index(v)] for k, v in near.items()}
        arithmetic = EquationArrays(linear)
        sweeper = Sweeper(arithmetic, self.network)
        found = sweeper.through(step, maps, list(far), forward=self.forward)
        terms = [[found[k] for k, v in far.items() if v == variable] for variable in self.far]
        return [added(arithmetic, x) for x in terms]

    def blocks(self, linear, turns):
        """All blocks that are swept from identities, and from other maps."""
        count = len(self.starts)
        swept = [self.attempt(self.identity, linear, i) for i in range(count)]
        inputs = [x.shape for x in self.starts]
        dense = []  # for each sweep, what it starts from as columns, by start
        for i, start in enumerate(self.starts):
            size = int(np.prod(start.shape))
            dense.append([np.zeros((*x.shape, size), x.dtype) for x in self.starts])
            dense[i][i] = np.eye(size, dtype=start.dtype).reshape(*start.shape, size)
        if len(self.network.steps) == 1:
            for turn in turns:
                rng = np.random.default_rng(turn)
                shape = (*self.starts[0].shape, 2)
                starts = [
                    structured(x.shape, shape, turn + i, x.dtype, rng)
                    for i, x in enumerate(self.starts)
                ]
                maps = starts if self.forward else [x.transposed for x in starts]
                swept.append(self.attempt(self.through, linear, maps))
                inputs.append(shape)
                dense.append([
                    dense_of(start).astype(x.dtype).reshape(*x.shape, -1)
                    for start, x in zip(starts, self.starts, strict=True)
                ])
        for i, expected in enumerate(self.expected(dense)):
            for j, (matrix, found) in enumerate(zip(expected, swept[i], strict=True)):
                s, t = (i, j) if self.forward else (j, i)
                yield Block(i < count, s, t, found, self.as_block(matrix, inputs[i]), self.eps)

    def expected(self, dense):
        """The function of all columns, which is traced once, by sweep and stop."""
        matrices = [jnp.concatenate(columns, -1) for columns in zip(*dense, strict=True)]
        found = jax.vmap(self.run, -1, -1)(*matrices)
        ends = np.cumsum([columns[0].shape[-1] for columns in dense])[:-1]
        return zip(*(jnp.split(x, ends, -1) for x in found), strict=True)

    def as_block(self, columns, shape):
        """Columns, or rows that lie along the last axis, as a block."""
        if self.forward:
            return columns.reshape(*columns.shape[:-1], *shape)
        return jnp.moveaxis(columns, -1, 0).reshape(*shape, *columns.shape[:-1])

    @property
    def eps(self):
        """The resolution of the coarsest dtype."""
        return max(float(jnp.finfo(x.dtype).eps) for x in (*self.starts, *self.stops))


class Block(NamedTuple):
    """A map that was swept, from an operand to a result, with what it has to be."""

    is_whole: bool
    operand: int
    result: int
    found: Map | Exception | None
    expected: Any
    eps: float

    @property
    def arrays(self):
        """What is computed."""
        return self.expected, arrays_of(self.found) if isinstance(self.found, Map) else []

    def filled(self, arrays):
        """The same, where the arrays were computed."""
        expected, parts = arrays
        if not isinstance(self.found, Map):
            return self._replace(expected=expected)
        return self._replace(expected=expected, found=filled(self.found, parts))

    def check(self):
        """Equal up to rounding."""
        if isinstance(self.found, Exception):
            raise self.found
        if self.found is None:
            assert not self.expected.any()
            return
        assert self.found.dtype == self.expected.dtype
        found, expected = (
            np.asarray(x, "complex64") for x in (dense_of(self.found), self.expected)
        )
        size = 1 + np.abs(expected).max(initial=0)
        np.testing.assert_allclose(found, expected, atol=100 * self.eps * size, rtol=0)


@functools.cache
def swept(primitive, direction):
    """The problems of all cases of a primitive and their blocks, compiled as one program."""
    cases = [x for x in CASES if x.primitive == primitive and x.only in {None, direction}]
    problems = {case.title: Problem(case, direction) for case in cases}
    blocks = {}

    def compute(residuals):
        for number, (title, problem) in enumerate(problems.items()):
            linear = Linear(residuals[title], problem.linear.program)
            turns = [(number + i) % TURNS for i in range(TURNS if primitive in PRODUCTS else 2)]
            blocks[title] = list(problem.blocks(linear, turns))
        return {title: [x.arrays for x in found] for title, found in blocks.items()}

    residuals = {title: problem.linear.residuals for title, problem in problems.items()}
    arrays = jax.jit(compute, compiler_options=FAST)(residuals)
    for title, found in blocks.items():
        blocks[title] = [x.filled(y) for x, y in zip(found, arrays[title], strict=True)]
    return problems, blocks


def swept_case(case, direction):
    """The problem of a case and its blocks."""
    problems, blocks = swept(case.primitive, direction)
    return problems[case.title], blocks[case.title]


SWEPT = pytest.mark.parametrize(
    ("case", "direction"),
    [
        pytest.param(case, direction, id=f"{case}-{direction}")
        for case in CASES
        for direction in ("push", "pull")
        if case.only in {None, direction}
    ],
)


def test_each_rule_has_a_case():
    assert {*RULES, *BODIES}.difference(case.primitive for case in CASES) == set()


def test_titles_are_unique():
    assert len({str(case) for case in CASES}) == len(CASES)


@SWEPT
def test_a_sweep_from_an_identity_gives_the_derivative(case, direction):
    problem, blocks = swept_case(case, direction)
    program = problem.linear.program
    names = [x.primitive.name for x in program.jaxpr.eqns if program.linear.intersection(x.outvars)]
    assert case.primitive in names
    for block in blocks:
        if block.is_whole:
            block.check()


@SWEPT
def test_a_sweep_from_an_identity_keeps_axes(case, direction):
    problem, blocks = swept_case(case, direction)
    for block in blocks:
        if block.is_whole and block.expected.any():
            assert axes_written(block.found) == problem.axes(block.operand, block.result)


@SWEPT
def test_a_sweep_from_other_maps_gives_the_product(case, direction):
    problem, blocks = swept_case(case, direction)
    others = [block for block in blocks if not block.is_whole]
    assert others or len(problem.network.steps) > 1
    for block in others:
        block.check()
