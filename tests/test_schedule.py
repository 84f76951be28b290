"""What may be swept: whatever is chosen, and whatever is blocked, the derivative is the same."""

import functools
import random

import jax
import jax.flatten_util
import numpy as np
import pytest

from autodiffkit._choice import Blocked, _chains, _cuts, _split, choose, plain
from autodiffkit._leaves import Ends, leaf_spec
from autodiffkit._network import Network
from autodiffkit._program import Linear
from autodiffkit._schedule import Schedule
from autodiffkit._sweeps import LinearSweeps
from networks import SMALL, linear_of

NOTHING = Blocked()


class Problem:
    """A function as a network, with JAX's derivative to compare with."""

    def __init__(self, name):
        self.function, self.arguments = SMALL[name]()
        self.linear = linear_of(self.function, self.arguments)
        self.network = Network(self.linear.program, 2)

    def blocks(self):
        """Some steps that cannot be pushed through, and some that cannot be pulled through."""
        numbers = random.Random(str(self.network.capacities))
        steps = range(len(self.network.steps))
        for _ in range(6):
            push = frozenset(numbers.sample(steps, min(2, len(steps) - 1)))
            rest = [i for i in steps if i not in push]
            pull = frozenset(numbers.sample(rest, min(2, len(rest))))
            yield from (Blocked(push=push), Blocked(pull=pull), Blocked(push, pull))

    def check(self, schedules):
        """All of them give the derivative that JAX gives."""
        schedules = list(dict.fromkeys(schedules))
        outs = jax.tree.leaves(self.function(*self.arguments))
        sources, targets = (
            tuple(leaf_spec((f"{kind}{i}",), x) for i, x in enumerate(leaves))
            for kind, leaves in (("x", self.arguments), ("y", outs))
        )
        ends = Ends(sources, targets, holomorphic=False)
        point, unravel = jax.flatten_util.ravel_pytree(self.arguments)

        def flat(vector):
            outs = jax.tree.leaves(self.function(*unravel(vector)))
            return jax.flatten_util.ravel_pytree(outs)[0]

        @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
        def matrices(residuals):
            sweeps = LinearSweeps(Linear(residuals, self.linear.program), ends)
            return [sweeps.run(s).matrix() for s in schedules], jax.jacfwd(flat)(point)

        found, expected = matrices(self.linear.residuals)
        for schedule, matrix in zip(schedules, found, strict=True):
            np.testing.assert_allclose(
                matrix, expected, rtol=1e-4, atol=1e-5, err_msg=str(schedule.sweeps)
            )


@pytest.mark.parametrize("name", SMALL)
def test_the_plain_modes_and_every_cut_give_the_derivative(name):
    problem = Problem(name)
    sweeps = [plain(problem.network, mode) for mode in ("fwd", "rev")]
    for blocked in (NOTHING, *problem.blocks()):
        for cut in _cuts(problem.network, blocked)[1]:
            sweeps.append(split := _split(problem.network, cut))
            assert split.forward.isdisjoint(blocked.push)
            assert split.reverse.isdisjoint(blocked.pull)
    problem.check(Schedule(x, problem.network) for x in sweeps)


@pytest.mark.parametrize("name", SMALL)
def test_every_chain_gives_the_derivative(name):
    problem = Problem(name)
    network = problem.network.over_reals
    chains = []
    for blocked in problem.blocks():
        if not (blocked.push and blocked.pull):
            continue
        for chain in _chains(network, blocked):
            chains.append(chain)
            for link in chain.links:
                assert link.steps.isdisjoint(blocked.push if link.mode == "fwd" else blocked.pull)
    problem.check(Schedule(chain, network) for chain in chains)


@pytest.mark.parametrize("name", SMALL)
def test_something_is_chosen_unless_one_step_is_blocked_both_ways(name):
    network = Problem(name).network
    for blocked in Problem(name).blocks():
        choice = choose(network, blocked)
        assert choice is not None
        modes = {"fwd": blocked.push, "rev": blocked.pull}
        assert set(choice.plain) == {mode for mode, steps in modes.items() if not steps}
        both = Blocked(blocked.push | blocked.pull, blocked.push | blocked.pull)
        assert choose(network, both) is None


def test_a_tie_goes_to_the_mode_that_is_preferred():
    network = Problem("ties").network
    for mode in ("fwd", "rev"):
        choice = choose(network, NOTHING, tie=mode)
        assert choice is not None
        assert choice.chosen.sweeps.mode == mode
        assert choice.capacity == 3
