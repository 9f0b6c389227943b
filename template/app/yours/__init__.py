"""Yours: the system prompt and your routes. No update ever touches this folder."""
