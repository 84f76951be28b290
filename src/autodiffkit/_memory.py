"""How much memory there is, so that a hopeless result is refused instead of killed."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.core

from autodiffkit._errors import ResultTooLargeError, columns, listed
from autodiffkit._leaves import LeafSpec, block_spec

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_CGROUP = Path("/sys/fs/cgroup")

# Results of fewer bytes are not asked about: finding out takes a tenth of a millisecond.
_SMALL = 1 << 20


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
    try:
        membership = Path("/proc/self/cgroup").read_text()
    except OSError:  # not Linux
        membership = ""
    limits = _cgroup_bytes(_CGROUP, membership)
    known = [n for n in (_host_bytes(), *limits) if n is not None]
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


def _cgroup_bytes(root: Path, membership: str) -> list[int | None]:
    """What cgroups leave, where they set a limit.

    Args:
        root: Where they are mounted.
        membership: The text of `/proc/self/cgroup`, which names the process's own group; the
            limits of the groups above it hold as well.

    Returns:
        What each group leaves, `None` where there is no limit.
    """
    left: list[int | None] = []
    for line in membership.splitlines() or ["0::/"]:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, names = root, ("memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            mount = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        else:
            continue
        own = mount / path.lstrip("/")
        folders = [own, *(folder for folder in own.parents if folder.is_relative_to(mount))]
        left += [_left(folder, *names) for folder in folders]
    return left


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


# Refusal ------------------------------------------------------------------------


def refuse_too_large(
    call: str,
    targets: Sequence[LeafSpec],
    sources: Sequence[LeafSpec],
    arrays: Iterable[Any],
    *,
    order: int = 1,
    instead: str = "adk.linearize multiplies by the derivative without storing it.",
) -> None:
    """Refuses a derivative that is larger than the memory there is.

    Args:
        call: The call, for the message.
        targets: The output leaves.
        sources: The input leaves.
        arrays: Arrays on the device that the result will be on.
        order: 1 for the first derivative, 2 for the second.
        instead: What to do without the result.

    Raises:
        ResultTooLargeError: With the bytes by argument, and the selection that would fit.
    """
    needed = _result_bytes(targets, sources, sources, order)
    if needed < _SMALL:
        return
    available = available_bytes(arrays)
    if available is None or needed <= available:
        return
    by_name: dict[str, list[LeafSpec]] = {}
    for spec in sources:
        by_name.setdefault(spec.path[0], []).append(spec)
    # Of a Hessian, an argument's own block may be small where its share of the whole is not.
    rows: list[tuple[str, ...]] = [("argument", "share", "alone")] if order == 2 else []
    for name, specs in by_name.items():
        sizes = [_result_bytes(targets, sources, specs, order)]
        if order == 2:
            sizes.append(_result_bytes(targets, specs, specs, order))
        rows.append((name, *map(show_bytes, sizes)))
    fitting: list[LeafSpec] = []
    names: list[str] = []
    for name in sorted(by_name, key=lambda name: sum(spec.size for spec in by_name[name])):
        larger = [*fitting, *by_name[name]]
        if _result_bytes(targets, larger, larger, order) <= available:
            fitting = larger
            names.append(name)
    selection = repr(names[0]) if len(names) == 1 else f"({', '.join(map(repr, names))})"
    remedy = f"wrt={selection} would fit. " if names else ""
    raise ResultTooLargeError(
        f"{call}: the result takes {show_bytes(needed)} and {show_bytes(available)} are "
        f"available. {remedy}{instead}" + listed(columns(rows))
    )


def too_little(call: str, needed: int, limit: int) -> ResultTooLargeError:
    """The error for sweeps of which a single direction takes more than `memory_limit`."""
    return ResultTooLargeError(
        f"{call}: a single direction takes about {show_bytes(needed)} of temporaries, and "
        f"memory_limit allows {show_bytes(limit)}. Allow more, or differentiate less at a time "
        "(wrt=, of=). Nothing was swept."
    )


def _result_bytes(
    targets: Sequence[LeafSpec],
    first: Sequence[LeafSpec],
    last: Sequence[LeafSpec],
    order: int,
) -> int:
    """The bytes of the blocks of the targets (by `first`, if of second order) by `last`."""
    rows = targets if order == 1 else [block_spec(t, s) for t in targets for s in first]
    blocks = (block_spec(row, source) for row in rows for source in last)
    return sum(block.size * block.dtype.itemsize for block in blocks)
