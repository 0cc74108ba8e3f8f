# -*- test-case-name: tests.pool.test_reasons -*-
# Copyright txconnpool contributors. See LICENSE.
"""
The reasons for which a pool closes connections.
"""

from __future__ import annotations

from typing import Final

from txconnpool.metrics import Reason

#: There is no reason yet.
NONE: Final = Reason("other", "")

CLOSED: Final = Reason("closed", "the pool was closed")
TOO_OLD: Final = Reason("too_old", "too old")
IDLE: Final = Reason("idle", "idle for too long")
SURPLUS: Final = Reason("surplus", "the pool was made smaller, or has more servers")
SILENT: Final = Reason("silent", "the server does not answer")
NOT_READY: Final = Reason("not_ready", "the server is not ready")
OUTDATED: Final = Reason("outdated", "the server has another role than is needed")
REMOVED: Final = Reason("removed", "the server was removed")
DRAINED: Final = Reason("drained", "the server was drained")
EXPIRED: Final = Reason("expired", "expired")
CHECK_FAILED: Final = Reason("check_failed", "the check failed")
CLIENT_GONE: Final = Reason("client_gone", "the client is gone")
TIMEOUT: Final = Reason("timeout", "no answer in time")
CANCELLED: Final = Reason("cancelled", "no answer to a cancelled request")
GIVEN_BACK: Final = Reason("given_back", "given back to be closed")
RESET_FAILED: Final = Reason("reset_failed", "the reset failed")
LEFT_IN_USE: Final = Reason("left_in_use", "its client left it in use")
ENDED: Final = Reason("ended", "its client or its server has ended it")
NOT_FREE: Final = Reason("not_free", "the client does not become free")
