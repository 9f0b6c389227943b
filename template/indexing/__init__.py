"""Makes the index of `knowledge/` that the app searches. For development and builds only."""
