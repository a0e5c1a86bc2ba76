#!/usr/bin/env bash
# Installs, updates or removes claudenest-agent and claudenest-relay from built programs.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=installers/stage.sh
. "$here/stage.sh"

usage() {
    cat <<'EOF'
usage: install.sh [install|remove] [options]

  install        install, or update what is installed (the default). Running sessions go on.
  remove         remove the programs. Data and configuration stay; it says where they are.

  --agent        only claudenest-agent
  --relay        only claudenest-relay
  --user         for you alone: ~/.local and user services (the default, unless root)
  --system       for everybody: /usr/local and system services (the default for root)
  --prefix DIR   another place than ~/.local or /usr/local
  --from DIR     where the built programs are (default: target/release beside this script, else this directory)
  --service      also install and start the services
  --dry-run      only say what would be done
EOF
}

die() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 2
}

action=install programs=() scope='' prefix='' from='' service=false dry=false
while [ $# -gt 0 ]; do
    case $1 in
        install | remove) action=$1 ;;
        --agent) programs+=(claudenest-agent) ;;
        --relay) programs+=(claudenest-relay) ;;
        --user | --system) scope=${1#--} ;;
        --prefix | --from)
            [ $# -gt 1 ] || die "$1 needs a directory"
            if [ "$1" = --prefix ]; then prefix=$2; else from=$2; fi
            shift
            ;;
        --service) service=true ;;
        --dry-run) dry=true ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            usage >&2
            die "unknown argument: $1"
            ;;
    esac
    shift
done
[ ${#programs[@]} -gt 0 ] || programs=(claudenest-agent claudenest-relay)
if [ -z "$scope" ]; then if [ "$(id -u)" -eq 0 ]; then scope=system; else scope=user; fi; fi
if [ -z "$prefix" ]; then if [ "$scope" = system ]; then prefix=/usr/local; else prefix=$HOME/.local; fi; fi
case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
if [ -z "$from" ]; then
    from=$here
    if [ -d "$here/../target/release" ]; then from=$(cd "$here/../target/release" && pwd); fi
fi
if [ "$scope" = user ]; then manager=(systemctl --user); else manager=(systemctl); fi

# True if a service manager answers: there is none in containers, and none of this kind on macOS.
has_manager() { command -v systemctl >/dev/null && "${manager[@]}" list-units >/dev/null 2>&1; }

unit_path() {
    if [ "$scope" = user ]; then
        printf '%s/systemd/user/%s.service' "${XDG_CONFIG_HOME:-$HOME/.config}" "$1"
    else
        printf '/etc/systemd/system/%s.service' "$1"
    fi
}

install_one() {
    local program=$1 word=installed
    [ -x "$from/$program" ] || die "$from/$program is missing. Build it with 'make deb' or 'cargo build --release', or name its directory with --from."
    if [ -e "$prefix/bin/$program" ]; then word=updated; fi
    if $dry; then
        printf 'would be %s:\n' "$word"
        staged_files "$program" "$prefix"
        return
    fi
    mkdir -p "$prefix/bin" 2>/dev/null || true
    [ -w "$prefix/bin" ] || die "$prefix/bin is not writable. Use --user, another --prefix, or run as root."
    stage "$program" "$from" "" "$prefix"
    printf '%s %s: %s\n' "$word" "$("$prefix/bin/$program" --version)" "$prefix/bin/$program"
    if $service; then
        start_service "$program"
    elif has_manager && "${manager[@]}" is-active --quiet "$program"; then
        # Sessions have processes of their own and go on; the new program finds them.
        "${manager[@]}" restart "$program"
        printf 'restarted the running service %s\n' "$program"
    fi
}

start_service() {
    local program=$1 unit
    if [ "$program" = claudenest-agent ] && [ "$scope" = user ]; then
        "$prefix/bin/claudenest-agent" service install
        return
    fi
    [ "$scope" = system ] || die "the relay's service is a system service: use --system."
    [ "$program" = claudenest-relay ] || die "the agent runs as a user: use --user with --agent --service."
    has_manager || die "no systemd runs here, so no service can be started. Run '$prefix/bin/claudenest-relay serve'."
    id claudenest-relay >/dev/null 2>&1 || useradd --system --home-dir /var/lib/claudenest-relay --shell /usr/sbin/nologin claudenest-relay
    unit=$(unit_path claudenest-relay)
    sed "s|/usr/bin/|$prefix/bin/|g" "$here/../systemd/claudenest-relay.service" >"$unit"
    "${manager[@]}" daemon-reload
    "${manager[@]}" enable --now claudenest-relay
    printf 'started the service claudenest-relay\n'
}

remove_one() {
    local program=$1 file unit found=false
    unit=$(unit_path "$program")
    if $dry; then
        staged_files "$program" "$prefix"
        return
    fi
    if [ "$program" = claudenest-agent ] && [ -x "$prefix/bin/$program" ] && [ -e "$unit" ]; then
        "$prefix/bin/$program" service uninstall || true
    elif [ -e "$unit" ]; then
        "${manager[@]}" disable --now "$program" 2>/dev/null || true
        rm -f "$unit"
    fi
    while read -r file; do
        if [ -e "$file" ]; then
            rm -f "$file"
            found=true
        fi
    done < <(staged_files "$program" "$prefix")
    if $found; then printf 'removed %s from %s\n' "$program" "$prefix"; else printf '%s is not installed in %s\n' "$program" "$prefix"; fi
    case $program in
        claudenest-agent) printf 'its data stays in %s; running sessions go on until they end\n' "${XDG_DATA_HOME:-$HOME/.local/share}/claudenest-agent" ;;
        claudenest-relay) printf 'its data stays in %s\n' "$(if [ "$(id -u)" -eq 0 ]; then echo /var/lib/claudenest-relay; else echo "${XDG_DATA_HOME:-$HOME/.local/share}/claudenest-relay"; fi)" ;;
    esac
}

if $dry && [ "$action" = remove ]; then printf 'would be removed:\n'; fi
for program in "${programs[@]}"; do "${action}_one" "$program"; done
if [ "$action" = install ] && ! $dry; then
    case ":$PATH:" in *":$prefix/bin:"*) ;; *) printf 'note: %s/bin is not in your PATH\n' "$prefix" ;; esac
fi
