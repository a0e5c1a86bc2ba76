#!/usr/bin/env bash
# Makes the Debian packages of both programs from built ones: deb.sh --from DIR --out DIR
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=installers/stage.sh
. "$here/stage.sh"

from='' out=''
while [ $# -gt 1 ]; do
    case $1 in
        --from) from=$2 ;;
        --out) out=$2 ;;
        *) break ;;
    esac
    shift 2
done
if [ $# -gt 0 ] || [ -z "$from" ] || [ -z "$out" ]; then
    echo "usage: deb.sh --from DIR --out DIR" >&2
    exit 2
fi
mkdir -p "$out"
architecture=$(dpkg --print-architecture)
zsh_dir=vendor-completions
export zsh_dir

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The newest glibc symbol that the program needs, so that the package refuses older systems with a sentence.
glibc_of() { grep -aoE 'GLIBC_2\.[0-9]+' "$1" | sort -t. -k2 -n -u | tail -n 1 | sed 's/GLIBC_//'; }

make_deb() {
    local program=$1 root=$work/$1 version
    version=$("$from/$program" --version | sed 's/^[^0-9]*//; s/[^0-9A-Za-z.~+-].*//')
    mkdir -p "$root/DEBIAN"
    stage "$program" "$from" "$root" /usr
    gzip -9n "$root/usr/share/man/man1/"*.1
    install -D -m 644 "$here/debian/copyright" "$root/usr/share/doc/$program/copyright"
    if [ "$program" = claudenest-agent ]; then
        install -D -m 644 "$here/../systemd/claudenest-agent.service" "$root/usr/lib/systemd/user/claudenest-agent.service"
    else
        install -D -m 644 "$here/../systemd/claudenest-relay.service" "$root/usr/lib/systemd/system/claudenest-relay.service"
        install -D -m 644 "$here/debian/relay.toml" "$root/etc/claudenest-relay/relay.toml"
        echo /etc/claudenest-relay/relay.toml >"$root/DEBIAN/conffiles"
    fi
    sed -e "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/; s/@GLIBC@/$(glibc_of "$from/$program")/" \
        -e "s/@SIZE@/$(du -sk "$root" | cut -f1)/" "$here/debian/$program.control" >"$root/DEBIAN/control"
    for script in postinst prerm postrm; do
        if [ -f "$here/debian/$program.$script" ]; then install -m 755 "$here/debian/$program.$script" "$root/DEBIAN/$script"; fi
    done
    (cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
    # DEB_COMPRESSION: tests choose a fast one.
    dpkg-deb --root-owner-group -Z"${DEB_COMPRESSION:-xz}" --build "$root" "$out/${program}_${version}_$architecture.deb" >/dev/null
    printf '%s\n' "$out/${program}_${version}_$architecture.deb"
}

for program in claudenest-agent claudenest-relay; do make_deb "$program"; done
