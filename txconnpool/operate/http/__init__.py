# Copyright txconnpool contributors. See LICENSE.
"""
Statistics over HTTP: Prometheus' text, JSON, a health check, and a status page.
"""
