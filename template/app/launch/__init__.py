"""The launch safeguards: what makes a demo survive its first week."""
