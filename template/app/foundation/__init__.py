"""The ground floor: settings, messages, errors and the words the rest is written in.

It imports nothing else of the app."""
