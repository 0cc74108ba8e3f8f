# -*- test-case-name: tests.wire.memcache.test_dialect -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Tests for the dialect of memcached beyond the table of exchanges: runs, limits, denied commands, replies of the proxy
itself, and arbitrary bytes.
"""

from __future__ import annotations

from collections import Counter
from itertools import permutations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.bugs import covers
from tests.wire.memcache.test_exchanges import LIMIT, Relay
from txconnpool.errors import WireError
from txconnpool.metrics import Traffic
from txconnpool.wire import ANSWER, BROADCAST, CLOSE, MORE, REPLACE, SPLIT, STATISTICS
from txconnpool.wire.memcache import replies
from txconnpool.wire.memcache.classic import PART_KEYS, checkKey
from txconnpool.wire.memcache.common import RUN_MAX
from txconnpool.wire.memcache.dialect import COMMANDS, REFUSED, REQUEST_LINE_MAX, RETRIEVAL_LINE_MAX, Memcache
from txconnpool.wire.memcache.matching import REPLY_LINE_MAX, matchReplies
from txconnpool.wire.memcache.matching import MemcacheCommand as Command
from txconnpool.wire.memcache.replies import GET, MG, SET, SILENT, STATS, TOO_LARGE, values
from txconnpool.wire.memcache.replyreader import ReplyReader
from txconnpool.wire.memcache.requestreader import RETRIEVAL_WORDS_MAX, RequestReader

#: A few keys, so that some are equal.
KEYS = st.sampled_from([b"a", b"b", b"c", b"dd", b"ee", b"fff"])

HIT = b"VALUE a 0 3\r\nabc\r\nEND\r\n"


class RunTests(SynchronousTestCase):
    """
    Tests for consecutive gets of one key each, which are one frame.
    """

    def setUp(self) -> None:
        """
        Create the default dialect.
        """
        self.wire = RequestReader()

    def test_run(self) -> None:
        """
        A run has as many requests as lines, and ends before a line that is not a get of one key.
        """
        run = b"get a\r\nget b\r\nget c\r\n"
        for rest in (b"", b"ge", b"get d", b"get d\r", b"get d e\r\n", b"gets d\r\n", b"set d 0 0 1\r\nx\r\n", b"\r\n"):
            self.assertEqual(self.wire.read(run + rest, 0, 16), (GET, len(run), 3, b"get a b c\r\n"), rest)

    def test_position(self) -> None:
        """
        A run may begin at any position.
        """
        self.assertEqual(self.wire.read(b"get a\r\nget b\r\nget c\r\n", 7, 16), (GET, 21, 2, b"get b c\r\n"))

    def test_most(self) -> None:
        """
        A run has no more requests than C{room} allows.
        """
        run = b"get a\r\nget bb\r\nget c\r\nget d\r\n"
        self.assertEqual(self.wire.read(run, 0, 1), (GET, 7, 1, None))
        self.assertEqual(self.wire.read(run, 0, 2), (GET, 15, 2, b"get a bb\r\n"))
        self.assertEqual(self.wire.read(run, 0, 4), (GET, len(run), 4, b"get a bb c d\r\n"))

    def test_bound(self) -> None:
        """
        A run has no more requests than C{RUN_MAX}, so that the work for one frame is bounded.
        """
        keys = [b"%d" % number for number in range(1000)]
        lines = [b"get %b\r\n" % key for key in keys]
        together = b"get %b\r\n" % b" ".join(keys[:RUN_MAX])
        end = len(b"".join(lines[:RUN_MAX]))
        self.assertEqual(self.wire.read(b"".join(lines), 0, 1000), (GET, end, RUN_MAX, together))

    def test_repeated(self) -> None:
        """
        A run ends before a key that occurs in it already.
        """
        for run, end, count, together in (
            (b"get a\r\nget a\r\n", 7, 1, None),
            (b"get a\r\nget bb\r\nget a\r\nget c\r\n", 15, 2, b"get a bb\r\n"),
            (b"get a\r\nget b\r\nget b\r\nget a\r\n", 14, 2, b"get a b\r\n"),
        ):
            self.assertEqual(self.wire.read(run, 0, 16), (GET, end, count, together))

    def test_single(self) -> None:
        """
        One get is a frame of one request.
        """
        self.assertEqual(self.wire.read(b"get a\r\n", 0, 16), (GET, 7, 1, None))

    def test_split(self) -> None:
        """
        A run can be divided into two.
        """
        self.assertEqual(GET.divide(b"get a bb c\r\n", 1), (b"get a\r\n", b"get bb c\r\n"))
        self.assertEqual(GET.divide(b"get a bb c\r\n", 2), (b"get a bb\r\n", b"get c\r\n"))


class MoreTests(SynchronousTestCase):
    """
    Tests for the number of missing bytes, which is known as soon as the line of a request is complete.
    """

    def test_line(self) -> None:
        """
        For an incomplete line, and for no bytes, the number is not known.
        """
        wire = RequestReader()
        for data in (b"", b"g", b"get a", b"get a\r", b"set a 0 0 3", b"bogus", b"ms a 3 q"):
            self.assertEqual(wire.read(data, 0, 1), (MORE, 0, 0, 0), data)

    def test_block(self) -> None:
        """
        When the line is complete, the number is the size of the rest of the request.
        """
        wire = RequestReader()
        for line, noreply in ((b"set a 0 0 3\r\n", b"set a 0 0 3 noreply\r\n"), (b"ms a 3 T0\r\n", b"ms a 3 q\r\n")):
            for request in (line, noreply):
                for block in (b"", b"abc", b"abc\r"):
                    data = b"mn\r\n" + request + block
                    self.assertEqual(wire.read(data, 4, 1), (MORE, 4, 0, len(request) + 5), data)


class LimitTests(SynchronousTestCase):
    """
    Tests that everything that has to be buffered for a client is limited.
    """

    def setUp(self) -> None:
        """
        Create the default dialect.
        """
        self.wire = RequestReader()

    def test_line(self) -> None:
        """
        A line of C{REQUEST_LINE_MAX} bytes without an end is incomplete. One more byte closes the connection, without a
        reply.
        """
        for word in (b"x", b"set a 0 0 ", b"gat 0 ", b"mg "):
            line = word.ljust(REQUEST_LINE_MAX, b"9")
            self.assertEqual(self.wire.read(line, 0, 1)[0], MORE)
            self.assertNotEqual(self.wire.read(line + b"\n", 0, 1)[0], CLOSE)
            self.assertEqual(self.wire.read(line + b"9", 0, 1)[0::3], (CLOSE, b""))
            self.assertEqual(self.wire.read(line + b"9\n", 0, 1)[0::3], (CLOSE, b""))

    def test_retrieval(self) -> None:
        """
        get and gets may have longer lines.
        """
        for word in (b"get", b"gets", b" " * 100 + b"get"):
            line = word + b" key" * 1000
            self.assertEqual(self.wire.read(line, 0, 1)[0], MORE)
            command, end, count, payload = self.wire.read(line + b"\r\n", 0, 1)
            self.assertEqual((command, end, count), (SPLIT, len(line) + 2, 0))
            self.assertIs(payload[0], replies.SEVERAL[replies.GETS if word == b"gets" else GET])
            self.assertEqual(payload[1], [word.lstrip() + b" key" * PART_KEYS + b"\r\n"] * (1000 // PART_KEYS))

    def test_parts(self) -> None:
        """
        More keys than C{PART_KEYS} are requested in parts, in their order.
        """
        for head in (b"get", b"gets", b"gat 5", b"gats -1", b" get "):
            for gap, end in ((b" ", b"\r\n"), (b"  ", b" \n")):
                keys = [b"k%d" % number for number in range(PART_KEYS + 1)]
                line = head + b"".join(gap + key for key in keys) + end
                command, stop, count, (wanted, parts) = self.wire.read(line + b"get", 0, 1)
                self.assertEqual((command, stop, count), (SPLIT, len(line), 0))
                start = head.strip() + b" "
                self.assertEqual(parts, [start + b" ".join(keys[:-1]) + b"\r\n", start + keys[-1] + b"\r\n"])
                self.assertEqual((wanted.name, wanted.multiKey), (head.split()[0].decode(), True))
                one = head + b"".join(gap + key for key in keys[:-1]) + end
                self.assertEqual(self.wire.read(one, 0, 1)[1:3], (len(one), 1))

    def test_badRetrieval(self) -> None:
        """
        One key among a thousand that is too long is detected.
        """
        line = b"get" + b" key" * 1000 + b" " + b"k" * 251 + b"\r\n"
        self.assertEqual(
            self.wire.read(line, 0, 1),
            (ANSWER, len(line), 0, b"CLIENT_ERROR bad command line format\r\n"),
        )

    @covers("15")
    def test_longRetrieval(self) -> None:
        """
        A retrieval over C{RETRIEVAL_LINE_MAX} closes the connection with an error. memcached has no such limit.
        """
        line = b"get a ".ljust(RETRIEVAL_LINE_MAX, b"b")
        self.assertEqual(self.wire.read(line, 0, 1)[0], MORE)
        self.assertEqual(self.wire.read(line + b"b", 0, 1)[0::3], (CLOSE, b"CLIENT_ERROR line too long\r\n"))

    def test_manyKeys(self) -> None:
        """
        So does one with very many words, or spaces, which would take long to read.
        """
        most = b"get" + b" a" * RETRIEVAL_WORDS_MAX
        self.assertEqual(self.wire.read(most + b"\r\n", 0, 1)[0], SPLIT)
        for more in (b" a", b" "):
            for end in (b"", b"\r\n"):
                frame = self.wire.read(most + more + end, 0, 1)
                self.assertEqual(frame[0::3], (CLOSE, b"CLIENT_ERROR line too long\r\n"))

    def test_spaces(self) -> None:
        """
        A line of spaces is not a retrieval.
        """
        self.assertEqual(self.wire.read(b" " * 101 + b"get" + b" key" * 1000, 0, 1)[0], CLOSE)

    @covers("15")
    def test_block(self) -> None:
        """
        A data block over the limit is answered before it is received. The end of the frame is the end of the block.
        """
        delete = REPLACE, 0, (SILENT[replies.DELETE], b"delete a\r\n", TOO_LARGE)
        for request, (what, count, payload) in (
            (b"set a 0 0 1048577\r\n", delete),
            (b"ms a 1048577\r\n", delete),
            (b"add a 0 0 1048577\r\n", (ANSWER, 0, TOO_LARGE)),
        ):
            expected = (what, len(request) + 1048577 + 2, count, payload)
            self.assertEqual(self.wire.read(request, 0, 1), expected)
            self.assertEqual(self.wire.read(request + b"x" * 5000, 0, 1), expected)
        self.assertEqual(self.wire.read(b"set a 0 0 1048576\r\n", 0, 1)[0], MORE)

    def test_reply(self) -> None:
        """
        An incomplete line of a server is an error if it is longer than C{REPLY_LINE_MAX}.
        """
        for due, start in ((-1, b""), (0, b"\r\n")):
            line = (start + b"VALUE ").ljust(REPLY_LINE_MAX, b"x")
            self.assertEqual(matchReplies(line, 0, GET, 1, due), (0, 1, due))
            self.assertRaises(WireError, matchReplies, line + b"x", 0, GET, 1, due)


class DenialTests(SynchronousTestCase):
    """
    Tests for commands that the configuration forbids.
    """

    def test_denied(self) -> None:
        """
        A denied command is rejected with memcached's own error for C{-F}, after its data block. Other commands are
        served.
        """
        wire = RequestReader(denied=frozenset((b"flush_all", b"set", b"stats", b"get")))
        for request, word in (
            (b"flush_all\r\n", b"flush_all"),
            (b"set a 0 0 1\r\nx\r\n", b"set"),
            (b"stats items\r\n", b"stats"),
            (b"set a 0 0 9999999\r\n" + bytes(9999999) + b"\r\n", b"set"),
            (b"get a\r\n", b"get"),
            (b"get" + b" a" * 100 + b"\r\n", b"get"),
        ):
            refusal = b"CLIENT_ERROR " + word + b" not allowed\r\n"
            self.assertEqual(wire.read(request + b"get b\r\n", 0, 1), (ANSWER, len(request), 0, refusal))
        self.assertEqual(wire.read(b"gets a\r\n", 0, 1), (replies.GETS, 8, 1, None))

    def test_silent(self) -> None:
        """
        With C{noreply} there is no error either, quiet meta commands get one.
        """
        wire = RequestReader(denied=frozenset((b"flush_all", b"delete", b"md")))
        self.assertEqual(wire.read(b"flush_all noreply\r\n", 0, 1)[0::3], (ANSWER, b""))
        self.assertEqual(wire.read(b"delete a noreply\r\n", 0, 1)[0::3], (ANSWER, b""))
        large = b"ms a 9999999\r\n", b"set a 0 0 9999999 noreply\r\n"
        wire = RequestReader(denied=frozenset((b"md", b"ms", b"set")))
        self.assertEqual(wire.read(large[0], 0, 1)[0::3], (ANSWER, b"CLIENT_ERROR ms not allowed\r\n"))
        self.assertEqual(wire.read(large[1], 0, 1)[0::3], (ANSWER, b""))
        self.assertEqual(wire.read(b"md a q\r\n", 0, 1)[0::3], (ANSWER, b"CLIENT_ERROR md not allowed\r\n"))

    def test_wrong(self) -> None:
        """
        Errors of the request itself, and incomplete requests, take precedence.
        """
        wire = RequestReader(denied=frozenset((b"set", b"incr")))
        self.assertEqual(wire.read(b"incr a\r\n", 0, 1)[0::3], (ANSWER, b"ERROR\r\n"))
        self.assertEqual(wire.read(b"set a 0 0 1\r\n", 0, 1), (MORE, 0, 0, 16))

    def test_allowed(self) -> None:
        """
        If only some commands are allowed, all others are rejected, except quit.
        """
        wire = RequestReader(allowed=frozenset((b"get", b"mg")), denied=frozenset((b"mg",)))
        self.assertEqual(wire.read(b"get a\r\n", 0, 1), (GET, 7, 1, None))
        self.assertEqual(wire.read(b"mg a\r\n", 0, 1)[0::3], (ANSWER, b"CLIENT_ERROR mg not allowed\r\n"))
        self.assertEqual(wire.read(b"delete a\r\n", 0, 1)[0::3], (ANSWER, b"CLIENT_ERROR delete not allowed\r\n"))
        self.assertEqual(wire.read(b"quit\r\n", 0, 1)[0], CLOSE)

    def test_refused(self) -> None:
        """
        Commands that act on servers and connections are rejected in one line, even if they are allowed.
        """
        wire = RequestReader(allowed=REFUSED)
        for word in REFUSED:
            answer = b"CLIENT_ERROR " + word + b" not allowed on a shared connection\r\n"
            self.assertEqual(wire.read(word + b" 1 noreply\r\n", 0, 1)[0::3], (ANSWER, answer))


class DirectiveTests(SynchronousTestCase):
    """
    Tests for requests that the session carries out itself.
    """

    def test_everywhere(self) -> None:
        """
        A request for all servers has a command and the bytes to send to each. The command knows whether the request is
        silent.
        """
        wire = RequestReader()
        self.assertEqual(
            wire.read(b"flush_all 10\n", 0, 1),
            (BROADCAST, 13, 0, (replies.FLUSH_ALL, b"flush_all 10\r\n")),
        )
        self.assertEqual(
            wire.read(b"verbosity 1 noreply\r\n", 0, 1),
            (BROADCAST, 21, 0, (SILENT[replies.VERBOSITY], b"verbosity 1\r\n")),
        )

    def test_statistics(self) -> None:
        """
        A request for statistics has its arguments.
        """
        self.assertEqual(RequestReader().read(b"stats\r\n", 0, 1), (STATISTICS, 7, 0, (replies.STATS, ())))
        self.assertEqual(
            RequestReader().read(b"stats upstream items\r\n", 0, 1),
            (STATISTICS, 22, 0, (replies.STATS, (b"upstream", b"items"))),
        )


class WordsTests(SynchronousTestCase):
    """
    Tests for replies of the proxy itself, in memcached's format.
    """

    def test_error(self) -> None:
        """
        An error is one line, whatever its text contains.
        """
        self.assertEqual(Memcache().error("lost", "all busy"), b"SERVER_ERROR all busy\r\n")
        self.assertEqual(Memcache().error("lost", "a\r\nEND\r\n\xe9b"), b"SERVER_ERROR a END b\r\n")
        self.assertEqual(len(Memcache().error("lost", "x" * 1000)), 13 + 200 + 2)

    def test_errorIsReply(self) -> None:
        """
        An error is a valid reply to every command.
        """
        line = Memcache().error("lost", "all busy")
        for command in COMMANDS:
            self.assertEqual(matchReplies(line, 0, command, 1, -1), (len(line), 0, -1), command)

    def test_statistics(self) -> None:
        """
        Statistics are lines with a name and a value each, and an end.
        """
        reply = Memcache().statistics([("version", "1.0"), ("connections", 3), ("note", "a\r\nb")])
        self.assertEqual(reply, b"STAT version 1.0\r\nSTAT connections 3\r\nSTAT note a b\r\nEND\r\n")
        self.assertEqual(matchReplies(reply, 0, STATS, 1, -1), (len(reply), 0, -1))

    def test_probe(self) -> None:
        """
        The probe is a valid request, and memcached's answer is a reply to it.
        """
        command, request = Memcache.probe
        self.assertEqual(RequestReader().read(request, 0, 1), (command, len(request), 1, None))

    def test_tooManyClients(self) -> None:
        """
        The error for a client beyond the maximum is not a reply to any request.
        """
        for command in COMMANDS:
            self.assertRaises(WireError, matchReplies, Memcache.tooManyClients, 0, command, 1, -1)

    def test_merge(self) -> None:
        """
        Of the replies of several servers an error is returned, or else the first one.
        """
        flush = replies.FLUSH_ALL
        self.assertEqual(flush.join([b"OK\r\n", b"OK\r\n"]), b"OK\r\n")
        self.assertEqual(SILENT[flush].join([b"OK\r\n", b"ERROR\r\n"]), b"")
        for error in (b"ERROR\r\n", b"CLIENT_ERROR flush_all not allowed\r\n", b"SERVER_ERROR down\r\n"):
            self.assertEqual(flush.join([b"OK\r\n", error, b"OK\r\n"]), error)


class FormTests(SynchronousTestCase):
    """
    Tests for the properties of commands.
    """

    def commandOf(self, request: bytes) -> Command:
        """
        @return: the command of a request of one line.
        """
        command, _, count, _ = RequestReader().read(request + b"\r\n", 0, 1)
        self.assertEqual(count, 1)
        assert isinstance(command, Command)
        return command

    def test_index(self) -> None:
        """
        Commands are numbered by their position, and every request has the number of its command.
        """
        self.assertEqual([command.index for command in COMMANDS], list(range(len(COMMANDS))))
        self.assertEqual(len({command.name for command in COMMANDS}), len(COMMANDS))
        for request in (b"get a", b"incr a 1 noreply", b"mg a T0 q", b"mg a v", b"ma a q v", b"mn", b"version"):
            command = self.commandOf(request)
            self.assertEqual(COMMANDS[command.index].name, request.split()[0].decode())
            self.assertEqual(command.name, request.split()[0].decode())

    def test_keyAfterNumber(self) -> None:
        """
        The key of a C{gat} is the word after the expiry time, whatever memcached accepts as one.
        """
        for number in (b"0", b"-1", b"+5", b"\t5", b"5\tx", b"5\rx"):
            request = b"gat %b a b" % number
            command = self.commandOf(request)
            self.assertEqual(command.key(request + b"\r\n", 0), b"a", request)
            self.assertEqual(command.keys(request + b"\r\n"), [b"a", b"b"], request)
            self.assertEqual(command.subset(request + b"\r\n", [b"b"]), b"gat %b b\r\n" % number)

    def test_united(self) -> None:
        """
        Several retrievals can be made one.
        """
        for requests, expected in (
            ((b"get a b",), b"get a b"),
            ((b"get a b", b"get c d", b"get e"), b"get a b c d e"),
            ((b"gets a b", b"gets  c"), b"gets a b  c"),
            ((b"gat 1 a b", b"gat 1 c d"), b"gat 1 a b c d"),
        ):
            command = self.commandOf(requests[0])
            self.assertEqual(command.united([each + b"\r\n" for each in requests]).strip(), expected)

    def test_read(self) -> None:
        """
        Only requests that change nothing may be sent again: not those that touch, and not a meta get that may write.
        """
        for request in (b"get a", b"gets a", b"mg a", b"mg a v q", b"mn", b"me a", b"version"):
            self.assertTrue(self.commandOf(request).idempotent, request)
        for request in (b"gat 0 a", b"gats 0 a", b"touch a 0", b"delete a", b"incr a 1", b"md a", b"ma a v"):
            self.assertFalse(self.commandOf(request).idempotent, request)
        for flag in (b"T0", b"N0", b"R0", b"q v T0"):
            self.assertFalse(self.commandOf(b"mg a " + flag).idempotent, flag)

    def test_hidden(self) -> None:
        """
        C{noreply} hides errors too, C{q} only replies that indicate success.
        """
        silent = self.commandOf(b"incr a 1 noreply").hidden
        assert silent is not None
        for reply in (b"5\r\n", b"NOT_FOUND\r\n", b"SERVER_ERROR x\r\n"):
            self.assertTrue(silent(reply, 0))
        for request, hides, shows in (
            (b"mg a v q", (b"EN\r\n", b"EN O1\r\n"), (b"VA 1\r\nx\r\n", b"SERVER_ERROR x\r\n", b"ENTIRELY\r\n")),
            (b"md a q", (b"HD\r\n", b"HD O1\r\n"), (b"NF\r\n", b"EX\r\n", b"CLIENT_ERROR x\r\n")),
            (b"ma a q", (b"HD\r\n",), (b"NF\r\n", b"EX\r\n", b"NS\r\n")),
            (b"ma a v q", (b"VA 1\r\n5\r\n", b"VA 1 O1\r\n5\r\n"), (b"NF\r\n",)),
        ):
            hidden = self.commandOf(request).hidden
            assert hidden is not None
            for reply in hides:
                self.assertTrue(hidden(reply, 0), (request, reply))
            for reply in shows:
                self.assertFalse(hidden(reply, 0), (request, reply))
        self.assertIsNone(self.commandOf(b"get a").hidden)

    def test_repr(self) -> None:
        """
        C{repr} shows the name of the command and whether it hides replies.
        """
        self.assertEqual(repr(GET), "<MemcacheCommand get>")
        self.assertEqual(repr(replies.QUIET[replies.MD]), "<MemcacheCommand md quiet>")


class ReplyTests(SynchronousTestCase):
    """
    Tests that the bytes of a server are passed on as soon as they are verified.
    """

    def test_several(self) -> None:
        """
        Several replies are matched at once, and no more than are due.
        """
        data = HIT + b"END\r\n" + HIT
        self.assertEqual(matchReplies(data, 0, GET, 3, -1), (len(data), 0, -1))
        self.assertEqual(matchReplies(data, 0, GET, 2, -1), (len(HIT) + 5, 0, -1))
        self.assertEqual(matchReplies(data, len(HIT), GET, 1, -1), (len(HIT) + 5, 0, -1))
        self.assertEqual(matchReplies(data, 0, GET, 9, -1), (len(data), 6, -1))

    def test_none(self) -> None:
        """
        If no reply is due, no bytes are consumed.
        """
        self.assertEqual(matchReplies(HIT, 0, GET, 0, -1), (0, 0, -1))

    def test_body(self) -> None:
        """
        All received bytes of a body are passed on, and the missing bytes are counted.
        """
        self.assertEqual(matchReplies(b"VALUE a 0 300\r\nabc", 0, GET, 2, -1), (18, 2, 297))
        self.assertEqual(matchReplies(b"x" * 200, 0, GET, 2, 297), (200, 2, 97))
        self.assertEqual(matchReplies(b"x" * 97, 0, GET, 2, 97), (97, 2, 0))
        self.assertEqual(matchReplies(b"\r\nEND\r\nEN", 0, GET, 2, 0), (7, 1, -1))
        self.assertEqual(matchReplies(b"END\r\n", 0, GET, 1, -1), (5, 0, -1))

    def test_lineAfterBody(self) -> None:
        """
        An incomplete line is not passed on, and neither is the line end before it.
        """
        data = b"VALUE a 0 3\r\nabc"
        for rest in (b"\r", b"\r\n", b"\r\nE", b"\r\nVALUE b 0 3\r"):
            self.assertEqual(matchReplies(data + rest, 0, GET, 1, -1), (16, 1, 0), rest)

    def test_notAfterBody(self) -> None:
        """
        Bytes after a body that are not a line end are detected at once, before their line is complete.
        """
        for data in (b"VALUE a 0 3\r\nabcd", b"VALUE a 0 3\r\nabc\rE"):
            self.assertRaises(WireError, matchReplies, data, 0, GET, 1, -1)

    def test_meta(self) -> None:
        """
        The body of a meta reply ends it.
        """
        command = MG[True, False]
        self.assertEqual(matchReplies(b"VA 3 t1\r\nabc\r\nEN\r\n", 0, command, 2, -1), (18, 0, -1))
        self.assertEqual(matchReplies(b"VA 3\r\nabc\r", 0, command, 1, -1), (9, 1, 0))

    def test_statistics(self) -> None:
        """
        All kinds of replies to C{stats} are passed on line by line.
        """
        for reply in (
            b"END\r\n",
            b"RESET\r\n",
            b"OK\r\n",
            b"ERROR\r\n",
            b"CLIENT_ERROR bad command line\r\n",
            b"STAT pid 1\r\nSTAT empty \r\nEND\r\n",
            b"ITEM foo [3 b; 0 s]\r\nITEM bar [3 b; 0 s]\r\nEND\r\n",
            b"PREFIX a get 1 hit 1 set 1 del 0\r\nEND\r\n",
        ):
            whole = matchReplies(reply, 0, STATS, 1, -1)
            self.assertEqual(whole, (len(reply), 0, -1), reply)
            pos, count, due = 0, 1, -1
            for end in range(1, len(reply) + 1):
                pos, count, due = matchReplies(reply[:end], pos, STATS, count, due)
            self.assertEqual((pos, count, due), whole, reply)
        for reply in (b"STAT a b\r\nSTORED\r\n", b"STAT a b\nEND\r\n", b"STAT a b\r\nRESET\r\n", b"VALUE a 0 0\r\n"):
            self.assertRaises(WireError, matchReplies, reply, 0, STATS, 1, -1)

    def test_errorText(self) -> None:
        """
        The text of the exception has the command, and the length and the kind of the unexpected line. It has none of
        its bytes.
        """
        value = b"VALUE a 0 1\r\nx"
        for data, text in (
            (b"secret\r\nEND\r\n", "expected a reply to get, received 8 bytes of another kind"),
            (b"STORED\r\n", "expected a reply to get, received 8 bytes that begin with STORED"),
            (b"STOREDsecret\r\n", "expected a reply to get, received 14 bytes of another kind"),
            (b"HD secret\r\n", "expected a reply to get, received 11 bytes that begin with HD"),
            (b"SERVER_ERROR secret\n", "expected a reply to get, received 20 bytes that begin with SERVER_ERROR"),
            (b"12345\r\n", "expected a reply to get, received 7 bytes of another kind"),
            (b"VALUE secret 0 x\r\n", "expected a reply to get, received 18 bytes that begin with VALUE"),
            (value + b"secret", "expected the end of a value in reply to get, received 6 bytes of another kind"),
            (value + b"\r\nsecret\r\n", "expected a reply to get, received 2 bytes of another kind"),
            (
                b"secret".ljust(3000, b"!"),
                "expected a line of up to 2048 bytes in reply to get, received 3000 bytes of another kind",
            ),
        ):
            error = self.assertRaises(WireError, matchReplies, data, 0, GET, 1, -1)
            self.assertEqual(str(error), text)

    def test_errorTextOfRun(self) -> None:
        """
        This is so for merged requests too.
        """
        reader = ReplyReader()
        error = self.assertRaises(
            WireError, reader.read, b"VALUE a 0 1\r\nxsecret\r\n", 0, GET, 2, b"get a b\r\n", Traffic(len(COMMANDS))
        )
        self.assertEqual(str(error), "expected the end of a value in reply to get, received 8 bytes of another kind")


class DescribeTests(SynchronousTestCase):
    """
    Tests for L{Memcache.describe}.
    """

    def test_requests(self) -> None:
        """
        A request is described by its command and its keys. Values are no part of it.
        """
        for request, described in (
            (b"get a b\r\n", ("get", [b"a", b"b"])),
            (b"gat 5 a b\r\n", ("gat", [b"a", b"b"])),
            (b"set a 0 0 6\r\nsecret\r\n", ("set", [b"a"])),
            (b"ms a 6 T0\r\nsecret\r\n", ("ms", [b"a"])),
            (b"mn\r\n", ("mn", [])),
        ):
            self.assertEqual(Memcache().describe(request), described)

    def test_other(self) -> None:
        """
        Nothing is known about other bytes.
        """
        for request in (b"", b"\r\n", b"secret\r\n", b"\x1b[2J{x} a\r\n"):
            self.assertEqual(Memcache().describe(request), ("a request", []))


class Tally:
    """
    Counters for L{matchReplies}.
    """

    def __init__(self) -> None:
        self.missed = self.more = 0
        self.failed = [0] * len(COMMANDS)


class TallyTests(SynchronousTestCase):
    """
    Tests for what L{matchReplies} counts.
    """

    def count(self, command: Command, reply: bytes, count: int = 1) -> tuple[int, int, int]:
        """
        @return: the number of misses, of values beyond the first, and of errors in a reply.
        """
        tally = Tally()
        self.assertEqual(matchReplies(reply, 0, command, count, -1, None, tally), (len(reply), 0, -1), reply)
        self.assertEqual(sum(tally.failed), tally.failed[command.index])
        return tally.missed, tally.more, tally.failed[command.index]

    def test_read(self) -> None:
        """
        A read is a hit or a miss.
        """
        self.assertEqual(
            self.count(GET, b"VALUE a 0 1\r\nx\r\nEND\r\nEND\r\nVALUE a 0 1\r\nx\r\nEND\r\n", 3), (1, 0, 0)
        )
        for value in (False, True):
            hit = b"VA 1 f2\r\nx\r\nVA 0\r\n\r\n" if value else b"HD\r\nHD f2\r\n"
            for write in (False, True):
                self.assertEqual(self.count(MG[value, write], hit + b"EN\r\n", 3), (1, 0, 0))

    def test_several(self) -> None:
        """
        Values beyond the first are counted for requests with several keys.
        """
        reply = b"VALUE a 0 1\r\nx\r\nVALUE b 0 1\r\nx\r\nVALUE c 0 1\r\nx\r\nEND\r\n"
        self.assertEqual(self.count(replies.SEVERAL[GET], reply), (0, 2, 0))
        self.assertEqual(self.count(replies.SEVERAL[GET], b"END\r\n"), (1, 0, 0))
        self.assertEqual(self.count(replies.SEVERAL[GET], b"SERVER_ERROR out of memory\r\n"), (0, -1, 1))
        self.assertEqual(self.count(GET, reply), (0, 0, 0))

    def test_other(self) -> None:
        """
        Commands that do not read have neither hits nor misses.
        """
        self.assertEqual(self.count(replies.SET, b"STORED\r\nNOT_STORED\r\n", 2), (0, 0, 0))
        self.assertEqual(self.count(STATS, b"STAT a b\r\nSTAT c d\r\nEND\r\n"), (0, 0, 0))
        self.assertEqual(self.count(replies.ME, b"EN\r\n"), (0, 0, 0))

    def test_failed(self) -> None:
        """
        Errors are counted by command.
        """
        self.assertEqual(self.count(replies.SET, b"STORED\r\nSERVER_ERROR a\r\nSERVER_ERROR b\r\n", 3), (0, 0, 2))
        self.assertEqual(self.count(replies.INCR, b"CLIENT_ERROR cannot increment\r\n"), (0, 0, 1))
        self.assertEqual(self.count(GET, b"END\r\nERROR\r\n", 2), (1, 0, 1))

    def test_violation(self) -> None:
        """
        Nothing is counted of replies that are not passed on.
        """
        tally = Tally()
        self.assertRaises(WireError, matchReplies, b"END\r\nSERVER_ERROR\r\nSTORED\r\n", 0, GET, 3, -1, None, tally)
        self.assertEqual((tally.missed, sum(tally.failed)), (0, 0))

    def test_pieces(self) -> None:
        """
        The counts are the same if the bytes arrive one by one.
        """
        command = replies.SEVERAL[GET]
        reply = b"VALUE a 0 1\r\nx\r\nVALUE b 0 1\r\nx\r\nEND\r\nEND\r\nSERVER_ERROR\r\n"
        tally = Tally()
        pos, count, due = 0, 3, -1
        for end in range(1, len(reply) + 1):
            pos, count, due = matchReplies(reply[:end], pos, command, count, due, None, tally)
        self.assertEqual((pos, count, tally.missed, sum(tally.failed)), (len(reply), 0, 1, 1))


class AskedTests(SynchronousTestCase):
    """
    Tests that a value is accepted only if its key was requested.
    """

    def setUp(self) -> None:
        """
        Create counters.
        """
        self.traffic = Traffic(len(COMMANDS))

    def match(self, request: bytes, reply: bytes, count: int = 1) -> tuple[int, int, int]:
        """
        Match C{reply} as the reply to C{request}.
        """
        command, _, _, payload = RequestReader().read(request, 0, count)
        assert isinstance(command, Command) and command.keysOf is not None
        return matchReplies(reply, 0, command, count, -1, command.keysOf(payload or request), None, [])

    def test_some(self) -> None:
        """
        The values of some of the keys, in their order, are accepted.
        """
        for request in (b"get a bb ccc\r\n", b"get  a  bb  ccc \r\n", b"gets a bb ccc\r\n"):
            unique = b" 7" if request.startswith(b"gets") else b""
            reply = b"VALUE bb 0 1%b\r\nx\r\nVALUE ccc 0 1%b\r\nx\r\nEND\r\n" % (unique, unique)
            self.assertEqual(self.match(request, reply), (len(reply), 0, -1))

    def test_alike(self) -> None:
        """
        Values whose lines differ only in the key are found, whatever they contain, even if some are missing, and
        wherever the bytes are split.
        """
        request = b"get a b c d e\r\n"
        command, *_ = RequestReader().read(request, 0, 1)
        assert isinstance(command, Command) and command.keysOf is not None
        like = b"VALUE c 0 13\r\n"[:13]
        for bodies in (
            *([b"x"] * 5, [like] * 5, [b""] * 5),
            *([b"x", b"y", None, b"z", b"zz"], [None, b"x", b"x", b"xx", b"xx"]),
        ):
            parts = [
                b"" if body is None else b"VALUE %c 0 %d\r\n%b\r\n" % (key, len(body), body)
                for key, body in zip(b"abcde", bodies, strict=True)
            ]
            reply = b"".join(parts) + b"END\r\n"
            for cut in range(len(reply) + 1):
                asked, skipped = command.keysOf(request), list[bytes]()
                pos, left, due = matchReplies(reply[:cut], 0, command, 1, -1, asked, None, skipped)
                if left:
                    pos, left, due = matchReplies(reply, pos, command, left, due, asked, None, skipped)
                self.assertEqual((pos, left, due), (len(reply), 0, -1), (reply, cut))

    def test_same(self) -> None:
        """
        A key that was requested twice has two values.
        """
        reply = b"VALUE a 0 1\r\nx\r\nVALUE a 0 1\r\nx\r\nEND\r\n"
        self.assertEqual(self.match(b"get a a\r\n", reply), (len(reply), 0, -1))

    def test_anyOrder(self) -> None:
        """
        The values of the keys, or of some of them, are accepted in any order, wherever the bytes are split.
        """
        for request, unique in (
            *((b"get a b c a\r\n", b""), (b"gets a b c a\r\n", b" 7")),
            *((b"gat 5 a b c a\r\n", b""), (b"gats 5 a  b c a\r\n", b" 7")),
        ):
            command, *_ = RequestReader().read(request, 0, 1)
            assert isinstance(command, Command) and command.keysOf is not None
            for count in range(5):
                for keys in permutations(b"abca", count):
                    value = b"VALUE %%c 0 2%b\r\nxy\r\n" % unique
                    reply = b"".join(value % key for key in keys) + b"END\r\n"
                    whole = ReplyReader()
                    self.assertEqual(whole.read(reply, 0, command, 1, request, self.traffic), (len(reply), 1, None))
                    for step in (1, *range(5, len(reply), 3)):
                        self.read(command, request, [reply[at : at + step] for at in range(0, len(reply), step)])
        self.assertEqual(self.traffic.more, 0)

    def read(self, command: Command, request: bytes, pieces: list[bytes]) -> None:
        """
        Read a reply in pieces. All bytes are passed on, each as soon as its line is complete.
        """
        reader, left, passed = ReplyReader(), b"", b""
        for piece in pieces:
            end, done, reply = reader.read(left + piece, 0, command, 1, request, self.traffic)
            self.assertIs(reply, None)
            passed, left = passed + (left + piece)[:end], (left + piece)[end:]
        self.assertEqual((passed, left, done, reader.left), (b"".join(pieces), b"", 1, 0))

    @given(st.lists(KEYS, min_size=2, max_size=12), st.lists(KEYS, max_size=12), st.data())
    def test_any(self, asked: list[bytes], sent: list[bytes], data: st.DataObject) -> None:
        """
        Values are accepted, in any order and in any pieces, exactly if each was requested and comes no more often than
        it was requested. Else all values before the wrong one are passed on at most.
        """
        request = b"get %b\r\n" % b" ".join(asked)
        values = [b"VALUE %b 0 %d\r\n%b\r\n" % (key, len(body), body) for key in sent for body in (key * 3,)]
        reply = b"".join(values) + b"END\r\n"
        cuts = sorted(data.draw(st.lists(st.integers(0, len(reply)), max_size=5)))
        pieces = [reply[start:end] for start, end in zip([0, *cuts], [*cuts, len(reply)], strict=True)]
        most = Counter(asked)
        right = next((at for at in range(len(sent)) if sent[: at + 1].count(sent[at]) > most[sent[at]]), len(sent))
        reader, left, passed = ReplyReader(), b"", b""
        try:
            for piece in filter(None, pieces):
                end, done, _ = reader.read(left + piece, 0, replies.SEVERAL[GET], 1, request, self.traffic)
                passed, left = passed + (left + piece)[:end], (left + piece)[end:]
        except WireError:
            self.assertLess(right, len(sent))
            self.assertTrue(b"".join(values[:right]).startswith(passed))
        else:
            self.assertEqual((right, passed, done), (len(sent), reply, 1))

    def test_next(self) -> None:
        """
        A key that was skipped in one reply cannot occur in the next one.
        """
        reader = ReplyReader()
        command, value = replies.SEVERAL[GET], b"VALUE %b 0 1\r\nx\r\nEND\r\n"
        reader.read(value % b"b", 0, command, 1, b"get a b\r\n", self.traffic)
        self.assertRaises(WireError, reader.read, value % b"a", 0, command, 1, b"get b c\r\n", self.traffic)

    def test_bareLineEnd(self) -> None:
        """
        A request line may end with LF only, and a key with CR.
        """
        for key, end in ((b"a", b"\n"), (b"abc", b"\n"), (b"a\r", b"\r\n"), (b"\r", b"\r\n")):
            for word, unique in ((b"get", b""), (b"gets", b" 7")):
                reply = b"VALUE %b 0 1%b\r\nx\r\nEND\r\n" % (key, unique)
                for before in (b"", b"b "):
                    request = b"%b %b%b%b" % (word, before, key, end)
                    self.assertEqual(self.match(request, reply), (len(reply), 0, -1), request)

    def test_touched(self) -> None:
        """
        The exptime of C{gat} is not a key.
        """
        reply = b"VALUE a 0 1\r\nx\r\nEND\r\n"
        self.assertEqual(self.match(b"gat 100 a\r\n", reply), (len(reply), 0, -1))

    def test_other(self) -> None:
        """
        A value that was not requested, or comes too often, is not a reply.
        """
        for request, *keys in (
            (b"get a\r\n", b"b"),
            (b"get a\r\n", b"aa"),
            (b"get aa\r\n", b"a"),
            (b"get a\r\n", b"a", b"a"),
            (b"get a b\r\n", b"b", b"b"),
            (b"get a b\r\n", b"b", b"a", b"b"),
            (b"get a b\r\n", b"b", b"a", b"a"),
            (b"get a b\r\n", b"b", b"c"),
            (b"get a b a\r\n", b"b", b"a", b"a", b"a"),
            (b"get a b\r\n", b"a", b"c"),
            (b"get a  b\r\n", b"a", b""),
        ):
            reply = b"".join(b"VALUE %b 0 1\r\nx\r\n" % key for key in keys) + b"END\r\n"
            self.assertRaises(WireError, self.match, request, reply)
        run, later = b"get a\r\nget b\r\n", b"VALUE b 0 1\r\nx\r\nEND\r\n"
        self.assertRaises(WireError, self.match, run, later + b"END\r\n", 2)


class ClientTests(SynchronousTestCase):
    """
    Tests for the functions that only the memcached client uses.
    """

    def test_key(self) -> None:
        """
        Keys that are one word for memcached are accepted.
        """
        for key in (b"a", b"k" * 250, "é:ü".encode(), bytes(range(0x80, 0x100))):
            self.assertEqual(checkKey(key), key)

    def test_badKey(self) -> None:
        """
        Other keys are rejected.
        """
        for key in (b"", b"k" * 251, b"a b", b"a\r\nflush_all", b"a\n", b"a\0", b"a\tb", b"\x7f"):
            self.assertRaises(ValueError, checkKey, key)

    def test_values(self) -> None:
        """
        A reply to a retrieval is parsed, also if a value looks like a reply.
        """
        self.assertEqual(values(b"END\r\n"), [])
        self.assertEqual(
            values(b"VALUE a 0 5\r\nEND\r\n\r\nVALUE b 4294967295 0 18446744073709551615\r\n\r\nEND\r\n"),
            [(b"a", 0, b"END\r\n", None), (b"b", 4294967295, b"", 18446744073709551615)],
        )

    def test_valuesError(self) -> None:
        """
        An error in place of values is an exception, without the bytes of the server.
        """
        error = self.assertRaises(WireError, values, b"SERVER_ERROR secret\r\n")
        self.assertEqual(str(error), "expected values, received 21 bytes that begin with SERVER_ERROR")


def spoken(*words: bytes) -> st.SearchStrategy[bytes]:
    """
    Generate bytes from these words, line ends, numbers, spaces and some other bytes.
    """
    common = (b" ", b"\r\n", b"\n", b"\r", b"a", b"key", b"0", b"1", b"3", b"-1", b"99999999999", b"abc", b"\0")
    return st.lists(st.sampled_from(words + common) | st.binary(max_size=3), max_size=24).map(b"".join)


REQUESTS = spoken(
    *(b"get ", b"gets ", b"gat 0 ", b"get a\r\n", b"set a 0 0 3\r\n", b"abc\r\n", b"set k 0 0 ", b"cas a 1 2 3 "),
    *(b"incr a 1", b"touch a 0", b"delete a", b" noreply\r\n", b"flush_all", b"verbosity 1", b"version\r\n", b"stats "),
    *(b"mg a ", b"ms a 3 ", b"ma a ", b"md a ", b"mn\r\n", b"me a\r\n", b" q", b" v", b" k", b" O9", b" T30", b" b"),
    *(b"k" * 251, b"quit\r\n", b"add a 0 0 101\r\n", b"HTTP/1.1\r\n", b"\x80"),
)
REPLIES = spoken(
    *(HIT, b"END\r\n", b"VALUE ", b"VALUE a 0 3\r\n", b"abc\r\n", b"VALUE a 0 1 7\r\n", b"STORED\r\n", b"NOT_"),
    *(b"HD\r\n", b"EN\r\n", b"VA ", b"VA 3\r\n", b"VA 1 t5\r\n", b"SERVER_ERROR x\r\n", b"CLIENT_ERROR invalid flag"),
    *(b"ERROR\r\n", b"STAT a b\r\n", b"STAT ", b"OK\r\n", b"MN\r\n", b"5\r\n", b"DELETED\r\n"),
)
EVERY_FORM = [*COMMANDS, *MG.values(), *replies.MA.values()]


@st.composite
def cut(draw: st.DrawFn, strategy: st.SearchStrategy[bytes]) -> list[bytes]:
    """
    Generate bytes in pieces.
    """
    data = draw(strategy)
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


class AnyBytesTests(SynchronousTestCase):
    """
    Tests that arbitrary bytes have exactly one interpretation.
    """

    @covers("27")
    @settings(deadline=None, max_examples=400)
    @given(cut(REQUESTS))
    def test_requests(self, says: list[bytes]) -> None:
        """
        No bytes of a client raise an exception or loop for ever, and the result does not depend on the pieces in which
        they arrive, unless gets are merged.
        """
        wire = Memcache(maxItemSize=LIMIT)
        whole = Relay(wire, most=1)
        expected = whole.fromClient(b"".join(says)), whole.fromServer(b""), whole.closed
        relay = Relay(wire, most=1)
        forwarded = b"".join([relay.fromClient(data) for data in says])
        self.assertEqual((forwarded, relay.fromServer(b""), relay.closed), expected)

    @settings(deadline=None, max_examples=400)
    @given(REQUESTS, st.integers(0, 3))
    @example(b"get get  noreply\r\n", 0)
    @example(b"get a\n", 0)
    def test_common(self, data: bytes, pos: int) -> None:
        """
        The full check accepts each request that the regular expression accepts, with the same result.
        """
        wire = RequestReader(maxItemSize=LIMIT)
        quick = wire.read(data, pos, 1)
        thorough = wire._check(data, pos)
        self.assertEqual(quick[:3], thorough[:3])
        if quick[2]:
            sent, expected = (data[pos : frame[1]] if frame[3] is None else frame[3] for frame in (quick, thorough))
            self.assertEqual(sent, expected)
        else:
            self.assertEqual(quick[3], thorough[3])

    @covers("3")
    @settings(deadline=None, max_examples=400)
    @given(REQUESTS)
    def test_forwarded(self, data: bytes) -> None:
        """
        The bytes for a server are complete requests. If they are read again, one by one, they are forwarded unchanged.
        """
        wire = Memcache(maxItemSize=LIMIT)
        sent = Relay(wire).fromClient(data)
        again = Relay(wire, 1)
        self.assertEqual(again.fromClient(sent), sent)
        self.assertEqual(again.fromServer(b""), b"")
        self.assertFalse(again.closed)

    @settings(deadline=None, max_examples=800)
    @given(cut(REPLIES), st.sampled_from(EVERY_FORM), st.integers(1, 3))
    def test_replies(self, says: list[bytes], command: Command, owed: int) -> None:
        """
        The bytes of a server are replies or an error, and the result does not depend on the pieces in which they
        arrive.
        """
        data = b"".join(says)
        try:
            expected = matchReplies(data, 0, command, owed, -1)
        except WireError:
            with self.assertRaises(WireError):
                self.inPieces(says, command, owed)
        else:
            self.assertEqual(self.inPieces(says, command, owed), expected)

    def inPieces(self, says: list[bytes], command: Command, owed: int) -> tuple[int, int, int]:
        """
        Match replies as a connection does: verified bytes are passed on, an incomplete line is kept.

        @return: the result of L{matchReplies} for all bytes together.
        """
        done, kept, due = 0, b"", -1
        for data in says:
            kept += data
            pos, left, due = matchReplies(kept, 0, command, owed, due)
            self.assertTrue(0 <= pos <= len(kept) and 0 <= left <= owed)
            if left and pos < len(kept):
                self.assertNotIn(b"\n", kept[pos:].removeprefix(b"\r\n" if due == 0 else b""))
            done, kept, owed = done + pos, kept[pos:], left
        return done, owed, due

    @settings(deadline=None, max_examples=200)
    @given(st.binary(max_size=200), st.binary(max_size=40))
    def test_values(self, value: bytes, other: bytes) -> None:
        """
        A body of any content is returned unchanged.
        """
        reply = b"VALUE a 1 %d\r\n%b\r\nVALUE b 2 %d 5\r\n%b\r\nEND\r\n" % (len(value), value, len(other), other)
        self.assertEqual(values(reply), [(b"a", 1, value, None), (b"b", 2, other, 5)])
        one = b"VALUE a 1 %d\r\n%b\r\nEND\r\n" % (len(value), value)
        self.assertEqual(matchReplies(one * 2, 0, GET, 2, -1), (len(one) * 2, 0, -1))
        request = b"set a 0 0 %d\r\n%b\r\n" % (len(value), value)
        self.assertEqual(RequestReader().read(request + other, 0, 1), (SET, len(request), 1, None))
