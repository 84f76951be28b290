"""What equations are counted to cost, against numbers by hand; float32 has four bytes."""

import math

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import autodiffkit as adk
from autodiffkit._cost import Cost, Work, launch, total
from autodiffkit._network import Network
from autodiffkit._program import as_linear
from functions import array

W = array(5, 5)("float32")
X = array(5)("float32")
MATVEC = Cost(2 * 5 * 5, 4 * (5 + 5), 0, 4 * 5 * 5, 1)
# In a body directions come first: pushed through a product with W they come last, and are moved.
IN_A_BODY = MATVEC._replace(moved=4 * (5 + 5) + 2 * 4 * 5), MATVEC


def struct(*shape, dtype="float32"):
    return jax.ShapeDtypeStruct(shape, dtype)


def costs(linear_function, *structs):
    """What it costs to push, and to pull, through the single equation of a linear function."""
    (step,) = Network(as_linear(linear_function, structs).program, 2).steps
    return step.push, step.pull


def matvec(x):
    return W @ x


def test_a_product_with_a_matrix():
    matrix = jnp.ones((30, 20))
    for cost in costs(lambda x: matrix @ x, struct(20)):
        assert cost == Cost(2 * 30 * 20, 4 * (30 + 20), 0, 4 * 30 * 20, 1)
    batched = jnp.ones((7, 30, 20))
    for cost in costs(lambda x: lax.batch_matmul(batched, x), struct(7, 20, 11)):
        assert cost.flops == 7 * 2 * 30 * 20 * 11


def test_an_elementwise_product():
    for cost in costs(lambda x: x * X, struct(5)):
        assert cost == Cost(5, 4 * (5 + 5), 0, 4 * 5, 0)


def test_a_sum():
    for cost in costs(jnp.sum, struct(30, 20)):
        assert cost == Cost(600, 4 * (600 + 1))


@pytest.mark.parametrize(
    ("channels", "groups", "flops"), [(8, 1, 2 * 8 * 100 * 3 * 9), (3, 3, 2 * 3 * 100 * 9)]
)
def test_a_convolution(channels, groups, flops):
    image, kernel = jnp.ones((1, 3, 10, 10)), jnp.ones((channels, 3 // groups, 3, 3))

    def convolve(x, k):
        return lax.conv_general_dilated(x, k, (1, 1), "SAME", feature_group_count=groups)

    for f, x in ((lambda x: convolve(x, kernel), image), (lambda k: convolve(image, k), kernel)):
        push, pull = costs(f, struct(*x.shape))
        assert push.flops == pull.flops == flops
        assert push.kernels == pull.kernels == 1
        assert push.moved == 4 * (x.size + channels * 100)


def test_a_fourier_transform():
    for cost in costs(jnp.fft.rfft, struct(64)):
        assert cost == Cost(5 * 64 * math.log2(64), 4 * 64 + 8 * 33, kernels=1)


def test_a_triangular_solve():
    lower = jnp.eye(5)

    def solve(b):
        return lax.linalg.triangular_solve(lower, b, left_side=True, lower=True)

    for cost in costs(solve, struct(5, 3)):
        assert cost.flops == 5 * 5 * 3


def test_what_only_moves_numbers_has_no_operations():
    for f in (
        lambda x: x.reshape(2, 10),
        lambda x: x[::-1],
        lambda x: lax.pad(x, 0.0, [(1, 1, 0)]),
    ):
        push, pull = costs(f, struct(20))
        assert push.flops == pull.flops == 0
        assert push.moved >= 2 * 4 * 20


def test_a_part_is_dearer_to_pull_because_it_is_added_to_the_whole():
    push, pull = costs(lambda x: x[:10], struct(1000))
    assert push == Cost(0, 4 * (10 + 10))
    assert pull == Cost(7 * 1000, 4 * (10 + 1000))  # asked of each entry, and added
    index = jnp.array([[3], [5]])
    push, pull = costs(lambda x: x.at[index].get(mode="promise_in_bounds"), struct(1000))
    assert (push.flops, push.kernels) == (0, 0)
    assert (pull.flops, pull.kernels) == (7000, 1)  # a scatter


def test_what_many_parts_are_put_together_of_is_a_kernel_for_each_when_pushed():
    push, pull = costs(lambda *x: jnp.stack(x), *9 * [struct()])
    assert (push.kernels, pull.kernels) == (9, 0)
    push, pull = costs(lambda *x: jnp.stack(x), *8 * [struct()])
    assert (push.kernels, pull.kernels) == (0, 0)  # one kernel with them
    push, pull = costs(lambda *x: jnp.concatenate(x), struct(3), struct(4))
    assert push.moved == pull.moved == 2 * 4 * 7


# Equations that hold programs ------------------------------------------------------------


def test_a_scan_costs_its_body_so_many_times():
    found = costs(lambda x: lax.scan(lambda c, _: (W @ c, None), x, length=7)[0], struct(5))
    for cost, body in zip(found, IN_A_BODY, strict=True):
        assert cost._replace(kernels=1) == body.times(7)._replace(kernels=1)


def test_loops_start_kernels_on_accelerators(monkeypatch):
    """What is pushed goes along with the values; what is pulled takes two loops."""

    def scanned(x):
        return lax.scan(lambda c, _: (W @ c, None), x, length=7)[0]

    cpu = [cost.kernels for cost in costs(scanned, struct(5))], launch()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    gpu = [cost.kernels for cost in costs(scanned, struct(5))], launch()
    assert (cpu[0], gpu[0]) == ([0, 0], [7, 14])
    assert gpu[1] > 100 * cpu[1]


def test_what_a_scan_computes_without_tangents_it_computes_once_for_all():
    def f(x):
        def body(carry, _):
            a, c = carry
            return (jnp.sin(W @ a), W @ c), None

        return lax.scan(body, (X, x), length=7)[0][1]

    push, pull = costs(f, struct(5))
    assert push.flops == pull.flops == 7 * 50
    assert push.once_flops == pull.once_flops == 7 * (50 + 5)


def test_in_a_carry_tangents_may_reach_what_they_do_not_at_first():
    def f(x):
        def body(carry, _):
            a, c = carry
            return (c, W @ c + W @ a), None

        return lax.scan(body, (X, x), length=7)[0][1]

    assert costs(f, struct(5))[0].flops >= 7 * 2 * 50


def test_a_while_loop_is_taken_to_run_sixteen_times():
    def f(x):
        return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, W @ s[1]), (0, x))[1]

    push, _ = costs(f, struct(5))
    assert push.flops == 16 * 50
    assert push.moved == 16 * IN_A_BODY[0].moved


def test_a_cond_costs_its_dearer_branch():
    flag = jnp.array(True)
    for branches in ((matvec, lambda x: 2 * x), (lambda x: 2 * x, matvec)):
        assert costs(lambda x: lax.cond(flag, *branches, x), struct(5)) == IN_A_BODY  # noqa: B023


def test_a_checkpoint_computes_again_once_for_all_directions():
    f = jax.checkpoint(lambda x: jnp.sin(jnp.sin(W @ x)))
    linear = as_linear(jax.linearize(f, X)[1], [struct(5)])
    (step,) = Network(linear.program, 2).steps
    assert 50 + 5 <= step.push.flops <= 50 + 4 * 5
    assert 50 + 5 <= step.push.once_flops <= 50 + 8 * 5


def test_a_nested_jit_that_stays_costs_what_is_in_it():
    placed = jax.jit(matvec, out_shardings=jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    assert costs(placed, struct(5)) == IN_A_BODY


# Sums ------------------------------------------------------------------------------------


def test_costs_add_up_and_batches_share_what_is_done_once():
    cost = total([MATVEC, Cost(3, 4, 5, 6, 0)])
    assert cost == Cost(53, 44, 5, 106, 1)
    assert cost.batch(10) == Work(535, 546, 1)
    assert cost.batch(0) == Work()
    assert total([]) == Cost()
    assert Work(1, 2, 3).plus(Work(4, 5, 6)) == Work(5, 7, 9)


@pytest.mark.parametrize(("mode", "count"), [("fwd", 20), ("rev", 30)])
def test_a_plan_counts_all_of_its_sweeps(mode, count):
    """A running sum keeps no axis apart, whichever way it is met; either input is swept alone."""
    matrix = jnp.ones((30, 20))

    def f(x, y):
        return [lax.cumsum(matrix @ lax.cumsum(a)) for a in (x, y)]

    plan = adk.jacobian(f, mode=mode).plan(jnp.ones(20), jnp.ones(20))
    first, last = (costs(lax.cumsum, struct(n))[mode == "rev"] for n in (20, 30))
    product = Cost(2 * 30 * 20, 4 * (30 + 20), 0, 4 * 30 * 20, 1)
    identity = Work(count**2, 4 * (1 + count**2))  # of a one, for the running sum
    work = total([first, product, last]).batch(count).plus(identity)
    assert plan.flops == pytest.approx(2 * work.flops, rel=1e-12)
    assert plan.bytes_moved == 2 * work.moved


def test_the_first_matrix_that_a_plan_meets_is_free():
    """It is what the identity becomes, and is not multiplied by it."""
    A, B, C = jnp.ones((40, 20)), jnp.ones((30, 40)), jnp.ones((10, 30))
    for mode, flops in (
        ("fwd", 20 * 2 * (30 * 40 + 10 * 30)),
        ("rev", 10 * 2 * (30 * 40 + 40 * 20)),
    ):
        plan = adk.jacobian(lambda x: C @ (B @ (A @ x)), mode=mode).plan(jnp.ones(20))
        assert plan.flops == flops


def test_a_mixed_plan_counts_the_product_too():
    A, B = jnp.ones((50, 500)), jnp.ones((4, 50))
    plan = adk.jacobian(lambda x: A.T @ (B.T @ (B @ (A @ x)))).plan(jnp.ones(500))
    assert plan.mode == "mixed"
    assert plan.flops == 4 * 2 * 50 * 500 + 4 * 2 * 50 * 500 + 2 * 500 * 4 * 500
