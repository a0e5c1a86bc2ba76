#!/bin/sh
# Writes relay/.sqlx anew: the types of every checked query, so that the workspace builds without a database.
# Needs the PostgreSQL programs. Starts a throw-away cluster, applies the migrations, checks the crate against it.
#   relay/prepare-sqlx.sh           write
#   relay/prepare-sqlx.sh --check   fail if the committed files are stale
set -eu
crate=$(cd "$(dirname "$0")" && pwd)
bin=${POSTGRES_BIN_DIR:-$(find /usr/lib/postgresql /opt/homebrew/opt -maxdepth 2 -name bin -path '*postgresql*' 2>/dev/null | sort -V | tail -n 1)}
[ -x "$bin/initdb" ] || bin=$(dirname "$(command -v initdb || echo /nonexistent/initdb)")
[ -x "$bin/initdb" ] || { echo "initdb was not found: install PostgreSQL (Debian: apt install postgresql) or set POSTGRES_BIN_DIR." >&2; exit 1; }
base=/dev/shm; [ -w "$base" ] || base=/tmp
work=$(mktemp -d "$base/cn-sqlx.XXXXXX")
as=
if [ "$(id -u)" = 0 ]; then
    user=postgres; id "$user" >/dev/null 2>&1 || user=nobody
    chown "$user" "$work"
    as="setpriv --reuid=$user --regid=$(id -g "$user") --clear-groups --"
fi
server=
cleanup() { [ -z "$server" ] || { kill -INT "$server" 2>/dev/null; wait "$server" 2>/dev/null || :; }; rm -rf "$work"; }
trap cleanup EXIT
trap 'exit 1' INT TERM
$as "$bin/initdb" -D "$work/data" -A trust -U postgres -N --no-instructions -E UTF8 --no-locale >/dev/null
$as "$bin/postgres" -D "$work/data" -c listen_addresses= -c "unix_socket_directories=$work" -c fsync=off >"$work/log" 2>&1 &
server=$!
for _ in $(seq 200); do "$bin/pg_isready" -q -h "$work" -U postgres && break; sleep 0.05; done
for file in "$crate"/migrations/*.sql; do
    "$bin/psql" -q -v ON_ERROR_STOP=1 -h "$work" -U postgres -f "$file" postgres
done
out="$crate/.sqlx"
[ "${1:-}" != --check ] || out="$work/sqlx"
[ "$out" != "$crate/.sqlx" ] || rm -rf "$out"
mkdir -p "$out"
# The macros run only when the crate is compiled: a fresh mark makes cargo do that.
touch "$crate/src/lib.rs"
DATABASE_URL="postgres://postgres@localhost/postgres?host=$work" SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$out" \
    cargo check --quiet --manifest-path "$crate/Cargo.toml" --lib
if [ "${1:-}" = --check ]; then
    diff -r "$out" "$crate/.sqlx" || { echo "relay/.sqlx is stale: run relay/prepare-sqlx.sh and commit it." >&2; exit 1; }
fi
echo "$(find "$out" -name "*.json" | wc -l) queries"
