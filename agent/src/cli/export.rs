//! `session export`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use super::args::{ExportArgs, ExportFormat};
use super::exit::{Exit, fail};
use super::output::{print_json, say, span};
use super::{Context, recorded};
use crate::history::cast::{self, Exported, Version};

pub(super) async fn run(context: &Context, args: ExportArgs) -> anyhow::Result<ExitCode> {
    if context.json && args.output.is_none() {
        let message = "With --json the export goes to a file: name one with --output.";
        return Err(fail(Exit::Usage, message));
    }
    let (info, run) = recorded::run(context, &args.target.session, args.run).await?;
    let idle_limit = args.idle_limit.map(|limit| limit.as_secs_f64());
    let write = |mut out: &mut dyn Write| match args.format {
        ExportFormat::AsciicastV2 => cast::asciicast(&run.dir, Version::V2, &info.name, idle_limit, &mut out),
        ExportFormat::AsciicastV3 => cast::asciicast(&run.dir, Version::V3, &info.name, idle_limit, &mut out),
        ExportFormat::Raw => cast::raw(&run.dir, &mut out),
        ExportFormat::Text => cast::text(&run.dir, &mut out),
    };
    let exported = match &args.output {
        Some(path) => to_file(path, args.force, write)?,
        None => match write(&mut BufWriter::new(io::stdout().lock())) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            written => written.with_context(|| format!("The recording of {} cannot be read", info.name))?,
        },
    };
    if context.json {
        print_json(&json!({
            "session": info.id, "run": run.epoch, "file": args.output, "output_bytes": exported.output_bytes,
            "missing_bytes": exported.missing_bytes, "duration_ms": exported.duration_us / 1000,
        }));
    } else if let Some(path) = &args.output {
        let length = span(exported.duration_us / 1000);
        say!("{}: {length}, {} bytes of output.", path.display(), exported.output_bytes);
    }
    if exported.missing_bytes > 0 {
        eprintln!(
            "{} bytes are missing: they were dropped at `recording_session_bytes`, or the disk was full.",
            exported.missing_bytes
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes beside the file and puts it in place when it is whole: it may hold what others must not read.
fn to_file(
    path: &Path,
    is_forced: bool,
    write: impl FnOnce(&mut dyn Write) -> io::Result<Exported>,
) -> anyhow::Result<Exported> {
    let cannot = || format!("{} cannot be written", path.display());
    if !is_forced && path.exists() {
        return Err(fail(Exit::Refused, format!("{} exists. Replace it with --force.", path.display())));
    }
    let is_plain = std::fs::symlink_metadata(path).map_or(true, |metadata| metadata.is_file());
    if !is_plain {
        // A pipe or device is written as it is.
        let mut out = BufWriter::new(File::create(path).with_context(cannot)?);
        return write(&mut out).with_context(cannot);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
    let written = file.and_then(|file| {
        let mut out = BufWriter::new(file);
        let exported = write(&mut out)?;
        out.flush()?;
        std::fs::rename(&part, path)?;
        Ok(exported)
    });
    if written.is_err() {
        // What is half written is of no use to anybody.
        let _ = std::fs::remove_file(&part);
    }
    written.with_context(cannot)
}
