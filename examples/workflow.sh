#!/bin/sh
# Submits a workflow, follows it, and does its last step itself; with curl and nothing else.
#
#     FAIRQ_TOKEN=fq_... examples/workflow.sh
#
# The token needs the scopes read, submit and work. The server is that of FAIRQ_URL.
set -eu

url=${FAIRQ_URL:-http://127.0.0.1:8080}
token=${FAIRQ_TOKEN:?set it to a token with the scopes read, submit and work}
run=$(date +%s)-$$

# A file of headers keeps the token out of the list of processes.
directory=$(mktemp -d) follower=
trap 'kill $follower 2>/dev/null || true; rm -r "$directory"' EXIT
headers=$directory/headers changes=$directory/changes
printf 'Authorization: Bearer %s\nContent-Type: application/json\n' "$token" >"$headers"

call() { # METHOD PATH [BODY]
    curl --silent --show-error --fail-with-body --request "$1" --header "@$headers" \
        ${3:+--data "$3"} "$url$2"
}

field() { # NAME: the first text of that name in JSON
    sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" | head -n 1
}

# Four jobs: two wait for the first, and the last for both. Nobody but us runs the last one.
call POST /jobs/batch '{"jobs": [
    {"job_id": "fetch-'"$run"'", "type": "simulate", "payload": {"duration_seconds": 0.5}},
    {"job_id": "left-'"$run"'", "type": "simulate", "depends_on": ["fetch-'"$run"'"]},
    {"job_id": "right-'"$run"'", "type": "simulate", "depends_on": ["fetch-'"$run"'"]},
    {"job_id": "label-'"$run"'", "type": "label-by-hand", "executor": "pull",
     "payload": {"picture": "cat"}, "depends_on": ["left-'"$run"'", "right-'"$run"'"]}
]}' >/dev/null
echo "submitted the workflow $run"

# Every change of our jobs, as it happens.
mkfifo "$changes"
curl --silent --no-buffer --header "@$headers" --header 'Accept: text/event-stream' \
    "$url/jobs/stream" >"$changes" &
follower=$!
sed -nu 's/^data: .*"job_id": *"\([^"]*\)".*"status": *"\([^"]*\)".*/  \1 is \2/p' <"$changes" &

# The last job, as soon as it is its turn: ours for half a minute, and longer with each heartbeat.
work=$(call POST /jobs/next '{"worker": "by-hand", "types": ["label-by-hand"],
                              "lease_seconds": 30, "wait_seconds": 60}')
job=$(printf '%s' "$work" | field job_id)
lease=$(printf '%s' "$work" | field lease)
echo "working on $job"

call POST "/jobs/$job/heartbeat" '{"lease": "'"$lease"'",
    "progress": {"fraction": 0.5, "message": "looking at it"},
    "logs": [{"level": "info", "message": "this is a cat"}]}' >/dev/null
call POST "/jobs/$job/complete" '{"lease": "'"$lease"'", "status": "completed",
                                  "result": {"label": "cat"}}' >/dev/null

status=$(call GET "/jobs/label-$run/wait?timeout_seconds=60" | field status)
echo "the workflow $run is $status"
test "$status" = completed
