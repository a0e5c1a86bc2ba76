//! The launch agent of macOS.

use std::path::PathBuf;

use super::{Installed, Program, ServiceError, ServiceStatus, ask, plain, remove, write};

const LABEL: &str = "dev.claudenest.agent";
const TEMPLATE: &str = include_str!("../../../launchd/dev.claudenest.agent.plist");
const TEMPLATE_PROGRAM: &str = "        <string>/usr/local/bin/claudenest-agent</string>\n";
const TEMPLATE_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

pub(super) fn render(program: &Program) -> Result<String, ServiceError> {
    let mut arguments = String::new();
    for argument in std::iter::once(plain(&program.path)?).chain(program.arguments.iter().map(String::as_str))
    {
        arguments.push_str(&format!("        <string>{}</string>\n", escaped(plain(argument.as_ref())?)));
    }
    let path = program.search_path.as_deref().unwrap_or(TEMPLATE_PATH);
    debug_assert!(TEMPLATE.contains(TEMPLATE_PROGRAM) && TEMPLATE.contains(TEMPLATE_PATH));
    Ok(TEMPLATE.replace(TEMPLATE_PATH, &escaped(plain(path.as_ref())?)).replace(TEMPLATE_PROGRAM, &arguments))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn file(program: &Program) -> PathBuf {
    program.home.join("Library/LaunchAgents").join(format!("{LABEL}.plist"))
}

fn domain() -> String {
    format!("gui/{}", rustix::process::getuid().as_raw())
}

fn target() -> String {
    format!("{}/{LABEL}", domain())
}

pub(super) fn install(program: &Program) -> Result<Installed, ServiceError> {
    let file = file(program);
    write(&file, &render(program)?)?;
    // An older one must go first; it is no matter if there is none.
    let _ = ask("launchctl", &["bootout", &target()]);
    ask("launchctl", &["bootstrap", &domain(), plain(&file)?]).map_err(|reason| ServiceError::Manager {
        manager: "launchd",
        reason,
        file: file.clone(),
    })?;
    Ok(Installed { file, hints: Vec::new() })
}

pub(super) fn uninstall(program: &Program) -> Result<bool, ServiceError> {
    let _ = ask("launchctl", &["bootout", &target()]);
    remove(&file(program))
}

pub(super) fn status(program: &Program) -> ServiceStatus {
    let file = Some(file(program)).filter(|file| file.exists());
    let printed = ask("launchctl", &["print", &target()]);
    ServiceStatus {
        manager: "launchd",
        is_enabled: file.is_some(),
        is_running: printed.as_ref().is_ok_and(|text| text.contains("state = running")),
        lingers: None,
        file,
        problem: printed.err().filter(|reason| reason.contains("cannot be run")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_any_kind_are_escaped() {
        let plist = render(&super::super::sample()).unwrap();
        assert!(plist.contains("<string>/opt/my tools/100% \"x\"/claudenest-agent</string>\n        <string>--data-dir</string>\n        <string>/srv/a&amp;b &lt;c&gt;</string>\n        <string>run</string>"), "{plist}");
        assert!(plist.contains("<key>AbandonProcessGroup</key>\n    <true/>"));
        assert!(plist.contains("<string>/usr/bin:/opt/x y/bin</string>"));
    }
}
