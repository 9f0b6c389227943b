#!/bin/sh
# What comes before and after `sam deploy`, in the project's folder; it needs the aws command.
#
#   deploy/aws/release.sh version           which version serves now: "version=7", or "version="
#   deploy/aws/release.sh try               ask the deployed app; SMOKE_APP_KEY is a key of it
#   deploy/aws/release.sh rollback VERSION  let an earlier version serve again
set -eu

stack=$(sed -n 's/^stack_name = "\(.*\)"$/\1/p' samconfig.toml)

output() {
    aws cloudformation describe-stacks --stack-name "$stack" --output text \
        --query "Stacks[0].Outputs[?OutputKey=='$1'].OutputValue"
}

version() {
    if said=$(output FunctionName 2>&1); then
        aws lambda get-alias --function-name "$said" --name live --output text \
            --query "join('', ['version=', FunctionVersion])"
    elif echo "$said" | grep -q "does not exist"; then
        echo "version=" # the first deploy has nothing to go back to
    else
        echo "$said" >&2
        return 1
    fi
}

fail() {
    echo "$1" >&2
    exit 1
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
    url=$(output Url)
    url=${url%/}
    answer=$(mktemp)
    trap 'rm -f "$answer"' EXIT
    question=$(printf '{"model": "auto", "max_tokens": 16, "messages": [{"role": "user", "content": "%s"}]' "$(words)")

    # The alias has just been moved: a moment may pass until each request meets the new version.
    for pause in 2 4 8 0; do
        status=$(ask "$url/healthz") && [ "$status" = 200 ] && break
        [ "$pause" != 0 ] || fail "/healthz: $status"
        sleep "$pause"
    done

    status=$(ask "$url/readyz")
    [ "$status" = 200 ] || fail "/readyz: $status $(cat "$answer")"

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

rollback() {
    aws lambda update-alias --function-name "$(output FunctionName)" --name live \
        --function-version "$1" --output text --query "join(' ', ['serving again: version', FunctionVersion])"
}

case ${1:-} in
    version | try) "$1" ;;
    rollback) rollback "${2:?which version?}" ;;
    *) fail "usage: deploy/aws/release.sh version | try | rollback VERSION" ;;
esac
