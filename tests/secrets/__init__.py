"""Secrets: where an app reads them, the command that keeps them, and that none gets out."""
