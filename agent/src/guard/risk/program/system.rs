//! Programs with one meaning each, whatever their words are: a table.

use super::{Reason, Simple, Walk};

/// Names and what they amount to. `true`: what they write is not known.
const TABLE: &[(&str, Reason, bool)] = &[
    (
        "mount umount modprobe insmod rmmod sysctl iptables ip6tables nft ufw firewall-cmd useradd userdel usermod groupadd groupdel passwd chpasswd \
      visudo hostnamectl timedatectl localectl loginctl reboot shutdown halt poweroff init telinit kexec swapon swapoff setenforce \
      update-alternatives ldconfig depmod dpkg-reconfigure launchctl defaults scutil csrutil spctl nvram diskutil pmset systemsetup dscl ifconfig route tc setsebool \
      systemctl service rc-service update-rc.d chkconfig setcap setfacl xattr",
        Reason::System,
        true,
    ),
    ("crontab at batch systemd-run", Reason::Startup, true),
    (
        "mkfs mke2fs mkfs.ext4 mkfs.xfs mkfs.btrfs fdisk sfdisk gdisk parted wipefs blkdiscard hdparm cryptsetup lvremove vgremove pvremove mdadm losetup \
      badblocks fsck e2fsck debugfs zpool zfs sgdisk mkswap tune2fs",
        Reason::Disk,
        true,
    ),
    (
        "apt apt-get aptitude dpkg yum dnf zypper pacman apk snap flatpak brew port emerge nix-env rpm pkg",
        Reason::InstallsOnSystem,
        true,
    ),
    (
        "nc ncat netcat socat telnet ftp tftp sftp lftp ngrok cloudflared chisel frpc bore tshark tcpdump nmap masscan",
        Reason::RawNetwork,
        true,
    ),
    (
        "sendmail mail mailx mutt ssh-copy-id ftpput rclone s3cmd croc wormhole magic-wormhole",
        Reason::Uploads,
        true,
    ),
    ("ssh mosh autossh slogin rsh rlogin", Reason::RemoteShell, true),
    ("dropdb mongodump mongorestore pg_restore", Reason::DestroysData, true),
    ("op pass secret-tool gopass bw lpass keyring ssh-add gpg gpg2 age", Reason::Secrets, false),
    ("printenv", Reason::ShowsEnvironment, false),
    ("dig nslookup host ping ping6 traceroute tracepath whois mtr arp", Reason::Network, false),
    (
        "ps top htop pgrep pidof lsof ss netstat uptime w who last vmstat iostat dmesg journalctl lscpu lsblk lsusb lspci lsmod getconf locale groups hostname arch \
      fuser cal file which whereis type hash jobs wait history dirs tree less more man info column jq yq rg ag ack fd bat exa eza shuf tsort join \
      sha224sum sha384sum b2sum cksum sum hexdump base32 factor numfmt test [ getent look iconv tput stty clear reset ldd nm objdump readelf size xmllint \
      shellcheck cloc tokei scc hyperfine delta diff3 sdiff colordiff zcat zgrep zless bzcat xzcat egrep fgrep rev tac bc dc expr nproc shopt set ulimit umask exit return break continue \
      shift logout pushd popd complete compgen readonly getopts tput zipinfo md5 shasum ts pv watchman gofmt",
        Reason::KnownTool,
        false,
    ),
    ("base64 openssl uuencode uudecode", Reason::KnownTool, true),
    (
        "make gmake cmake ninja meson bazel buck just task rake gradle gradlew mvn mvnw ant sbt lein mix rebar3 dotnet msbuild xcodebuild swift swiftc gcc g++ cc c++ clang clang++ \
      rustc javac java kotlin kotlinc scala ghc cabal stack zig nim ocaml dune tsc tsx ts-node esbuild vite webpack rollup next nuxt jest vitest mocha playwright cypress pytest tox nox \
      ruff black isort mypy pyright pylint flake8 eslint prettier biome stylelint rubocop rspec phpunit golangci-lint rustfmt clang-format clang-tidy gofumpt goimports protoc sqlx diesel \
      alembic flyway pre-commit act husky lint-staged turbo nx lerna gdb lldb valgrind perf strace ltrace ffmpeg convert magick pandoc latexmk pdflatex dot sqlite3 screen tmux expect",
        Reason::RunsScript,
        true,
    ),
];

fn find(name: &str) -> Option<(Reason, bool)> {
    TABLE
        .iter()
        .find(|(names, ..)| names.split_ascii_whitespace().any(|known| known == name))
        .map(|(_, reason, writes)| (*reason, *writes))
}

pub(super) fn is_known(name: &str) -> bool {
    find(name).is_some()
}

/// Judges the command if it is one of these programs.
pub(super) fn judge(walk: &mut Walk<'_>, name: &str, simple: &Simple) -> bool {
    let part = Some(simple.text.as_str());
    let first = simple.words.get(1).map(|word| word.guess.as_str()).unwrap_or_default();
    match name {
        "kill" | "pkill" | "killall" | "skill" | "xkill" => kill(walk, simple),
        _ if name.starts_with("mkfs") => walk.out.note(Reason::Disk, part),
        _ => {
            let Some((reason, writes)) = find(name) else { return false };
            let only_asks = matches!(
                first,
                "--version"
                    | "-V"
                    | "--help"
                    | "list"
                    | "search"
                    | "show"
                    | "info"
                    | "status"
                    | "policy"
                    | "is-active"
                    | "list-units"
                    | "cat"
                    | "-l"
            ) && matches!(
                reason,
                Reason::InstallsOnSystem | Reason::System | Reason::Startup | Reason::RunsScript
            );
            // Asked without words, these only tell.
            let is_bare = simple.words.len() == 1 && matches!(name, "mount" | "ifconfig" | "route");
            if only_asks || is_bare {
                walk.out.note(Reason::KnownTool, part);
                return true;
            }
            walk.out.note(reason, part);
            walk.out.has_unknown_writes |= writes;
            if matches!(reason, Reason::RawNetwork | Reason::Uploads | Reason::RemoteShell) {
                walk.has_network = true;
            }
            let hides = |word: &str| {
                (name == "rg" && word.starts_with("--pre"))
                    || (matches!(name, "fd") && matches!(word, "-x" | "-X" | "--exec" | "--exec-batch"))
                    || (name == "man"
                        && (word.starts_with("-P") || word.starts_with("--pager") || word.starts_with("-H")))
                    || (name == "complete" && word == "-C")
                    || (name == "hyperfine")
                    || (name == "gdb" && word.starts_with("-ex"))
            };
            if simple.words[1..].iter().any(|word| hides(&word.guess)) {
                walk.out.note(Reason::RunsText, part);
                walk.out.has_unknown_writes = true;
            }
            for word in &simple.words[1..] {
                // Most of these read what they are given.
                if !word.guess.starts_with('-') && (word.guess.contains('/') || word.guess.starts_with('.')) {
                    walk.reads(word, &simple.text);
                }
            }
        }
    }
    true
}

fn kill(walk: &mut Walk<'_>, simple: &Simple) {
    let part = Some(simple.text.as_str());
    walk.out.note(Reason::Kills, part);
    let text = simple.text.to_lowercase();
    if text.contains("claude")
        || text.contains("ppid")
        || simple.words[1..].iter().skip(1).any(|word| word.guess == "-1" || word.guess == "1")
    {
        walk.out.note(Reason::KillsAll, part);
    }
    if simple.words.len() == 2 && simple.words[1].guess == "1"
        || simple.words[1..].iter().any(|word| word.guess == "-u")
    {
        walk.out.note(Reason::KillsAll, part);
    }
}
