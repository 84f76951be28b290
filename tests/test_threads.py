"""Sixteen threads at once: what they share is right, bounded, and keeps nothing alive."""

import gc
import sys
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import autodiffkit as adk
from autodiffkit import _again, _naming, _program
from autodiffkit._again import Recent

THREADS = 16
A = jnp.array([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]])
X = jnp.array([0.5, -1.0, 2.0])


def model(x: Float[Array, "n"]) -> Float[Array, "m"]:
    return jnp.tanh(A @ x)


def loss(x):
    return jnp.sum(jnp.tanh(A @ x) ** 2)


@pytest.fixture(autouse=True)
def often():
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def known(monkeypatch):
    """A cache of its own, so that the first calls race for it."""
    fresh = Recent(_again.KEPT)
    monkeypatch.setattr(_again, "KNOWN", fresh)
    return fresh


def at_once(work):
    """Runs `work(i)` in all threads, which start together; what they return."""
    barrier, results, failures = threading.Barrier(THREADS), {}, []

    def run(i):
        barrier.wait()
        try:
            results[i] = work(i)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [results[i] for i in range(THREADS)]


def flat(result):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(result)])


TRANSFORMS = [
    adk.jacobian(model),
    adk.grad(loss),
    adk.hessian(loss),
    adk.hvp(loss),
    adk.laplacian(loss),
    adk.gauss_newton(model, lambda y: jnp.sum(y**2)),
]


@pytest.mark.parametrize("transform", TRANSFORMS[:3])
def test_one_transform_in_all_threads(transform, known):
    for call in (transform, jax.jit(transform)):
        found = at_once(lambda i, call=call: [flat(call(X + i)) for _ in range(2)])
        for i, both in enumerate(found):
            want = flat(transform(X + i))
            for one in both:
                np.testing.assert_allclose(one, want, rtol=1e-4, atol=1e-5)
    assert len(known) <= 2  # a Hessian has two programs


def test_different_transforms_in_different_threads(known):
    def work(i):
        transform = TRANSFORMS[i % len(TRANSFORMS)]
        transform.plan(X) if hasattr(transform, "plan") else None
        return flat(transform(X))

    for i, found in enumerate(at_once(work)):
        want = flat(TRANSFORMS[i % len(TRANSFORMS)](X))
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


def test_one_result_in_all_threads():
    L, J, H = adk.linearize(model)(X), adk.jacobian(model)(X), adk.hessian(loss)(X)
    compiled = adk.jacobian(model).compile(X)

    def work(i):
        products = L.mv(X), L.rmv(A @ X).x, L.T.as_matrix(), J.T.mv(A @ X).x, H.mv(X).x
        assert hash(jax.tree.structure(L)) == structure
        assert repr(H) == text
        return flat([*products, compiled(X + i)])

    structure, text = hash(jax.tree.structure(L)), repr(H)
    for i, found in enumerate(at_once(work)):
        np.testing.assert_allclose(found, work(i), rtol=1e-5, atol=1e-6)


def test_widths_are_told_apart_by_thread():
    transform = adk.jacobian(lambda x, r: jnp.sin(x * r))

    def work(i):
        with jax.enable_x64(i % 2 == 0):
            J = transform(np.array([0.1 * i, 0.2]), 2.0)
            assert J.x.dtype == J.value.dtype == ("float64" if i % 2 == 0 else "float32")
            return np.asarray(J.x, np.float64)

    for i, found in enumerate(at_once(work)):
        tolerance = 1e-14 if i % 2 == 0 else 1e-5
        want = np.diag(2 * np.cos([0.2 * i, 0.4]))
        np.testing.assert_allclose(found, want, rtol=tolerance, atol=tolerance)


# What is kept ------------------------------------------------------------------------------------


SCALAR = [adk.grad, adk.hessian, adk.hvp, adk.laplacian, adk.hessian_diagonal]
VECTOR = [
    adk.jacobian,
    lambda f: adk.jacobian(f, chunk_size=1),
    adk.linearize,
    lambda f: adk.jacobian(f).plan,
    lambda f: jax.jit(adk.jacobian(f)),
]


@pytest.mark.usefixtures("collected_quickly")
@pytest.mark.parametrize(
    ("make", "is_scalar"), [(t, True) for t in SCALAR] + [(t, False) for t in VECTOR]
)
def test_nothing_of_the_users_is_kept_alive(make, is_scalar):
    data = jnp.asarray(np.random.default_rng(0).normal(size=(7, 3)), jnp.float32)

    def f(x):
        y = jnp.tanh(data @ x)
        return jnp.sum(y**2) if is_scalar else y

    result = make(f)(jnp.ones(3))
    watched = [weakref.ref(x) for x in (data, f, *jax.tree.leaves(result))]
    del data, f, result
    gc.collect()
    assert [ref() for ref in watched] == [None] * len(watched)


@pytest.mark.usefixtures("collected_quickly")
def test_a_rule_that_is_gone_keeps_nothing_and_its_place_is_not_mistaken():
    """What has no text is compared by identity, and identities are used again."""
    watched = []
    for slope in (1.0, 2.0, 3.0):
        scale = jnp.float32(slope) * jnp.ones(3)

        @jax.custom_vjp
        def f(x, scale=scale):
            return jnp.sum(x * scale)

        f.defvjp(lambda x, scale: (jnp.sum(x), scale), lambda scale, g: (g * scale, None))
        found = adk.jacobian(lambda x, f=f, scale=scale: f(x, scale))(X)
        np.testing.assert_array_equal(found.x, [slope] * 3)
        watched.append(weakref.ref(scale))
        del f, scale, found
        gc.collect()
    assert [ref() for ref in watched] == [None] * 3


def test_caches_are_bounded(monkeypatch, known):
    monkeypatch.setattr(known, "_bound", 4)
    for n in range(1, 8):
        adk.jacobian(jnp.sin)(jnp.ones(n))
    assert len(known) == 4
    for cached in (_naming.comes_from_jax, _naming._has_rule_of_jax):
        assert cached.cache_info().maxsize is not None
    monkeypatch.setattr(_program, "_UNOBSTRUCTED", set())
    monkeypatch.setattr(_program, "_REMEMBERED", 2)
    adk.jacobian(lambda x: jnp.exp(jnp.sin(-x) * 2).reshape(1, 3)).plan(X)
    assert len(_program._UNOBSTRUCTED) <= 2
