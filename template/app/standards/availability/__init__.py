"""Standard 3: availability. One deadline, bounded retries, a breaker and a fallback."""
