#!/usr/bin/env bash
# Brings up a cluster, applies examples/hello and fetches its page through the ingress.
#
#   demo.sh up [nodes]   1: this machine's Docker Engine, or one that is started when none runs
#                        more: as many hosts, each a network namespace with an engine of its own
#   demo.sh down         removes everything that `up` made
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
state=/var/lib/jaco-demo
bin=$root/target/debug
lab=demo
domain=hello.localhost
http=127.0.0.1:8080
PATH=$bin:$PATH:/usr/sbin:/sbin
export JACO_SOCKET=$state/jaco.sock

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; }
# A process that ended but was not reaped yet has no executable any more.
running() { [ -s "$1" ] && readlink "/proc/$(cat "$1")/exe" >/dev/null 2>&1; }
wait_for() {
    local what=$1 tries=150
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { echo "demo: $what did not come up; see $state" >&2; exit 1; }
        sleep 0.2
    done
}

# The engine's socket: the machine's own, or that of the engine that the demo starts.
socket() {
    if [ -S /var/run/docker.sock ] && docker -H unix:///var/run/docker.sock info >/dev/null 2>&1
    then echo /var/run/docker.sock
    else echo $state/docker.sock
    fi
}

start_engine() {
    local socket=$1
    [ "$socket" = /var/run/docker.sock ] && { say "Using the Docker Engine of this machine"; return; }
    if ! running $state/docker.pid; then
        say "Starting a Docker Engine, because none runs"
        rm -f $state/docker.pid
        setsid dockerd --data-root $state/docker --exec-root $state/docker-run \
            -p $state/docker.pid -H "unix://$socket" >$state/docker.log 2>&1 </dev/null &
    fi
    wait_for "the Docker Engine" docker -H "unix://$socket" info
}

start_daemon() {
    cat >$state/jacod.yaml <<CONFIG
data_dir: $state/data
hostname: demo
listen_addr: 127.0.0.1:7000
cluster_addr: 127.0.0.1:7001
unix_socket: $JACO_SOCKET
http_addr: $http
docker_host: unix://$1
CONFIG
    if ! running $state/jacod.pid; then
        say "Starting jacod"
        JACO_STATE_KEY=$state/state.key setsid jacod --config $state/jacod.yaml \
            >$state/jacod.log 2>&1 </dev/null &
        echo $! >$state/jacod.pid
    fi
    wait_for jacod jaco cluster status
}

fetch() { curl -fsS --max-time 5 -H "Host: $domain" "http://$1/"; }

up_one() {
    mkdir -p $state
    local socket
    socket=$(socket)
    start_engine "$socket"
    start_daemon "$socket"
    if jaco cluster status | grep -q 'not initialized'; then
        show jaco cluster init --name demo
    fi
    "$root/examples/image.sh" docker -H "unix://$socket"
    say "Applying examples/hello"
    show jaco apply "$root/examples/hello/jaco.yaml" --wait
    show jaco status
    say "Fetching http://$domain/ through the ingress"
    wait_for "the route" fetch $http
    echo "$ curl -H 'Host: $domain' http://$http/"
    fetch $http
    cat <<NEXT

Look around:
  export JACO_SOCKET=$JACO_SOCKET PATH=$bin:\$PATH
  jaco status -w      jaco logs hello/web      jaco scale hello/web=5      jaco audit
Stop:
  make demo-stop
NEXT
}

up_many() {
    local nodes=$1 n
    if ! jaco-lab status --name $lab >/dev/null 2>&1; then
        say "Bringing up $nodes hosts, each with an engine and a daemon"
        jaco-lab up --name $lab --hosts "$nodes" --cluster --binaries "$bin"
    fi
    on() { n=$1; shift; jaco-lab run --name $lab "$n" -- "$@"; }
    for n in $(seq "$nodes"); do
        "$root/examples/image.sh" jaco-lab run --name $lab "$n" -- docker
    done
    say "The cluster"
    on 1 jaco cluster status
    say "Applying examples/hello on node-2"
    on 2 jaco apply "$root/examples/hello/jaco.yaml" --wait
    on 1 jaco status
    say "Fetching http://$domain/ through each node"
    for n in $(seq "$nodes"); do
        wait_for "the route on node-$n" on "$n" curl -fsS -H "Host: $domain" http://127.0.0.1/
        printf 'node-%s: ' "$n"
        on "$n" curl -fsS --max-time 5 -H "Host: $domain" http://127.0.0.1/
    done
    cat <<NEXT

Look around:
  export PATH=$bin:\$PATH
  jaco-lab shell 1 --name $lab     then: jaco status -w, jaco cluster status, docker ps
  jaco-lab fault kill-daemon 1 --name $lab
Stop:
  make demo-stop
NEXT
}

# Ends a process that a pid file names, and waits until it is gone.
stop() {
    if running "$1"; then
        kill "$(cat "$1")"
        for _ in $(seq 100); do running "$1" || break; sleep 0.1; done
    fi
    rm -f "$1"
}

# Removes what the daemon told the kernel: it outlives the daemon, to keep containers apart.
forget_rules() {
    nft delete table inet jaco 2>/dev/null || true
    local table rule
    for table in raw filter; do
        iptables -t $table -S 2>/dev/null | grep -- '--comment jaco ' | sed 's/^-A/-D/' |
            while read -r rule; do
                # shellcheck disable=SC2086
                iptables -t $table $rule
            done || true
    done
}

down() {
    jaco-lab down --name $lab
    [ -d $state ] || return 0
    local socket ids
    socket=$(socket)
    stop $state/jacod.pid
    if docker -H "unix://$socket" info >/dev/null 2>&1; then
        local id
        id=$(sed -n 's/.*"cluster_id": *"\([^"]*\)".*/\1/p' $state/data/node.json 2>/dev/null || true)
        if [ -n "$id" ]; then
            ids=$(docker -H "unix://$socket" ps -aq --filter "label=jaco.cluster_id=$id")
            # shellcheck disable=SC2086
            [ -z "$ids" ] || docker -H "unix://$socket" rm -f $ids >/dev/null
            ids=$(docker -H "unix://$socket" network ls -q --filter "label=jaco.cluster_id=$id")
            # shellcheck disable=SC2086
            [ -z "$ids" ] || docker -H "unix://$socket" network rm $ids >/dev/null
        fi
    fi
    stop $state/docker.pid
    forget_rules
    rm -rf $state
    echo "demo removed"
}

case ${1:-up} in
    up) case ${2:-1} in 1) up_one ;; *) up_many "$2" ;; esac ;;
    down) down ;;
    *) echo "usage: demo.sh up [nodes] | down" >&2; exit 2 ;;
esac
