# Copyright txconnpool contributors. See LICENSE.
"""
A client's side of a session without I/O, for tests of L{RequestReader<txconnpool.wire.redis.requestreader>}.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from txconnpool.wire import (
    ADMIT,
    ANSWER,
    CLIENTS,
    CLOSE,
    FLAVOUR,
    LEARN,
    MORE,
    PIN,
    REPLACE,
    REPORT,
    SPREAD,
    TOPICS,
    ClientFacts,
)
from txconnpool.wire.redis.dialect import Redis
from txconnpool.wire.redis.framing import encode, wordsOf


def request(text: str) -> bytes:
    """
    @param text: words, separated by spaces.

    @return: the request with these words.
    """
    return encode(text.encode("latin-1").split(b" "))


class Reading:
    """
    Does what a session does with the frames of a reader, and records it.

    @ivar others: what the session knows of other clients.
    @ivar description: what the server says about a command; C{None}: there is no server.
    @ivar lookups: what the server was asked about commands.
    @ivar report: the server's reply to a request to which the proxy adds something.
    @ivar events: for each frame a text, as C{"> get k"} for a request that is forwarded on a shared connection, C{">>
        get k"} on one of the client's own, C{"+ a b"} for channels from which it gets messages and C{"- a b"} for those
        from which it gets no more, C{"< +OK"} for an answer, or the name of the action.
    """

    def __init__(self, dialect: Any = None, check: Any = None, others: Sequence[ClientFacts] = ()) -> None:
        self.dialect = dialect or Redis()
        self.others = others
        self.description: bytes | None = b"*1\r\n*-1\r\n"
        self.lookups: list[str] = []
        self.report = b"$10\r\n# Server\r\n\r\n"
        self.reader = self.dialect.requestReader() if check is None else self.dialect.loginReader(check)
        self.events: list[str] = []
        self.closed = False
        self._data = b""

    def feed(self, *pieces: bytes) -> list[str]:
        """
        Receive bytes.

        @return: the events since the last call.
        """
        for piece in pieces:
            self._data += piece
            while self._data and not self.closed and self._next():
                pass
        events, self.events = self.events, []
        return events

    def ask(self, *texts: str) -> list[str]:
        """
        Receive requests, each with words that are separated by spaces.
        """
        return self.feed(*map(request, texts))

    def _next(self) -> bool:
        data, reader = self._data, self.reader
        what, end, count, payload = reader.read(data, 0, 1)
        if what is MORE:
            return False
        if what is PIN:
            self.events.append("PIN")
            for _, sent, _ in reader.opening():
                self.events.append(f">> {b' '.join(wordsOf(sent, 0)).decode()} (first)")
            reader.pinned = True
            return True
        self._data = data[end:]
        if what is CLOSE:
            self.events.append(f"CLOSE {_short(payload)}")
            self.closed = True
        elif what in (ANSWER, ADMIT):
            self.events.append(("< " if what is ANSWER else "ADMIT ") + _short(payload))
        elif what is SPREAD:
            _, sent, index = payload
            where = "*" if index is None else index
            self.events.append(f"> {where}: {b' '.join(wordsOf(sent, 0)).decode('latin-1')}")
        elif what is TOPICS:
            names = " ".join(topic.name.decode("latin-1") for topic in payload.topics)
            self.events.append(f"{'+' if payload.adds else '-'} {names}")
            if reply := payload.confirmed():
                self.events.append(f"< {_short(reply)}")
        elif what is FLAVOUR:
            flavour, reply = payload
            reader.switched(flavour)
            self.events.append(f"FLAVOUR {flavour} {_short(reply)}")
        elif what is LEARN:
            _, sent, learn, failed = payload
            self.lookups.append(b" ".join(wordsOf(sent, 0)).decode())
            if self.description is None:
                failed(b"-ERR no server\r\n")
            else:
                learn(self.description)
        elif what is REPORT:
            _, sent, join = payload
            self.events.append("REPORT" if sent is None else f"REPORT {b' '.join(wordsOf(sent, 0)).decode()}")
            self.events.append(f"< {_short(join(None if sent is None else self.report, [('hits', 7)]))}")
        elif what is CLIENTS:
            mine = factsOf(self.reader, "127.0.0.1:1")
            reply, closed = payload(mine, [mine, *self.others])
            self.events.append(f"< {_short(reply)}")
            self.events += [f"CLOSE {each.reader.id}" for each in closed]
        elif what is REPLACE:
            command, sent, reply = payload
            self._forward(command, sent)
            self.events.append(f"< {_short(reply)}")
        else:
            assert count == 1, what
            self._forward(what, data[:end] if payload is None else payload)
        return True

    def _forward(self, command: Any, sent: bytes) -> None:
        words = b" ".join(wordsOf(sent, 0)).decode("latin-1")
        silent = " (silent)" if command.silent else ""
        self.events.append(f"{'>>' if self.reader.pinned else '>'} {words}{silent}")
        if self.reader.pinned:
            self.reader.forwarded(command)


def factsOf(reader: Any, peer: str, **other: Any) -> ClientFacts:
    """
    @return: what a session knows of a client at an address.
    """
    known = {"visible": True, "age": 1.9, "kept": 0, "unread": 0, "blocked": False, "ending": False}
    return ClientFacts(reader=reader, peer=peer, here="127.0.0.1:6380", **{**known, **other})


def _short(reply: bytes) -> str:
    return reply.decode("latin-1").replace("\r\n", " ").strip()
