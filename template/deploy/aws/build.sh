#!/bin/sh
# Puts into the folder $1 what the function consists of: the app, and what uv.lock names.
# `sam build` runs it in the project's folder. Nothing else goes in, and no secret that lies beside
# the code: what .dockerignore keeps out of the image is left out here too.
set -eu
function=$1
python=3.13 # the runtime in template.yaml

if [ ! -f uv.lock ]; then
    echo "uv.lock is missing: run 'uv lock' and commit it, then build again." >&2
    exit 1
fi
requirements=$(mktemp)
trap 'rm -f "$requirements"' EXIT
uv export --quiet --locked --no-dev --no-emit-project --no-header --no-annotate \
    --output-file "$requirements" >/dev/null
uv pip install --quiet --target "$function" --require-hashes --only-binary :all: \
    --python-version $python --python-platform x86_64-manylinux_2_34 --requirements "$requirements"
rm -rf "$function/bin" "$function/.lock"

if [ -d indexing ]; then # the app answers from documents: their index goes along, in app/
    uv run --quiet --isolated --locked --only-group knowledge --python $python \
        python -m indexing index
fi

tar -cf - --exclude='.env*' --exclude='*.key' --exclude='*.p12' --exclude='*.pem' \
    --exclude='.DS_Store' --exclude='__pycache__' --exclude='*.py[cod]' app |
    tar -xf - -C "$function"
install -m 755 deploy/aws/run.sh "$function/run.sh"

# The function's disk is read-only: without compiled code, each cold start would compile all of it.
# Unchecked, because packing changes the times that a check goes by.
uv run --quiet --no-project --python $python python -m compileall -q -j 0 \
    --invalidation-mode unchecked-hash "$function"
