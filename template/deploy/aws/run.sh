#!/bin/sh
# What the Lambda Web Adapter starts in the function: the same server as everywhere.
set -eu
cd "$(dirname "$0")"
exec python3 -c "from app.cli import serve; serve('app.web_adapter:create_app')"
