# -*- test-case-name: tests.wire.memcache.test_exchanges -*-
# Copyright txconnpool contributors. See LICENSE.
"""
A table of exchanges with memcached: the bytes that the client sends, those that the server receives, those that the
server sends, and those that the client receives. Each exchange is also tested with the bytes split at every position,
and byte by byte.

C{tests.real.test_wire_memcache} tests the table with a real memcached.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from txconnpool.errors import WireError
from txconnpool.wire import ANSWER, BROADCAST, CLOSE, MORE, REPLACE, SPLIT, STATISTICS, SWITCH
from txconnpool.wire.memcache.dialect import Memcache
from txconnpool.wire.memcache.matching import MemcacheCommand as Command
from txconnpool.wire.memcache.matching import matchReplies

#: The maximum size of a value in the table. It is small, so that values that are too large are small too.
LIMIT = 100

KEY = b"k" * 250
TOO_LONG = b"k" * 251
BIG = b"x" * (LIMIT + 1)

BAD_LINE = b"CLIENT_ERROR bad command line format\r\n"
BAD_CHUNK = b"CLIENT_ERROR bad data chunk\r\n"
BAD_EXPTIME = b"CLIENT_ERROR invalid exptime argument\r\n"
BAD_DELTA = b"CLIENT_ERROR invalid numeric delta argument\r\n"
BAD_DELETE = b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"
BAD_FLAGS = b"CLIENT_ERROR invalid or duplicate flag\r\n"
BAD_TOKEN = b"CLIENT_ERROR bad token in command line format\r\n"
BAD_OPAQUE = b"CLIENT_ERROR opaque token too long\r\n"
BAD_BASE64 = b"CLIENT_ERROR error decoding key\r\n"
DUPLICATE = b"CLIENT_ERROR duplicate flag\r\n"
INVALID = b"CLIENT_ERROR invalid flag\r\n"
NOT_A_NUMBER = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
TOO_LARGE = b"SERVER_ERROR object too large for cache\r\n"
ERROR = b"ERROR\r\n"
HIT = b"VALUE a 5 3\r\nabc\r\nEND\r\n"

#: Reasons why the reply of memcached 1.6.18 is different from that of the dialect.
LATER = "1.6.40 answers once and swallows the data block"
STRICT = "1.6.18 ends the line at a NUL"
VIVID = "1.6.18 hides the answer of ma with q only if the item was there"
OURS = "not a command for a shared connection"


class Exchange(NamedTuple):
    """
    A row of the table.

    @ivar client: the bytes that the client sends.
    @ivar forwarded: the bytes that the server receives; C{None} for the same.
    @ivar server: the bytes that the server sends.
    @ivar answer: the bytes that the client receives; C{None} for the same.
    @ivar closes: whether the client's connection is closed after this.
    @ivar differs: the reason why the reply of memcached 1.6.18 is different.
    """

    client: bytes
    forwarded: bytes | None = None
    server: bytes = b""
    answer: bytes | None = None
    closes: bool = False
    differs: str = ""


def passed(client: bytes, server: bytes, forwarded: bytes | None = None, differs: str = "") -> Exchange:
    """
    @return: a row in which the client receives the bytes of the server.
    """
    return Exchange(client, forwarded, server, None, False, differs)


def hidden(client: bytes, forwarded: bytes, server: bytes, answer: bytes = b"", differs: str = "") -> Exchange:
    """
    @return: a row in which the reply of the server is hidden from the client.
    """
    return Exchange(client, forwarded, server, answer, False, differs)


def local(client: bytes, answer: bytes, differs: str = "") -> Exchange:
    """
    @return: a row in which the server receives nothing.
    """
    return Exchange(client, b"", b"", answer, False, differs)


def closed(
    client: bytes, answer: bytes = b"", forwarded: bytes = b"", server: bytes = b"", differs: str = ""
) -> Exchange:
    """
    @return: a row after which the connection of the client is closed.
    """
    return Exchange(client, forwarded, server, answer, True, differs)


RETRIEVAL = [
    passed(b"get a\r\n", HIT),
    passed(b"get a\n", HIT, b"get a\r\n"),
    passed(b"get z\r\n", b"END\r\n"),
    passed(b" get a\r\n", HIT, b"get a\r\n"),
    passed(b"   get  a \r\n", HIT, b"get a\r\n"),
    passed(b"get  a  n \r\n", b"VALUE a 5 3\r\nabc\r\nVALUE n 0 2\r\n10\r\nEND\r\n"),
    passed(b"get a n z\r\n", b"VALUE a 5 3\r\nabc\r\nVALUE n 0 2\r\n10\r\nEND\r\n"),
    passed(b"get a n z\n", b"VALUE a 5 3\r\nabc\r\nVALUE n 0 2\r\n10\r\nEND\r\n", b"get a n z\r\n"),
    passed(b"get z\r\nget z\nget z\r\nget z\n", b"END\r\n" * 4, b"get z\r\n" * 4),
    passed(b"get " + KEY + b"\r\n", b"END\r\n"),
    passed(b"get " + KEY + b" " + KEY + b"\r\n", b"END\r\n"),
    passed(b"get \xc3\xa9\r\n", b"END\r\n"),
    passed(b"get a\tb\r\n", b"END\r\n"),
    passed(b"get a\rb\r\n", b"END\r\n"),
    passed(b"get a\r\r\n", b"END\r\n"),
    passed(b"get noreply\r\n", b"END\r\n"),
    passed(b"get / HTTP/1.1\r\n", b"END\r\n"),
    passed(b"get END\r\n", b"END\r\n"),
    passed(b"get VALUE\r\n", b"END\r\n"),
    passed(b"gets z\r\n", b"END\r\n"),
    passed(b"gets z y\r\n", b"END\r\n"),
    passed(b"gat 0 a\r\n", HIT),
    passed(b"gat 0 a n\n", b"VALUE a 5 3\r\nabc\r\nVALUE n 0 2\r\n10\r\nEND\r\n", b"gat 0 a n\r\n"),
    passed(b"gat -1 z\r\n", b"END\r\n"),
    passed(b"gats 2147483647 z\r\n", b"END\r\n"),
    local(b"get\r\n", ERROR),
    local(b"get \r\n", ERROR),
    local(b"get    \r\n", ERROR),
    local(b"gets\r\n", ERROR),
    local(b"gat\r\n", ERROR),
    local(b"gat 0\r\n", b"END\r\n"),
    local(b"gat x a\r\n", BAD_EXPTIME),
    passed(b"gat +5 a\r\n", HIT),
    passed(b"gat \t+05\tx a\r\n", HIT),
    passed(b"gat 9999999999 a\r\n", HIT),
    passed(b"gat 4294967295 a\r\nget a\r\n", HIT + b"END\r\n"),
    passed(b"gats 2147483648 z\r\n", b"END\r\n"),
    local(b"gat 9223372036854775808 a\r\n", BAD_EXPTIME),
    local(b"gat 5x a\r\n", BAD_EXPTIME),
    local(b"gat 5\t\0 a\r\n", BAD_EXPTIME, STRICT),
    local(b"get " + TOO_LONG + b"\r\n", BAD_LINE),
    local(b"get a " + TOO_LONG + b"\r\n", BAD_LINE),
    local(b"get a " + TOO_LONG + b" b\n", BAD_LINE),
    local(b"gat 0 a " + TOO_LONG + b"\r\n", BAD_LINE),
    local(b"get a\0b\r\n", BAD_LINE, STRICT),
    local(b"get abc\0 d\r\n", BAD_LINE, STRICT),
]

STORAGE = [
    passed(b"set b 0 0 3\r\nabc\r\n", b"STORED\r\n"),
    passed(b"set b 0 0 3\r\nabc\r\nget b\r\n", b"STORED\r\nVALUE b 0 3\r\nabc\r\nEND\r\n"),
    passed(b"set b 0 0 0\r\n\r\n", b"STORED\r\n"),
    passed(b"set b 0 0 4\r\n\r\n\r\n\r\nget b\r\n", b"STORED\r\nVALUE b 0 4\r\n\r\n\r\n\r\nEND\r\n"),
    passed(b"set b 0 0 9\r\nget a\r\n12\r\n", b"STORED\r\n"),
    passed(b"set b 4294967295 2147483647 3\r\nabc\r\n", b"STORED\r\n"),
    passed(b"set b 0 1999999999 3\r\nabc\r\n", b"STORED\r\n"),
    passed(b"set b 0 -1 3\r\nabc\r\n", b"STORED\r\n"),
    passed(b"set b 0 -2147483648 3\r\nabc\r\n", b"STORED\r\n"),
    passed(b"set b 0 0 3\nabc\r\n", b"STORED\r\n", b"set b 0 0 3\r\nabc\r\n"),
    passed(b" set  b 0  0 3 \r\nabc\r\n", b"STORED\r\n", b"set b 0 0 3\r\nabc\r\n"),
    passed(b"set b 0 0 0003\r\nabc\r\n", b"STORED\r\n", b"set b 0 0 3\r\nabc\r\n"),
    passed(b"set b 0 0 3 foo\r\nabc\r\n", b"STORED\r\n", b"set b 0 0 3\r\nabc\r\n"),
    passed(b"set b 0 0 3 foo bar\r\nabc\r\n", b"STORED\r\n", b"set b 0 0 3\r\nabc\r\n", LATER),
    passed(b"set " + KEY + b" 0 0 1\r\nx\r\n", b"STORED\r\n"),
    passed(b"set b 0 0 100\r\n" + BIG[:100] + b"\r\n", b"STORED\r\n"),
    # Numbers in a request with a data block are written in the form that all versions accept.
    passed(b"set b 0 4294967295 1\r\nx\r\nget b\r\n", b"STORED\r\nEND\r\n", b"set b 0 -1 1\r\nx\r\nget b\r\n"),
    passed(b"set b 0 2147483648 3\r\nabc\r\n", b"STORED\r\n", b"set b 0 -2147483648 3\r\nabc\r\n"),
    passed(b"set b +1 \t+60 +3\r\nabc\r\n", b"STORED\r\n", b"set b 1 60 3\r\nabc\r\n"),
    passed(b"set b 007 060\tx 3\t\r\nabc\r\n", b"STORED\r\n", b"set b 007 60 3\r\nabc\r\n"),
    passed(b"set b -0 -0 -0\r\n\r\n", b"STORED\r\n", b"set b 0 0 0\r\n\r\n"),
    passed(b"set b 4294967297 0 4294967299\r\nabc\r\n", b"STORED\r\n", b"set b 1 0 3\r\nabc\r\n"),
    passed(b"cas a 0 0 1 -18446744073709551615\r\nx\r\n", b"EXISTS\r\n", b"cas a 0 0 1 1\r\nx\r\n"),
    passed(b"add a 0 0 1\r\nx\r\n", b"NOT_STORED\r\n"),
    passed(b"add z 0 0 1\r\nx\r\n", b"STORED\r\n"),
    passed(b"replace a 0 0 1\r\nx\r\n", b"STORED\r\n"),
    passed(b"replace z 0 0 1\r\nx\r\n", b"NOT_STORED\r\n"),
    passed(b"append a 0 0 1\r\nx\r\n", b"STORED\r\n"),
    passed(b"append z 0 0 1\r\nx\r\n", b"NOT_STORED\r\n"),
    passed(b"prepend a 0 0 1\r\nx\r\n", b"STORED\r\n"),
    passed(b"prepend z 0 0 1\r\nx\r\n", b"NOT_STORED\r\n"),
    passed(b"cas a 0 0 1 999999\r\nx\r\n", b"EXISTS\r\n"),
    passed(b"cas z 0 0 1 18446744073709551615\r\nx\r\n", b"NOT_FOUND\r\n"),
    passed(b"cas z 0 0 1 9 foo\r\nx\r\n", b"NOT_FOUND\r\n", b"cas z 0 0 1 9\r\nx\r\n"),
    hidden(b"set b 0 0 3 noreply\r\nabc\r\n", b"set b 0 0 3\r\nabc\r\n", b"STORED\r\n"),
    hidden(b"set b 0 0 3 noreply\nabc\r\n", b"set b 0 0 3\r\nabc\r\n", b"STORED\r\n"),
    hidden(b"add a 0 0 3 noreply\r\nabc\r\n", b"add a 0 0 3\r\nabc\r\n", b"NOT_STORED\r\n"),
    hidden(b"replace z 0 0 3 noreply\r\nabc\r\n", b"replace z 0 0 3\r\nabc\r\n", b"NOT_STORED\r\n"),
    hidden(b"append z 0 0 3 noreply\r\nabc\r\n", b"append z 0 0 3\r\nabc\r\n", b"NOT_STORED\r\n"),
    hidden(b"prepend z 0 0 3 noreply\r\nabc\r\n", b"prepend z 0 0 3\r\nabc\r\n", b"NOT_STORED\r\n"),
    hidden(b"cas z 0 0 3 1 noreply\r\nabc\r\n", b"cas z 0 0 3 1\r\nabc\r\n", b"NOT_FOUND\r\n"),
    hidden(
        b"set b 0 0 1 noreply\r\nx\r\nget b\r\n",
        b"set b 0 0 1\r\nx\r\nget b\r\n",
        b"STORED\r\nVALUE b 0 1\r\nx\r\nEND\r\n",
        b"VALUE b 0 1\r\nx\r\nEND\r\n",
    ),
    # The line is invalid, but its length is valid.
    local(b"set b x 0 3\r\nabc\r\n", BAD_LINE, LATER),
    local(b"set b -1 0 3\r\nabc\r\n", BAD_LINE, LATER),
    local(b"set b 0 x 3\r\nabc\r\n", BAD_LINE, LATER),
    local(b"set b 0 9223372036854775808 3\r\nabc\r\n", BAD_LINE, LATER),
    local(b"set b 0 x 3 noreply\r\nabc\r\n", b"", LATER),
    local(b"set " + TOO_LONG + b" 0 0 3\r\nabc\r\n", BAD_LINE, LATER),
    local(b"set " + TOO_LONG + b" 0 0 3 noreply\r\nabc\r\n", b"", LATER),
    local(b"set \0 0 0 3\r\nabc\r\n", BAD_LINE, LATER),
    local(b"cas a 0 0 1\r\nx\r\n", BAD_LINE, LATER),
    local(b"cas a 0 0 1 noreply\r\nx\r\n", b"", LATER),
    local(b"cas a 0 0 1 -1\r\nx\r\n", BAD_LINE, LATER),
    local(b"cas a 0 0 9 99999999999999999999999\r\nget a\r\n12\r\n", BAD_LINE, LATER),
    local(b"cas a 0 0 1 18446744073709551616\r\nx\r\n", BAD_LINE, LATER),
    # The length is invalid, so the data block is interpreted as commands.
    local(b"set b 0 0 x\r\nbogus\r\n", BAD_LINE + ERROR),
    local(b"set b 0 0 -1\r\nbogus\r\n", BAD_LINE + ERROR),
    local(b"set b 0 0 2147483646\r\nbogus\r\n", BAD_LINE + ERROR),
    local(b"set b 0 0 4294967296\r\nbogus\r\n", BAD_CHUNK + ERROR),
    local(b"set b 0 0 18446744073709551619\r\nabc\r\n", BAD_LINE + ERROR),
    local(b"set b 0 0 %s3\r\nabc\r\n" % (b"9" * 1900), BAD_LINE + ERROR),
    local(b"set b 0 0 noreply\r\nbogus\r\n", ERROR),
    local(b"set b 0 0\r\nbogus\r\n", BAD_LINE + ERROR, LATER),
    local(b"set\r\n", BAD_LINE, LATER),
    # The data block is invalid, so the bytes after its length are interpreted as commands.
    local(b"set b 0 0 3\r\nabcd\r\n", BAD_CHUNK + ERROR),
    local(b"set b 0 0 3\r\nabcdefbogus\r\n", BAD_CHUNK + ERROR),
    local(b"set b 0 0 3\r\nab\r\n\r\n", BAD_CHUNK + ERROR),
    local(b"set b 0 0 3\r\nabc\r!\r\n", BAD_CHUNK + ERROR),
    local(b"set b 0 0 3\r\nabc\n\n", BAD_CHUNK),
    local(b"set b 0 0 3 noreply\r\nabcd\r\n", ERROR),
    local(b"add b 0 0 3 noreply\r\nabc\r\r\n", ERROR),
]

#: As C{STORAGE}, but only with a limit of L{LIMIT}.
LARGE = [
    passed(b"set b 0 0 101\r\n" + BIG + b"\r\n", b"DELETED\r\n", b"delete b\r\n")._replace(answer=TOO_LARGE),
    passed(b"set b 0 0 101 noreply\r\n" + BIG + b"\r\n", b"NOT_FOUND\r\n", b"delete b\r\n")._replace(answer=b""),
    local(b"replace b 0 0 101\r\n" + BIG + b"\r\n", TOO_LARGE),
    local(b"ms YWI= 101 b\r\n" + BIG + b"\r\n", TOO_LARGE),
    local(b"set b x 0 101\r\n" + BIG + b"\r\n", BAD_LINE),
    passed(b"ms b 101 q\r\n" + BIG + b"\r\n", b"DELETED\r\n", b"delete b\r\n")._replace(answer=TOO_LARGE),
    passed(b"cas b 0 0 101 1\r\n" + BIG + b"\r\nget a\r\n", HIT, b"get a\r\n")._replace(answer=TOO_LARGE + HIT),
]

LINES = [
    passed(b"incr n 5\r\n", b"15\r\n"),
    passed(b"incr n 5\n", b"15\r\n", b"incr n 5\r\n"),
    passed(b"decr n 99\r\n", b"0\r\n"),
    passed(b"incr z 1\r\n", b"NOT_FOUND\r\n"),
    passed(b"incr a 1\r\n", NOT_A_NUMBER),
    passed(b"incr n 1 2\r\n", b"11\r\n", b"incr n 1\r\n"),
    passed(b"incr z 18446744073709551615\r\n", b"NOT_FOUND\r\n"),
    passed(b"incr n +5\r\n", b"15\r\n"),
    passed(b"incr n 0005\tx\r\n", b"15\r\n"),
    passed(b"incr n 5\r\r\n", b"15\r\n"),
    passed(b"incr n -18446744073709551615\r\n", b"11\r\n"),
    local(b"incr n 0x5\r\n", BAD_DELTA),
    local(b"incr n 1e3\r\n", BAD_DELTA),
    local(b"incr n +\r\n", BAD_DELTA),
    hidden(b"incr n 5 noreply\r\n", b"incr n 5\r\n", b"15\r\n"),
    hidden(b"decr a 5 noreply\r\n", b"decr a 5\r\n", NOT_A_NUMBER),
    local(b"incr n\r\n", ERROR),
    local(b"incr\r\n", ERROR),
    local(b"incr n 1 2 3\r\n", ERROR),
    local(b"incr n x\r\n", BAD_DELTA),
    local(b"incr n -1\r\n", BAD_DELTA),
    local(b"decr n 18446744073709551616\r\n", BAD_DELTA),
    local(b"incr n noreply\r\n", b""),
    local(b"incr " + TOO_LONG + b" x\r\n", BAD_LINE),
    passed(b"touch a 10\r\n", b"TOUCHED\r\n"),
    passed(b"touch a +10\r\n", b"TOUCHED\r\n"),
    passed(b"touch a 4294967295\r\nget a\r\n", b"TOUCHED\r\nEND\r\n"),
    hidden(b"touch a 9999999999 noreply\r\n", b"touch a 9999999999\r\n", b"TOUCHED\r\n"),
    passed(b"touch z -1\r\n", b"NOT_FOUND\r\n"),
    hidden(b"touch a 10 noreply\r\n", b"touch a 10\r\n", b"TOUCHED\r\n"),
    local(b"touch a\r\n", ERROR),
    local(b"touch a x\r\n", BAD_EXPTIME),
    local(b"touch a noreply\r\n", b""),
    local(b"touch a 1 2 3\r\n", ERROR),
    passed(b"delete a\r\n", b"DELETED\r\n"),
    passed(b"delete z\r\n", b"NOT_FOUND\r\n"),
    passed(b"delete noreply\r\n", b"NOT_FOUND\r\n", b"delete noreply 0\r\n"),
    passed(b"delete noreply\n", b"NOT_FOUND\r\n", b"delete noreply 0\r\n"),
    passed(b"delete a 0\r\n", b"DELETED\r\n", b"delete a\r\n"),
    hidden(b"delete a noreply\r\n", b"delete a\r\n", b"DELETED\r\n"),
    hidden(b"delete a 0 noreply\r\n", b"delete a\r\n", b"DELETED\r\n"),
    local(b"delete a 5\r\n", BAD_DELETE),
    local(b"delete a 5 noreply\r\n", b""),
    local(b"delete a noreply noreply\r\n", b""),
    local(b"delete\r\n", ERROR),
    local(b"delete a 0 noreply x\r\n", ERROR),
    local(b"delete " + TOO_LONG + b"\r\n", BAD_LINE),
    local(b"delete " + TOO_LONG + b" noreply\r\n", b""),
    passed(b"flush_all\r\n", b"OK\r\n"),
    passed(b"flush_all 0\r\n", b"OK\r\n"),
    passed(b"flush_all -1 x\r\n", b"OK\r\n", b"flush_all -1\r\n"),
    passed(b"flush_all 4294967295\r\nget a\r\n", b"OK\r\nEND\r\n"),
    passed(b"flush_all +0\r\n", b"OK\r\n"),
    hidden(b"flush_all noreply\r\n", b"flush_all\r\n", b"OK\r\n"),
    hidden(b"flush_all 0 noreply\r\n", b"flush_all 0\r\n", b"OK\r\n"),
    local(b"flush_all x\r\n", BAD_EXPTIME),
    local(b"flush_all x noreply\r\n", b""),
    local(b"flush_all 1 2 3\r\n", ERROR),
    passed(b"verbosity 0\r\n", b"OK\r\n"),
    passed(b"verbosity 4294967296\r\n", b"OK\r\n"),
    local(b"verbosity -1\r\n", BAD_LINE),
    passed(b"verbosity 0 x\r\n", b"OK\r\n", b"verbosity 0\r\n"),
    hidden(b"verbosity 0 noreply\r\n", b"verbosity 0\r\n", b"OK\r\n"),
    local(b"verbosity\r\n", ERROR),
    local(b"verbosity 1 2 3\r\n", ERROR),
    local(b"verbosity x\r\n", BAD_LINE),
    local(b"verbosity noreply\r\n", b""),
    passed(b"version\r\n", b"VERSION 1.6.18\r\n"),
    passed(b"version noreply\n", b"VERSION 1.6.18\r\n", b"version\r\n"),
]

META = [
    passed(b"mn\r\n", b"MN\r\n"),
    passed(b"mn foo\r\n", b"MN\r\n", b"mn\r\n"),
    passed(b"mg a\r\n", b"HD\r\n"),
    passed(b"mg a v\r\n", b"VA 3\r\nabc\r\n"),
    passed(b"mg a v\n", b"VA 3\r\nabc\r\n", b"mg a v\r\n"),
    passed(b"mg a t f v s k O123\r\n", b"VA 3 t-1 f5 s3 ka O123\r\nabc\r\n"),
    passed(b"mg a s v1 k2\r\n", b"VA 3 s3 ka\r\nabc\r\n"),
    passed(b"mg a T-1\r\n", b"HD\r\n"),
    passed(b"mg a P1 L2\r\n", b"HD\r\n"),
    passed(b"mg z v\r\n", b"EN\r\n"),
    passed(b"mg z v k Oab\r\n", b"EN kz Oab\r\n"),
    passed(b"mg Zm9v b k v\r\n", b"EN kZm9v b\r\n"),
    passed(b"mg Zm9v! b k v\r\n", b"EN kZm9v b\r\n"),
    passed(b"mg " + KEY + b"\r\n", b"EN\r\n"),
    passed(b"mg z\r k\r\n", b"EN kz\r\r\n"),
    passed(b"mg z O\r\r\n", b"EN O\r\r\n"),
    passed(b"ms a\r 2 O\r k\r\nhi\r\n", b"HD O\r ka\r\r\n"),
    passed(b"mg a O" + KEY[:31] + b"\r\n", b"HD O" + KEY[:31] + b"\r\n"),
    passed(b"mg a x\r\n", INVALID),
    passed(b"mg a E5\r\n", INVALID),
    hidden(b"mg z q v\r\nmn\r\n", b"mg z v\r\nmn\r\n", b"EN\r\nMN\r\n", b"MN\r\n"),
    hidden(b"mg z k q O1\r\nmn\r\n", b"mg z k O1\r\nmn\r\n", b"EN kz O1\r\nMN\r\n", b"MN\r\n"),
    hidden(b"mg a q v\r\nmn\r\n", b"mg a v\r\nmn\r\n", b"VA 3\r\nabc\r\nMN\r\n", b"VA 3\r\nabc\r\nMN\r\n"),
    hidden(b"mg a q\r\nmn\r\n", b"mg a\r\nmn\r\n", b"HD\r\nMN\r\n", b"HD\r\nMN\r\n"),
    hidden(b"mg quiet q\r\nmn\r\n", b"mg quiet\r\nmn\r\n", b"EN\r\nMN\r\n", b"MN\r\n"),
    hidden(b"mg a q x\r\n", b"mg a x\r\n", INVALID, INVALID),
    local(b"mg\r\n", ERROR),
    local(b"mg " + TOO_LONG + b"\r\n", BAD_LINE),
    local(b"mg a v v\r\n", DUPLICATE),
    local(b"mg a v v2 q\r\n", DUPLICATE),
    local(b"mg a ? ?\r\n", INVALID),
    local(b"mg a v ? v q\r\n", INVALID),
    local(b"mg a \x7f\r\n", DUPLICATE),
    local(b"mg a \xc3\xa9\r\n", DUPLICATE),
    local(b"mg a O" + KEY[:32] + b"\r\n", BAD_OPAQUE),
    local(b"mg z O" + KEY[:32] + b" q\r\n", BAD_OPAQUE),
    local(b"mg a O" + KEY[:32] + b" ?\r\n", INVALID),
    local(b"mg a O\0x v\r\n", INVALID, STRICT),
    local(b"mg Zm9v b\0 v\r\n", INVALID, STRICT),
    local(b"mg a M\0 v\r\n", INVALID, STRICT),
    local(b"mg a T\r\n", BAD_TOKEN),
    local(b"mg a Tx\r\n", BAD_TOKEN),
    passed(b"mg a N3000000000 R+5 T4294967295\r\nmg a\r\n", b"HD\r\nEN\r\n"),
    local(b"mg a N9223372036854775808\r\n", BAD_TOKEN),
    local(b"mg a T5\t\0\r\n", BAD_TOKEN, STRICT),
    passed(b"ma n D+5 v\r\n", b"VA 2\r\n15\r\n"),
    passed(b"ma z N+60 J0099 v\r\n", b"VA 2\r\n99\r\n"),
    passed(
        b"ms a 4294967299 T4294967295 F+7 C00000000000018446744073709551615\r\nabc\r\n",
        b"EX\r\n",
        b"ms a 3 T-1 F7 C18446744073709551615\r\nabc\r\n",
    ),
    local(b"mg a R1x\r\n", BAD_TOKEN),
    local(b"mg a Cx\r\n", BAD_TOKEN),
    local(b"mg a Tx ?\r\n", INVALID),
    local(b"mg a Fx\r\n", BAD_LINE),
    local(b"mg a Tx Fx\r\n", BAD_TOKEN),
    local(b"mg a Mxx\r\n", b"CLIENT_ERROR incorrect length for M token\r\n"),
    local(b"mg a Jx\r\n", b"CLIENT_ERROR invalid numeric initial value\r\n"),
    local(b"mg a Jx Dx\r\n", b"CLIENT_ERROR invalid numeric delta value\r\n"),
    local(b"mg Zm9 b\r\n", BAD_BASE64),
    local(b"mg ! b\r\n", BAD_BASE64),
    local(b"mg " + b"Z" * 251 + b" b\r\n", BAD_LINE),
    local(b"mg a N1 T1 R1 l O1 P L k s t c f v h u q F1 C1\r\n", b"CLIENT_ERROR options flags are too long\r\n"),
    passed(b"ms a 2\r\nhi\r\n", b"HD\r\n"),
    passed(b"ms a 0\r\n\r\n", b"HD\r\n"),
    passed(b"ms a 02 T0 F4294967295 I k O9\r\nhi\r\n", b"HD ka O9\r\n", b"ms a 2 T0 F4294967295 I k O9\r\nhi\r\n"),
    passed(b"ms a 2\nhi\r\n", b"HD\r\n", b"ms a 2\r\nhi\r\n"),
    passed(b"ms a 2 ME\r\nhi\r\n", b"NS\r\n"),
    passed(b"ms a 2 C9\r\nhi\r\n", b"EX\r\n"),
    passed(b"ms z 2 C9\r\nhi\r\n", b"NF\r\n"),
    passed(b"ms Zm9v 2 b k\r\nhi\r\n", b"HD kZm9v b\r\n"),
    passed(b"ms a 2 x\r\nhi\r\n", INVALID),
    hidden(b"ms a 2 q\r\nhi\r\nmn\r\n", b"ms a 2\r\nhi\r\nmn\r\n", b"HD\r\nMN\r\n", b"MN\r\n"),
    hidden(b"ms a 2 q O1\r\nhi\r\nmn\r\n", b"ms a 2 O1\r\nhi\r\nmn\r\n", b"HD O1\r\nMN\r\n", b"MN\r\n"),
    hidden(b"ms a 2 ME q\r\nhi\r\n", b"ms a 2 ME\r\nhi\r\n", b"NS\r\n", b"NS\r\n"),
    hidden(b"ms z 2 q C9\r\nhi\r\n", b"ms z 2 C9\r\nhi\r\n", b"NF\r\n", b"NF\r\n"),
    local(b"ms\r\n", ERROR),
    local(b"ms a\r\n", BAD_LINE),
    local(b"ms a S2\r\nbogus\r\n", BAD_LINE + ERROR),
    local(b"ms a -1 q\r\n", BAD_LINE),
    local(b"ms a 2147483646\r\n", BAD_LINE),
    local(b"ms a 18446744073709551618\r\nhi\r\n", BAD_LINE + ERROR),
    local(b"ms a 2\r\nhix\r\n", BAD_CHUNK + ERROR),
    local(b"ms a 2 q\r\nhix\r\n", BAD_CHUNK + ERROR),
    local(b"ms " + TOO_LONG + b" 2\r\nhi\r\n", BAD_LINE, LATER),
    local(b"ms a 2 MZ q\r\nhi\r\n", b"CLIENT_ERROR invalid mode for ms M token\r\n"),
    local(b"ms a 2 MZ O" + KEY[:32] + b"\r\nhi\r\n", b"CLIENT_ERROR invalid mode for ms M token\r\n"),
    local(b"ms a 2 O" + KEY[:32] + b"\r\nhi\r\n", BAD_OPAQUE),
    local(b"ms a 2 k k\r\nhi\r\n", DUPLICATE),
    local(b"ms a 2 ?\r\nhi\r\n", INVALID),
    local(b"ms Zm9 2 b\r\nhi\r\n", BAD_BASE64),
    local(b"ms a 2 Fx\r\nhi\r\n", BAD_LINE),
    local(
        b"ms a 2 N1 T1 R1 l O1 P L k s t c f v h u q F1\r\nhi\r\n", b"CLIENT_ERROR options flags too long\r\n", LATER
    ),
    passed(b"md a\r\n", b"HD\r\n"),
    passed(b"md a I T30\r\n", b"HD\r\n"),
    passed(b"md a k O1\r\n", b"HD ka O1\r\n"),
    passed(b"md a C9\r\n", b"EX\r\n"),
    passed(b"md z\r\n", b"NF\r\n"),
    passed(b"md a x\r\n", BAD_FLAGS),
    hidden(b"md a q\r\nmn\r\n", b"md a\r\nmn\r\n", b"HD\r\nMN\r\n", b"MN\r\n"),
    hidden(b"md z q\r\nmn\r\n", b"md z\r\nmn\r\n", b"NF\r\nMN\r\n", b"NF\r\nMN\r\n"),
    hidden(b"md a C9 q\r\nmn\r\n", b"md a C9\r\nmn\r\n", b"EX\r\nMN\r\n", b"EX\r\nMN\r\n"),
    local(b"md\r\n", ERROR),
    local(b"md " + TOO_LONG + b" q\r\n", BAD_LINE),
    local(b"md a k k\r\n", BAD_FLAGS),
    local(b"md a ?\r\n", BAD_FLAGS),
    local(b"md a Tx\r\n", BAD_FLAGS),
    local(b"md a O" + KEY[:32] + b"\r\n", BAD_OPAQUE),
    local(b"md a N1 T1 R1 l O1 P L k s t c f v h u q F1 C1\r\n", b"CLIENT_ERROR options flags too long\r\n"),
    passed(b"ma n\r\n", b"HD\r\n"),
    passed(b"ma n v\r\n", b"VA 2\r\n11\r\n"),
    passed(b"ma n MD D3 v t\r\n", b"VA 1 t-1\r\n7\r\n"),
    passed(b"ma z\r\n", b"NF\r\n"),
    passed(b"ma n C9\r\n", b"EX\r\n"),
    passed(b"ma a\r\n", NOT_A_NUMBER),
    passed(b"ma z N0 J13 v\r\n", b"VA 2\r\n13\r\n"),
    hidden(b"ma n q\r\nmn\r\n", b"ma n\r\nmn\r\n", b"HD\r\nMN\r\n", b"MN\r\n"),
    hidden(b"ma n q v\r\nmn\r\n", b"ma n v\r\nmn\r\n", b"VA 2\r\n11\r\nMN\r\n", b"MN\r\n"),
    hidden(b"ma z q\r\nmn\r\n", b"ma z\r\nmn\r\n", b"NF\r\nMN\r\n", b"NF\r\nMN\r\n"),
    hidden(b"ma a q\r\n", b"ma a\r\n", NOT_A_NUMBER, NOT_A_NUMBER),
    hidden(b"ma z N0 q v\r\n", b"ma z N0 v\r\n", b"VA 1\r\n0\r\n", b"", VIVID),
    local(b"ma\r\n", ERROR),
    local(b"ma n MX\r\n", b"CLIENT_ERROR invalid mode for ma M token\r\n"),
    local(b"ma n MX ?\r\n", BAD_FLAGS),
    local(b"ma n Dx\r\n", BAD_FLAGS),
    local(b"ma n O" + KEY[:32] + b" q\r\n", BAD_OPAQUE),
    passed(b"me z\r\n", b"EN\r\n"),
    passed(b"me z x\r\n", b"EN\r\n", b"me z\r\n"),
    passed(b"me Zm9v b\r\n", b"EN\r\n"),
    local(b"me\r\n", BAD_LINE),
    local(b"me " + TOO_LONG + b"\r\n", BAD_LINE),
    local(b"me Zm9 b\r\n", BAD_LINE),
]

OTHERS = [
    local(b"\r\n", ERROR),
    local(b"\n", ERROR),
    local(b"   \r\n", ERROR),
    local(b"x\r\n", ERROR),
    local(b"GET a\r\n", ERROR),
    local(b"bogus noreply\r\n", ERROR),
    local(b"mx a\r\n", ERROR),
    local(b"mgg a\r\n", ERROR),
    local(b"gett a\r\n", ERROR),
    local(b"bget a\r\n", ERROR, OURS),
    local(b"\r\n\r\nbogus\n", ERROR * 3),
    local(b"watch fetchers\r\n", b"CLIENT_ERROR watch not allowed on a shared connection\r\n", OURS),
    local(b"shutdown\r\n", b"CLIENT_ERROR shutdown not allowed on a shared connection\r\n", OURS),
    local(b"cache_memlimit 8\r\n", b"CLIENT_ERROR cache_memlimit not allowed\r\n", OURS),
    local(b"cache_memlimit x\r\n", ERROR),
    local(b"lru_crawler metadump\r\n", ERROR),
    local(b"lru_crawler metadump 1 2\r\n", ERROR),
    local(b"lru_crawler enable\r\n", b"CLIENT_ERROR lru_crawler not allowed on a shared connection\r\n", OURS),
    local(b"stats\r\n", b"STAT arguments \r\nEND\r\n", OURS),
    local(b"stats upstream  items\r\n", b"STAT arguments upstream items\r\nEND\r\n", OURS),
    closed(b"quit\r\n"),
    closed(b"quit foo\r\nget a\r\n"),
    closed(b"get a\r\nquit\r\nget b\r\n", HIT, b"get a\r\n", HIT),
    closed(b"bogus\r\nquit\r\n", ERROR),
    closed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    closed(b"POST /x HTTP/1.0\r\n"),
    local(b"bogus\r\n\x80\r\n", ERROR + ERROR),
]

#: Order: a reply of the proxy itself waits for the replies of the server.
PIPELINES = [
    passed(b"get a\r\nbogus\r\nget z\r\n", HIT + b"END\r\n", b"get a\r\nget z\r\n")._replace(
        answer=HIT + ERROR + b"END\r\n"
    ),
    passed(
        b"set b 0 0 1\r\nx\r\nset b 0 0 1 noreply\r\ny\r\nincr b x\r\ndelete b\r\n",
        b"STORED\r\nSTORED\r\nDELETED\r\n",
        b"set b 0 0 1\r\nx\r\nset b 0 0 1\r\ny\r\ndelete b\r\n",
    )._replace(answer=b"STORED\r\n" + BAD_DELTA + b"DELETED\r\n"),
    passed(b"get a\r\nmg a v\r\nincr n 1\r\n", HIT + b"VA 3\r\nabc\r\n11\r\n"),
]

EXCHANGES = RETRIEVAL + STORAGE + LINES + META + OTHERS + PIPELINES

#: Other possible replies of a server to requests.
REPLIES = [
    (b"get a\r\n", b"SERVER_ERROR out of memory\r\n"),
    (b"get a\r\n", b"CLIENT_ERROR whatever\r\n"),
    (b"get a\r\n", b"ERROR\r\n"),
    (b"get a\r\n", b"VALUE a 18446744073709551615 0\r\n\r\nEND\r\n"),
    (b"get a\r\n", b"VALUE " + KEY + b" 0 5\r\nEND\r\n\r\nEND\r\n"),
    (b"get a b\r\n", b"VALUE a\tb\r 0 0\r\n\r\nVALUE b 0 0\r\n\r\nEND\r\n"),
    (b"gets a b\r\n", b"VALUE a 0 1 7\r\nx\r\nVALUE b 1 2 8\r\nxy\r\nEND\r\n"),
    (b"gats 0 a\r\n", b"VALUE a 0 1 7\r\nx\r\nEND\r\n"),
    (b"set a 0 0 1\r\nx\r\n", b"SERVER_ERROR out of memory storing object\r\n"),
    (b"set a 0 0 1\r\nx\r\n", TOO_LARGE),
    (b"set a 0 0 1\r\nx\r\n", b"NOT_STORED\r\n"),
    (b"incr n 1\r\n", b"18446744073709551615\r\n"),
    (b"decr n 1\r\n", b"9 \r\n"),
    (b"touch n 1\r\n", b"ERROR\r\n"),
    (b"mg a v\r\n", b"SERVER_ERROR refcount overflow during fetch\r\n"),
    (b"mg a v\r\n", b"ERROR\r\n"),
    (b"mg a v t\r\n", b"VA 0 t5 W\r\n\r\n"),
    (b"ms a 1\r\nx\r\n", b"SERVER_ERROR out of memory storing object\r\n"),
    (b"ms a 1\r\nx\r\n", BAD_TOKEN),
    (b"ms a 1\r\nx\r\n", b"CLIENT_ERROR invalid numeric delta value\r\n"),
    (b"ma a v\r\n", b"NS\r\n"),
    (b"me a\r\n", b"ME a exp=-1 la=2 cas=3 fetch=no cls=1 size=66\r\n"),
    (b"me a\r\r\n", b"ME a\r exp=-1 la=2 cas=3 fetch=no cls=1 size=66\r\n"),
    (b"flush_all\r\n", b"CLIENT_ERROR flush_all not allowed\r\n"),
]

#: Bytes that cannot be a reply to the request: the stream of replies is out of step.
STRANGE = [
    # With this line memcached discards the replies before it that it has not sent yet.
    (b"get a\r\n", b"SERVER_ERROR out of memory writing get response\r\n"),
    (b"set a 0 0 1\r\nx\r\n", b"SERVER_ERROR out of memory writing get response\r\n"),
    (b"mg a v\r\n", b"SERVER_ERROR out of memory writing get response\r\n"),
    (b"get a\r\n", b"STORED\r\n"),
    (b"get a\r\n", b"\r\n"),
    (b"get a\r\n", b"END\n"),
    (b"get a\r\n", b"VALUE a 0 -1\r\n"),
    (b"get a\r\n", b"VALUE a 0 1 7\r\nx\r\nEND\r\n"),
    (b"get a\r\n", b"VALUE a 0 18446744073709551617\r\nx\r\nEND\r\n"),
    (b"get a\r\n", b"VALUE a 0 1x\r\nx\r\nEND\r\n"),
    (b"get a\r\n", b"VALUE " + TOO_LONG + b" 0 1\r\nx\r\nEND\r\n"),
    (b"get a\r\n", b"VALUE a 0 1\r\nxEND\r\n"),
    (b"get a\r\n", b"VALUE a 0 1\r\nxy\r\nEND\r\n"),
    (b"get a\r\n", b"VALUE a 0 1\r\nx\r\nSTORED\r\n"),
    (b"get a b\r\n", b"VALUE a 0 1\r\nx\r\nSERVER_ERROR backend failure\r\n"),
    (b"get a\r\n", b"ERROR Too many open connections\r\n"),
    (b"get a\r\n", b"HD\r\n"),
    (b"gets a\r\n", b"VALUE a 0 1\r\nx\r\nEND\r\n"),
    (b"set a 0 0 1\r\nx\r\n", HIT),
    (b"set a 0 0 1\r\nx\r\n", b"END\r\n"),
    (b"set a 0 0 1\r\nx\r\n", ERROR),
    (b"set a 0 0 1\r\nx\r\n", BAD_LINE),
    (b"set a 0 0 1\r\nx\r\n", BAD_CHUNK),
    (b"add a 0 0 1\r\nx\r\n", b"EXISTS\r\n"),
    (b"cas a 0 0 1 1\r\nx\r\n", b"DELETED\r\n"),
    (b"incr n 1\r\n", b"STORED\r\n"),
    (b"incr n 1\r\n", b"123456789012345678901\r\n"),
    (b"delete n\r\n", b"TOUCHED\r\n"),
    (b"touch n 1\r\n", b"DELETED\r\n"),
    (b"mg a\r\n", b"VA 3\r\nabc\r\n"),
    (b"mg a v\r\n", b"HD\r\n"),
    (b"mg a v\r\n", b"VA 3\r\nabcd\r\n"),
    (b"mg a v\r\n", b"VA 18446744073709551619\r\nabc\r\n"),
    (b"mg a v\r\n", b"MN\r\n"),
    (b"ms a 1\r\nx\r\n", ERROR),
    (b"ms a 1\r\nx\r\n", BAD_LINE),
    (b"ms a 1\r\nx\r\n", BAD_CHUNK),
    (b"md a\r\n", b"EN\r\n"),
    (b"ma a\r\n", b"VA 1\r\n1\r\n"),
    (b"mn\r\n", b"HD\r\n"),
    (b"version\r\n", b"OK\r\n"),
    (b"flush_all\r\n", b"STORED\r\n"),
]


class Relay:
    """
    A minimal proxy with one client and one server, which uses only the dialect.

    @ivar closed: whether the client's connection must be closed.
    """

    def __init__(self, wire: Memcache, most: int = 16) -> None:
        self._wire = wire
        self._reader = wire.requestReader()
        self._most = most
        self._client = self._server = self._held = b""
        self._skip = 0
        self._due = -1
        self._queue: deque[tuple[Command | None, int, bytes]] = deque()
        self.closed = False

    def fromClient(self, data: bytes) -> bytes:
        """
        @return: the bytes for the server.
        """
        self._client += data
        swallowed = min(self._skip, len(self._client))
        self._skip -= swallowed
        pos = swallowed
        forwarded = b""
        while pos < len(self._client) and not self.closed:
            command, end, count, payload = self._reader.read(self._client, pos, self._most)
            if command is SWITCH:
                self._reader = payload
                continue
            if command is MORE:
                assert payload == 0 or payload > len(self._client) - pos
                break
            assert end > pos
            if isinstance(command, Command):
                assert 1 <= count <= self._most
                forwarded += self._client[pos:end] if payload is None else payload
                self._queue.append((command, count, b""))
            elif command is BROADCAST:
                command, line = payload
                forwarded += line
                self._queue.append((command, 1, b""))
            elif command is SPLIT:
                forwarded += self._client[pos:end]
                self._queue.append((payload[0], 1, b""))
            elif command is REPLACE:
                command, line, answer = payload
                forwarded += line
                self._queue += [(command, 1, b""), (None, 0, answer)]
            elif command is STATISTICS:
                command, words = payload
                text = self._wire.statistics([("arguments", b" ".join(words).decode("latin-1"))])
                self._queue.append((None, 0, command.visible(text)))
            else:
                assert command in (ANSWER, CLOSE)
                self.closed = command is CLOSE
                self._queue.append((None, 0, payload))
            pos = end
        self._skip += max(0, pos - len(self._client))
        self._client = self._client[pos:]
        return forwarded

    def fromServer(self, data: bytes) -> bytes:
        """
        @return: the bytes for the client.
        """
        self._server += data
        answer = b""
        while self._queue:
            command, count, line = self._queue.popleft()
            if command is None:
                answer += line
                continue
            pos, left, self._due = matchReplies(self._server, 0, command, count, self._due)
            assert 0 <= pos <= len(self._server)
            self._held += self._server[:pos]
            self._server = self._server[pos:]
            if command.hidden is None or not left:
                answer += command.visible(self._held) if not left else self._held
                self._held = b""
            if left:
                self._queue.appendleft((command, left, b""))
                break
            self._held = b""
        return answer

    @property
    def owed(self) -> bool:
        """
        Whether a reply of the server is due.
        """
        return any(command for command, _, _ in self._queue)

    @property
    def idle(self) -> bool:
        """
        Whether nothing is incomplete, due or left over.
        """
        return not (self._client or self._server or self._held or self._skip or self._queue)


def pieces(data: bytes) -> list[list[bytes]]:
    """
    @return: C{data} in one piece, split into two at every position, and byte by byte.
    """
    return [
        [data],
        *([data[:place], data[place:]] for place in range(1, len(data))),
        [data[place : place + 1] for place in range(len(data))],
    ]


class ExchangeTests(SynchronousTestCase):
    """
    Tests of the tables, with the bytes split at every position.
    """

    def setUp(self) -> None:
        """
        Create the dialect.
        """
        self.wire = Memcache(maxItemSize=LIMIT)

    def exchange(self, row: Exchange, says: list[bytes], replies: list[bytes]) -> None:
        """
        Carry out one exchange and compare it with its row.
        """
        relay = Relay(self.wire)
        forwarded = b"".join([relay.fromClient(data) for data in says])
        answer = relay.fromServer(b"") + b"".join([relay.fromServer(data) for data in replies])
        where = f"{row.client!r} as {says!r}, {row.server!r} as {replies!r}"
        self.assertEqual(forwarded, row.client if row.forwarded is None else row.forwarded, where)
        self.assertEqual(answer, row.server if row.answer is None else row.answer, where)
        self.assertEqual(relay.closed, row.closes, where)
        self.assertTrue(relay.idle or relay.closed, where)

    def check(self, table: list[Exchange]) -> None:
        """
        Carry out all exchanges of a table, in all pieces.
        """
        for row in table:
            for says in pieces(row.client):
                self.exchange(row, says, [row.server])
            for replies in pieces(row.server):
                self.exchange(row, [row.client], replies)

    @covers("11", "27")
    def test_retrieval(self) -> None:
        """
        get, gets, gat and gats are forwarded unchanged, unless memcached would reject them.
        """
        self.check(RETRIEVAL)

    @covers("1", "7", "9", "10", "11")
    def test_storage(self) -> None:
        """
        Storage commands are forwarded with their data blocks. An invalid one gets one error, and its data block is
        discarded.
        """
        self.check(STORAGE)

    def test_large(self) -> None:
        """
        A value over the limit is discarded, and rejected with memcached's error.
        """
        self.check(LARGE)

    @covers("7")
    def test_lines(self) -> None:
        """
        Commands of one line are forwarded without noreply, and the reply is then hidden.
        """
        self.check(LINES)

    @covers("10")
    def test_meta(self) -> None:
        """
        Meta commands are forwarded without q, and the replies that q suppresses are hidden.
        """
        self.check(META)

    @covers("27")
    def test_others(self) -> None:
        """
        All other requests are answered by the proxy, or close the connection.
        """
        self.check(OTHERS)

    def test_pipelines(self) -> None:
        """
        A reply of the proxy itself has its place among the replies of the server.
        """
        self.check(PIPELINES)

    def test_replies(self) -> None:
        """
        Every possible reply of memcached to a request is accepted.
        """
        self.check([passed(request, reply) for request, reply in REPLIES])

    @covers("5b", "10")
    def test_strange(self) -> None:
        """
        Bytes that cannot be a reply to the request are an error, however they are split. Only the part of them that
        could be a reply is passed on.
        """
        for request, reply in STRANGE:
            for replies in pieces(reply):
                relay = Relay(self.wire)
                relay.fromClient(request)
                answer = b""
                with self.assertRaises(WireError, msg=f"{request!r}, {replies!r}"):
                    for data in replies:
                        answer += relay.fromServer(data)
                self.assertTrue(reply.startswith(answer) and answer != reply)

    def test_unasked(self) -> None:
        """
        Bytes after a complete reply are not a part of it.
        """
        for row in RETRIEVAL + STORAGE + LINES + META:
            if row.server:
                relay = Relay(self.wire)
                relay.fromClient(row.client)
                answer = relay.fromServer(row.server + b"VALUE secret 0 1\r\nx\r\nEND\r\n")
                self.assertEqual(answer, row.server if row.answer is None else row.answer)
                self.assertFalse(relay.idle)
