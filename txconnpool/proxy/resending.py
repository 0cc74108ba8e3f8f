# -*- test-case-name: tests.proxy.test_resending -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Requests of a session that a server L{has declined<txconnpool.wire.Declined>}, and that are sent once more.

Later requests of the session may be on their way to the server. It may decline these too, or execute them. A request
that was declined is sent again only if the server has executed none of the later ones, so that a session's requests
are executed in their order.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from txconnpool.errors import PoolError
from txconnpool.interfaces import IResendingSink
from txconnpool.proxy.replies import ForwardedReplies, RetriedRequest


class ResentRequest(RetriedRequest):
    """
    A request that was declined, when it is sent again.
    """

    __slots__ = ("_reply",)

    def __init__(self, session: Any, command: Any, request: bytes, reply: bytes) -> None:
        """
        @param reply: the reply of the server that has declined it.
        """
        super().__init__(session, command, 1, request)
        self._reply = reply

    def refuse(self, error: PoolError) -> None:
        """
        Write what the server has replied, because there is no other one.
        """
        self._count = 0
        self.left = 0
        self.take(self._reply)


@implementer(IResendingSink)
class DeclinedRequests(ForwardedReplies):
    """
    A request that was declined, and all later requests in flight on its connection. When all of them have replies, they
    are sent again if all were declined; otherwise the client gets the replies.
    """

    __slots__ = ("_declined", "_executed", "command", "request")

    #: The session sends nothing for this entry: it is replaced by others.
    ready = False

    def __init__(self, session: Any, command: Any, request: bytes) -> None:
        """
        @param command: the command of the first request, which is declined next.
        """
        super().__init__(session)
        self.command = command
        self.request = request
        self._declined: list[tuple[Any, bytes, bytes]] = []
        self._executed = False  # whether a later request was executed, or may have been

    @property
    def unsent(self) -> bool:
        """
        Whether later requests wait.
        """
        return self.left > 0

    def refuse(self, error: PoolError) -> None:
        """
        Do nothing: the replies to these requests are due.
        """

    def declined(self, connection: Any, sent: Any, reply: bytes) -> bool:
        """
        Keep a request and its reply, until all replies are known.
        """
        _, command, _, _, request = sent
        if self._executed or not request:
            return False
        self._declined.append((command, request, reply))
        self.session.settle(1)
        if len(self._declined) == self.left:
            self.left = 0
            again, self._declined = self._declined, []
            self.session.replace(self, [ResentRequest(self.session, *each) for each in again])
            self.session.answered(0)
        return True

    def replied(self, data: bytes, done: int) -> None:
        """
        Take bytes of the reply to a request that was executed.
        """
        self._keepOrder()
        super().replied(data, done)

    def requestsLost(self, requests: list[Any], begun: bool, error: PoolError) -> None:
        """
        Handle the loss of the connection: the server may have executed the other requests.
        """
        self._keepOrder()
        super().requestsLost(requests, begun, error)

    def _keepOrder(self) -> None:
        """
        Write the replies to the requests that were declined, because a later one may have been executed.
        """
        self._executed = True
        declined, self._declined = self._declined, []
        self.left -= len(declined)
        for _, _, reply in declined:
            self.take(reply)

    def discard(self) -> None:
        """
        Drop everything, because the client is gone.
        """
        super().discard()
        self._executed = True
        self._declined = []
