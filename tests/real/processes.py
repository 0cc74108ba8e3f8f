# Copyright txconnpool contributors. See LICENSE.
"""
What the kernel knows about processes, from C{/proc}.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path


def memory(pid: int) -> int:
    """
    @return: the resident memory of a process, in bytes.
    """
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * resource.getpagesize()


def peak(pid: int) -> int:
    """
    @return: the most resident memory that a process has had, in bytes.
    """
    lines = Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def cpu(pid: int) -> float:
    """
    @return: the processor time that a process has used, in seconds.
    """
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
