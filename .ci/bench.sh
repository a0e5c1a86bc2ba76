#!/usr/bin/env bash
# Builds the programs as they are released, and measures them: see docs/PERFORMANCE.md.
# BENCH=echo,bulk runs single sections, BENCH_QUICK=1 shows only that everything works, BENCH_ROUNDS=9 asks for more rounds.
set -euo pipefail
# shellcheck source=.ci/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$top"

need_rust
need cc tmux initdb
say "── building release programs (some minutes, once)"
SQLX_OFFLINE=true cargo build --release --locked -p claudenest-agent -p claudenest-relay -p claudenest-tests --bins
exec target/release/bench
