"""Where money, quotas and idempotency are kept: one module per store behind one interface."""
