"""Strict settings for every test: promotion, warnings, compilation cache, printed seeds."""

import gc
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import pytest

_SEED = int(os.environ.get("AUTODIFFKIT_TEST_SEED", random.SystemRandom().randrange(2**31)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--programs", type=int, help="random programs in the property tests; a few without it"
    )


def pytest_configure(config: pytest.Config) -> None:
    # The workers of a run share one cache; a later run starts with an empty one.
    if not hasattr(config, "workerinput"):
        cache = tempfile.TemporaryDirectory(prefix="autodiffkit-cache-")
        config.add_cleanup(cache.cleanup)
        os.environ["AUTODIFFKIT_TEST_CACHE"] = cache.name
        os.environ["AUTODIFFKIT_TEST_SEED"] = str(_SEED)
        os.environ["AUTODIFFKIT_TEST_PROGRAMS"] = str(config.getoption("--programs") or 0)
    jax.config.update("jax_compilation_cache_dir", os.environ["AUTODIFFKIT_TEST_CACHE"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_report_header() -> str:
    return f"random seed: {os.environ['AUTODIFFKIT_TEST_SEED']} (AUTODIFFKIT_TEST_SEED repeats it)"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [report for found in terminalreporter.stats.values() for report in found]
    calls = [x for x in reports if getattr(x, "when", None) == "call"]
    properties = [pair for x in calls for pair in x.user_properties]
    if programs := sum(count for name, count in properties if name == "programs"):
        terminalreporter.write_line(f"{programs} random programs")


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed does not depend on the terminal; `test_displays` is about widths."""
    monkeypatch.setenv("COLUMNS", "1000")


@pytest.fixture
def getkey(request: pytest.FixtureRequest) -> Callable[[], jax.Array]:
    """New random keys, different in each test and the same for the same seed."""
    seed = f"{os.environ['AUTODIFFKIT_TEST_SEED']} {request.node.nodeid}"
    numbers = random.Random(seed)
    return lambda: jax.random.key(numbers.randrange(2**31))


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both widths; the wider one with x64 enabled."""
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.fixture(scope="module")
def collected_quickly() -> Iterator[None]:
    """A collection of garbage looks only at what these tests make, not at what JAX has cached."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """What XLA compiles, an entry each."""
    count: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: count.append(name) if "backend_compile" in name else None
    )
    yield count
    jax.monitoring.clear_event_listeners()
