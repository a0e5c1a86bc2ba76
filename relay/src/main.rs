//! The `claudenest-relay` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    claudenest_relay::cli::main()
}
