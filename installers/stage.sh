# Sourced by install.sh and deb.sh: puts one program with all that belongs to it below a directory.
# shellcheck shell=bash

# stage PROGRAM FROM ROOT PREFIX: the program from directory FROM, its completions and man pages, below ROOT PREFIX.
# Every file is written beside its place and renamed: a running program keeps its old file, nobody sees half of one.
stage() {
    local program=$1 binary=$2/$1 root=$3 prefix=$4 shell target
    install -d "$root$prefix/bin"
    put "$binary" "$root$prefix/bin/$program" 755
    while read -r shell target; do
        install -d "$(dirname "$root$prefix/$target")"
        "$binary" completions "$shell" >"$root$prefix/$target.new"
        put "$root$prefix/$target.new" "$root$prefix/$target" 644
        rm -f "$root$prefix/$target.new"
    done <<EOF
bash share/bash-completion/completions/$program
zsh share/zsh/${zsh_dir:-site-functions}/_$program
fish share/fish/vendor_completions.d/$program.fish
EOF
    install -d "$root$prefix/share/man/man1"
    local pages page
    pages=$(mktemp -d)
    # A page for each command, as `man claudenest-agent-session-new` finds it, with the program's own as the first.
    "$binary" man "$pages"
    for page in "$pages"/*.1; do put "$page" "$root$prefix/share/man/man1/${page##*/}" 644; done
    rm -rf "$pages"
}

# put FILE PLACE MODE
put() {
    cp "$1" "$2.tmp.$$"
    chmod "$3" "$2.tmp.$$"
    mv -f "$2.tmp.$$" "$2"
}

# Files of a program below a prefix, for its removal.
staged_files() {
    local program=$1 prefix=$2
    printf '%s\n' \
        "$prefix/bin/$program" \
        "$prefix/share/bash-completion/completions/$program" \
        "$prefix/share/zsh/site-functions/_$program" \
        "$prefix/share/fish/vendor_completions.d/$program.fish" \
        "$prefix/share/man/man1/$program.1"
    # Only those that are there: which commands a version has is known to that version.
    find "$prefix/share/man/man1" -maxdepth 1 -name "$program-*.1" 2>/dev/null | sort || true
}
