"""The operations page: what it counts, who may see it, and what it shows."""
