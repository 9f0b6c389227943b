"""The checklist that proves itself: 12 questions, each answered by what the running app does.

`uv run checklist` starts the app as production would, against a fake provider, and reports. Each
`test_*.py` here is one item, to be read as a lesson; `uv run pytest` runs them too.
"""
