"""Compiled sweeps are found again by the linear program, and only where that is safe."""

import gc
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autodiffkit as adk
from autodiffkit import _again
from autodiffkit._again import Recent

X = jnp.array([0.5, -1.0, 2.0])
A = jnp.array([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]])


@pytest.fixture
def known(monkeypatch):
    """A cache of its own."""
    fresh = Recent(_again.KEPT)
    monkeypatch.setattr(_again, "KNOWN", fresh)
    return fresh


def test_a_lambda_made_anew_compiles_nothing(known, compilations):
    for turn in range(5):
        J = adk.jacobian(lambda x: jnp.tanh(A @ x))(X)
        if turn == 1:
            compilations.clear()
    assert len(known) == 1
    assert not compilations
    np.testing.assert_allclose(J.x, jax.jacrev(lambda x: jnp.tanh(A @ x))(X), rtol=1e-5)


@pytest.mark.parametrize("transform", [adk.jacobian, adk.hessian])
def test_a_new_number_compiles_nothing(transform, known, compilations):
    def function(x, rate):
        return jnp.sum(jnp.sin(x * rate) * rate + x / rate) ** 2

    for wrt in (None, "x"):
        for turn, rate in enumerate((0.5, 1.5, 2.5, 3.5)):
            found = transform(function, wrt=wrt)(X, rate)
            if turn == 1:
                compilations.clear()
        assert not compilations
        want = (jax.jacrev if transform is adk.jacobian else jax.hessian)(function)(X, 3.5)
        block = found.x if transform is adk.jacobian else found.x.x
        np.testing.assert_allclose(block, want, rtol=1e-4, atol=1e-4)


def test_a_captured_number_compiles_nothing(known, compilations):
    for turn, rate in enumerate((0.5, 1.5, 2.5, 3.5)):
        J = adk.jacobian(lambda x, rate=rate: jnp.cos(rate * x), wrt="x")(X)
        if turn == 1:
            compilations.clear()
    assert len(known) == 1
    assert not compilations
    np.testing.assert_allclose(J.x, jnp.diag(-3.5 * jnp.sin(3.5 * X)), rtol=1e-5)


def test_a_rebound_global_is_seen():
    scale = 2.0

    def function(x):
        return scale * x**2

    first = adk.jacobian(function)(X)
    scale = 3.0
    second = adk.jacobian(function)(X)
    np.testing.assert_allclose(second.x, 1.5 * first.x, rtol=1e-6)


def test_options_shapes_and_dtypes_are_told_apart(known):
    def function(x):
        return jnp.tanh(x) * 2.0

    with jax.enable_x64(True):
        for argument in (X, X[:2], X.astype(jnp.float64), X[0]):
            for options in ({}, {"mode": "rev"}, {"chunk_size": 1}, {"layout": "compact"}):
                if argument.ndim == 0 and "layout" in options:
                    continue
                J = adk.jacobian(function, **options)(argument)
                assert J.x.dtype == argument.dtype
                want = jax.jacrev(function)(argument)
                want = want.reshape(J.as_matrix().shape)
                np.testing.assert_allclose(J.as_matrix(), want, rtol=1e-5)
    assert len(known) >= 8


def test_a_rule_of_the_users_is_run_each_time(known):
    slope = 1.0

    @jax.custom_vjp
    def clipped(x):
        return jnp.sum(x**2)

    clipped.defvjp(lambda x: (clipped(x), x), lambda x, g: (slope * g * x,))
    first = adk.jacobian(clipped)(X).x
    slope = 5.0
    second = adk.jacobian(clipped)(X).x
    np.testing.assert_allclose(second, 5 * first)
    assert len(known) == 0


def test_a_rule_of_the_users_under_another_derivative(known):
    @jax.custom_jvp
    def half(x):
        return x**2

    half.defjvp(lambda primals, tangents: (half(*primals), tangents[0] * primals[0]))
    J = adk.jacobian(lambda x: jnp.sin(half(x)))(X)
    np.testing.assert_allclose(J.x, jnp.diag(jnp.cos(X**2) * X), rtol=1e-5)
    H = adk.hessian(lambda x: jnp.sum(half(x)))(X)
    np.testing.assert_allclose(H.x.x, jax.hessian(lambda x: jnp.sum(half(x)))(X))


def test_under_vmap_and_another_derivative():
    def function(x):
        return jnp.tanh(A @ x)

    J = adk.jacobian(function)
    J(X)
    batch = jnp.stack([X, 2 * X])
    for _ in range(2):
        np.testing.assert_allclose(
            jax.vmap(lambda x: J(x).x)(batch), jax.vmap(jax.jacrev(function))(batch), rtol=1e-5
        )
        twice = jax.jacfwd(lambda x: J(x).x)(X)
        np.testing.assert_allclose(twice, jax.jacfwd(jax.jacrev(function))(X), rtol=1e-4, atol=1e-6)
    with jax.checking_leaks():
        jax.jacfwd(lambda x: J(x).x)(X)


def test_without_jit_it_still_works():
    with jax.disable_jit():
        J = adk.jacobian(lambda x: jnp.tanh(A @ x))(X)
    np.testing.assert_allclose(J.x, jax.jacrev(lambda x: jnp.tanh(A @ x))(X), rtol=1e-5)


@pytest.mark.usefixtures("collected_quickly")
def test_no_result_is_kept_alive(known):
    counts = []
    for i in range(12):
        adk.jacobian(lambda x: jnp.tanh(A @ x))(X + i)
        gc.collect()
        counts.append(len(jax.live_arrays()))
    assert counts[-1] <= counts[2]


def test_what_was_used_longest_ago_is_forgotten():
    recent = Recent(2)
    recent.add("a", 1)
    recent.add("b", 2)
    assert recent.get("a") == 1
    recent.add("c", 3)
    assert (recent.get("a"), recent.get("b"), recent.get("c")) == (1, None, 3)
    assert recent.add("c", 4) == 3
    assert len(recent) == 2


def test_the_cache_is_bounded(monkeypatch):
    monkeypatch.setattr(_again, "KNOWN", Recent(3))
    for size in range(1, 7):
        adk.jacobian(jnp.sin)(jnp.ones(size))
    assert len(_again.KNOWN) == 3


def test_threads_share_it(known):
    failures = []

    def work(seed):
        x = X + seed
        try:
            for _ in range(5):
                J = adk.jacobian(lambda x: jnp.tanh(A @ x))(x)
                np.testing.assert_allclose(
                    J.x, (1 - jnp.tanh(A @ x) ** 2)[:, None] * A, rtol=1e-4, atol=1e-6
                )
        except Exception as error:  # to be reported by the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(known) == 1
