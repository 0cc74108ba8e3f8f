# Copyright txconnpool contributors. See LICENSE.
"""
The decisions of a pool, as plain Python without I/O: nothing here imports Twisted or knows a reactor.

L{txconnpool.pool.decisions.state.PoolState} is the class that other modules use. It is made of L{Records
<txconnpool.pool.decisions.picking.Records>} (the connections by phase, and the choice of one for a request),
L{Waiters<txconnpool.pool.decisions.waiting.Waiters>} (the queue), L{Balance<txconnpool.pool.decisions.balance.Balance>}
(how connections are distributed among servers), L{Health<txconnpool.pool.decisions.health.Health>} (which servers are
up, and back-off) and L{Ageing<txconnpool.pool.decisions.ageing.Ageing>} (idle and old connections, keep-alive).
L{Administration<txconnpool.pool.decisions.administration.Administration>} decides what follows from changes to a
running pool.
"""
