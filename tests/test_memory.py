"""How much memory there is, as an accelerator, the host or a container tells it."""

from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from autodiffkit import _memory


def test_the_host_has_memory():
    available = _memory.available_bytes([jnp.ones(2)])
    assert available is not None
    assert 2**20 < available < 2**50


def test_without_arrays_the_host_answers():
    assert _memory.available_bytes([]) is not None


@pytest.mark.parametrize(
    ("folder", "limit", "usage", "prefix", "membership"),
    [
        ("", "memory.max", "memory.current", "", "0::/"),
        ("job/step", "memory.max", "memory.current", "", "0::/job/step/task"),
        ("", "memory.max", "memory.current", "", "0::/job/step"),
        (
            "memory/job",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_",
            "7:cpu:/x\n4:hugetlb,memory:/job",
        ),
    ],
)
def test_a_cgroup_sets_a_limit(tmp_path: Path, folder, limit, usage, prefix, membership):
    root = tmp_path / folder
    root.mkdir(parents=True, exist_ok=True)
    (root / limit).write_text("1000\n")
    (root / usage).write_text("400\n")
    (root / "memory.stat").write_text(f"{prefix}active_file 30\n{prefix}inactive_file 20\nanon 9\n")
    assert 650 in _memory._cgroup_bytes(tmp_path, membership)


def test_no_limit_is_no_limit(tmp_path: Path):
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("400\n")
    assert _memory._cgroup_bytes(tmp_path, "") == [None]


def test_an_accelerator_tells_its_own(monkeypatch):
    def device(statistics):
        return SimpleNamespace(memory_stats=lambda: statistics, platform="gpu")

    monkeypatch.setattr(_memory, "_device", lambda _: device({"bytes_limit": 9, "bytes_in_use": 4}))
    assert _memory.available_bytes([]) == 5
    monkeypatch.setattr(_memory, "_device", lambda _: device(None))
    assert _memory.available_bytes([]) is None


def test_a_host_that_is_not_linux_tells_all_of_it(monkeypatch):
    def refuse(_: Path) -> str:
        raise OSError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert _memory._host_bytes() > 2**20
    assert _memory.available_bytes([]) > 2**20
    monkeypatch.setattr(_memory.os, "sysconf", lambda _: (_ for _ in ()).throw(ValueError))
    assert _memory._host_bytes() is None


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1536, "1.5 KiB"),
        (2**30, "1.0 GiB"),
        (2**75, "32768.0 EiB"),
    ],
)
def test_bytes_are_shown_in_units(count, text):
    assert _memory.show_bytes(count) == text
