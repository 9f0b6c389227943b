"""The invariants under fire: several processes, crashes, a store that fails, a provider that lies.

`uv run pytest -m fire` runs them, in a few minutes. Everything is proven against the fake
provider's own ledger, through the running app. They need Linux and, for the clock that jumps, a C
compiler (`cc`). What is random comes from a seed that is printed
when a test fails; FIRE_SEED=<seed> repeats the run.
"""
