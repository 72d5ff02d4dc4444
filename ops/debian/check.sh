#!/bin/sh
# Installs the Debian package in a fresh Debian 12, runs what it ships, removes and purges it.
#
#   ops/debian/check.sh PACKAGE.deb [ROOT]
#
# PACKAGE.deb as `cargo deb` makes it. ROOT is a folder with a Debian 12 in it (debootstrap --variant=minbase
# --include=adduser bookworm ROOT); without it one is made, and deleted at the end. Needs root, debootstrap, unshare and
# ip (network name spaces: the ports of this machine are left alone). The last line is "package: all well".
set -eu
if [ $# -lt 1 ] || [ ! -f "$1" ]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit 2
fi
package=$(realpath "$1")

work=$(mktemp -d)
root=${2:-$work/root}

say() { echo "package: $*"; }
fail() { say "FAILED: $*" >&2; exit 1; }
finish() {
    umount "$root/proc" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

[ -d "$root/usr" ] || debootstrap --variant=minbase --include=adduser bookworm "$root" >"$work/log" 2>&1 ||
    { tail -5 "$work/log" >&2; fail "no Debian 12 could be made"; }
mount -t proc proc "$root/proc"
in_root() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
# A network of its own, with nothing but loopback, as the user of the daemons.
serve() { unshare --net --fork sh -c "ip link set lo up && exec chroot '$root' setpriv --reuid=folio --regid=folio --clear-groups sh -c '$1'"; }

in_root dpkg --purge folio >/dev/null 2>&1 || true
rm -rf "$root/srv/folio"
cp "$package" "$root/tmp/folio.deb"
in_root dpkg --install /tmp/folio.deb >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "it does not install"; }
say "installed: $(in_root folio --version)"

owner() { [ "$(in_root stat -c '%U:%G %a' "$1")" = "$2" ] || fail "$1 is $(in_root stat -c '%U:%G %a' "$1"), not $2"; }
owner /srv/folio "folio:folio 750"
owner /etc/folio "root:folio 750"
in_root getent passwd folio >/dev/null || fail "there is no user folio"
for file in /etc/folio/tracker.toml /etc/folio/storage.toml /lib/systemd/system/folio-storage.service \
    /lib/systemd/system/folio-tracker.service /usr/share/doc/folio/OPERATIONS.md /usr/share/folio/alerts.yml; do
    [ -e "$root$file" ] || fail "$file is missing"
done

# The shipped configuration, as it is: a tracker and a storage on loopback.
in_root install -d -o folio -g folio /srv/folio/m0
# shellcheck disable=SC2016
serve '
    cd /tmp
    folio tracker --config /etc/folio/tracker.toml > /srv/folio/t.out 2> /srv/folio/t.log & t=$!
    folio storage --config /etc/folio/storage.toml > /srv/folio/s.out 2> /srv/folio/s.log & s=$!
    for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do grep -q "^ready" /srv/folio/s.out && break; sleep 1; done
    echo "kept for good" | folio put - > /srv/folio/id && folio get "$(cat /srv/folio/id)" > /srv/folio/got
    folio admin 127.0.0.1:7511 status > /srv/folio/status
    kill $s && wait $s && kill $t && wait $t
' || { cat "$root"/srv/folio/?.log >&2; fail "the shipped configuration does not run"; }
[ "$(cat "$root/srv/folio/got")" = "kept for good" ] || fail "what was stored is not read back"
say "the shipped configuration serves as user folio, and stops in order"

for unit in folio-tracker folio-storage; do
    if command -v systemd-analyze >/dev/null; then
        systemd-analyze security --offline=true --threshold=20 --no-pager \
            "$root/lib/systemd/system/$unit.service" >"$work/log" 2>&1 || { tail -1 "$work/log" >&2; fail "$unit"; }
        say "$unit: $(tail -1 "$work/log")"
    fi
done

in_root dpkg --remove folio >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "it cannot be removed"; }
[ -e "$root/etc/folio/storage.toml" ] || fail "a removal took the configuration"
in_root dpkg --purge folio >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "it cannot be purged"; }
[ ! -e "$root/etc/folio" ] || fail "a purge left /etc/folio"
[ -e "$root/srv/folio/m0/folio.mount" ] || fail "a purge took data"
left=$(find "$root" -xdev -path "$root/srv/folio" -prune -o -path "$root/proc" -prune -o -path "$root/var/log" -prune \
    -o -path "$root/tmp" -prune -o -name '*folio*' -print)
[ -z "$left" ] || fail "a purge left $left"
say "a purge left the data in /srv/folio and nothing else"

in_root dpkg --install /tmp/folio.deb >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "it does not install again"; }
# shellcheck disable=SC2016
serve '
    folio tracker --config /etc/folio/tracker.toml > /srv/folio/t.out 2> /srv/folio/t.log & t=$!
    folio storage --config /etc/folio/storage.toml > /srv/folio/s.out 2> /srv/folio/s.log & s=$!
    folio --timeout 20s get "$(cat /srv/folio/id)" > /srv/folio/got
    kill $s && wait $s && kill $t && wait $t
' || { cat "$root"/srv/folio/?.log >&2; fail "it does not run again"; }
[ "$(cat "$root/srv/folio/got")" = "kept for good" ] || fail "the data is not read by the new installation"
in_root dpkg --purge folio >/dev/null 2>&1
rm -f "$root/tmp/folio.deb"
say "all well"
