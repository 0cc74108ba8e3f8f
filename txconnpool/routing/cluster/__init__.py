# Copyright txconnpool contributors. See LICENSE.
"""
The decisions about a cluster, whose nodes report which of them has which keys: the slot of a key, the map of slots to
nodes, and when the map is asked for again. There is no I/O here; L{txconnpool.routing.clusters} carries them out.
"""
