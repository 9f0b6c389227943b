"""`uv run secrets init|check|push`: ask for what is missing, look at it, send it to its place.

Nothing here prints a value. What a value is checked for is what the app checks at its start.
"""
