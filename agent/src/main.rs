//! Entry point: the processes that must stay small, the TLS provider, and then the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    // The holder, the hook and the MCP server run without the command line's parser and without an async runtime: there
    // may be hundreds of holders, and a hook stands between Claude and every tool call.
    match args.get(1).and_then(|command| command.to_str()) {
        Some("holder") => claudenest_agent::holder::main(),
        Some("hook") => claudenest_agent::hook::main(),
        Some("mcp") => claudenest_agent::mcp::main(),
        _ => {
            if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
                eprintln!("claudenest-agent: a TLS provider was installed before main; this is a bug.");
                return ExitCode::FAILURE;
            }
            claudenest_agent::cli::main(args)
        }
    }
}
