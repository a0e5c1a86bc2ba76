//! The systemd user unit.

use std::path::PathBuf;

use super::{Installed, Program, ServiceError, ServiceStatus, ask, plain, remove, write};

const UNIT: &str = "claudenest-agent.service";
const TEMPLATE: &str = include_str!("../../../systemd/claudenest-agent.service");
const TEMPLATE_COMMAND: &str = "ExecStart=/usr/bin/claudenest-agent run";
/// Where packages put the same unit for everybody.
const PACKAGED: &str = "/usr/lib/systemd/user/claudenest-agent.service";

pub(super) fn render(program: &Program) -> Result<String, ServiceError> {
    let mut command = format!("ExecStart={}", quoted(plain(&program.path)?));
    for argument in program.arguments.iter().map(String::as_str).chain(["run"]) {
        command.push(' ');
        command.push_str(&quoted(plain(argument.as_ref())?));
    }
    if let Some(path) = &program.search_path {
        let assignment = format!("PATH={}", plain(path.as_ref())?);
        command = format!("Environment={}\n{command}", quoted(&assignment));
    }
    debug_assert!(TEMPLATE.contains(TEMPLATE_COMMAND));
    Ok(TEMPLATE.replace(TEMPLATE_COMMAND, &command))
}

/// Quotes a word for a unit file: blanks, quotes, backslashes, specifiers and variables lose their meaning.
fn quoted(text: &str) -> String {
    let escaped = text.replace('%', "%%").replace('$', "$$").replace('\\', "\\\\").replace('"', "\\\"");
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-=:".contains(c));
    if is_plain { escaped } else { format!("\"{escaped}\"") }
}

fn file(program: &Program) -> PathBuf {
    let config = program.config_home.clone().unwrap_or_else(|| program.home.join(".config"));
    config.join("systemd/user").join(UNIT)
}

pub(super) fn install(program: &Program) -> Result<Installed, ServiceError> {
    let own = file(program);
    let is_packaged = program.path == std::path::Path::new("/usr/bin/claudenest-agent")
        && program.arguments.is_empty()
        && std::path::Path::new(PACKAGED).exists();
    let file = if is_packaged { PathBuf::from(PACKAGED) } else { own };
    if !is_packaged {
        write(&file, &render(program)?)?;
    }
    let refused = |reason| ServiceError::Manager { manager: "systemd", reason, file: file.clone() };
    systemctl(&["daemon-reload"]).map_err(refused)?;
    systemctl(&["enable", UNIT]).map_err(refused)?;
    // Also when it runs already: a new program or new arguments must count. Sessions go on.
    systemctl(&["restart", UNIT]).map_err(refused)?;
    let mut hints = Vec::new();
    if lingers() == Some(false) {
        hints.push(
            "Without lingering, the system ends your programs (sessions too) when you log out. To keep them: loginctl enable-linger"
                .to_owned(),
        );
    }
    Ok(Installed { file, hints })
}

pub(super) fn uninstall(program: &Program) -> Result<bool, ServiceError> {
    let file = file(program);
    let was_there = file.exists() || std::path::Path::new(PACKAGED).exists();
    if !was_there {
        return Ok(false);
    }
    let stopped = systemctl(&["disable", "--now", UNIT]);
    remove(&file)?;
    match stopped.and_then(|_| systemctl(&["daemon-reload"])) {
        Ok(_) => Ok(true),
        // Without a user instance nothing runs that would have to be stopped.
        Err(reason) if is_absent(&reason) => Ok(true),
        Err(reason) => Err(ServiceError::Manager { manager: "systemd", reason, file }),
    }
}

pub(super) fn status(program: &Program) -> ServiceStatus {
    let own = file(program);
    let installed = [own, PathBuf::from(PACKAGED)].into_iter().find(|file| file.exists());
    let enabled = systemctl(&["is-enabled", UNIT]);
    let problem = enabled.as_ref().err().filter(|reason| is_absent(reason)).cloned();
    ServiceStatus {
        manager: "systemd",
        is_enabled: enabled.is_ok_and(|word| word.starts_with("enabled")),
        is_running: systemctl(&["is-active", UNIT]).is_ok_and(|word| word == "active"),
        lingers: if problem.is_none() { lingers() } else { None },
        file: installed,
        problem,
    }
}

fn systemctl(arguments: &[&str]) -> Result<String, String> {
    let mut all = vec!["--user", "--no-pager"];
    all.extend(arguments);
    ask("systemctl", &all)
}

fn is_absent(reason: &str) -> bool {
    reason.contains("connect to bus")
        || reason.contains("cannot be run")
        || reason.contains("not been booted")
}

fn lingers() -> Option<bool> {
    let answer =
        ask("loginctl", &["show-user", &crate::facts::user_name(), "--property=Linger", "--value"]).ok()?;
    Some(answer == "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_any_kind_are_quoted() {
        let unit = render(&super::super::sample()).unwrap();
        assert!(unit.contains("ExecStart=\"/opt/my tools/100%% \\\"x\\\"/claudenest-agent\" --data-dir \"/srv/a&b <c>\" run\n"), "{unit}");
        assert!(unit.contains("Environment=\"PATH=/usr/bin:/opt/x y/bin\"\n"), "{unit}");
        assert!(unit.contains("KillMode=process\n") && unit.contains("Restart=always\n"));
        let bad = Program { path: "/a\nExecStartPre=/bin/evil".into(), ..super::super::sample() };
        assert!(render(&bad).is_err());
    }

    #[test]
    fn the_template_names_the_packaged_program() {
        let packaged = Program {
            path: "/usr/bin/claudenest-agent".into(),
            arguments: vec![],
            search_path: None,
            ..super::super::sample()
        };
        assert_eq!(render(&packaged).unwrap(), TEMPLATE);
    }

    #[test]
    fn systemd_accepts_the_unit() {
        let temp = tempfile::tempdir().unwrap();
        // The program must exist for the check; this test is one.
        let program = Program { path: std::env::current_exe().unwrap(), ..super::super::sample() };
        let path = temp.path().join(UNIT);
        std::fs::write(&path, render(&program).unwrap()).unwrap();
        let verify = std::process::Command::new("systemd-analyze")
            .args(["--user", "--man=no", "verify"])
            .arg(&path)
            .env("XDG_RUNTIME_DIR", temp.path())
            .output();
        match verify {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(!said.contains(UNIT), "{said}");
            }
            Err(_) if cfg!(target_os = "macos") => {}
            Err(error) => panic!("systemd-analyze is needed: {error}"),
        }
    }
}
