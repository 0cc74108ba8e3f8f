# -*- test-case-name: tests.wire.memcache.binary -*-
# Copyright txconnpool contributors. See LICENSE.
"""
Memcached's binary protocol, which clients may use. Servers never get it: each request is translated to a text request,
and its reply is translated back. No other code knows the binary protocol.

 - L{packets<txconnpool.wire.memcache.binary.packets>} has its numbers, and makes the packets of replies.
 - L{requests<txconnpool.wire.memcache.binary.requests>} finds and translates requests.
 - L{commands<txconnpool.wire.memcache.binary.commands>} translates replies.
 - L{logins<txconnpool.wire.memcache.binary.logins>} reads logins, and chooses the protocol of a client.

The source for the protocol is memcached's C{proto_bin.c} and C{protocol_binary.h}.
"""
