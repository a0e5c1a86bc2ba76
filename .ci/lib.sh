# Shared by the scripts of this directory and of installers/: words on the terminal, root, packages, toolchain.
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=$top/.tools
export PATH="$tools/cargo/bin:$PATH"
# Debian keeps the PostgreSQL server programs off the PATH.
for dir in /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin; do
    if [ -x "$dir/initdb" ]; then PATH=$PATH:$dir; fi
done

say() { printf '%s\n' "$*"; }
note() { printf '   %s\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

# Runs a command as root: directly, or through a sudo that asks nothing.
can_be_root() { [ "$(id -u)" -eq 0 ] || { has sudo && { [ -t 0 ] || sudo -n true 2>/dev/null; }; }; }
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

# Makes `cargo` usable: a HOME of its own does not hide the toolchain, and a missing pinned toolchain is
# installed, or replaced by one that is new enough.
need_rust() {
    has cargo || [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH=$HOME/.cargo/bin:$PATH
    has cargo || die "Rust is missing. Install it with rustup (https://rustup.rs), then run this again."
    local beside
    beside=$(cd "$(dirname "$(command -v cargo)")/../.." && pwd)/.rustup
    if [ -z "${RUSTUP_HOME:-}" ] && [ ! -d "$HOME/.rustup/toolchains" ] && [ -d "$beside/toolchains" ]; then
        export RUSTUP_HOME=$beside
    fi
    (cd "$top" && cargo --version >/dev/null 2>&1) && return
    local wanted
    wanted=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$top/rust-toolchain.toml")
    note "installing the Rust toolchain $wanted"
    if ! rustup toolchain install "$wanted" --profile minimal --component clippy --component rustfmt; then
        export RUSTUP_TOOLCHAIN=stable
        note "Rust $wanted could not be installed; using $(cargo --version)"
    fi
    (cd "$top" && cargo --version >/dev/null) || die "cargo does not work; see the message above."
}

# package_of PROGRAM: the name of the package that brings it, for apt or brew.
package_of() {
    case "$(uname -s):$1" in
        Darwin:initdb) echo postgresql@16 ;;
        Darwin:npm | Darwin:node) echo node ;;
        Darwin:chromium) echo chromium ;;
        Darwin:*) echo "$1" ;;
        *:initdb) echo postgresql ;;
        *:node) echo nodejs ;;
        *:cc) echo build-essential ;;
        *:systemd-analyze) echo systemd ;;
        *) echo "$1" ;;
    esac
}

# need PROGRAM…: installs the packages of the programs that are missing, and says so first.
need() {
    local program missing=()
    for program in "$@"; do
        has "$program" || missing+=("$(package_of "$program")")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(uname -s)" = Darwin ]; then
        has brew || die "Missing: ${missing[*]}. Install Homebrew (https://brew.sh) or these packages, then run this again."
        note "installing with Homebrew: ${missing[*]}"
        brew install "${missing[@]}"
    elif has apt-get && can_be_root; then
        note "installing with apt: ${missing[*]}"
        if [ ! -e /etc/postgresql-common ] && [[ " ${missing[*]} " == *" postgresql "* ]]; then
            # Only the programs are wanted: without this, the package would start a server of its own.
            as_root mkdir -p /etc/postgresql-common
            echo "create_main_cluster = false" | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
        fi
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 update
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 \
            -o Dpkg::Use-Pty=0 install --no-install-recommends "${missing[@]}" >/dev/null
    else
        die "Missing: ${missing[*]}. Install them, for example: sudo apt-get install -y ${missing[*]}"
    fi
    for dir in /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin; do
        if [ -x "$dir/initdb" ]; then PATH=$PATH:$dir; fi
    done
    for program in "$@"; do
        has "$program" || die "$program is still missing after the installation of $(package_of "$program")."
    done
}

# The web build's tools want Node 20.19, 22.12 or newer; Debian 12 has 18.
node_is_new_enough() {
    has node && node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit((a === 20 && b >= 19) || (a === 22 && b >= 12) || a > 22 ? 0 : 1)'
}

# Makes `node` and `npm` usable; a Node that is too old is left alone, and a newer one used from .tools.
need_node() {
    local version=22.23.3 package
    package=node-$(uname -s | tr '[:upper:]' '[:lower:]')-$(uname -m | sed 's/x86_64/x64/; s/aarch64/arm64/')
    if [ -x "$tools/node/node_modules/$package/bin/node" ]; then PATH=$tools/node/node_modules/$package/bin:$PATH; fi
    need node npm
    node_is_new_enough && return
    note "Node $(node --version) is too old for the web build: putting Node $version into .tools"
    mkdir -p "$tools/node"
    (cd "$tools/node" && npm install --no-save --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error "$package@$version" >/dev/null)
    PATH=$tools/node/node_modules/$package/bin:$PATH
    chmod +x "$tools/node/node_modules/$package/bin/node"
    hash -r
    node_is_new_enough || die "Node $(node --version) is too old. Install Node 20.19, 22.12 or newer, then run this again."
}

# npm_ci DIR: installs exactly what the lock file of DIR says, unless that is there already.
npm_ci() {
    local dir=$1 stamp=$1/node_modules/.claudenest-lock
    if [ -f "$stamp" ] && cmp -s "$stamp" "$dir/package-lock.json"; then return; fi
    note "npm ci in ${dir#"$top"/}"
    (cd "$dir" && npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error)
    cp "$dir/package-lock.json" "$stamp"
}
