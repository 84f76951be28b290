"""Property tests over random programs: a few by default, and as many as `--programs` says.

`@fuzz(share, ...)` makes a test of a function of what strategies draw. The tests of a run share
the programs among them, and long ones are divided into shards, after each of which compiled
programs are forgotten, so that memory stays bounded and workers have equally much to do.
"""

import gc
import math
import os
from collections.abc import Callable
from typing import Any

import hypothesis
import jax
import pytest

FEW, SHARD = 30, 25
SETTINGS: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "print_blob": True,
    # Programs are composed by tracing them, which takes longer than hypothesis is used to.
    "suppress_health_check": [
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.data_too_large,
        hypothesis.HealthCheck.large_base_example,
    ],
}


def fuzz(
    share: float, what: str = "programs", **strategies: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A property as a test.

    Args:
        share: How much of the programs of a run it gets.
        what: What the summary of the run counts its examples as.
        strategies: For the arguments of the property.
    """
    wanted = int(os.environ.get("AUTODIFFKIT_TEST_PROGRAMS", "0"))
    # By default the examples are the same in each run, so that it has one outcome.
    seed = os.environ["AUTODIFFKIT_TEST_SEED"] if wanted else "0"
    count = math.ceil(share * (wanted or FEW))
    shards = -(-count // SHARD)

    def decorate(check: Callable[..., None]) -> Callable[..., None]:
        @pytest.mark.parametrize("shard", range(shards))
        def test(shard, record_property):
            ran = 0

            @hypothesis.seed(f"{seed} {check.__name__} {shard}")
            @hypothesis.settings(max_examples=-(-count // shards), **SETTINGS)
            @hypothesis.given(**strategies)
            def examples(**drawn):
                nonlocal ran
                check(**drawn)
                ran += 1

            try:
                examples()
            finally:
                record_property(what, ran)
                if shards > 1:
                    forget()

        test.__name__ = test.__qualname__ = check.__name__
        test.__doc__, test.__module__ = check.__doc__, check.__module__
        return test

    return decorate


def forget() -> None:
    """Lets go of what is compiled."""
    jax.clear_caches()
    gc.collect()
