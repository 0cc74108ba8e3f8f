# -*- test-case-name: tests.bench.test_native -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Clients that send and receive in a loop in C (C{load.c}). It is compiled when it is needed.

Clients in Python cost about as much per request as a proxy in C, so on two processors they, and not the contender, are
the bottleneck, and a faster contender only waits longer. These cost a few system calls.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections import Counter
from ctypes import POINTER, Structure, c_char_p, c_int, c_int64, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench import generator
from tests.bench.generator import Clients, Outcome, WrongAnswer, rounded
from tests.bench.workloads import Exchange
from tests.real.servers import Address

SOURCE = Path(__file__).with_name("load.c")

#: Latencies are counted up to this number of microseconds.
MOST = 1 << 21

#: What the loop returns.
RIGHT, WRONG, CLOSED, LATE, FAILED = range(5)


class _Exchange(Structure):
    _fields_ = [
        ("request", c_char_p), ("reply", c_char_p), ("requestSize", c_uint64), ("replySize", c_uint64),
        ("count", c_uint64),
    ]  # fmt: skip


class _Outcome(Structure):
    _fields_ = [
        ("requests", c_uint64), ("nanoseconds", c_int64), ("position", c_uint64), ("expected", c_uint64),
        ("offset", c_uint64), ("size", c_uint64), ("received", c_void_p),
    ]  # fmt: skip


def missingCompiler() -> str | None:
    """
    @return: the reason why the loop cannot be compiled, or C{None}.
    """
    return None if shutil.which("cc") else "cc (a C compiler) is not installed"


@cache
def _loop() -> Any:
    """
    Compile the loop and load it.
    """
    with TemporaryDirectory() as directory:
        library = Path(directory) / "load.so"
        subprocess.run(["cc", "-O2", "-Wall", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
        loop = ctypes.CDLL(str(library), use_errno=True).run
    loop.argtypes = [
        POINTER(c_int), c_uint64, POINTER(_Exchange), c_uint64, c_int64, c_int, POINTER(c_uint32), c_uint64,
        POINTER(_Outcome),
    ]  # fmt: skip
    return loop


class NativeClients(Clients):
    """
    Clients that run in C.
    """

    def __init__(self, address: Address, clients: int, plan: list[Exchange]) -> None:
        super().__init__(address, clients, plan)
        self._exchanges = plan
        self._position = 0
        self._plan = (_Exchange * len(plan))(
            *(_Exchange(request, reply, len(request), len(reply), count) for request, reply, count in plan)
        )

    def run(self, seconds: float) -> Outcome:
        """
        Keep each client busy for the given time, then wait for the outstanding replies.

        @raise WrongAnswer: unexpected bytes arrived, a connection was closed, or replies stopped arriving.
        """
        descriptors = (c_int * len(self._sockets))(*self._sockets)
        latencies = (c_uint32 * MOST)()
        outcome = _Outcome(position=self._position)
        status = _loop()(
            descriptors, len(descriptors), self._plan, len(self._plan), int(seconds * 1e9),
            int(generator.PATIENCE * 1000), latencies, MOST, outcome,
        )  # fmt: skip
        if status != RIGHT:
            raise self._error(status, outcome)
        self._position = outcome.position % len(self._plan)
        counted: Counter[int] = Counter()
        for microseconds, number in enumerate(latencies):
            if number:
                counted[rounded(microseconds * 1000)] += number
        return Outcome(outcome.requests, outcome.nanoseconds / 1e9, counted)

    def _error(self, status: int, outcome: _Outcome) -> Exception:
        if status == FAILED:
            number = ctypes.get_errno()
            return OSError(number, os.strerror(number))
        if status == LATE:
            return WrongAnswer(f"clients got no reply within {generator.PATIENCE} s")
        due = self._exchanges[outcome.expected][1][outcome.offset :][:150]
        if status == CLOSED:
            return WrongAnswer(f"closed, expected {due!r}")
        return WrongAnswer(f"expected {due!r}, received {ctypes.string_at(outcome.received, outcome.size)[:150]!r}")
