//! Commands that print what the program knows about itself: configuration, completions, man pages.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory;

use super::Context;
use super::args::Cli;
use crate::config::KEYS;

/// Prints a text; a reader that closed the pipe is no error.
pub(super) fn print(text: &str) -> anyhow::Result<ExitCode> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("Cannot write the output")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

pub(super) fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "claudenest-agent", &mut script);
    print(&String::from_utf8_lossy(&script))
}

pub(super) fn man(dir: Option<&Path>) -> anyhow::Result<ExitCode> {
    match dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)
                .with_context(|| format!("Cannot make the directory {}", dir.display()))?;
            clap_mangen::generate_to(Cli::command(), dir)
                .with_context(|| format!("Cannot write man pages into {}", dir.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page).context("Cannot make the man page")?;
            print(&String::from_utf8_lossy(&page))
        }
    }
}

pub(super) fn config(context: &Context) -> anyhow::Result<ExitCode> {
    let effective = &context.effective;
    let paths = &context.paths;
    if context.json {
        let values: serde_json::Map<String, serde_json::Value> = KEYS
            .iter()
            .map(|key| {
                let text = (key.get)(&effective.config);
                // The texts are TOML values; strings, numbers, booleans and lists look the same in JSON.
                let value = serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text));
                let source = effective.source(key.name).to_string();
                (key.name.to_owned(), serde_json::json!({"value": value, "source": source}))
            })
            .collect();
        let document = serde_json::json!({
            "config_file": paths.config_file, "config_file_exists": paths.config_file.exists(),
            "data_dir": paths.data_dir, "runtime_dir": paths.runtime_dir, "values": values,
        });
        return print(&format!("{document:#}\n"));
    }
    let missing = if paths.config_file.exists() { "" } else { " (does not exist)" };
    let mut text = format!(
        "# file: {}{missing}\n# data: {}\n# sockets: {}\n",
        paths.config_file.display(),
        paths.data_dir.display(),
        paths.runtime_dir.display()
    );
    for key in KEYS {
        let line = format!("{} = {}", key.name, (key.get)(&effective.config));
        text.push_str(&format!("{line:<44} # {}\n", effective.source(key.name)));
    }
    print(&text)
}
