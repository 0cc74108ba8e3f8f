# -*- test-case-name: tests.wire.memcache.test_rules -*-
# Copyright txconnpool contributors. See LICENSE.
"""
What differs between versions of memcached in the check of requests.

1.6.40 has another parser than the versions before it (C{proto_parser.c} instead of C{proto_text.c}). It accepts more
requests, and has other errors for some that it rejects:

 - A NUL is part of a key. Before, it ended the line.
 - Further words at the end of a line are ignored, and so are those after C{noreply}. Before, they were an error.
 - A line without enough words is a bad command line. Before, it was an unknown command.
 - A command may not have spaces before it.
 - A meta command may have one more flag, and of the token of the flag C{M} only the first character counts.

The rules of 1.6.40 are used only if all servers of a pool have it. Otherwise one of them may execute a request that it
does not understand, or the data block of one, in another way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

#: The first version with the other parser.
PARSER_VERSION: Final = (1, 6, 40)

#: The maximum length of a key, in bytes (C{memcached.h}, C{KEY_MAX_LENGTH}).
KEY_MAX: Final = 250

ERROR: Final = b"ERROR\r\n"
BAD_LINE: Final = b"CLIENT_ERROR bad command line format\r\n"


class Rules(NamedTuple):
    """
    The rules of some versions.

    @ivar modern: whether they are those of 1.6.40 and later.
    @ivar incomplete: the error for a line without enough words.
    @ivar flagsMax: the maximum number of words of a meta command, including the command.
    """

    modern: bool
    incomplete: bytes
    flagsMax: int

    def badKey(self, key: bytes) -> bool:
        """
        @return: whether memcached rejects the key.
        """
        return len(key) > KEY_MAX or (0 in key and not self.modern)


#: The rules before 1.6.40. They count one more word, for the end of the line, and stop at 20.
EARLIER: Final = Rules(False, ERROR, 19)

#: The rules since 1.6.40 (C{proto_parser.h}, C{MFLAG_MAX_OPT_LENGTH}).
MODERN: Final = Rules(True, BAD_LINE, 20)


def versionOf(text: bytes) -> tuple[int, ...]:
    """
    @return: the numbers of a version, for comparisons: C{(1, 6, 45)} for C{1.6.45-rc1}; empty for a text without
        numbers.
    """
    match = re.match(rb"([0-9]{1,9})(?:\.([0-9]{1,9}))?(?:\.([0-9]{1,9}))?", text)
    return tuple(int(part) for part in match.groups() if part is not None) if match else ()


def rulesOf(versions: Iterable[bytes]) -> Rules:
    """
    @param versions: the versions of the servers that are known.

    @return: the rules for requests to any of them.
    """
    known = list(versions)
    return MODERN if known and all(versionOf(version) >= PARSER_VERSION for version in known) else EARLIER
