#!/usr/bin/env bash
# Builds what is shipped: `build.sh web` the web app, `build.sh release` both programs with it, `build.sh deb` the packages in dist/.
set -euo pipefail
# shellcheck source=.ci/lib.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.ci/lib.sh"
cd "$top"

# Builds relay/web/dist if a source is newer than it.
build_web() {
    local dist=relay/web/dist/index.html
    if [ ! -f relay/web/package.json ]; then die "relay/web is missing: this is not a whole checkout."; fi
    if [ -f "$dist" ] && [ -z "$(find relay/web -path '*/node_modules' -prune -o -path '*/dist' -prune -o -type f -newer "$dist" -print -quit)" ]; then
        return
    fi
    need_node
    npm_ci "$top/relay/web"
    say "building the web app"
    (cd relay/web && npm run --silent build -- --logLevel warn)
    touch "$dist"
}

build_release() {
    need_rust
    need cc
    build_web
    # PROFILE=dev builds faster and runs slower.
    local profile=${PROFILE:-release}
    # The first build takes minutes: cargo shows how far it is. Later ones say only what went wrong.
    local quiet=--quiet
    if [ ! -x "target/$([ "$profile" = dev ] && echo debug || echo "$profile")/claudenest-relay" ]; then
        say "building claudenest-agent and claudenest-relay ($profile; 5 to 15 minutes the first time)"
        quiet=''
    fi
    SQLX_OFFLINE=true cargo build --profile "$profile" --locked ${quiet:+"$quiet"} -p claudenest-agent -p claudenest-relay
}

case "${1:-}" in
    web) build_web ;;
    release) build_release ;;
    deb)
        build_release
        installers/deb.sh --from target/release --out dist
        ;;
    *) die "usage: build.sh web|release|deb" ;;
esac
