# Copyright txconnpool contributors. See LICENSE.
"""
Tests for L{txconnpool.native}, and for the functions of the extension.
"""

from __future__ import annotations

import gc
import random
import re
import sys
from collections import UserDict
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.nativefuzz import SUBJECTS, cuts, joints
from txconnpool import native
from txconnpool.routing import hashing
from txconnpool.routing.distribution.keymap import KeyCache
from txconnpool.routing.distribution.locators import INDEX_BITS, Ring
from txconnpool.wire.joining import Packed, joinEach
from txconnpool.wire.memcache import common, values
from txconnpool.wire.memcache.lines import divideLines
from txconnpool.wire.redis.framing import encodeWords

#: The number of inputs for each function, and of those that are cut at every position.
INPUTS = 600
CUT = 20

#: The functions that have tests of their own, here and in L{tests.net.test_sockets}.
OTHERS = {"receiveEach", "sendJoined"}


class LoadTests(SynchronousTestCase):
    """
    Tests for the choice between the extension and Python.
    """

    def load(self, found: Any, **environment: str) -> tuple[Any, str]:
        """
        @param found: the extension, or the exception that importing it raises.
        """

        def importModule(name: str) -> Any:
            self.assertEqual(name, "txconnpool._native")
            if isinstance(found, Exception):
                raise found
            return found

        return native.load(environment, importModule)

    def test_used(self) -> None:
        """
        An extension that was built from the same source is used.
        """
        module = SimpleNamespace(INTERFACE=native.INTERFACE)
        for environment in ({}, {"TXCONNPOOL_PURE": ""}, {"TXCONNPOOL_PURE": "0"}):
            self.assertEqual(self.load(module, **environment), (module, ""))

    def test_notUsed(self) -> None:
        """
        It is not used if the user does not want it, and if there is none that fits.
        """
        module = SimpleNamespace(INTERFACE=native.INTERFACE)
        for found, environment, reason in (
            (module, {"TXCONNPOOL_PURE": "1"}, "TXCONNPOOL_PURE=1"),
            (ModuleNotFoundError("no"), {}, "the extension was not built"),
            (ImportError("no symbol"), {}, "the extension cannot be loaded: no symbol"),
            (SimpleNamespace(INTERFACE=native.INTERFACE + 1), {}, "the extension was built from other source"),
        ):
            self.assertEqual(self.load(found, **environment), (None, reason))

    def test_chosen(self) -> None:
        """
        All functions are those of the extension, or none is.
        """
        if native.extension is None:
            self.assertEqual((native.IMPLEMENTATION, native.DESCRIPTION), ("python", f"pure Python ({native.reason})"))
            self.assertIs(common.chosenScan, common.scanRequest)
        else:
            self.assertEqual((native.IMPLEMENTATION, native.DESCRIPTION, native.reason), ("native", "native", ""))
            self.assertIs(common.chosenScan, native.extension.scanRequest)
            self.assertIs(values.chosenFind, native.extension.findValues)


class FunctionTests(SynchronousTestCase):
    """
    Tests for the functions of the extension.
    """

    if native.extension is None:
        skip = f"the extension is not used: {native.reason}"

    def test_all(self) -> None:
        """
        Each function is compared with its twin.
        """
        functions = {name for name, value in vars(native.extension).items() if callable(value) and name[0] != "_"}
        self.assertEqual(functions, OTHERS.union(subject.name for subject in SUBJECTS))

    def test_stubs(self) -> None:
        """
        Type checkers know each function.
        """
        stubs = files("txconnpool").joinpath("_native.pyi").read_text(encoding="utf-8")
        functions = {name for name, value in vars(native.extension).items() if callable(value) and name[0] != "_"}
        self.assertEqual(set(re.findall(r"(?m)^def (\w+)\(", stubs)), functions)

    def test_random(self) -> None:
        """
        Each has the results of its twin, for valid and for other inputs, also if they are cut anywhere.
        """
        rng = random.Random(1)
        for subject in SUBJECTS:
            found = [subject.compare(subject.inputs(rng)) for _ in range(INPUTS)]
            self.assertTrue(0.1 < sum(found) / INPUTS < 0.9 or not subject.placed, subject.name)
            for _ in range(CUT if subject.placed else 0):
                for arguments in cuts(subject.inputs(rng)):
                    subject.compare(arguments)

    def test_arguments(self) -> None:
        """
        Wrong arguments are errors, or are left to Python.
        """
        extension: Any = native.extension
        for subject in SUBJECTS:
            if not subject.placed:
                continue
            function = getattr(extension, subject.name)
            data, pos, *others = subject.inputs(random.Random(2))
            self.assertRaises(TypeError, function)
            self.assertRaises(TypeError, function, data, pos, *others, None)
            for wrong in ((bytearray(data), pos), (data, -1), (data, len(data) + 1), (data, 1 << 80), (data, None)):
                self.assertFalse(function(*wrong, *others), subject.name)
        accepted = tuple(range(len(common.Accepted._fields)))
        for scan in (("x", 9, accepted), (9, None, accepted), (9, 9, accepted[1:]), (9, 9, list(accepted))):
            self.assertRaises(TypeError, extension.scanRequest, b"get a\r\n", 0, *scan)
        self.assertRaises(OverflowError, extension.scanRequest, b"get a\r\n", 0, 1 << 80, 9, accepted)
        for find in ((None, 4, False), (b"get a\r\n", -1, False), (b"get a\r\n", 8, False), (b"x", 0, False)):
            self.assertIsNone(extension.findValues(b"END\r\n", 0, *find))
        self.assertRaises(TypeError, extension.findValues, b"END\r\n", 0, b"get a\r\n", "4", False)

    def test_encodeWords(self) -> None:
        """
        Other arguments than lists of bytes are errors.
        """
        encode = native.extension.encodeWords
        for wrong in ((b"a", b"b"), None, [b"a", "b"], [b"a", bytearray(b"b")]):
            self.assertRaises(TypeError, encode, wrong)
        self.assertRaises(TypeError, encode)

    def test_separateReplies(self) -> None:
        """
        Unexpected arguments are left to Python, or are errors. No reference is kept.
        """
        separate = native.extension.separateReplies
        reply, request = b"VALUE a 0 1\r\nx\r\nEND\r\n", b"get a b\r\n"
        for wrong in ((None, [request]), (reply, (request,)), (reply, [None]), (reply, [b"get"])):
            self.assertIsNone(separate(*wrong, 4, False))
        for keyAt in (-1, 8, 1 << 62, (1 << 63) - 1):
            self.assertIsNone(separate(reply, [request, b"get a\r\n"], keyAt, False))
            self.assertIsNone(native.extension.findValues(reply, 0, b"get a\r\n", keyAt, False))
            self.assertIsNone(native.extension.countValues(reply, 0, b"get a\r\n", keyAt, False))
        self.assertRaises(TypeError, separate, reply, [request], "4", False)
        self.assertRaises(TypeError, separate, reply, [request], 4)
        counts = [sys.getrefcount(each) for each in (reply, request)]
        for _ in range(1000):
            self.assertEqual(separate(reply, [request], 4, False), [reply])
            self.assertIsNone(separate(reply, [request, b"x"], 4, False))
            self.assertIsNone(separate(reply[:-1], [request], 4, False))
        self.assertEqual([sys.getrefcount(each) for each in (reply, request)], counts)

    def test_divideLines(self) -> None:
        """
        Requests are divided as in Python, also if their keys are repeated or have several spaces between them. No
        reference is kept.
        """
        rng, divide = random.Random(6), native.extension.divideLines
        for _ in range(INPUTS):
            before = rng.choice((b"get ", b"gets ", b"gat 12 ", b""))
            requests, keys = [], []
            for _ in range(rng.choice((0, 1, 1, 3))):
                its = [b"k%d" % rng.randrange(100) for _ in range(rng.choice((0, 1, 2, 20, 50)))]
                keys += its
                requests.append(before + rng.choice((b" ", b" ", b"  ")).join(its) + rng.choice((b"\r\n", b" \r\n")))
            servers, factor = rng.choice((1, 2, 5, 300)), rng.choice((1, 1, 1 << 70))
            indexes = {key: factor * (sum(key) % servers - 1) for key in keys}
            most = rng.choice((1, 2, 7, 50))
            expected = divideLines(requests, before, indexes, most)
            self.assertEqual(divide(requests, before, indexes, most), expected)
            self.assertEqual(divide(requests, before, UserDict(indexes), most), expected)
        self.assertIsNone(divide([b"get a\r\n", b"gets a\r\n"], b"get ", {b"a": 1}, 9))
        indexes, request = {b"a": 1 << 70, b"b": 1000}, b"get a b a\r\n"
        counts = [sys.getrefcount(each) for each in (request, *indexes.values())]
        for _ in range(1000):
            divide([request, request], b"get ", indexes, 1)
            divide([request, b"x"], b"get ", indexes, 1)
            self.assertRaises(KeyError, divide, [request, b"get a b c\r\n"], b"get ", indexes, 9)
            self.assertRaises(TypeError, divide, [request, None], b"get ", indexes, 9)
        gc.collect()  # free the exceptions: their tracebacks refer to the arguments
        self.assertEqual([sys.getrefcount(each) for each in (request, *indexes.values())], counts)

    def test_divideWords(self) -> None:
        """
        An exception of the cache is passed on, other arguments are errors, and no reference is kept.
        """
        divide = native.extension.divideWords
        wrong: tuple[Any, ...]
        for wrong in ((None, b"", {}, 9), (b"", b"", {}, 9), ([None], b"", {}, 9), ([b""], None, {}, 9),
                      ([b""], b"", {}, None), ([b""], b"", {})):  # fmt: skip
            self.assertRaises(TypeError, divide, *wrong)
        request = encodeWords([b"mget", b"a", b"b", b"a"])
        self.assertRaises(KeyError, divide, [request], b"", {b"a": 1}, 9)
        counts = [sys.getrefcount(each) for each in (request, None)]
        for _ in range(1000):
            divide([request, request], b"", {b"a": 1, b"b": 1 << 70}, 1)
            divide([request, request[:-1]], b"", {}, 1)
        found = [sys.getrefcount(each) for each in (request, None)]
        self.assertEqual(found[0], counts[0])
        self.assertTrue(abs(found[1] - counts[1]) < 500)

    def test_search(self) -> None:
        """
        The indexes of keys are found by the search of the cache, if it is a usual one. No reference is kept.
        """
        divide = native.extension.divideWords
        request = encodeWords([b"mget", b"a", b"b", b"a"])
        ring = Ring([5 << INDEX_BITS | 3], native.extension.fnv1x32)
        usual = ring.search()
        assert usual is not None
        wrong: Any = None
        counts = [sys.getrefcount(each) for each in (usual, usual.points, usual.owners)]
        cases: list[tuple[Any, int]] = [
            (usual, 3),
            (usual[:4], 7),
            (list(usual), 7),
            (usual._replace(hash=hashing.fnv1x32), 7),
            (usual._replace(hash=native.extension.scanRequest), 7),
            (usual._replace(modulus=1 << 32), 7),
            (usual._replace(owners=usual.owners[:-1]), 7),
            (usual._replace(points=b"", owners=usual.owners[:4]), 3),
            (usual._replace(points=wrong), 7),
            (None, 7),
        ]
        for search, index in cases:
            cache = KeyCache(lambda key: 7, 10, search)
            self.assertEqual([share[0] for share in divide([request], b"", cache, 9)[1]], [index], search)
        for search in (usual._replace(modulus=-1), usual._replace(modulus=wrong)):
            cache = KeyCache(lambda key: 7, 10, search)
            self.assertRaises((TypeError, OverflowError), divide, [request], b"", cache, 9)
        del cases, search, cache
        gc.collect()
        self.assertEqual([sys.getrefcount(each) for each in (usual, usual.points, usual.owners)], counts)

    def test_divideLinesFails(self) -> None:
        """
        An exception of the cache is passed on, and other arguments are errors.
        """
        divide = native.extension.divideLines
        self.assertRaises(KeyError, divide, [b"get a b\r\n"], b"get ", {b"a": 1}, 9)
        get = [b"get a\r\n"]
        wrong: tuple[Any, ...]
        for wrong in ((), (get, b"get ", {}), (["get a\r\n"], b"get ", {}, 9), (get, 4, {}, 9),
                      (get[0], b"get ", {}, 9), (get, None, {}, 9), (get, b"get ", None, 9),
                      (get, b"get ", {b"a": None}, 9),
                      (get, b"get ", {b"a": 1}, None)):  # fmt: skip
            self.assertRaises(TypeError, divide, *wrong)

    def test_joinEach(self) -> None:
        """
        The replies to several requests are joined as in Python. No reference is kept, and none is dropped.
        """
        rng, join = random.Random(7), native.extension.joinEach
        for _ in range(INPUTS):
            arguments = joints(rng)
            self.assertEqual(join(*arguments), joinEach(*arguments))
        self.assertEqual(join([[0]], [None], 0, b"", b"", b""), ([], 0))  # which is never the case
        listed: list[Any] = [
            [b"one%d" % number for number in range(9)],
            [b"two%d" % number for number in range(9)],
            None,
        ]
        before = [sys.getrefcount(each) for each in (*listed[0], *listed[1])]
        for _ in range(1000):
            join([[0, 1], [1, 0, 2], [0]], listed, 1, b"*%d\r\n", b"", b"")
        self.assertEqual([sys.getrefcount(each) for each in (*listed[0], *listed[1])], before)

    def test_joinEachFails(self) -> None:
        """
        Too few values are an error, and so are other arguments.
        """
        join = native.extension.joinEach
        for each in (join, joinEach):
            self.assertRaises(ValueError, each, [[0], [0]], [[b"x"]], 0, b"", b"", b"")
            self.assertRaises(ValueError, each, [[0], [0]], [Packed.of([b"x"])], 0, b"", b"", b"")
        for ends in (b"", b"\2\0\0\0", b"\1\0\0\0\0\0\0\0"):
            self.assertRaises(ValueError, join, [[0, 0]], [Packed(b"x", ends)], 0, b"", b"", b"")
        for order in ([1], [-1]):
            self.assertRaises(IndexError, join, [order], [[b"x"]], 0, b"", b"", b"")
        wrong: tuple[Any, ...]
        for wrong in ((), ([], [[]], 0, b"", b""), ((), [[]], 0, b"", b"", b""), ([], ([],), 0, b"", b"", b""),
                      ([], [[]], None, b"", b"", b""), ([], [[]], 1, b"", b"", b""), ([], [[]], -1, b"", b"", b""),
                      ([], [[]], 0, "", b"", b""),
                      ([], [[]], 0, b"*", b"", b""), ([], [[]], 0, b"", None, b""), ([], [[]], 0, b"", b"", ""),
                      ([(0,)], [[b"x"]], 0, b"", b"", b""), ([[None]], [[b"x"]], 0, b"", b"", b""),
                      ([[0]], [(b"x",)], 0, b"", b"", b""), ([[0]], [(b"x", 1)], 0, b"", b"", b""),
                      ([[0]], [["x"]], 0, b"", b"", b"")):  # fmt: skip
            self.assertRaises(TypeError, join, *wrong)

    def test_references(self) -> None:
        """
        No reference is kept, and none is dropped.
        """
        rng = random.Random(3)
        for subject in SUBJECTS:
            for _ in range(15):
                arguments = subject.inputs(rng)
                before = [sys.getrefcount(each) for each in arguments]
                for _ in range(100):
                    subject.compare(arguments)
                after = [sys.getrefcount(each) for each in arguments]
                self.assertTrue(all(abs(one - other) < 50 for one, other in zip(before, after, strict=True)))
