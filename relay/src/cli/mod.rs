//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Pairs machines that run Claude Code, and shows them in a browser.
#[derive(Parser, Debug)]
#[command(name = "claudenest-relay", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Prints the OpenAPI document of the REST interface.
    Openapi,
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Openapi => print!("{}", crate::http::openapi::document_json()),
    }
    ExitCode::SUCCESS
}
