# Copyright txconnpool contributors. See LICENSE.
"""
Statistics: the table of all numbers, snapshots of them, and what is made of a snapshot: Prometheus' text, the reply to
C{stats}, the history of the last minutes.
"""
