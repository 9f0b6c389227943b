"""`python -m naive`: serve on PORT with WEB_CONCURRENCY processes."""

import os

import uvicorn

uvicorn.run(
    "naive.server:app",
    port=int(os.environ["PORT"]),
    workers=int(os.environ.get("WEB_CONCURRENCY", "1")),
)
