# Copyright txconnpool contributors. See LICENSE.
"""
The protocol of Redis and Valkey, RESP2 and RESP3. L{txconnpool.wire.redis.dialect.Redis} is the dialect.
"""
