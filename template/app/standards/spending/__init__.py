"""Standard 4: spending. Who asks, how often, how much, and never twice for one key."""
