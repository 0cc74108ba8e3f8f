# -*- test-case-name: tests.real.test_fuzz -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A differential fuzzer: the replies of the proxy must have the same bytes as those of memcached.

The fuzzer generates streams of valid and invalid requests from a seed, cuts them at random positions, and sends them to
a memcached, and to a proxy in front of another memcached. L{tests.real.differences} lists the intended differences, and
the requests to send to memcached in order to get the proxy's replies. Some streams use the binary protocol
(L{tests.real.binarystreams}). To run the fuzzer::

    python -m tests.real.fuzz 600          # seconds
    python -m tests.real.fuzz 60 12345     # from this seed
"""

from __future__ import annotations

import logging
import random
import re
import selectors
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from errno import ENOTCONN
from typing import Final

from tests.real.binarystreams import BinaryAuthor, withCas
from tests.real.differences import DIFFERENCES, NEWEST_DIFFERENCES, Difference, closes, closesNewest
from tests.real.relay import Relay, trickle
from tests.real.servers import NEWEST, PATIENCE, Address, Memcached, NewestMemcached, Proxy, ask, connect, until
from tests.real.streams import Author, Request, requestsOf, written
from tests.wire.memcache.binary.packets import split

#: The part of the streams that use the binary protocol.
BINARY: Final = 0.3

_log = logging.getLogger(__name__)


class Stuck(Exception):
    """
    The peer neither answers nor closes the connection.
    """


def converse(address: Address, pieces: Sequence[bytes], pause: float = 0.0) -> bytes:
    """
    Send pieces one by one, and then shut down the sending side of the connection.

    @param pause: seconds between two pieces.
    @return: all bytes that were received until the peer closed the connection.
    @raise Stuck: the peer did not close it.
    """
    answer = bytearray()
    waiting = list(reversed(pieces))
    with connect(address) as client, selectors.DefaultSelector() as selector:
        client.setblocking(False)
        if not isinstance(address, str):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(client, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while True:
            ready = selector.select(PATIENCE)
            if not ready:
                raise Stuck(f"no byte within {PATIENCE:g} s after {bytes(answer[-200:])!r}")
            events = ready[0][1]
            try:
                if events & selectors.EVENT_READ:
                    data = client.recv(1 << 20)
                    if not data:
                        return bytes(answer)
                    answer += data
                if events & selectors.EVENT_WRITE:
                    if waiting:
                        piece = waiting.pop()
                        sent = client.send(piece)
                        if sent < len(piece):
                            waiting.append(piece[sent:])
                        if pause:
                            time.sleep(pause)
                    else:
                        selector.modify(client, selectors.EVENT_READ)
                        client.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                return bytes(answer) + b"<reset>"
            except OSError as error:  # the peer closed before this shutdown
                if error.errno != ENOTCONN:
                    raise


_TIMES: Final = re.compile(
    rb"(?<= (?:exp|[a-z]la)=)-?[0-9]+(?=[^\r\n]*\r\n)|(?<= [tl])[0-9]+(?=[ \r])| la=[0-9]+| exp=[0-9]+"
)


def normal(answer: bytes) -> bytes:
    """
    Replace values that depend on the time of the request: ages and times to live in the replies to meta commands.
    """
    return _TIMES.sub(b"#", answer)


@dataclass
class Case:
    """
    A stream of requests to send.

    @ivar seed: the seed of the L{Author}.
    @ivar requests: the stream; cas uniques are placeholders, see L{written}.
    @ivar proxy: the index of the proxy.
    @ivar whole: whether the stream is sent without being cut into pieces.
    @ivar binary: whether the requests are binary ones, see L{BinaryAuthor}.
    """

    seed: str
    requests: list[bytes]
    proxy: int = 0
    whole: bool = False
    binary: bool = False


@dataclass
class Mismatch:
    """
    A case in which the replies of memcached and of the proxy differ.

    @ivar sent: the bytes sent to the proxy.
    @ivar instead: the bytes sent to memcached.
    @ivar expected: memcached's replies.
    @ivar received: the proxy's replies.
    """

    case: Case
    sent: bytes
    instead: bytes
    expected: bytes
    received: bytes

    def __str__(self) -> str:
        lines = [
            f"seed {self.case.seed}, proxy {self.case.proxy}{', whole' if self.case.whole else ''}"
            f"{', binary' if self.case.binary else ''}:",
            *(f"  {request!r}" for request in self.case.requests),
            f"sent to the proxy:  {_shown(self.sent)}",
        ]
        if self.instead != self.sent:
            lines.append(f"sent to memcached:  {_shown(self.instead)}")
        start = 0
        while start < len(self.received) and self.expected[start : start + 1] == self.received[start : start + 1]:
            start += 1
        lines.append(f"equal answers:      {_shown(self.expected[:start])}")
        lines.append(f"memcached goes on:  {_shown(self.expected[start:])}")
        lines.append(f"the proxy goes on:  {_shown(self.received[start:])}")
        return "\n".join(lines)


def _shown(data: bytes) -> str:
    data = data.replace(b"k" * 250, b"{KEY}")
    return repr(data) if len(data) <= 1500 else f"{data[:1000]!r}...{data[-400:]!r} ({len(data)} bytes)"


class Fuzzer:
    """
    Two memcacheds, and proxies in front of the second one.

    @ivar cases: the number of cases that were sent.
    @ivar unsteady: how many of them could not be compared, because memcached's replies depend on timing.
    @ivar met: how often each difference occurred.
    @ivar differences: the intended differences.
    """

    def __init__(self, differences: Sequence[Difference] = DIFFERENCES, memcached: type[Memcached] = Memcached) -> None:
        """
        @param memcached: the memcached to compare with.
        """
        self.cases = self.unsteady = 0
        self.met: Counter[str] = Counter()
        self.differences = differences
        self._closes = closes if memcached is Memcached else closesNewest
        # incr pads a value with spaces if it can overwrite the item, and it cannot while a background thread holds a
        # reference to the item.
        quiet = ("-o", "no_lru_maintainer,no_lru_crawler", "-t", "1")
        self._direct = memcached(*quiet)
        self._behind = memcached(*quiet)
        self._relay: Relay
        self._proxies: list[Proxy] = []
        self._control: list[socket.socket] = []

    def __enter__(self) -> Fuzzer:
        try:
            self._direct.start()
            self._behind.start()
            self._relay = Relay(self._behind.address).start()
            self._relay.set(trickle())
            self._proxies = [
                Proxy(upstream=[self._behind.address]),
                Proxy(
                    *("--pool-size=2", "--pipeline-depth=3", "--max-in-flight=5"),
                    upstream=[self._behind.address],
                    address="socket",
                ),
                Proxy("--request-timeout", "20", upstream=[self._relay.address]),
            ]
            for proxy in self._proxies:
                proxy.start()
            self._control = [connect(server.address) for server in (self._direct, self._behind)]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for control in self._control:
            control.close()
        for proxy in self._proxies:
            if proxy.pid:
                proxy.stop()
        if hasattr(self, "_relay"):
            self._relay.stop()
        self._direct.stop()
        self._behind.stop()

    def reset(self, differences: Sequence[Difference]) -> None:
        """
        Start anew with other intended differences.
        """
        self.differences = differences
        self.cases = self.unsteady = 0
        self.met.clear()
        self._settle()

    def run(self, seconds: float, seed: int, most: int = 1) -> list[Mismatch]:
        """
        Send one case after another, until the time is over or C{most} mismatches were found.

        @return: the mismatches, reduced to small cases.
        """
        found: list[Mismatch] = []
        deadline = time.monotonic() + seconds
        number = 0
        while time.monotonic() < deadline and len(found) < most:
            case = self.case(f"{seed}/{number}")
            number += 1
            mismatch = self.ask(case)
            if mismatch is not None:
                _log.info("found\n%s", mismatch)
                found.append(self.shrink(mismatch))
                self._settle()
        return found

    def case(self, seed: str) -> Case:
        """
        Generate a case.
        """
        chance = random.Random(seed)
        proxy = chance.choices((0, 1, 2), (4, 4, 1))[0]
        binary = chance.random() < BINARY
        stream = BinaryAuthor(seed).stream() if binary else Author(seed).stream()
        # The third proxy gets its replies byte by byte. That is too slow for large streams.
        return Case(seed, stream, proxy if sum(map(len, stream)) < 5000 else 0, binary=binary)

    def ask(self, case: Case) -> Mismatch | None:
        """
        Send a case to memcached and to the proxy.
        """
        self.cases += 1
        sent, instead = self._stream(case, self._level())
        author = Author(case.seed + "/pieces")
        pieces = [sent] if case.whole else author.pieces(sent)
        pause = 0.0005 if len(pieces) > 1 and self.cases % 5 == 0 else 0.0
        expected = converse(self._direct.address, [instead])
        try:
            received = converse(self._proxies[case.proxy].address, pieces, pause)
        except Stuck as stuck:
            received = f"<stuck: {stuck}>".encode()
        if normal(expected) == normal(received):
            return None
        # Some of the intended differences occur only when memcached gets all requests at once.
        if not case.whole and self._unsteady(case, normal(expected)):
            return None
        return Mismatch(case, sent, instead, normal(expected), normal(received))

    def _unsteady(self, case: Case, expected: bytes) -> bool:
        """
        @return: whether memcached's replies depend on timing. C{incr} and C{decr} keep the length of a value, by
            appending spaces, unless the value is part of a reply that is not sent yet.
        """
        base = self._level()
        _, instead = self._stream(case, base)
        if case.binary:
            pieces = [withCas(request, base) for request in case.requests]
        else:
            pieces = [request.data for request in requestsOf(instead)]
        if normal(converse(self._direct.address, pieces, 0.002)) == expected:
            return False
        self.unsteady += 1
        return True

    def shrink(self, mismatch: Mismatch, attempts: int = 300) -> Mismatch:
        """
        Search for a smaller case with a mismatch.

        @param attempts: the maximum number of cases to send.
        """
        last = self.cases + attempts
        while self.cases < last:
            for case in _smaller(mismatch.case):
                found = self._mismatch(case, mismatch)
                if found is not None:
                    mismatch = found
                    break
                if self.cases >= last:
                    break
            else:
                break
        return mismatch

    def _settle(self) -> None:
        """
        Wait until every proxy answers: a proxy may consider its server down after a mismatch.
        """
        addresses = [proxy.address for proxy in self._proxies]
        until(
            lambda: all(ask(address, b"mn\r\n") == b"MN\r\n" for address in addresses), what="an answer of all proxies"
        )

    def _mismatch(self, case: Case, before: Mismatch) -> Mismatch | None:
        found = self.ask(case)
        if found is not None and b"upstream" in found.received:
            self._settle()
        return found if found is not None and len(found.sent) <= len(before.sent) + 20 else None

    def _stream(self, case: Case, base: int) -> tuple[bytes, bytes]:
        """
        @param base: the last cas unique of both servers.

        @return: the bytes to send to the proxy, and those to send to memcached.
        """
        stream = b"".join(case.requests)
        if not case.binary:
            return self._prepare(written(stream, base))
        stream = withCas(stream, base)
        # memcached discards replies that it has not sent when the end of the stream arrives within a request.
        return stream, stream.removesuffix(split(stream)[1])

    def _prepare(self, stream: bytes) -> tuple[bytes, bytes]:
        """
        @return: the bytes to send to the proxy, and those to send to memcached.
        """
        sent, instead = [], []
        for request in requestsOf(stream):
            other = self._instead(request)
            if other is not None:
                sent.append(request.data)
                # memcached discards replies that it has not sent when the end of the stream arrives.
                instead.append(other.data if request.complete else b"")
                if self._closes(request):
                    break  # unread bytes after this request would make the kernel reset the connection and lose replies
        return b"".join(sent), b"".join(instead)

    def _instead(self, request: Request) -> Request | None:
        for difference in self.differences:
            other = difference.instead(request)
            if other is not request:
                self.met[difference.name] += 1
            if other is None:
                return None
            request = other
        return request

    def _level(self) -> int:
        """
        Empty both servers and make their next cas uniques equal.

        @return: the last cas unique of both.
        """
        while True:
            uniques = []
            for control in self._control:
                control.sendall(b"flush_all\r\nverbosity 0\r\nset c 0 0 0\r\n\r\ngets c\r\ndelete c\r\n")
                answer = b""
                while not answer.endswith(b"DELETED\r\n"):
                    data = control.recv(4096)
                    if not data:
                        raise ConnectionError(f"a server has ended: {answer!r}")
                    answer += data
                match = re.search(rb"VALUE c 0 0 ([0-9]+)", answer)
                assert match is not None, answer
                uniques.append(int(match[1]))
            if uniques[0] == uniques[1]:
                return uniques[0]
            behind = uniques.index(min(uniques))
            missing = min(abs(uniques[0] - uniques[1]), 1000)
            self._control[behind].sendall(b"set c 0 0 0 noreply\r\n\r\n" * missing)


def _smaller(case: Case) -> Iterator[Case]:
    requests = case.requests
    if not case.whole:
        yield replace(case, whole=True)
    if case.proxy:
        yield replace(case, proxy=0)
    size = len(requests) // 2
    while size:
        for start in range(0, len(requests), size):
            rest = requests[:start] + requests[start + size :]
            if rest:
                yield replace(case, requests=rest)
        size //= 2
    if case.binary:
        return  # a packet without some of its bytes is another one
    for place, request in enumerate(requests):
        parts = re.split(rb"(?<=[ \n])", request)
        smaller = [b"".join(parts[:part] + parts[part + 1 :]) for part in range(len(parts))]
        if len(request) < 40:
            smaller += [request[:at] + request[at + 1 :] for at in range(len(request))]
        for each in smaller:
            if each and each != request:
                yield replace(case, requests=[*requests[:place], each, *requests[place + 1 :]])


def main() -> int:
    """
    Run the fuzzer from the command line.

    @return: the exit status.
    """
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6)
    _log.info("seed %s", seed)
    newest = NEWEST_DIFFERENCES if NEWEST else DIFFERENCES
    with Fuzzer(newest, NewestMemcached if NEWEST else Memcached) as fuzzer:
        found = fuzzer.run(seconds, seed, most=10)
        for mismatch in found:
            _log.error("\nSHRUNK\n%s", mismatch)
        _log.info("%d cases, %d unsteady, differences: %s", fuzzer.cases, fuzzer.unsteady, dict(fuzzer.met))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
