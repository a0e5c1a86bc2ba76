#!/usr/bin/env bash
# `make run`: builds both programs, starts a relay and an agent of this checkout, pairs them by the real flow and prints
# where to go. Ctrl-C stops both; running sessions stay, and the next run finds them. Everything is kept in .run/.
set -euo pipefail
# shellcheck source=.ci/lib.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.ci/lib.sh"
cd "$top"

run=${CLAUDENEST_RUN_DIR:-$top/.run}
mkdir -p "$run"
run=$(cd "$run" && pwd)
need curl cc git
need initdb
installers/build.sh release

# PostgreSQL refuses root: the relay then runs its database as another user, who cannot look into root's directories.
relay_data=$run/relay
if [ "$(id -u)" -eq 0 ]; then relay_data=/var/lib/claudenest-run-$(printf '%s' "$run" | cksum | cut -d' ' -f1); fi
export CLAUDENEST_RELAY_DATA_DIR=$relay_data CLAUDENEST_AGENT_DATA_DIR=$run/agent
bin=$top/target/release
if [ "${PROFILE:-}" = dev ]; then bin=$top/target/debug; fi
relay=$bin/claudenest-relay agent=$bin/claudenest-agent

# Short commands for another terminal: they find this run's daemon.
for program in claudenest-agent claudenest-relay; do
    {
        echo "#!/bin/sh"
        echo "export CLAUDENEST_AGENT_DATA_DIR='$run/agent' CLAUDENEST_RELAY_DATA_DIR='$relay_data'"
        echo "exec '$bin/$program' \"\$@\""
    } >"$run/$program"
    chmod +x "$run/$program"
done

email=${CLAUDENEST_EMAIL:-$(git config user.email 2>/dev/null || true)}
email=${email:-${USER:-me}@localhost}
login_link() { "$relay" login-link --email "$email" 2>/dev/null | grep -oE 'https?://[^ ]+' | head -n 1; }

if [ -f "$run/relay.pid" ] && kill -0 "$(cat "$run/relay.pid")" 2>/dev/null && curl -fsS "$(cat "$run/url")/healthz" >/dev/null 2>&1; then
    say "ClaudeNest already runs at $(cat "$run/url"). A new login link: $(login_link)"
    exit 0
fi

is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
# The port of the last run: the machine is paired with that address.
port=7450
if [ -f "$run/port" ]; then port=$(cat "$run/port"); fi
wanted=$port
while ! is_free "$port"; do port=$((port + 1)); done
if [ "$port" != "$wanted" ]; then say "port $wanted is taken; using $port"; fi
echo "$port" >"$run/port"
url=http://127.0.0.1:$port
echo "$url" >"$run/url"

relay_pid='' agent_pid=''
# shellcheck disable=SC2317 # called by the trap
stop() {
    trap '' INT TERM
    for pid in $agent_pid $relay_pid; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in $agent_pid $relay_pid; do wait "$pid" 2>/dev/null || true; done
    rm -f "$run/relay.pid"
}
trap stop EXIT
trap 'say; say "Stopped. Running sessions stay; the next make run finds them."; exit 0' INT TERM

# start NAME COMMAND…: in a process group of its own, so that Ctrl-C reaches this script alone.
start() {
    local name=$1
    shift
    set -m
    "$@" </dev/null >"$run/$name.log" 2>&1 &
    set +m
}
# until_true WHAT PID LOG COMMAND…
until_true() {
    local what=$1 pid=$2 log=$3 tries=0
    shift 3
    until "$@" >/dev/null 2>&1; do
        kill -0 "$pid" 2>/dev/null || die "$what ended; its log, $log, says:
$(tail -n 15 "$log")"
        tries=$((tries + 1))
        [ $tries -lt 600 ] || die "$what is not ready after a minute; its log: $log"
        sleep 0.1
    done
}

start relay "$relay" serve --listen "127.0.0.1:$port" --public-url "$url"
relay_pid=$!
echo "$relay_pid" >"$run/relay.pid"
until_true "the relay" "$relay_pid" "$run/relay.log" curl -fsS "$url/readyz"
link=$(login_link) || die "the relay gave no login link; try: $run/claudenest-relay login-link --email $email"

# `status` fails while the daemon is down, but says what it is paired with.
is_paired() { case $("$agent" status --json 2>/dev/null || true) in *"\"$url\""*) true ;; *) false ;; esac; }
if ! is_paired; then
    say "pairing this machine with $url for $email"
    start pair "$agent" pair --relay "$url" --expect-account "$email"
    pair_pid=$!
    until_true "pairing" "$pair_pid" "$run/pair.log" grep -qE '[0-9A-Z]{3}-[0-9A-Z]{3}' "$run/pair.log"
    code=$(grep -oE '\b[0-9A-Z]{3}-[0-9A-Z]{3}\b' "$run/pair.log" | head -n 1)
    "$relay" pair "$code" --email "$email" >"$run/claim.log" 2>&1 || die "pairing failed: $(cat "$run/claim.log")"
    wait "$pair_pid" || die "pairing failed: $(tail -n 5 "$run/pair.log")"
fi
start agent "$agent" run
agent_pid=$!
until_true "the agent" "$agent_pid" "$run/agent.log" "$agent" session list --json

say
say "ClaudeNest runs."
say "  open   $link"
say "         (logs you in once, within 15 minutes; later: $url)"
say "  or     ${run#"$PWD"/}/claudenest-agent claude        in another terminal"
say "  logs   ${run#"$PWD"/}/relay.log, ${run#"$PWD"/}/agent.log"
if ! has claude && [ ! -x "$HOME/.local/bin/claude" ] && [ ! -x "$HOME/.claude/local/claude" ]; then
    say "  note   Claude Code is not installed; shells work. To install it: npm install -g @anthropic-ai/claude-code"
fi
say "Ctrl-C stops relay and agent; sessions go on."
while kill -0 "$relay_pid" 2>/dev/null && kill -0 "$agent_pid" 2>/dev/null; do
    sleep 1
done
die "the relay or the agent ended; see ${run#"$PWD"/}/relay.log and ${run#"$PWD"/}/agent.log"
