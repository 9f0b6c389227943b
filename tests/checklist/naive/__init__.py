"""An app as one builds it in an evening: all five standards are there, each in the obvious way.

Nothing in it is a straw man. It validates its settings, logs, retries with exponential backoff, has
a fallback, a rate limiter, a cost guard, an idempotency cache and a token limit. What is missing is
what only shows in production: several processes, requests at the same time, a client that leaves.
"""
