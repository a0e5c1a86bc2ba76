//! Programs that talk to other machines, and to databases, containers and clouds.

use super::args::Args;
use super::{Reason, Simple, Walk, Word, files};
use crate::guard::risk::script::Facts;

/// Judges the command if it is one of these programs.
pub(super) fn judge(walk: &mut Walk<'_>, name: &str, simple: &Simple) -> Option<Facts> {
    let words = &simple.words[1..];
    let part = simple.text.as_str();
    match name {
        "curl" | "wget" | "http" | "https" | "xh" | "xhs" | "aria2c" => web(walk, name, words, part),
        "scp" | "rsync" => copy(walk, name, words, part),
        _ if is_service(name) => service(walk, name, simple),
        _ => return None,
    }
    Some(Facts { is_network: walk.has_network, ..Facts::default() })
}

/// True for an address of this machine.
fn is_loopback(address: &str) -> bool {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.contains('@') {
        return false;
    }
    let name = if host.starts_with('[') {
        host.split(']').next().unwrap_or_default().trim_start_matches('[')
    } else {
        host.split(':').next().unwrap_or_default()
    };
    name == "localhost"
        || name == "::1"
        || name == "0.0.0.0"
        || (name.starts_with("127.") && name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
}

fn web(walk: &mut Walk<'_>, name: &str, words: &[Word], part: &str) {
    const VALUES: &str = "X d F T o H A e u b c K m w x C E r Y y z Q t P O U D i S -request -data -data-raw -data-binary -data-ascii -data-urlencode -json -form -form-string \
         -upload-file -output -header -user-agent -user -cookie -cookie-jar -config -max-time -connect-timeout -write-out -proxy -retry -unix-socket -resolve \
         -output-document -directory-prefix -post-data -post-file -body-data -body-file -method -url -output-dir -cacert -cert -key -limit-rate -dump-header";
    // What takes a value differs: `-O` and `-i` do for wget only.
    let values = if name == "curl" {
        VALUES.replace(" O ", " ").replace(" i ", " ").replace(" S ", " ")
    } else {
        VALUES.to_owned()
    };
    let args = Args::read(words, &values);
    walk.out.note(Reason::Network, Some(part));
    walk.has_network = true;
    let urls: Vec<&str> = args
        .operands
        .iter()
        .map(|word| word.guess.as_str())
        .chain(args.values("--url").iter().map(|word| word.guess.as_str()))
        .collect();
    let is_local = !urls.is_empty()
        && urls.iter().all(|url| is_loopback(url))
        && !args.has("-x --proxy -K --config --resolve --connect-to");
    let method =
        args.value("-X --request --method").map(|word| word.guess.to_uppercase()).unwrap_or_default();
    let sends = matches!(method.as_str(), "POST" | "PUT" | "PATCH")
        || args.has("-d --data --data-raw --data-binary --data-ascii --data-urlencode --json -F --form --form-string -T --upload-file --post-data --post-file --body-data --body-file")
        || matches!(name, "http" | "https" | "xh" | "xhs") && (words.iter().skip(1).any(|word| word.guess.contains(['=', '@'])) || words.iter().any(|word| matches!(word.guess.as_str(), "POST" | "PUT" | "PATCH")));
    if sends && !is_local {
        walk.out.note(Reason::Uploads, Some(part));
    }
    if method == "DELETE" && !is_local {
        walk.out.note(Reason::DeletesRemote, Some(part));
    }
    if args.has("-K --config") || name == "wget" && args.has("-e --execute --use-askpass") {
        walk.out.note(Reason::HiddenEvaluation, Some(part));
        walk.out.has_unknown_writes = true;
    }
    for target in args.values(if name == "wget" {
        "-O --output-document -o --output-file"
    } else {
        "-o --output --output-dir -D --dump-header -c --cookie-jar"
    }) {
        let target = target.clone();
        if target.guess != "-" {
            walk.out.note(Reason::Overwrites, Some(part));
            walk.writes(&target, false, part);
        }
    }
    let names_itself = name == "curl" && args.has("-O --remote-name --remote-name-all")
        || name == "aria2c"
        || name == "wget" && !args.has("-O --output-document --spider");
    if names_itself {
        walk.out.note(Reason::Overwrites, Some(part));
        let dir =
            args.value("-P --directory-prefix --output-dir").cloned().unwrap_or_else(|| Word::literal("."));
        walk.writes(&dir, true, part);
    }
}

fn copy(walk: &mut Walk<'_>, name: &str, words: &[Word], part: &str) {
    let args = Args::read(
        words,
        "e i o P F l c S J -rsh -exclude -include -filter -files-from -out-format -log-file -bwlimit -port",
    );
    let is_remote = |word: &Word| {
        word.guess.split('/').next().is_some_and(|host| host.contains(':'))
            || word.guess.starts_with("rsync://")
    };
    let Some((target, sources)) = args.operands.split_last() else {
        walk.out.note(Reason::KnownTool, Some(part));
        return;
    };
    walk.out.note(Reason::Overwrites, Some(part));
    if args.has("-e --rsh -S --rsync-path")
        || args.value("-o").is_some_and(|word| word.guess.to_lowercase().contains("command"))
    {
        walk.out.note(Reason::RunsText, Some(part));
    }
    if args.operands.iter().any(|word| is_remote(word)) {
        walk.out.note(Reason::Network, Some(part));
        walk.has_network = true;
    }
    if is_remote(target) {
        walk.out.note(Reason::Uploads, Some(part));
        return;
    }
    walk.writes(target, true, part);
    if name == "rsync"
        && (args.has("--del --delete --delete-before --delete-after --delete-during --delete-excluded"))
    {
        files::deletes_tree(walk, target, part);
    }
    if args.has("--remove-source-files") {
        for source in sources {
            walk.writes(source, true, part);
        }
    }
}

fn is_service(name: &str) -> bool {
    "gh glab hub aws gcloud gsutil az kubectl oc helm terraform tofu pulumi ansible ansible-playbook docker docker-compose podman nerdctl psql mysql mariadb mysqladmin redis-cli mongosh mongo \
     heroku fly flyctl vercel netlify wrangler firebase supabase vault security doctl linode-cli hcloud s3cmd eksctl minikube kind vagrant sqlcmd cockroach influx clickhouse-client bq stripe"
        .split_ascii_whitespace()
        .any(|known| known == name)
}

pub(super) fn is_known(name: &str) -> bool {
    is_service(name)
        || matches!(name, "curl" | "wget" | "http" | "https" | "xh" | "xhs" | "aria2c" | "scp" | "rsync")
}

fn service(walk: &mut Walk<'_>, name: &str, simple: &Simple) {
    let part = Some(simple.text.as_str());
    let words: Vec<String> = simple.words[1..].iter().map(|word| word.guess.to_lowercase()).collect();
    let has = |list: &str| words.iter().any(|word| list.split(' ').any(|known| known == word));
    let text = words.join(" ");
    let is_local = matches!(
        name,
        "docker"
            | "docker-compose"
            | "podman"
            | "nerdctl"
            | "psql"
            | "mysql"
            | "mariadb"
            | "redis-cli"
            | "mongosh"
            | "mongo"
            | "minikube"
            | "kind"
            | "vagrant"
    );
    let only_reads = matches!(
        words.first().map(String::as_str),
        Some(
            "get"
                | "describe"
                | "logs"
                | "ps"
                | "images"
                | "inspect"
                | "version"
                | "--version"
                | "--help"
                | "list"
                | "status"
                | "top"
                | "stats"
                | "explain"
        )
    ) || (has("list view status diff describe ls get checks show")
        && !has("delete rm set edit create run exec apply merge close"));
    walk.out.note(if is_local { Reason::KnownTool } else { Reason::Network }, part);
    walk.has_network |= !is_local;
    walk.out.has_unknown_writes |= !only_reads;
    let destroys = match name {
        "docker" | "docker-compose" | "podman" | "nerdctl" => {
            has("prune")
                || (text.contains("volume rm") || text.contains("system reset"))
                || (has("down") && has("-v --volumes"))
        }
        "kubectl" | "oc" => has("delete drain replace") || text.contains("--prune"),
        "helm" => has("uninstall delete rollback"),
        "terraform" | "tofu" | "pulumi" => has("destroy apply up import taint") || text.contains("state rm"),
        "psql" | "mysql" | "mariadb" | "mysqladmin" | "mongosh" | "mongo" | "sqlcmd" | "cockroach"
        | "clickhouse-client" | "bq" => {
            ["drop ", "truncate ", "delete from", "dropdatabase", "alter table", ".drop(", ".deletemany("]
                .iter()
                .any(|word| text.contains(word))
        }
        "redis-cli" => has("flushall flushdb del unlink shutdown config"),
        "aws" | "gcloud" | "gsutil" | "az" | "doctl" | "hcloud" | "linode-cli" | "firebase" | "heroku"
        | "fly" | "flyctl" | "vercel" | "netlify" | "wrangler" | "supabase" => words.iter().any(|word| {
            word.starts_with("delete")
                || word.starts_with("terminate")
                || word.starts_with("destroy")
                || word == "rm"
                || word == "rb"
                || word == "remove"
                || word == "purge"
                || word == "--delete"
        }),
        _ => false,
    };
    if destroys {
        walk.out.note(Reason::DestroysData, part);
    }
    if matches!(name, "gh" | "glab" | "hub") {
        if has("delete archive")
            || text.contains("-x delete")
            || text.contains("--method delete")
            || text.contains("-xdelete")
        {
            walk.out.note(Reason::DeletesRemote, part);
        }
        if text.starts_with("auth token") || text.contains("--show-token") {
            walk.out.note(Reason::Secrets, part);
        }
        if text.starts_with("gist create")
            || text.starts_with("secret set")
            || text.starts_with("release create")
            || text.starts_with("repo create")
            || text.contains("--visibility")
        {
            walk.out.note(Reason::Uploads, part);
        }
    }
    let secrets = [
        "print-access-token",
        "print-identity-token",
        "get-secret-value",
        "secrets versions access",
        "get-login-password",
        "export-credentials",
        "kv get",
        "find-generic-password",
        "find-internet-password",
        "dump-keychain",
        "get secret",
        "config view --raw",
        "create token",
    ];
    if secrets.iter().any(|secret| text.contains(secret)) {
        walk.out.note(Reason::Secrets, part);
    }
    if matches!(name, "aws" | "gsutil" | "gcloud") && has("cp sync mv upload put-object") {
        walk.out.note(Reason::Uploads, part);
    }
    if matches!(name, "vercel" | "netlify" | "wrangler" | "firebase" | "fly" | "flyctl")
        && has("deploy publish --prod")
        || name == "vercel" && words.is_empty()
        || matches!(name, "docker" | "podman") && has("push")
    {
        walk.out.note(Reason::Publishes, part);
    }
    if matches!(name, "docker" | "podman" | "nerdctl") && has("run exec create") {
        walk.out.note(Reason::RunsScript, part);
        if has("--privileged --pid=host --net=host")
            || text.contains("-v /:")
            || text.contains("docker.sock")
            || text.contains("source=/,")
            || text.contains("-v=/:")
        {
            walk.out.note(Reason::Privilege, part);
        }
    }
    if matches!(name, "kubectl" | "oc") && has("exec cp attach")
        || name == "gcloud" && has("ssh")
        || matches!(name, "ansible" | "ansible-playbook")
        || name == "aws" && has("ssm")
    {
        walk.out.note(Reason::RemoteShell, part);
    }
}
