"""The stores that the benchmarks know, one entry each: what is to be reached."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """What `admit` alone is to reach with so many clients (one caller, or one for each)."""

    clients: int
    per_second: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None


STORES: dict[str, tuple[Target, ...]] = {
    "sqlite": (Target(1, per_second=5000, p50_ms=0.1),),
    "redis": (Target(1, p50_ms=0.3), Target(16, per_second=3000)),
    "postgres": (Target(16, per_second=2000, p99_ms=30),),
}
