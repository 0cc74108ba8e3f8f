# Copyright txconnpool contributors. See LICENSE.
"""
Moving from another proxy to txconnpool: C{python -m txconnpool.migrate}.

L{txconnpool.migrate.twemproxy} and L{txconnpool.migrate.mcrouter} convert the configurations of these proxies to the
ini file of this one. L{txconnpool.migrate.verify} compares where two running proxies look for keys.
"""
