"""How much memory there is, so that a hopeless result is refused instead of killed."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_CGROUP = Path("/sys/fs/cgroup")


def available_bytes(arrays: Iterable[Any]) -> int | None:
    """The memory that a new result on the arrays' device may take, if it can be told.

    An accelerator tells its own; for the CPU it is the host's, less where a cgroup
    (a container, a batch job) sets a limit.
    """
    device = _device(arrays)
    statistics: dict[str, int] = (device.memory_stats() or {}) if device is not None else {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    if device is not None and device.platform != "cpu":
        return None
    known = [n for n in (_host_bytes(), *_cgroup_bytes(_CGROUP)) if n is not None]
    return min(known, default=None)


def _device(arrays: Iterable[Any]) -> Any:
    for array in arrays:
        if isinstance(array, jax.Array) and not isinstance(array, jax.core.Tracer):
            return next(iter(array.devices()))
    return None


def _host_bytes() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return None
    except OSError:
        pass
    try:  # not Linux: all of the memory is the best bound there is
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _cgroup_bytes(root: Path) -> list[int | None]:
    """What version 2 and version 1 of cgroups leave, where they set a limit."""
    return [
        _left(root, "memory.max", "memory.current", ""),
        _left(root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ]


def _left(folder: Path, limit: str, usage: str, prefix: str) -> int | None:
    try:
        left = int((folder / limit).read_text()) - int((folder / usage).read_text())
        statistics = dict(
            line.split() for line in (folder / "memory.stat").read_text().splitlines()
        )
    except (OSError, ValueError):  # no such file, or the word "max"
        return None
    # The page cache counts as used but is given up on demand.
    cache = (int(statistics.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
    return left + sum(cache)


def show_bytes(count: float) -> str:
    """`3.7 GiB`."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} bytes" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"
