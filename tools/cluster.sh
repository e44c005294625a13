#!/bin/bash
# One run with a process for each role on this machine: replay server, learner, actors, evaluator.
#
#   tools/cluster.sh ROOT_DIR ACTORS --gin_file=... [further flags of every process]
#
# The learner's bar and last table are shown; what the others print is in ROOT_DIR/*.log. It ends
# with the run, and on Ctrl-C with all processes. The same command goes on with a run that was
# stopped. HOST_OF (a command; see cluster_hosts.sh) puts each role on a host of its own; ADDRESS is
# where they find the server, if not at port PORT of host SERVER.
set -u
root_dir=$1 actors=$2
shift 2
python=${RUN:-.venv/bin/python}
port=${PORT:-8000}
server=${SERVER:-localhost}
host_of=${HOST_OF:-on_this_host}
mkdir -p "$root_dir"

on_this_host() {
  shift
  exec "$@"
}

pids=()
start() { # name, module, flags
  local name=$1 module=$2
  shift 2
  ($host_of "$name" "$python" -m "$module" "$@") > "$root_dir/$name.log" 2>&1 &
  pids+=($!)
}

stop() {
  kill "${pids[@]}" 2> /dev/null
  for _ in $(seq 400); do # 40 s: each leaves within 30
    [ -z "$(jobs -rp)" ] && return
    sleep 0.1
  done
  kill -KILL "${pids[@]}" 2> /dev/null
}
trap 'stop; exit 130' INT TERM

start server launch.replay_server --root_dir="$root_dir" --port="$port" "$@"
address=${ADDRESS:-$server:$port}
for _ in $(seq 6000); do # ten minutes: what it goes on from may be large
  grep -q '^Replay server ready' "$root_dir/server.log" && break
  kill -0 "${pids[0]}" 2> /dev/null || break
  sleep 0.1
done
for task in $(seq 0 $((actors - 1))); do
  start "actor$task" launch.actor --replay_server="$address" --task="$task" "$@"
done
start evaluator launch.evaluator --replay_server="$address" --root_dir="$root_dir" "$@"
evaluator=${pids[-1]}
($host_of learner "$python" -m launch.learner --replay_server="$address" --root_dir="$root_dir" "$@") \
  2> >(tee "$root_dir/learner.log" >&2) &
learner=$!
pids+=($learner)
wait $learner
status=$?
if [ $status -eq 0 ]; then
  wait "$evaluator"
  status=$?
fi
stop
for log in "$root_dir"/*.log; do
  grep -H '^error: ' "$log"
done
exit $status
