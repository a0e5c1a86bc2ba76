//! `claudenest-agent`: parses, configures, runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: a holder must not inherit threads or a runtime.
    if std::env::args_os().nth(1).is_some_and(|arg| arg == "holder") {
        return claudenest_agent::holder::main();
    }
    ExitCode::FAILURE
}
