"""Evidence: what the documents in `knowledge/` say about a question."""
