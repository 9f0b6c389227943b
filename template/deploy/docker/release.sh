#!/bin/sh
# Brings out a version of the app, and takes it back: in the project's folder, on the server.
#
#   deploy/docker/release.sh deploy         build this commit and start it; back to the version
#                                           before by itself when it does not get healthy
#   deploy/docker/release.sh deploy IMAGE   the same with an image of a registry, or of this server;
#                                           both say changed=true or changed=false at their end
#   deploy/docker/release.sh try            ask the app; SMOKE_APP_KEY is a key of it, and URL its
#                                           address where that is not the published port
#   deploy/docker/release.sh rollback       the version before serves again, where it gets healthy;
#                                           once more: forward
#   deploy/docker/release.sh restart        read the settings and secrets anew
#   deploy/docker/release.sh version        what serves now, and what a rollback would bring
#   deploy/docker/release.sh logs [OPTION…] of `docker compose logs`: --follow, --since 1h
#
# Behind compose.proxy.yaml new replicas are healthy before the old ones end: nobody waits.
# Which image serves stands in its tags alone: NAME is what compose.yaml starts, NAME:previous the
# one before, NAME:COMMIT what each was built from.
set -eu

WAIT_SECONDS=${WAIT_SECONDS:-120}

fail() {
    echo "$1" >&2
    exit 1
}

name() { # of the app's image
    found=$(docker compose config | awk '/^  app:$/ {app = 1} app && /^    image: / {print $2; exit}')
    case ${found##*/} in
        '') fail "compose.yaml gives the app no image" ;;
        *:*) fail "compose.override.yaml gives the app's image a tag: leave that to this script" ;;
    esac
    echo "$found"
}

id() { # of an image, or nothing
    docker image inspect --format '{{.Id}}' "$1" 2>/dev/null || true
}

tags() {
    docker image inspect --format '{{join .RepoTags " "}}' "$1"
}

serving() { # the image that runs; where none does, the one that would
    container=$(docker compose ps --quiet app | head -n 1)
    if [ -n "$container" ]; then
        docker inspect --format '{{.Image}}' "$container"
    else
        id "$image"
    fi
}

up() {
    docker compose up --detach --no-build --wait --wait-timeout "$WAIT_SECONDS" "$@"
}

start() { # what $image is now, in place of what runs; when that fails, $kept says what still runs
    kept=
    old=$(docker compose ps --quiet app)
    if [ -z "$old" ] || ! docker compose config --services | grep -qx proxy; then
        up --force-recreate app && up
        return
    fi
    if up --no-recreate --scale "app=$(($(echo "$old" | wc -l) * 2))"; then
        # Each finishes the answers that it is giving.
        echo "$old" | xargs docker stop >/dev/null && echo "$old" | xargs docker rm >/dev/null && up
    else
        kept=$old
        new=$(docker compose ps --all --quiet app | grep -vxF "$old") && show_and_remove "$new"
        return 1
    fi
}

show_and_remove() { # containers that did not get healthy
    docker logs --tail 20 "$(echo "$1" | head -n 1)" >&2
    echo "$1" | xargs docker rm --force >/dev/null
}

fetch() { # an image: what the registry has under this name now, since a tag may have moved
    docker pull --quiet "$1" && return
    [ -n "$(id "$1")" ] || fail "there is no image $1: neither in its registry nor on this server"
    echo "not in a registry that answers; this server's own: $1" >&2
}

go_back() { # to image $1, before which was $2; where the old containers still run, in name alone
    docker tag "$1" "$image" || return
    [ -z "$2" ] || docker tag "$2" "$image:previous" || return
    [ -n "$kept" ] || start
}

deploy() {
    before=$(serving)
    older=$(id "$image:previous")
    if [ -z "${1:-}" ]; then
        docker compose build app
        version=$(git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null) || version=
    else
        fetch "$1"
        docker tag "$1" "$image"
        version=${1##*[:/]}
    fi
    now=$(id "$image")
    case ${1:-} in *@*) ;; *) [ -z "$version" ] || docker tag "$now" "$image:$version" ;; esac
    if [ -n "$before" ] && [ "$before" != "$now" ]; then
        docker tag "$before" "$image:previous"
    fi
    if start; then
        [ "$before" = "$now" ] && echo "changed=false" || echo "changed=true" # for a workflow
        version
        forget "$older"
        return
    fi
    [ -n "$kept" ] || docker compose logs --tail 20 app >&2
    [ -n "$before" ] || fail "it does not get healthy, and there is no version before it"
    go_back "$before" "$older" || fail "neither this version nor the one before gets healthy"
    fail "it does not get healthy: the version before serves"
}

forget() { # an image that is neither served nor gone back to
    case $1 in "" | "$(id "$image")" | "$(id "$image:previous")") return ;; esac
    names=$(tags "$1" 2>/dev/null) || return 0 # the engine has dropped it already
    # shellcheck disable=SC2086
    docker image rm ${names:-"$1"} >/dev/null || echo "kept, since something else uses it: $1" >&2
}

rollback() {
    now=$(serving)
    before=$(id "$image:previous")
    [ -n "$before" ] && [ -n "$now" ] || fail "there is no version before this one"
    docker tag "$before" "$image"
    docker tag "$now" "$image:previous"
    if start; then
        version
        return
    fi
    [ -n "$kept" ] || docker compose logs --tail 20 app >&2
    go_back "$now" "$before" || fail "neither the version before nor this one gets healthy"
    fail "the version before does not get healthy: this one serves"
}

version() {
    now=$(serving)
    before=$(id "$image:previous")
    echo "serves: $([ -z "$now" ] || tags "$now")"
    echo "before: $([ -z "$before" ] || tags "$before")"
}

ask() { # the status of an answer; its body goes to $answer
    curl --silent --show-error --max-time 90 --output "$answer" --write-out '%{http_code}' "$@"
}

ask_with_key() { # which comes by a pipe: a command line is there for everyone on the machine to see
    printf 'Authorization: Bearer %s\n' "$SMOKE_APP_KEY" | ask --header @- "$@"
}

words() { # of a question that reaches the model: one about a document, where the app answers from some
    for document in knowledge/*.*; do
        [ -f "$document" ] || break
        document=${document##*/}
        printf '%s' "${document%.*}?" | tr -d '"\\' | tr '_-' '  '
        return
    done
    printf 'Say hello.'
}

try() {
    url=${URL:-http://$(docker compose port app 8000)} || fail "say in URL where the app answers"
    url=${url%/}
    answer=$(mktemp)
    trap 'rm -f "$answer"' EXIT
    question=$(printf '{"model": "auto", "max_tokens": 16, "messages": [{"role": "user", "content": "%s"}]' "$(words)")

    for path in healthz readyz; do
        status=$(ask "$url/$path") && [ "$status" = 200 ] || fail "/$path: $status $(cat "$answer")"
    done

    set -- --header 'Content-Type: application/json' "$url/v1/chat/completions"
    status=$(ask --data "$question}" "$@")
    [ "$status" = 401 ] || fail "a question without a key: $status"

    : "${SMOKE_APP_KEY:?give a key of APP_API_KEYS}"
    status=$(ask_with_key --data "$question}" "$@")
    [ "$status" = 200 ] || fail "a question: $status $(cat "$answer")"

    status=$(ask_with_key --data "$question, \"stream\": true}" "$@")
    [ "$status" = 200 ] && grep -q '^data: \[DONE\]' "$answer" || fail "a stream: $status $(cat "$answer")"
    echo "$url answers"
}

command=${1:-}
[ $# = 0 ] || shift
case $command in
    deploy | rollback | version)
        image=$(name)
        "$command" "$@"
        ;;
    try) try ;;
    restart) start || fail "it does not get healthy: deploy/docker/release.sh logs" ;;
    logs) docker compose logs --tail 200 "$@" app ;;
    *) fail "usage: deploy/docker/release.sh deploy [IMAGE] | try | rollback | restart | version | logs" ;;
esac
