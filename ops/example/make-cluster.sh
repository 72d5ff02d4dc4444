#!/bin/sh
# Writes the configuration of an example cluster: 3 machines that mirror each other, 2 trackers, one key file.
#
#   ops/example/make-cluster.sh OUT T1 T2 S1 S2 S3
#
# T1 T2 are the addresses of the trackers, S1 S2 S3 those of the storages (names or IP addresses, without ports; the same
# machine may be several of them). OUT/HOST-ROLE.toml goes to /etc/folio/ROLE.toml on that machine, OUT/keys to
# /etc/folio/keys on every one of them (mode 0600, owned by the user folio). See docs/OPERATIONS.md, "Set up".
set -eu
if [ $# -ne 6 ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0"
    exit 2
fi
out=$1; t1=$2; t2=$3; shift 3
folio=${FOLIO:-folio}
keys=${FOLIO_KEYS:-/etc/folio/keys}
data=${FOLIO_DATA:-/srv/folio}
umask 077
mkdir -p "$out"
[ -e "$out/keys" ] || "$folio" keygen "$out/keys" >/dev/null

n=0
for tracker in "$t1" "$t2"; do
    n=$((n + 1))
    cat > "$out/tracker$n.toml" <<END
listen = "$tracker:$((7399 + n))"
admin_listen = "$tracker:$((7499 + n))"
metrics_listen = "$tracker:$((7599 + n))"

[auth]
key_file = "$keys"
END
done

n=0
for storage in "$@"; do
    n=$((n + 1))
    cat > "$out/storage$n.toml" <<END
listen = "$storage:$((7410 + n))"
admin_listen = "$storage:$((7510 + n))"
metrics_listen = "$storage:$((7610 + n))"
advertise = "$storage:$((7410 + n))"
group = "example"
syncgroup = "a"
machine_id = $n
trackers = ["$t1:7400", "$t2:7401"]
state_dir = "$data/state$n"

[[mounts]]
index = 0
path = "$data/s$n/m0"

[auth]
key_file = "$keys"
END
done
echo "written to $out: keys tracker1.toml tracker2.toml storage1.toml storage2.toml storage3.toml"
