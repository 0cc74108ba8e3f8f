# -*- test-case-name: tests.proxy.test_directory -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Replies to clients that ask about the clients of their pool, or close some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from txconnpool.wire import ClientFacts

#: The payload of a L{CLIENTS<txconnpool.wire.CLIENTS>}.
Answer: TypeAlias = Callable[[ClientFacts, Sequence[ClientFacts]], tuple[bytes, Sequence[ClientFacts]]]


def consult(session: Any, answer: Answer) -> Deferred[bytes]:
    """
    Make the reply to a client, and close clients. There may be thousands: this takes a turn of the reactor, so that a
    client with many such requests does not block others.

    @param session: the L{Session<txconnpool.proxy.session.Session>} of the client.

    @return: fires with the reply.
    """
    reply: Deferred[bytes] = deferLater(session.factory.reactor, 0, _consult, session, answer)
    return reply


def _consult(session: Any, answer: Answer) -> bytes:
    if session.gone:
        return b""
    found = {each.facts: each for each in session.factory.sessions if not each.gone}
    (mine,) = (facts for facts, each in found.items() if each is session)
    reply, closed = answer(mine, list(found))
    for facts in closed:
        if facts is mine:
            session.expel()
        elif not found[facts].gone:
            found[facts].drop()
    return reply
