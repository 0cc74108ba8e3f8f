# -*- test-case-name: tests.real.test_forkserver -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A process that has imported C{twistd} and the proxy, and forks for each C{twistd} that a test starts: the imports take
most of the time of a start. What it forks runs the same code as the command C{twistd}, in the same environment, and is
a child of the process that asked for it.

Linux only.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from tests.real.processes import LIBC, dieWithParent

_PR_SET_CHILD_SUBREAPER = 36

#: The maximum length of a request, in bytes.
_LONGEST = 1 << 17


class ForkFailed(Exception):
    """
    There is no new process.
    """


class Forked:
    """
    A process that was forked, with the parts of L{subprocess.Popen} that tests use.
    """

    def __init__(self, pid: int) -> None:
        """
        @param pid: the process id.
        """
        self.pid = pid

    def wait(self) -> int:
        """
        Wait for the end of the process.

        @return: its exit status, negative for a signal.
        """
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class ForkServer:
    """
    The process that forks, as its parent sees it. All threads may use it: it ends with the parent, not with the thread
    that started it.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        """
        Start it.

        @param environment: its environment, of which the modules may read something when they are imported.
        """
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from tests.real.forkserver import serve; serve({theirs.fileno()})"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
                pass_fds=[theirs.fileno()],
            )
        self._lock = threading.Lock()

    def twistd(
        self, arguments: Sequence[str], output: BinaryIO, directory: Path, environment: Mapping[str, str]
    ) -> Forked:
        """
        Run C{twistd} in a new process and a new session, with no standard input.

        @param arguments: the arguments of the command.
        @param output: the file for its output and its errors.
        @param directory: its working directory.
        @param environment: its environment.

        @raise ForkFailed: the fork server has ended.
        """
        assert LIBC is not None
        request = [*arguments], str(directory), {**environment}
        # The parent of the new process ends at once. The kernel then gives the process to the next one above that is a
        # "child subreaper", see prctl(2).
        with self._lock:
            LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)
            try:
                socket.send_fds(self._socket, [json.dumps(request).encode()], [output.fileno()])
                answer = self._socket.recv(_LONGEST)
            finally:
                LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 0)
        if not answer:
            raise ForkFailed("the fork server, or what it has forked, has ended: see the error output")
        return Forked(int(answer))


def forkServer(environment: Mapping[str, str]) -> ForkServer:
    """
    @return: the fork server for processes with this environment. Environments that have the same variables for Python
        and for this package share one. It ends with this process.
    """
    return _forkServer(frozenset(item for item in environment.items() if _isImportant(item[0])))


@functools.cache
def _forkServer(variables: frozenset[tuple[str, str]]) -> ForkServer:
    others = {name: value for name, value in os.environ.items() if not _isImportant(name)}
    return ForkServer({**others, **dict(variables)})


def _isImportant(name: str) -> bool:
    """
    @return: whether the import of a module may depend on a variable.
    """
    return name.startswith(("PYTHON", "TXCONNPOOL_"))


def serve(fileno: int) -> None:
    """
    Import the proxy, then fork for each request. Returns when the parent has closed its end, and in each forked process
    when C{twistd} has ended.

    @param fileno: the socket for the requests.
    """
    import twisted.application.app
    import twisted.scripts._twistd_unix
    import twisted.scripts.twistd

    import txconnpool.tap

    del txconnpool
    if "twisted.internet.reactor" in sys.modules:
        raise RuntimeError("the import of the proxy has installed a reactor")
    # Nothing that exists now is to be copied because a child's collector writes into it.
    gc.collect()
    gc.freeze()
    parent = os.getppid()
    with socket.socket(fileno=fileno) as requests:
        while True:
            data, files, _, _ = socket.recv_fds(requests, _LONGEST, 1)
            if not data:
                return
            if not _fork():
                _become(requests, parent, files[0], *json.loads(data))
                break
            os.close(files[0])
    twisted.scripts.twistd.run()


def _fork() -> int:
    """
    Fork twice, so that the new process has a parent that has ended, or will soon.

    @return: zero in the new process.
    """
    middle = os.fork()
    if middle:
        os.waitpid(middle, 0)
        return middle
    if os.fork():
        os._exit(0)
    return 0


def _become(
    requests: socket.socket,
    parent: int,
    output: int,
    arguments: Sequence[str],
    directory: str,
    environment: Mapping[str, str],
) -> None:
    """
    Make this process what a new one would be.
    """
    while os.getppid() != parent:
        time.sleep(0.0005)
    # Not before: the kernel would send the signal at the end of the first parent.
    dieWithParent()
    os.setsid()
    for fileno in (1, 2):
        os.dup2(output, fileno)
    os.close(output)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    requests.send(b"%d" % os.getpid())
