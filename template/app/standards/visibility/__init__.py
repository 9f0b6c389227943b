"""Standard 1, visibility: a line per request, metrics, alerts and traces, and no secret in any."""
