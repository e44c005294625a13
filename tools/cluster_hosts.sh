#!/bin/bash
# As cluster.sh, with a network namespace for each role, so that all they say crosses a network. Needs
# root and iproute2.
#
#   tools/cluster_hosts.sh ROOT_DIR ACTORS --gin_file=... [further flags of every process]
#
#   DELAY=50ms LOSS=1%   delay and loss of every packet, where the kernel has netem
#   CUT_SECONDS=60       the learner's link is cut for so long,
#   CUT_WHEN=latents     as soon as the learner shows this pattern
set -eu
root_dir=$1
bridge=seer_tf_br
hosts=(server learner evaluator)
for task in $(seq 0 $(($2 - 1))); do
  hosts+=("actor$task")
done

cleanup() {
  [ -z "${cut:-}" ] || kill "$cut" 2> /dev/null || true
  for host in "${hosts[@]}"; do
    ip netns del "seer_tf_$host" 2> /dev/null || true
  done
  ip link del $bridge 2> /dev/null || true
}
trap cleanup EXIT
cleanup

ip link add $bridge type bridge
ip link set $bridge up
number=1
for host in "${hosts[@]}"; do
  space=seer_tf_$host
  ip netns add "$space"
  ip link add "seer$number" type veth peer name eth0 netns "$space"
  ip link set "seer$number" master $bridge up
  ip -n "$space" addr add "10.77.0.$number/24" dev eth0
  ip -n "$space" link set lo up
  ip -n "$space" link set eth0 up
  if [ -n "${DELAY:-}${LOSS:-}" ]; then
    ip netns exec "$space" tc qdisc add dev eth0 root netem ${DELAY:+delay $DELAY} ${LOSS:+loss $LOSS} ||
      echo "cluster_hosts: this kernel has no netem: packets are neither delayed nor lost" >&2
  fi
  number=$((number + 1))
done

if [ -n "${CUT_SECONDS:-}" ]; then
  (
    until tr '\r' '\n' 2> /dev/null < "$root_dir/learner.log" | grep -q "${CUT_WHEN:-pixels .*[1-9]}"; do
      sleep 0.05
    done
    echo "cluster_hosts: the learner's link is down for $CUT_SECONDS s" >&2
    ip link set seer2 down
    sleep "$CUT_SECONDS"
    ip link set seer2 up
    echo "cluster_hosts: the learner's link is up" >&2
  ) &
  cut=$!
fi

in_namespace() {
  local host=$1
  shift
  exec ip netns exec "seer_tf_$host" "$@"
}
export -f in_namespace
HOST_OF=in_namespace SERVER=10.77.0.1 "$(dirname "$0")/cluster.sh" "$@"
