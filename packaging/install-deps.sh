#!/bin/sh
# Installs the Debian packages that the bed and the benches run on.
#
#   install-deps.sh bed bench        groups
#   install-deps.sh wrk haproxy      or single packages
#
# Prints nothing and calls no apt when everything is present. Services that come with a
# package are not started: a peer must not take the ports that a test wants.
set -eu

bed="docker.io nftables iproute2 iptables busybox-static docker-registry
    pebble openssl curl python3"
bench="wrk nghttp2-client jq nginx-light libnginx-mod-stream haproxy caddy dnsmasq-base dnsperf etcd-server"
parity="docker-compose"

packages=""
for argument in "$@"; do
    case $argument in
        bed) packages="$packages $bed" ;;
        bench) packages="$packages $bench" ;;
        parity) packages="$packages $parity" ;;
        *) packages="$packages $argument" ;;
    esac
done
[ -n "$packages" ] || { echo "usage: install-deps.sh <group|package>..." >&2; exit 2; }

# shellcheck disable=SC2086
present=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $packages 2>/dev/null || true)
missing=""
for package in $packages; do
    case "
$present
" in
        *"
installed $package
"*) ;;
        *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

[ "$(id -u)" = 0 ] || { echo "install-deps.sh: must be root to install$missing" >&2; exit 1; }

log=$(mktemp)
policy=/usr/sbin/policy-rc.d
own_policy=""
cleanup() {
    status=$?
    [ -z "$own_policy" ] || rm -f "$policy"
    [ "$status" = 0 ] || cat "$log" >&2
    rm -f "$log"
}
trap cleanup EXIT
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
    own_policy=yes
fi

export DEBIAN_FRONTEND=noninteractive
echo "installing$missing" >&2
apt-get update >"$log" 2>&1
# shellcheck disable=SC2086
apt-get install -y --no-install-recommends $missing >"$log" 2>&1
