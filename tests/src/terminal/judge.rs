//! xterm.js without a browser, as a process: it reads cases and says where two screens differ.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::repository;

/// One question to the judge.
#[derive(Clone, Debug)]
pub struct Case {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
    /// What the one who was there from the beginning has seen.
    pub before: Vec<u8>,
    /// What a late one gets instead.
    pub snapshot: Vec<u8>,
    /// What both see then, in steps; the screens are compared before the first and after each.
    pub steps: Vec<Vec<u8>>,
}

/// A running judge.
#[derive(Debug)]
pub struct Judge {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Judge {
    /// Starts one.
    ///
    /// # Errors
    /// If Node or its modules are missing: `make setup` brings them.
    pub fn start() -> Result<Self> {
        let script = repository().join("tests/web/judge-stream.mjs");
        let mut child = Command::new("node")
            .arg(&script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("node: run `make setup`")?;
        let input = child.stdin.take().context("its input")?;
        let output = BufReader::new(child.stdout.take().context("its output")?);
        Ok(Self { child, input: Some(input), output })
    }

    fn ask(&mut self, kind: u8, cols: u16, rows: u16, parts: &[&[u8]]) -> Result<Value> {
        let mut message = vec![kind];
        message.extend(cols.to_le_bytes());
        message.extend(rows.to_le_bytes());
        message.extend(u32::try_from(parts.len())?.to_le_bytes());
        for part in parts {
            message.extend(u32::try_from(part.len())?.to_le_bytes());
            message.extend_from_slice(part);
        }
        let input = self.input.as_mut().context("it was stopped")?;
        input.write_all(&u32::try_from(message.len())?.to_le_bytes())?;
        input.write_all(&message)?;
        input.flush()?;
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "the judge has ended");
        let answer: Value = serde_json::from_str(&line)?;
        if let Some(error) = answer["error"].as_str() {
            bail!("the judge: {error}");
        }
        Ok(answer)
    }

    /// Where the two screens differ; nothing if they are the same at every step.
    ///
    /// # Errors
    /// If the judge fails.
    pub fn difference(&mut self, case: &Case) -> Result<Option<String>> {
        let mut parts: Vec<&[u8]> = vec![&case.before, &case.snapshot];
        parts.extend(case.steps.iter().map(Vec::as_slice));
        let answer = self.ask(b'd', case.cols, case.rows, &parts)?;
        Ok(answer["difference"].as_str().map(str::to_owned))
    }

    /// Everything that a terminal says back to these bytes, and the processor time it took, in milliseconds.
    ///
    /// # Errors
    /// If the judge fails.
    pub fn answers(&mut self, cols: u16, rows: u16, bytes: &[u8]) -> Result<(Vec<String>, f64)> {
        let answer = self.ask(b'a', cols, rows, &[bytes])?;
        let said = answer["said"].as_array().context("what it said")?;
        let said = said.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Ok((said, answer["ms"].as_f64().context("the time")?))
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        // It ends when its input does.
        self.input = None;
        let _ = self.child.wait();
    }
}
