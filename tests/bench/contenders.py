# -*- test-case-name: tests.bench.test_bench -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The servers that a benchmark compares: each one gets the load, and forwards it to memcached or Redis.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.workloads import Workload
from tests.real.servers import SOURCE, Address, Memcached, Nutcracker, Proxy, Redis, Server, connect

#: The names of the yardsticks. Ratios of a workload are computed against the one that uses less processor time for it.
YARDSTICKS = ("nutcracker", "nutcracker-4")

#: The timeouts of all contenders, in seconds: enabled, as in production, but too long to expire on a busy machine.
TIMEOUT = 10

#: Options of the proxy: enough for values of one megabyte, ten thousand clients, and some more connections.
PROXY_OPTIONS = (
    *("--max-item-size", "2m", "--max-clients", "12000"),
    *("--wait-timeout", str(TIMEOUT), "--request-timeout", str(TIMEOUT)),
)


@dataclass(frozen=True)
class Contender:
    """
    A server to measure.

    @ivar make: creates the server, not yet started, for the upstream servers at the given addresses.
    @ivar about: its configuration, for reports.
    """

    name: str
    make: Callable[[Sequence[Address]], Server]
    about: str


def nutcracker(connections: int, protocol: str = "memcached") -> Contender:
    """
    Create the yardstick: nutcracker (twemproxy).

    @param connections: the number of connections to each server.
    @param protocol: the protocol of the workload.
    """
    redis = ["redis: true"] if protocol == "redis" else []
    return Contender(
        "nutcracker" if connections == 1 else f"nutcracker-{connections}",
        lambda upstream: Nutcracker(
            upstream=upstream,
            connections=connections,
            timeout=TIMEOUT,
            settings=["hash: fnv1a_64", "distribution: ketama", *redis],
        ),
        ", ".join(["twemproxy", f"server_connections: {connections}", f"timeout: {TIMEOUT * 1000}", *redis]),
    )


class MeasuredProxy(Proxy):
    """
    A proxy that shares no memory with another process.
    """

    forks = False


def proxy(
    name: str = "proxy",
    source: Path = SOURCE,
    options: Sequence[str] = (),
    general: Sequence[str] = (),
    python: str = sys.executable,
    protocol: str = "memcached",
    process: type[Proxy] = MeasuredProxy,
) -> Contender:
    """
    Create a contender that runs the proxy from this or another source tree.

    @param options: options of C{connpool}.
    @param general: options of C{twistd}.
    @param python: the interpreter.
    @param protocol: the protocol of the workload.
    @param process: the class of the process.
    """
    if protocol != "memcached":
        options = ["--protocol", protocol, *options]
    return Contender(
        name,
        lambda upstream: process(
            *PROXY_OPTIONS,
            *(("--distribution", "twemproxy") if len(upstream) > 1 else ()),
            *options,
            upstream=upstream,
            general=general,
            source=source,
            python=python,
        ),
        shlex.join(["twistd", "connpool", *PROXY_OPTIONS, *options]),
    )


def direct(protocol: str = "memcached") -> Contender:
    """
    Create a contender without a proxy: a server that answers the load itself.
    """
    return Contender("direct", lambda _: storage(protocol=protocol), f"{protocol} itself, one thread")


def variant(text: str, python: str = sys.executable, protocol: str = "memcached") -> Contender:
    """
    Create a contender from C{NAME=SOURCE [OPTION...]}: the proxy from another source tree, or with other options.

    @raise ValueError: the text does not have this form, or SOURCE is not a source tree of the proxy.
    """
    name, _, rest = text.partition("=")
    words = shlex.split(rest)
    if not name or not words:
        raise ValueError(f"{text!r}: expected NAME=SOURCE [OPTION...]")
    source = Path(words[0]).resolve()
    if not (source / "txconnpool").is_dir():
        raise ValueError(f"{words[0]}: not a source tree: it has no directory txconnpool")
    return proxy(name, source, words[1:], python=python, protocol=protocol)


def storage(threads: int = 1, protocol: str = "memcached") -> Memcached | Redis:
    """
    Create a memcached or Redis, not yet started, that can serve every workload.

    @param threads: the number of threads of a memcached; a Redis has one.
    """
    if protocol == "redis":
        return Redis("--maxclients", "16000")
    return Memcached("-t", str(threads), "-m", "256", "-I", "2m", "-c", "16000")


def fill(address: Address, workload: Workload) -> None:
    """
    Store all values of the workload.

    @raise ConnectionError: the server did not store them.
    """
    spelling = workload.spelling
    with connect(address, timeout=30.0) as client:
        for request in (spelling.quiet, *workload.preload(), spelling.loud):
            client.sendall(request)
        answer = client.recv(1000)
    if not answer.startswith(spelling.heard):
        raise ConnectionError(f"the server did not store the values: {answer!r}")


def choose(contenders: Iterable[Contender], names: Sequence[str]) -> list[Contender]:
    """
    Select contenders by name. Without names, select all but C{direct}.

    @raise ValueError: a name is unknown.
    """
    known = {contender.name: contender for contender in contenders}
    for name in names:
        if name not in known:
            raise ValueError(f"unknown contender {name!r}; expected one of {', '.join(known)}")
    return [contender for name, contender in known.items() if name in names or (not names and name != "direct")]
