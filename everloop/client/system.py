"""How busy the machine and this process are: read from /proc, and from NVIDIA's library where it is installed. Elsewhere only what Python itself knows."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

_before: dict[str, tuple[float, float]] = {}
_gpus: Any = None


def sample() -> dict[str, float]:
    """What is known now: cpu_percent (of the machine), process_cpu_percent (of one core), memory_percent, memory_mb, process_memory_mb, disk_percent, disk_free_gb,
    network_sent_mb and network_received_mb (a second), and for each GPU gpu.N_percent, gpu.N_memory_mb. Rates are since the sample before; the first has none.
    """
    found: dict[str, float] = {}
    used = resource.getrusage(resource.RUSAGE_SELF)
    _rate(found, "process_cpu_percent", used.ru_utime + used.ru_stime, 100.0)
    disk = shutil.disk_usage(os.getcwd())
    found |= {"disk_percent": 100.0 * disk.used / disk.total, "disk_free_gb": disk.free / 1e9}
    if Path("/proc/stat").exists():
        found |= _linux()
    else:
        found["process_memory_mb"] = used.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return found | _nvidia()


def hardware() -> dict[str, Any]:
    """What the machine has: {"cpus", "memory_mb"?, "gpus": [names]}."""
    found: dict[str, Any] = {"cpus": os.cpu_count(), "gpus": [name for name, _ in _handles()]}
    memory = _meminfo()
    if memory:
        found["memory_mb"] = round(memory["MemTotal"] / 1024)
    return found


def _linux() -> dict[str, float]:
    found: dict[str, float] = {}
    times = [float(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    busy = sum(times) - times[3] - times[4]
    cores = os.cpu_count() or 1
    _rate(found, "cpu_percent", busy / os.sysconf("SC_CLK_TCK"), 100.0 / cores)
    memory = _meminfo()
    taken = memory["MemTotal"] - memory.get("MemAvailable", 0)
    found |= {"memory_percent": 100.0 * taken / memory["MemTotal"], "memory_mb": taken / 1024}
    found["process_memory_mb"] = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    sent = received = 0.0
    for line in Path("/proc/net/dev").read_text().splitlines()[2:]:
        name, _, rest = line.partition(":")
        if name.strip() != "lo":
            words = rest.split()
            received, sent = received + float(words[0]), sent + float(words[8])
    _rate(found, "network_sent_mb", sent, 1e-6)
    _rate(found, "network_received_mb", received, 1e-6)
    return found


def _meminfo() -> dict[str, float]:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: float(line.split()[1]) for line in lines}


def _rate(found: dict[str, float], name: str, total: float, scale: float) -> None:
    """How fast `total` has grown since the sample before, times `scale`."""
    now = time.monotonic()
    before = _before.get(name)
    _before[name] = now, total
    if before is not None and now > before[0]:
        found[name] = max(0.0, (total - before[1]) / (now - before[0]) * scale)


def _handles() -> list[tuple[str, Any]]:
    """(name, handle) of each GPU; none where NVIDIA's Python library (nvidia-ml-py) or its driver is missing."""
    global _gpus
    if _gpus is None:
        _gpus = []
        try:
            import pynvml
        except ImportError:
            return []
        try:
            pynvml.nvmlInit()
            for number in range(pynvml.nvmlDeviceGetCount()):
                handle = pynvml.nvmlDeviceGetHandleByIndex(number)
                name = pynvml.nvmlDeviceGetName(handle)
                _gpus.append((name.decode() if isinstance(name, bytes) else name, handle))
        except pynvml.NVMLError:
            _gpus = []
    return list(_gpus)


def _nvidia() -> dict[str, float]:
    found: dict[str, float] = {}
    for number, (_, handle) in enumerate(_handles()):
        import pynvml

        try:
            found[f"gpu.{number}_percent"] = float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
            found[f"gpu.{number}_memory_mb"] = pynvml.nvmlDeviceGetMemoryInfo(handle).used / 1e6
        except pynvml.NVMLError:
            continue
    return found
