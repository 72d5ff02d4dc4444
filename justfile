# `just` lists the recipes. `verify` only reads, `fix` mends.

set shell := ["bash", "-euo", "pipefail", "-c"]

_default:
    @just --list --unsorted

# Style, lints, tests, documents: everything that must hold before a change is taken.
verify:
    .ci/run
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

# Mend style and what the lints can mend themselves.
fix:
    cargo clippy --fix --allow-dirty --allow-staged --all-targets
    cargo fmt

# Licences, banned crates, sources (needs cargo-deny).
deny:
    cargo deny check bans licenses sources

# Feed COUNT broken frames, ids and disk structures to the readers; a failing run prints FOLIO_FUZZ_SEED.
fuzz COUNT="10000000":
    FOLIO_FUZZ_FRAMES={{COUNT}} FOLIO_FUZZ_CASES={{COUNT}} \
        cargo test --release --locked --test wire_fuzz --test disk_fuzz -- --nocapture

# Throughput of a cluster on this machine: `just bench put --size 4k --connections 64`.
bench *ARGS="put --size 4k --connections 64 --duration 10s":
    cargo build --release --locked
    dir=$(mktemp -d); trap 'kill $pid 2>/dev/null || true; wait $pid 2>/dev/null || true; rm -rf "$dir"' EXIT; \
    target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'); \
    "$target/release/folio" dev --dir "$dir" >"$dir.ready" & pid=$!; \
    until grep -q '^ready' "$dir.ready"; do kill -0 $pid; sleep 0.1; done; rm "$dir.ready"; \
    "$target/release/folio" bench {{ARGS}}
