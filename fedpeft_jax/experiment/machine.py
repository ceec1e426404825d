"""The memory and the cores of the machine, and the memory of its accelerator."""

import os
from pathlib import Path

import jax


def host_memory(root: Path = Path("/")) -> int | None:
    """Returns the bytes of memory and swap that this process may use; None if unknown.

    Args:
      root: the folder that has `proc` and `sys`.
    """
    fields = {}
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            fields[name] = value
        total, swap = (
            1024 * int(fields[name].split()[0]) for name in ("MemTotal", "SwapTotal")
        )
    except (OSError, ValueError, KeyError, IndexError):
        return None  # not Linux
    limits = [total]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limits.append(int((root / "sys/fs/cgroup" / name).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return min(limits) + swap


def device_memory() -> int | None:
    """Returns the bytes of an accelerator's memory; None on a CPU."""
    stats = jax.devices()[0].memory_stats()
    return int(stats["bytes_limit"]) if stats and stats.get("bytes_limit") else None


def num_cores() -> int:
    """Returns the number of cores that this process may use.

    Example:
      >>> num_cores() > 0
      True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
