# Copyright txconnpool contributors. See LICENSE.
"""
What the kernel knows about processes, from C{/proc}, and what it does at the end of one.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Final

#: The C library, or C{None} on another system than Linux.
LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None

_PR_SET_PDEATHSIG = 1


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


def dieWithParent() -> None:
    """
    Make the kernel kill this process when the thread that started it ends. For C{preexec_fn}.
    """
    if LIBC is not None:
        LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
