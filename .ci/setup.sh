#!/usr/bin/env bash
# Installs what the tests need and is missing, says what, and changes nothing on a second run.
set -euo pipefail
# shellcheck source=.ci/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

deny_version=0.20.2

need_rust
need cc make git python3 tmux shellcheck initdb
need_node
if [ "$(uname -s)" = Linux ]; then need systemd-analyze dpkg-deb; fi
if ! has chromium && ! has chromium-browser && ! has google-chrome && [ -z "${CHROMIUM_BIN:-}" ]; then need chromium; fi

cargo nextest --version >/dev/null 2>&1 || {
    note "building cargo-nextest (some minutes, once)"
    cargo install --quiet --locked --debug cargo-nextest --root "$tools/cargo"
}
cargo deny --version >/dev/null 2>&1 || {
    note "building cargo-deny $deny_version (some minutes, once)"
    cargo install --quiet --locked --debug "cargo-deny@$deny_version" --root "$tools/cargo"
}

mkdir -p "$tools/claude"
for file in package.json package-lock.json .npmrc; do
    cmp -s "$top/tests/claude/$file" "$tools/claude/$file" || cp "$top/tests/claude/$file" "$tools/claude/$file"
done
npm_ci "$tools/claude"
for dir in "$top/relay/web" "$top/tests/web"; do npm_ci "$dir"; done

# nginx and Caddy are unpacked beside the tests, not installed: their packages would start servers.
if [ "$(uname -s)" = Linux ] && has apt-get; then
    for program in nginx caddy; do
        if has "$program" || [ -e "$tools/debs/usr/sbin/$program" ] || [ -e "$tools/debs/usr/bin/$program" ]; then continue; fi
        note "unpacking $program"
        mkdir -p "$tools/debs"
        (
            cd "$tools/debs"
            apt-get -qq -o APT::Sandbox::User=root -o DPkg::Lock::Timeout=300 download "$program" ||
                { as_root apt-get -qq -o DPkg::Lock::Timeout=300 update && apt-get -qq -o APT::Sandbox::User=root download "$program"; }
            for package in "$program"_*.deb; do dpkg-deb -x "$package" .; done
        )
    done
fi

claude=$(find "$tools/claude/node_modules/@anthropic-ai" -maxdepth 2 -name claude -type f -path '*claude-code-*' | head -n 1)
[ -n "$claude" ] || die "The real Claude Code was not installed below .tools/claude for $(uname -sm)."
chmod +x "$claude"
note "claude: $("$claude" --version) · $(cargo --version) · node $(node --version) · $(initdb --version)"
