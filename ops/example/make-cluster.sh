#!/bin/sh
# Writes keys, certificates and configuration of a cluster with TLS: 3 storages that mirror each other, 2 trackers.
#
#   ops/example/make-cluster.sh OUT T1 T2 S1 S2 S3      all of it
#   ops/example/make-cluster.sh OUT storage N HOST      one more storage, with machine id N
#
# T1 T2 are the hosts of the trackers, S1 S2 S3 those of the storages (names or IPv4 addresses, without ports; the same
# machine may be several of them). What is in OUT goes to /etc/folio on each machine (docs/OPERATIONS.md, "Set up"): its
# NAME.toml NAME.pem NAME.key, and ca.pem and keys, which are the same for all. OUT/ca.key signs certificates: keep it
# where no daemon runs. What is there already is kept, so a cluster can be made again or added to.
#
# Environment: FOLIO (the program), FOLIO_ETC (where the files will be; /etc/folio), FOLIO_DATA (/srv/folio),
# FOLIO_PORT (first port; 7400: trackers 7400.., storage n 7410+n, consoles 100 above, metrics 200 above),
# FOLIO_GROUP (example), FOLIO_SYNCGROUP (a), FOLIO_MOUNTS (mounts of each storage; 1), FOLIO_DAYS (of certificates; 825).
set -eu

usage() {
    sed -n '2,15s/^# \{0,1\}//p' "$0"
    exit 2
}

[ $# -ge 4 ] || usage
out=$1
folio=${FOLIO:-folio}
etc=${FOLIO_ETC:-/etc/folio}
data=${FOLIO_DATA:-/srv/folio}
port=${FOLIO_PORT:-7400}
group=${FOLIO_GROUP:-example}
syncgroup=${FOLIO_SYNCGROUP:-a}
mounts=${FOLIO_MOUNTS:-1}
days=${FOLIO_DAYS:-825}
umask 077
mkdir -p "$out"

# openssl, quiet unless it fails.
ssl() {
    openssl "$@" 2> "$out/.openssl.log" || { cat "$out/.openssl.log" >&2; exit 1; }
    rm -f "$out/.openssl.log"
}

# Key and certificate of the CA.
authority() {
    [ ! -e "$out/ca.pem" ] || return 0
    cat > "$out/.ca.cnf" <<END
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = Folio CA of $group
[extensions]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
END
    ssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -days 3650 \
        -config "$out/.ca.cnf" -keyout "$out/ca.key" -out "$out/ca.pem"
    rm "$out/.ca.cnf"
}

# certificate NAME HOST [URI]: signed by the CA, for a host and perhaps a machine.
certificate() {
    [ ! -e "$out/$1.pem" ] || return 0
    case $2 in
        *[!0-9.]*) names=DNS:$2 ;;
        *) names=IP:$2 ;;
    esac
    [ $# -lt 3 ] || names=URI:$3,$names
    cat > "$out/.$1.cnf" <<END
[req]
prompt = no
distinguished_name = name
[name]
CN = $1
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = $names
END
    ssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 \
        -config "$out/.$1.cnf" -keyout "$out/$1.key" -out "$out/.$1.csr"
    ssl x509 -req -sha256 -days "$days" -in "$out/.$1.csr" -CA "$out/ca.pem" -CAkey "$out/ca.key" \
        -CAcreateserial -CAserial "$out/ca.srl" -extfile "$out/.$1.cnf" -extensions extensions \
        -out "$out/$1.pem"
    rm "$out/.$1.cnf" "$out/.$1.csr"
}

# The end of every configuration.
proofs() {
    cat <<END

[auth]
key_file = "$etc/keys"

[tls]
cert = "$etc/$1.pem"
key = "$etc/$1.key"
ca = "$etc/ca.pem"
END
}

# Where a daemon of a host listens: at its address; a name may stand for several.
bind_to() {
    case $1 in
        *[!0-9.]*) echo 0.0.0.0 ;;
        *) echo "$1" ;;
    esac
}

# tracker N HOST
tracker() {
    certificate "tracker$1" "$2"
    bind=$(bind_to "$2")
    {
        cat <<END
listen = "$bind:$((port + $1 - 1))"
admin_listen = "$bind:$((port + 100 + $1 - 1))"
metrics_listen = "$bind:$((port + 200 + $1 - 1))"
END
        proofs "tracker$1"
    } > "$out/tracker$1.toml"
}

# storage N HOST
storage() {
    certificate "storage$1" "$2" "folio://$group/$syncgroup/$1"
    bind=$(bind_to "$2")
    {
        cat <<END
listen = "$bind:$((port + 10 + $1))"
admin_listen = "$bind:$((port + 110 + $1))"
metrics_listen = "$bind:$((port + 210 + $1))"
advertise = "$2:$((port + 10 + $1))"
group = "$group"
syncgroup = "$syncgroup"
machine_id = $1
trackers = [$(cat "$out/.trackers")]
state_dir = "$data/state$1"
END
        mount=0
        while [ "$mount" -lt "$mounts" ]; do
            printf '\n[[mounts]]\nindex = %d\npath = "%s"\n' "$mount" "$data/s$1/m$mount"
            mount=$((mount + 1))
        done
        proofs "storage$1"
    } > "$out/storage$1.toml"
}

if [ "$2" = storage ]; then
    [ $# -eq 4 ] && [ -e "$out/.trackers" ] || usage
    storage "$3" "$4"
    echo "written to $out: storage$3.toml storage$3.pem storage$3.key"
    exit
fi
[ $# -eq 6 ] || usage
[ -e "$out/keys" ] || "$folio" keygen "$out/keys" >/dev/null
authority
printf '"%s:%d", "%s:%d"' "$2" "$port" "$3" "$((port + 1))" > "$out/.trackers"
tracker 1 "$2"
tracker 2 "$3"
shift 3
n=0
for host in "$@"; do
    n=$((n + 1))
    storage "$n" "$host"
done
echo "written to $out: keys, ca.pem, ca.key, and .toml .pem .key of tracker1 tracker2 storage1 storage2 storage3"
