//! Commands that only print.

use std::path::Path;

use serde_json::json;

use super::{Failure, print, print_json};
use crate::config::Loaded;

pub(super) fn config(loaded: &Loaded, json: bool) -> Result<(), Failure> {
    if json {
        let values: Vec<_> = loaded
            .values
            .iter()
            .map(|(key, value, source)| json!({ "key": key, "value": value, "source": source.as_str() }))
            .collect();
        return print_json(&json!({ "file": loaded.file, "settings": values }));
    }
    let state = if loaded.file.exists() { "" } else { " (does not exist)" };
    let mut text = format!("# file: {}{state}\n", loaded.file.display());
    for setting in crate::config::SETTINGS {
        text += &match loaded.values.iter().find(|value| value.0 == setting.key) {
            Some((key, value, source)) => format!("{key} = {value:?}  # {}\n", source.as_str()),
            None => format!("# {} is not set ({})\n", setting.key, setting.default.replace('`', "")),
        };
    }
    print(&text)
}

/// The manual page, with one section for each command; or a page for each of them in a directory.
pub(super) fn man(command: clap::Command, dir: Option<&Path>) -> Result<(), Failure> {
    if let Some(dir) = dir {
        std::fs::create_dir_all(dir)?;
        clap_mangen::generate_to(command, dir)?;
        return Ok(());
    }
    let mut page = Vec::new();
    let mut command = command;
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let man = clap_mangen::Man::new(sub.clone());
        page.extend(format!(".SH COMMAND: {}\n", sub.get_name().to_uppercase()).into_bytes());
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
    }
    print(&String::from_utf8_lossy(&page))
}
