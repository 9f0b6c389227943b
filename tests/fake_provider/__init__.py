"""Tests of the fake provider that every app ships, with the official SDKs as its clients."""
