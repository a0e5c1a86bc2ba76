#!/usr/bin/env bash
# Every check of the project, one after the other; each says what it does and how long it took. All steps run even after a failure.
set -euo pipefail
# shellcheck source=.ci/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$top"

export SQLX_OFFLINE=true CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}
started=$SECONDS
passed=0
failed=()
log=$(mktemp)
trap 'rm -f "$log" "$log.files"' EXIT

# step NAME PATTERN COMMAND…: PATTERN must occur in the output, or the step counts as failed: it did nothing. "-" asks for none.
step() {
    local name=$1 pattern=$2 from=$SECONDS status=0
    shift 2
    say "── $name"
    "$@" 2>&1 | tee "$log" || status=$?
    if [ "$status" -eq 0 ] && [ "$pattern" != - ] && ! sed 's/\x1b\[[0-9;]*m//g' "$log" | grep -Eq "$pattern"; then
        say "   ran, but nothing in its output matches '$pattern': nothing was tested"
        status=1
    fi
    if [ "$status" -eq 0 ]; then
        passed=$((passed + 1))
        say "   ok: $name ($((SECONDS - from)) s)"
    else
        failed+=("$name")
        say "   FAILED: $name ($((SECONDS - from)) s)"
    fi
}

shell_files() { git ls-files | while read -r file; do
    case $file in
        *.sh) echo "$file" ;;
        *) if head -n 1 "$file" 2>/dev/null | grep -aq '^#!.*\(bash\|/sh\)'; then echo "$file"; fi ;;
    esac
done; }
check_shell() {
    shell_files >"$log.files"
    xargs shellcheck --external-sources <"$log.files" && say "shellcheck: $(grep -c . "$log.files") files"
}
web() { (cd relay/web && npm run --silent "$@"); }

step "tools" - .ci/setup.sh
need_rust
need_node
step "rustfmt" - cargo fmt --all --check
step "web: lint" - web lint
step "web: types" - web typecheck
step "web: unit tests" 'Tests +[1-9][0-9]* passed' web test
step "web: build" - web build
step "clippy" - cargo clippy --workspace --all-targets --locked -- -D warnings
step "build" - cargo build --workspace --bins --locked
step "tests" 'Summary .* [1-9][0-9]* tests? run' cargo nextest run --workspace --locked --no-fail-fast
step "browser tests" 'pass [1-9]' sh -c 'cd tests/web && npm test --silent'
step "licences and bans" 'ok' cargo deny --log-level error check licenses bans sources
step "shellcheck" 'shellcheck: [1-9]' check_shell

minutes=$(((SECONDS - started) / 60))
say
say "$passed passed, ${#failed[@]} failed"
if [ ${#failed[@]} -gt 0 ]; then
    printf 'make test: failed:'
    printf ' [%s]' "${failed[@]}"
    printf '\n'
    exit 1
fi
say "make test: everything passed in $minutes min $(((SECONDS - started) % 60)) s"
