"""What the operating system says about the processor: name, cores, caches, memory, instructions, clock."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cache", "Processor", "detect", "flop_per_cycle", "slug"]

FLOP_PER_CYCLE = (("avx512f", 32), ("avx2", 32), ("fma", 32), ("avx", 16), ("sse2", 8), ("asimd", 16), ("neon", 16))
"""fp32 operations per cycle and core by instruction set, best first. Lower estimates: two units of 256 bits for AVX2
(most cores since 2013), one of 512 bits for AVX-512, two of 128 bits on Arm; many server cores do twice as much."""
FASTER = {
    "bf16": (("amx_bf16", 16.0), ("avx512_bf16", 2.0), ("bf16", 2.0)),
    "int8": (("amx_int8", 32.0), ("avx512_vnni", 4.0), ("avx_vnni", 4.0), ("asimddp", 4.0)),
}
"""Rate of narrower formats over fp32 by instruction, best first."""
DEFAULT_CACHE = 8 * 2.0**20
"""Last cache where the system does not tell [B]."""


@dataclass(frozen=True)
class Cache:
    """One level of cache: bytes of one, and how many there are."""

    level: int
    size: int
    count: int

    @property
    def total(self) -> int:
        """Bytes of all of them."""
        return self.size * self.count


@dataclass(frozen=True)
class Processor:
    """What was detected; ``told`` says by what.

    Parameters
    ----------
    name : as the processor calls itself.
    cores : physical cores this process may use.
    caches : data caches beyond the first level, nearest first.
    memory, free : bytes of main memory (or of the limit of the container), and what is free [B].
    clock : highest clock the system states [Hz].
    flags : instruction sets, as Linux names them.
    """

    name: str
    cores: int
    caches: tuple[Cache, ...]
    memory: float
    free: float
    clock: float | None
    flags: frozenset[str]
    told: str

    @property
    def last_cache(self) -> float:
        """Capacity of the last cache [B]."""
        return float(self.caches[-1].total) if self.caches else DEFAULT_CACHE


def flop_per_cycle(flags: frozenset[str]) -> tuple[int, str]:
    """Operations in fp32 per cycle and core, and the instruction set they are those of.

    Examples
    --------
    >>> flop_per_cycle(frozenset({"sse2", "avx2", "fma"}))
    (32, 'avx2')
    """
    return next(((count, name) for name, count in FLOP_PER_CYCLE if name in flags), (8, "no known vector instructions"))


def slug(name: str) -> str:
    """Name of a processor as a file name.

    Examples
    --------
    >>> slug("Intel(R) Xeon(R) Platinum 8480+ CPU @ 2.00GHz"), slug("AMD EPYC 9654 96-Core Processor")
    ('intel-xeon-platinum-8480+', 'amd-epyc-9654')
    """
    text = re.sub(r"\((r|tm|c)\)|@.*$|\b\d+-core\b|\bcpu\b|\bprocessor\b|\bwith\b.*$", " ", name.lower())
    return re.sub(r"[^a-z0-9+.]+", "-", text).strip("-") or "processor"


def detect() -> Processor:
    """Ask the system; what it does not tell is left at a cautious value."""
    system = platform.system()
    if system == "Linux":
        return _linux()
    if system == "Darwin":
        return _mac()
    return _any(system)


def _any(system: str) -> Processor:
    name = platform.processor() or platform.machine() or "processor"
    cores = max(1, (os.cpu_count() or 1) // 2)
    return Processor(name, cores, (), 8e9, 4e9, None, _assumed_flags(), f"{system}: number of cores only")


def _assumed_flags() -> frozenset[str]:
    return frozenset({"asimd"} if platform.machine().lower() in ("arm64", "aarch64") else {"avx2"})


def _linux(root: Path = Path("/")) -> Processor:
    info = _text(root / "proc/cpuinfo")
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    folders = [root / f"sys/devices/system/cpu/cpu{i}" for i in cpus]
    siblings = {_text(f / "topology/thread_siblings_list") or str(f) for f in folders}
    memory = {
        key: float(value) * 1024.0 for key, value in re.findall(r"(\w+):\s+(\d+) kB", _text(root / "proc/meminfo"))
    }
    limit = _text(root / "sys/fs/cgroup/memory.max")
    total = min(memory.get("MemTotal", 8e9), float(limit) if limit.isdigit() else float("inf"))
    quota = _text(root / "sys/fs/cgroup/cpu.max").split()
    cores = len(siblings)
    if len(quota) == 2 and quota[0].isdigit():
        cores = max(1, min(cores, int(quota[0]) // int(quota[1])))
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", info, re.MULTILINE)
    name = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.*)$", info, re.MULTILINE)
    return Processor(
        name=name[1].strip() if name else f"{platform.machine()} processor",
        cores=cores,
        caches=_linux_caches(folders),
        memory=total,
        free=min(memory.get("MemAvailable", total / 2.0), total),
        clock=_linux_clock(folders, info),
        flags=frozenset(flags[1].split()) if flags else _assumed_flags(),
        told="/proc/cpuinfo, /proc/meminfo and /sys/devices/system/cpu",
    )


def _linux_caches(folders: list[Path]) -> tuple[Cache, ...]:
    """Caches of level 2 and beyond; every group of processors that shares one counts once."""
    found: dict[int, dict[str, int]] = {}
    for folder in folders:
        for index in sorted((folder / "cache").glob("index*")):
            level, size = _text(index / "level"), _text(index / "size")
            match = re.fullmatch(r"(\d+)([KM]?)", size)
            if level.isdigit() and int(level) >= 2 and match and _text(index / "type") != "Instruction":
                size_bytes = int(match[1]) * {"": 1, "K": 2**10, "M": 2**20}[match[2]]
                found.setdefault(int(level), {})[_text(index / "shared_cpu_list") or str(folder)] = size_bytes
    return tuple(Cache(level, max(of.values()), len(of)) for level, of in sorted(found.items()))


def _linux_clock(folders: list[Path], info: str) -> float | None:
    """Highest clock: of the frequency driver, else of the running cores."""
    stated = [_text(f / "cpufreq/cpuinfo_max_freq") for f in folders]
    kilo = [float(text) * 1e3 for text in stated if text.isdigit()]
    now = [float(text) * 1e6 for text in re.findall(r"cpu MHz\s*:\s*([\d.]+)", info)]
    return max(kilo or now, default=None)


def _mac() -> Processor:
    def ask(name: str) -> str:
        try:
            done = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=5)
        except (OSError, subprocess.SubprocessError):
            return ""
        return done.stdout.strip()

    def number(*names: str) -> float:
        return next((float(t) for t in map(ask, names) if t.replace(".", "", 1).isdigit()), 0.0)

    cores = int(number("hw.perflevel0.physicalcpu", "hw.physicalcpu")) or max(1, (os.cpu_count() or 2) // 2)
    level2 = int(number("hw.perflevel0.l2cachesize", "hw.l2cachesize"))
    sharing = max(1, int(number("hw.perflevel0.cpusperl2")))
    level3 = int(number("hw.l3cachesize"))
    caches = [Cache(2, level2, -(-cores // sharing))] if level2 else []
    caches += [Cache(3, level3, 1)] if level3 else []
    memory = number("hw.memsize") or 8e9
    words = (ask("machdep.cpu.features") + " " + ask("machdep.cpu.leaf7_features")).lower().replace("avx1.0", "avx")
    flags = frozenset(words.split()) or _assumed_flags()
    clock = number("hw.cpufrequency_max", "hw.cpufrequency") or None
    name = ask("machdep.cpu.brand_string") or "Apple processor"
    return Processor(name, cores, tuple(caches), memory, memory / 2.0, clock, flags, "sysctl")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
