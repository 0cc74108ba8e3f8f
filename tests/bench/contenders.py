# -*- test-case-name: tests.bench.test_bench -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What can be put between the load and memcached.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.workloads import Workload
from tests.real.servers import SOURCE, Address, Memcached, Nutcracker, Proxy, Server, connect

#: The names of the yardsticks: the cheaper of them for a workload is the one that counts there.
YARDSTICKS = ("nutcracker", "nutcracker-4")

#: All timeouts are on, but so long that a busy machine does not make anyone fail.
TIMEOUT = 10

#: For values of a megabyte; ten thousand clients and whoever looks in besides.
PROXY_OPTIONS = (
    *("--max-item-size", "2m", "--max-clients", "12000"),
    *("--wait-timeout", str(TIMEOUT), "--request-timeout", str(TIMEOUT)),
)


@dataclass(frozen=True)
class Contender:
    """
    A server to measure.

    @ivar make: builds it for a memcached at the given address; it is not started yet.
    @ivar about: how it is set up, for reports.
    """

    name: str
    make: Callable[[Address], Server]
    about: str


def nutcracker(connections: int) -> Contender:
    """
    The yardstick, with this many connections to memcached.
    """
    return Contender(
        "nutcracker" if connections == 1 else f"nutcracker-{connections}",
        lambda upstream: Nutcracker(upstream=[upstream], connections=connections, timeout=TIMEOUT),
        f"twemproxy, server_connections: {connections}, timeout: {TIMEOUT * 1000}",
    )


def proxy(
    name: str = "proxy",
    source: Path = SOURCE,
    options: Sequence[str] = (),
    general: Sequence[str] = (),
    python: str = sys.executable,
) -> Contender:
    """
    The proxy of this or another source tree.

    @param options: for C{connpool}.
    @param general: for C{twistd}.
    """
    return Contender(
        name,
        lambda upstream: Proxy(
            *PROXY_OPTIONS, *options, upstream=[upstream], general=general, source=source, python=python
        ),
        shlex.join(["twistd", "connpool", *PROXY_OPTIONS, *options]),
    )


def direct() -> Contender:
    """
    No proxy at all: another memcached, which then does the work itself.
    """
    return Contender("direct", lambda _: storage(), "memcached itself, one thread")


def variant(text: str, python: str = sys.executable) -> Contender:
    """
    Build a contender from C{NAME=SOURCE [OPTION...]}: the proxy from another source tree, or with other options.

    @raise ValueError: when the text is not like that, or SOURCE no source tree of the proxy.
    """
    name, _, rest = text.partition("=")
    words = shlex.split(rest)
    if not name or not words:
        raise ValueError(f"{text!r}: expected NAME=SOURCE, and options after a space if you like")
    source = Path(words[0]).resolve()
    if not (source / "txconnpool").is_dir():
        raise ValueError(f"{words[0]}: no source tree, it has no directory txconnpool")
    return proxy(name, source, words[1:], python=python)


def storage(threads: int = 1) -> Memcached:
    """
    A memcached fit for every workload, not started yet.
    """
    return Memcached("-t", str(threads), "-m", "256", "-I", "2m", "-c", "16000")


def fill(address: Address, workload: Workload) -> None:
    """
    Store all values of the workload.

    @raise ConnectionError: when memcached does not take them.
    """
    with connect(address, timeout=30.0) as client:
        for request in workload.preload():
            client.sendall(request)
        client.sendall(b"version\r\n")
        answer = client.recv(1000)
    if not answer.startswith(b"VERSION "):
        raise ConnectionError(f"memcached did not store the values: {answer!r}")


def choose(contenders: Iterable[Contender], names: Sequence[str]) -> list[Contender]:
    """
    Restrict the contenders to those named; without names all but the direct way take part.

    @raise ValueError: when there is none of that name.
    """
    known = {contender.name: contender for contender in contenders}
    for name in names:
        if name not in known:
            raise ValueError(f"no contender {name!r}, there are: {', '.join(known)}")
    return [contender for name, contender in known.items() if name in names or (not names and name != "direct")]
