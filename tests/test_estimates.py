"""Sweeps that are followed on paper: what they take, and that they are those that run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import autodiffkit as adk
import bodies  # noqa: F401
import slices  # noqa: F401
from autodiffkit._choice import plain
from autodiffkit._cost import Work
from autodiffkit._counts import Computed, Counts
from autodiffkit._equations import EquationArrays
from autodiffkit._estimate import estimate
from autodiffkit._maps import ONE, Label, Part
from autodiffkit._network import Network
from autodiffkit._program import Linear, as_linear
from autodiffkit._schedule import Split
from autodiffkit._sketch import Tails, sketch
from autodiffkit._structured import Sweeper
from equations import CASES, numbers
from named_axes import axes_written, canonical
from networks import SMALL, linear_of

W = numbers(3, 4) - 0.8
X = numbers(5, 3)
SYSTEM = numbers(3, 3) + 3 * np.eye(3, dtype="float32")


def pooled(x, operation, start):
    """What is largest, or the sum, in windows of two rows."""
    return lax.reduce_window(x, start, operation, (2, 1), (1, 1), "VALID")


# A function of a matrix of 5 rows of 3, its axes, and the directions pushed and pulled.
FUNCTIONS = {
    "entry by entry": (lambda x: jnp.sin(x) * x / (1 + x**2), "ab->ab:ab", 1, 1),
    "identity": (lambda x: x, "ab->ab:", 1, 1),
    "multiple": (lambda x: -2 * x, "ab->ab:", 1, 1),
    "layer": (lambda x: jnp.tanh(x @ W), "ab->ac:abc", 3, 4),
    "layers": (lambda x: jnp.tanh(jnp.tanh(x @ W) @ W.T), "ab->ac:abc", 3, 3),
    "layer of each column": (lambda x: jnp.tanh(numbers(2, 5) @ x), "ab->cb:abc", 5, 2),
    "vmap": (jax.vmap(lambda r: jnp.tanh(W.T @ jnp.tanh(r))[1:]), "ab->ac:abc", 3, 3),
    "softmax of rows": (lambda x: jax.nn.softmax(x, axis=1), "ab->ac:abc", 3, 3),
    "softmax of columns": (lambda x: jax.nn.softmax(x, axis=0), "ab->cb:abc", 5, 5),
    "normed rows": (lambda x: x - x.mean(1, keepdims=True), "ab->ac:bc", 3, 3),
    "sum": (lambda x: jnp.sum(jnp.sin(x)), "ab->:ab", 15, 1),
    "sum of rows": (lambda x: jnp.sum(x**2, 1), "ab->a:ab", 3, 1),
    "plain sum": (jnp.sum, "ab->:", 1, 1),
    "outer": (lambda x: jnp.outer(jnp.sin(x.sum()) * W[0], W[1]), "ab->cd:cd", 1, 16),
    "differences": (lambda x: jnp.sin(x)[:, 1:] - x[:, :-1], "ab->ac:abc", 3, 2),
    "reshaped": (lambda x: jnp.sin(x.reshape(15)).reshape(3, 5), "ab->cd:abcd", 15, 15),
    "largest": (lambda x: jnp.max(x, 1), "ab->a:ab", 3, 1),
    "sorted": (lambda x: jnp.sort(x, 1), "ab->ac:abc", 3, 3),
    "chosen": (lambda x: jnp.where(x > 0.8, x, 0 * x), "ab->ab:ab", 1, 1),
    "sums of windows": (lambda x: pooled(x**2, lax.add, 0.0), "ab->cb:abc", 5, 4),
    "waves": (lambda x: jnp.abs(jnp.fft.rfft(x, axis=0)), "ab->cb:abc", 5, 3),
    "scan over a batch": (
        lambda x: lax.scan(lambda c, _: (jnp.tanh(c @ SYSTEM), None), x, length=3)[0],
        "ab->ac:abc",
        3,
        3,
    ),
    "scan over rows": (
        lambda x: lax.scan(lambda c, r: (jnp.tanh(c * r), None), x[0], x)[0],
        "ab->b:ab",
        5,
        1,
    ),
    "branches": (
        lambda x: lax.cond(x[0, 0] > 0, jnp.sin, lambda x: x @ SYSTEM, x),
        "ab->ac:abc",
        3,
        3,
    ),
    "checkpoint": (jax.checkpoint(lambda x: jnp.tanh(x @ W)), "ab->ac:abc", 3, 4),
    "solve": (lambda x: jnp.linalg.solve(SYSTEM, x.T**2), "ab->ca:abc", 3, 3),
    "product with itself": (lambda x: x @ x.T, "ab->cd:abcd", 15, 25),
}


def both_sketches(network):
    """What is pushed from the first source, and pulled from the first target."""
    steps = range(len(network.steps))
    return (
        sketch(network, network.sources[0], steps),
        sketch(network, network.targets[0], steps, forward=False),
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_directions_are_those_of_axes_that_are_not_kept(name):
    function, axes, forward, reverse = FUNCTIONS[name]
    network = Network(linear_of(function, [jnp.asarray(X)]).program, 2)
    push, pull = both_sketches(network)
    for found in (push.maps[network.targets[0]], pull.maps[network.sources[0]]):
        assert found.shared == () or not found.is_dense
        assert axes_written(found) == canonical(axes)
    assert (push.directions, pull.directions) == (forward, reverse)


def test_a_batch_takes_as_many_directions_as_one_example():
    layers = [numbers(32, 32) / 6, numbers(32, 16) / 6]

    def model(x):
        return jnp.tanh(jnp.tanh(x @ layers[0]) @ layers[1])

    structs = [jax.ShapeDtypeStruct((256, 32), "float32")]
    program = as_linear(jax.linearize(model, jnp.zeros((256, 32)))[1], structs).program
    network = Network(program, 2)
    push, pull = both_sketches(network)
    assert (push.directions, pull.directions) == (32, 16)
    for mode, expected in {"fwd": (32, 0), "rev": (0, 16)}.items():
        candidate = estimate(network, plain(network, mode), 0, maps="worthwhile")
        assert (candidate.forward, candidate.reverse) == expected
        assert len(candidate.sweeps.maps) == 1
        whole = estimate(network, plain(network, mode), 0)
        assert whole.forward + whole.reverse == 256 * max(expected)
        assert candidate.work.time() < whole.work.time() / 50


@pytest.mark.parametrize(("complex_directions", "expected"), [(1, 1), (2, 2)])
def test_a_complex_variable_has_two_maps_unless_the_function_is_holomorphic(
    complex_directions, expected
):
    structs = [jax.ShapeDtypeStruct((2, 3), "complex64")]
    linear = as_linear(lambda z: [z * numbers(2, 3, dtype="complex64")], structs)
    network = Network(linear.program, complex_directions)
    assert [x.directions for x in both_sketches(network)] == [expected, expected]


def test_an_axis_is_lost_at_the_step_that_mixes_it():
    def function(x):
        return jnp.sin(jnp.flip(jnp.sin(x) @ numbers(3, 3), 0))

    linear = linear_of(function, [jnp.asarray(X)])
    network = Network(linear.program, 2)
    push, pull = both_sketches(network)
    names = [linear.program.jaxpr.eqns[step.equation].primitive.name for step in network.steps]
    assert [(names[step], axes) for step, axes in push.losses] == [
        ("dot_general", (1,)),
        ("rev", (0,)),
    ]
    assert [(names[step], axes) for step, axes in pull.losses] == [
        ("rev", (0,)),
        ("dot_general", (1,)),
    ]
    assert push.steps == pull.steps == frozenset(range(len(names)))


# What is swept -------------------------------------------------------------------------


def swept(linear, network, start, *, forward):
    """The maps of a sweep, without their arrays."""
    found = {}

    def run(residuals):
        sweeper = Sweeper(EquationArrays(Linear(residuals, linear.program)), network)
        sweep = sweeper.push if forward else sweeper.pull
        found.update(sweep(start, ONE, range(len(network.steps))))
        return [part.array for given in found.values() for part in given.data.parts]

    jax.eval_shape(run, linear.residuals)
    return found


def check(linear, *, only=None):
    """What is followed on paper is what is swept: axes that are shared, data and directions.

    Where nothing was known at some step, what is found to be constant later is not told.
    """
    network = Network(linear.program, 2)
    both = {v for side in network.ends for v in side}
    for forward, starts, ends in ((True, *network.ends), (False, *network.ends[::-1])):
        if only == ("pull" if forward else "push"):
            continue
        for start in starts:
            maps = swept(linear, network, start, forward=forward)
            found = sketch(network, start, range(len(network.steps)), forward=forward)
            assert set(found.maps) == both.intersection(maps)
            for v in set(ends).intersection(maps):
                assert found.maps[v].dtype == maps[v].dtype
                assert len(found.maps[v].shared) == len(maps[v].shared)
                if not found.maps[v].is_dense:
                    assert axes_written(found.maps[v]) == axes_written(maps[v])
            times = network.capacities[start] // network.sizes[start]
            sides = [x if forward else x.transposed for x in maps.values()]
            assert found.directions >= times * max(x.directions for x in sides)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_sketch_of_an_equation_is_what_is_swept(case):
    def function(*operands):
        return jax.tree.leaves(case.function(*operands))

    check(as_linear(function, case.operands), only=case.only)


@pytest.mark.parametrize("name", [*FUNCTIONS, *SMALL])
def test_the_sketch_of_a_function_is_what_is_swept(name):
    if name in SMALL:
        check(linear_of(*SMALL[name]()))
    else:
        check(linear_of(FUNCTIONS[name][0], [jnp.asarray(X)]))


# What meets what was followed before ------------------------------------------------------


def added_up(*leaves):
    """Layers that end up in one sum, and a layer over it."""
    total = jnp.tanh(leaves[0])
    for i, leaf in enumerate(leaves[1:]):
        total += jnp.sin(leaf * (i + 1))
    return total @ SYSTEM


def residuals(common, *own):
    """Outputs that share all that comes before them, but for a part that is their own."""
    shared = jnp.tanh(jnp.tanh(common @ SYSTEM) @ SYSTEM)
    return [shared * (i + 2) + x**2 for i, x in enumerate(own)]


def through_its_own_leaf(x, y):
    """Leaves that outputs reach directly, and once more through what they share."""
    shared = jnp.tanh(x * y @ SYSTEM)
    return x * jnp.sum(shared), y + shared, shared @ SYSTEM.T


MEETING = {
    "a sum": (added_up, 12),
    "one part of several": (residuals, 9),
    "its own leaf": (through_its_own_leaf, 2),
}


def meeting(name):
    if name in SMALL:
        return Network(linear_of(*SMALL[name]()).program, 2)
    function, count = MEETING[name]
    leaves = [jnp.asarray(numbers(4, 3)) + i for i in range(count)]
    return Network(linear_of(function, leaves).program, 2)


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("name", [*MEETING, *SMALL])
def test_a_sketch_is_the_same_when_part_of_it_is_known(name, forward):
    network, tails = meeting(name), Tails()
    steps = frozenset(range(len(network.steps)))
    for v in network.ends[0 if forward else 1]:
        alone = sketch(network, v, steps, forward=forward)
        known = sketch(network, v, steps, forward=forward, tails=tails)
        assert known.work == pytest.approx(alone.work, rel=1e-12)
        assert (known.directions, known.steps) == (alone.directions, alone.steps)
        assert sorted(known.losses) == sorted(alone.losses)
        assert {v: axes_written(x) for v, x in known.maps.items()} == {
            v: axes_written(x) for v, x in alone.maps.items()
        }


@pytest.mark.parametrize(("name", "forward"), [("a sum", True), ("one part of several", False)])
def test_what_leaves_share_is_followed_once(name, forward):
    network, tails = meeting(name), Tails()
    ends = network.ends[0 if forward else 1]
    steps = frozenset(range(len(network.steps)))
    taken = 0
    for v in reversed(ends):
        taken += len(sketch(network, v, steps, forward=forward, tails=tails).steps)
    assert tails.followed <= len(steps) + 2 * len(ends)
    assert taken > 1.8 * tails.followed


@pytest.mark.parametrize("count", [10, 40, 160])
def test_a_plan_asks_once_what_steps_of_a_kind_do_however_many_leaves_there_are(count, monkeypatch):
    followed = []
    original = Sweeper.through

    def counted(self, step, *args, **options):
        followed.append(step.number)
        return original(self, step, *args, **options)

    monkeypatch.setattr(Sweeper, "through", counted)
    leaves = [jnp.asarray(numbers(4, 3)) + i for i in range(count)]
    network = Network(linear_of(added_up, leaves).program, 2)
    for mode in ("fwd", "rev"):
        estimate(network, plain(network, mode), 0, maps="worthwhile")
    assert len({step.kind for step in network.steps}) == 4
    assert len(followed) <= 5 * 4


def test_what_several_factors_read_is_read_once():
    """However often: no more is taken off than was counted."""
    counts = Counts()
    label = Label(10)
    x, y = Part(Computed(), (label,)), Part(Computed(), (label,))
    product = counts.times(x, y, (label,), "float32")
    for _ in range(3):
        product = counts.plus(
            product, counts.times(product, x, (label,), "float32"), (label,), "float32"
        )
    counts.write(product, "float32")
    assert counts.work == Work(flops=70.0, moved=3 * 40.0)


# What is chosen -------------------------------------------------------------------------


def test_of_equals_the_one_of_fewer_kernels_is_taken():
    """Forty leaves are put together forward, and cut apart in reverse, which compiles faster."""
    mixing = numbers(200, 200)

    def mixed(leaves):
        return jnp.split(jnp.tanh(mixing @ jnp.concatenate(leaves)), 40)

    plan = adk.jacobian(mixed).plan([jnp.ones(5)] * 40)
    assert plan.mode == "rev"
    assert plan.reverse_sweeps == 200


@pytest.mark.parametrize(("count", "mode"), [(5, "fwd"), (20, "rev"), (100, "fwd")])
def test_code_by_scalars_is_pulled_unless_too_much_is_padded(count, mode):
    """Of 20, kernels take the time; of 100, the entries that 300 scalars are padded to."""

    def coupled(x):
        return jnp.stack([x[i] * x[(i + 1) % count] - jnp.sin(x[i - 1]) for i in range(count)])

    assert adk.jacobian(coupled).plan(jnp.ones(count)).mode == mode


def test_rotations_joint_by_joint_are_pushed():
    """Reverse mode adds padded parts at each `cross`, in a kernel of its own."""

    def hand(turns):
        tip = jnp.ones(3)
        for turn in turns:
            axis = turn / jnp.sqrt(turn @ turn + 1e-6)
            tip = tip + jnp.cross(axis, tip) * jnp.sin(turn @ turn) + axis * (axis @ tip)
        return tip

    assert adk.jacobian(hand).plan(jnp.ones((7, 3))).mode == "fwd"


def test_code_by_scalars_is_swept_in_one_batch():
    """Two sweeps of their own would be twice the program, and no faster."""

    def chain(x, y):
        for i in range(60):
            x = x * jnp.sin(y[i % 4]) + y
        return x

    x = jnp.ones(4)
    network = Network(linear_of(chain, [x, 2 * x]).program, 2)
    found = estimate(network, plain(network, "fwd"), 0, maps="worthwhile")
    assert found.sweeps.maps == set()
    assert len(network.steps) > 200


def test_maps_are_swept_where_it_is_worth_it():
    def network_of(function):
        return Network(linear_of(function, [jnp.asarray(numbers(40, 30))]).program, 2)

    for function, worth in ((jnp.sin, True), (lambda x: jnp.cumsum(jnp.ravel(x)), False)):
        network = network_of(function)
        for mode, end in (("fwd", network.sources[0]), ("rev", network.targets[0])):
            none, chosen, every = (
                estimate(network, plain(network, mode), 0, maps=maps)
                for maps in ("none", "worthwhile", "all")
            )
            assert none.sweeps.maps == set()
            assert every.sweeps.maps == {end}
            assert {*every.pushes, *every.pulls} == {end}
            assert none.forward + none.reverse == network.capacities[end]
            if worth or mode == "fwd":
                assert chosen.sweeps == (every if worth else none).sweeps


def test_what_is_apart_counts_as_zero():
    linear = linear_of(lambda x: jnp.sum(jnp.sin(x)) * W + x, [jnp.asarray(W)])
    network = Network(linear.program, 2)
    steps = range(len(network.steps))
    (total,) = [v for v, size in enumerate(network.sizes) if size == 1]
    for apart, expected in (((), "ab->cd:abcd"), ((total,), "ab->ab:")):
        found = sketch(network, network.targets[0], steps, apart=apart, forward=False)
        assert axes_written(found.maps[network.sources[0]]) == canonical(expected)


def test_both_sides_of_a_cut_are_swept_as_maps():
    linear = linear_of(lambda x: jnp.tanh(x @ W) @ W.T, [jnp.asarray(X)])
    network = Network(linear.program, 2)
    steps = network.steps
    (middle,) = [step.outputs[0] for step in steps if step.operands == {0: network.sources[0]}]
    forward = network.after([middle])
    reverse = frozenset(range(len(steps))) - forward
    split = Split(middle=(middle,), forward=forward, reverse=reverse)
    candidate = estimate(network, split, 0, maps="all")
    assert (candidate.forward, candidate.reverse) == (4, 4)
    row = candidate.pushes[middle].maps[network.targets[0]]
    column = candidate.pulls[middle].maps[network.sources[0]]
    assert (axes_written(row), axes_written(column)) == ("ab->ac:abc", "ab->ac:bc")


def test_a_stencil_is_pulled_because_pushing_it_writes_what_it_pads():
    """Both take a direction an entry, and only the sum that pulling makes is written."""

    def laplace(u):
        padded = jnp.pad(u, 1)
        near = padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2]
        return 4 * u - near

    plan = adk.jacobian(laplace).plan(jnp.ones((20, 20)))
    assert plan.mode == "rev"
    assert plan.reverse_sweeps == 400
    assert plan.bytes_moved < adk.jacobian(laplace, mode="fwd").plan(jnp.ones((20, 20))).bytes_moved
