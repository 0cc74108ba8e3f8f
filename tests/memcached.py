# -*- test-case-name: tests.proxy -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A fake memcached for tests of the proxy. Each reply follows from its request alone, so a test knows what each client
must receive. It parses requests independently of L{txconnpool.wire.memcache}, and the test decides when the replies
arrive.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.task import Clock

from tests.pipes import Endpoint, Pipe


def value(key: bytes) -> bytes:
    """
    The value of a key in all servers. No two keys have the same one, and it is full of bytes that look like the
    protocol.
    """
    noise = b"%s\r\nEND\r\nVALUE %s 0 3\r\n" % (key, key)
    size = 20000 if key.startswith(b"large") else len(key)
    if not key.startswith((b"large", b"short")):
        size += sum(key) * 7 % 1000
    return (noise * (1 + size // len(noise)))[:size]


_REQUEST = re.compile(
    rb"(?P<word>get|gets|gat|version|flush_all|verbosity|delete|incr|touch|mg|mn|md|lru_crawler|stats)"
    rb"(?: (?P<words>[^\r\n]*))?\r\n"
    rb"|(?P<store>set|add|append|cas|ms) (?P<key>\S+) (?:[0-9]+ -?[0-9]+ )?(?P<size>[0-9]+)(?: [^\r\n]*)?\r\n"
)


def answer(data: bytes) -> tuple[bytes, int]:
    """
    Answer the first request.

    @param data: the bytes received by the server.

    @return: the reply and the length of the request; C{(b"", 0)} while the request is incomplete.
    """
    match = _REQUEST.match(data)
    if match is None:
        assert b"\n" not in data, data[:80]
        return b"", 0
    end = match.end()
    if match["store"]:
        end += int(match["size"]) + 2
        assert data[end - 2 : end] in (b"\r\n", b"\r", b""), data[:80]
        return (b"HD\r\n" if match["store"] == b"ms" else b"STORED\r\n", end) if end <= len(data) else (b"", 0)
    return _answer(match["word"], (match["words"] or b"").split(b" ")), end


def _answer(word: bytes, words: list[bytes]) -> bytes:
    if word in (b"get", b"gets", b"gat"):
        words = [each for each in words if each][word == b"gat" :]
        unique = b" 7" if word == b"gets" else b""
        hits = [(key, value(key)) for key in words if not key.startswith(b"miss")]
        lines = [b"VALUE %s 0 %d%s\r\n%s\r\n" % (key, len(data), unique, data) for key, data in hits]
        return b"".join(lines) + b"END\r\n"
    if word == b"mg":
        if words[0].startswith(b"miss"):
            return b"EN\r\n"
        return b"VA %d\r\n%s\r\n" % (len(value(words[0])), value(words[0])) if b"v" in words else b"HD\r\n"
    found = not words[0].startswith(b"miss")
    return {
        b"version": b"VERSION 1.6.18\r\n",
        b"flush_all": b"OK\r\n",
        b"verbosity": b"OK\r\n",
        b"mn": b"MN\r\n",
        b"lru_crawler": b"",  # the test sends the reply
        b"stats": b"",
        b"delete": b"DELETED\r\n" if found else b"NOT_FOUND\r\n",
        b"touch": b"TOUCHED\r\n" if found else b"NOT_FOUND\r\n",
        b"md": b"HD\r\n" if found else b"NF\r\n",
        b"incr": b"%d\r\n" % sum(words[0]) if found else b"NOT_FOUND\r\n",
    }[word]


class Line(Pipe):
    """
    A connection to a server, seen from the server.

    @ivar asked: all requests except the handshake.
    @ivar owed: the replies that have not been sent.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.asked: list[bytes] = []
        self.owed = b""
        self._unparsed = b""

    def look(self) -> None:
        """
        Parse the received requests and prepare their replies.
        """
        self._unparsed += self.take()
        while self._unparsed:
            reply, size = answer(self._unparsed)
            if not size:
                return
            self.asked.append(self._unparsed[:size])
            self._unparsed = self._unparsed[size:]
            self.owed += reply

    def deliver(self, size: int | None = None) -> bool:
        """
        Send replies.

        @param size: the maximum number of bytes; C{None}: all.

        @return: whether there was anything to send.
        """
        self.look()
        if not (self.owed and self.connected and self.reading):
            return False
        data = self.owed[:size]
        self.owed = self.owed[len(data) :]
        self.send(data)
        return True


class QueuedLine(Line):
    """
    A connection to a server that sends what is written at the end of the turn of the reactor, which is here when the
    server looks at it.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._pending: list[bytes] = []

    @property
    def queued(self) -> bool:
        """
        Whether bytes were written that are not sent.
        """
        return bool(self._pending)

    def announce(self) -> None:
        """
        Do nothing.
        """

    def write(self, data: bytes) -> None:
        self._pending.append(data)

    def take(self) -> bytes:
        """
        Send what is written.

        @return: as for all pipes.
        """
        pending, self._pending = self._pending, []
        for data in pending:
            super().write(data)
        return super().take()


class Upstream(Endpoint[Line]):
    """
    A memcached.

    @ivar greets: whether it answers the handshake.
    """

    kind = Line
    greets = True

    def _connected(self, factory: Any) -> Any:
        protocol = super()._connected(factory)
        if self.greets:
            # As on a real network the greeting comes when the dial is done.
            self.clock.callLater(0, self._greet, self.lines[-1])
        return protocol

    def _greet(self, line: Line) -> None:
        assert line.take() == b"version\r\n"
        if line.connected:
            line.send(b"VERSION 1.6.18\r\n")
