"""Failures are kept (redacted, sealed, bounded, expiring), so that they can become tests.

What counts as one: `causes.py`. The way to the store: `collection.py`. Ratings: `feedback.py`.
"""
