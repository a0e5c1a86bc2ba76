//! The world for the browser tests: a relay, a paired agent whose Claude is the real one or the fake one, the mock of the API, terminals.
//!
//! One JSON object a line on standard input, one answer a line on standard output; it ends, with everything it started, at the end of the input.

use std::collections::HashMap;
use std::io::{BufRead, Write};

use anyhow::{Context, Result, bail};
use claudenest_tests::agent::{Agent, OWNER};
use claudenest_tests::claude::{Mock, environment, real_claude, seed_home};
use claudenest_tests::program;
use claudenest_tests::pty::Terminal;
use claudenest_tests::relay::Relay;
use serde_json::{Value, json};

struct World {
    relay: Relay,
    agent: Agent,
    mock: Mock,
    terminals: HashMap<String, Terminal>,
    /// Machines that a test pairs by hand.
    others: Vec<Agent>,
}

fn main() -> Result<()> {
    let mut world = match start() {
        Ok(world) => world,
        Err(error) => {
            answer(&json!({"error": format!("{error:#}")}))?;
            return Err(error);
        }
    };
    answer(&json!({
        "url": world.relay.url(),
        "email": OWNER,
        "work": world.agent.work(),
        "home": world.agent.home(),
        "claudeEnv": environment(&world.mock).into_iter().collect::<HashMap<_, _>>(),
    }))?;
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let reply = match world.handle(&request) {
            Ok(value) => json!({"ok": value}),
            Err(error) => json!({"error": format!("{error:#}")}),
        };
        answer(&reply)?;
    }
    Ok(())
}

fn answer(value: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

fn start() -> Result<World> {
    let mock = Mock::start("terminal.json")?;
    let relay = Relay::start()?;
    let mut agent = Agent::new()?;
    seed_home(&agent)?;
    let variables = environment(&mock);
    let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
    agent.set_env("CLAUDENEST_AGENT_PASS_ENV", names.join(":"));
    for (name, value) in variables {
        agent.set_env(name, value);
    }
    agent.use_claude(&program("fake_claude"))?;
    agent.pair(&relay, OWNER)?;
    agent.run_daemon()?;
    Ok(World { relay, agent, mock, terminals: HashMap::new(), others: Vec::new() })
}

impl World {
    fn handle(&mut self, request: &Value) -> Result<Value> {
        let text = |name: &str| request[name].as_str().with_context(|| format!("{name} in {request}"));
        match text("do")? {
            // Which Claude the next sessions get. The daemon is started anew, as after an installation.
            // A program that is there and cannot be started.
            "break_claude" => {
                let broken = self.agent.home().join("broken");
                std::fs::write(&broken, "#!/no/such/interpreter\n")?;
                std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
                self.agent.use_claude(&broken)?;
                // It cannot say its version either; without this nothing would be tried at all.
                self.agent.set_env("CLAUDENEST_AGENT_UNGUARDED", "warn");
                self.agent.stop_daemon()?;
                self.agent.run_daemon()?;
            }
            "use_claude" => {
                let target = if text("which")? == "real" { real_claude()? } else { program("fake_claude") };
                self.agent.use_claude(&target)?;
                self.agent.set_env("CLAUDENEST_AGENT_UNGUARDED", "refuse");
                self.agent.stop_daemon()?;
                self.agent.run_daemon()?;
            }
            "script_mock" => self.mock.script(&request["scenario"])?,
            "mock_requests" => return self.mock.requests(),
            "login" => return Ok(json!(self.relay.login_token(request["email"].as_str().unwrap_or(OWNER))?)),
            "agent" => {
                let args: Vec<&str> =
                    request["args"].as_array().context("args")?.iter().filter_map(Value::as_str).collect();
                let finished = self.agent.run(&args)?;
                return Ok(
                    json!({"code": finished.code, "stdout": finished.stdout, "stderr": finished.stderr}),
                );
            }
            "pair_start" => {
                // A second machine: its own home, in a terminal where a person answers.
                let second = Agent::new()?;
                let mut command = second.command();
                command.args(["pair", "--relay", &self.relay.url()]);
                self.terminals.insert("pair".into(), Terminal::start(&command, 100, 40)?);
                self.others.push(second);
            }
            "attach" => {
                let mut command = self.agent.command();
                command.args(["session", "attach", text("name")?]);
                if request["take_size"] == true {
                    command.arg("--take-size");
                }
                let terminal = Terminal::start(&command, 120, 40)?;
                self.terminals.insert(text("as")?.to_owned(), terminal);
            }
            // As if ten minutes had passed for every code.
            "expire_pairings" => self.relay.sql("update pairings set expires_at = now()")?,
            "type" => self.terminal(text("as")?)?.write(text("text")?.as_bytes())?,
            "until_screen" => self.terminal(text("as")?)?.until_screen(text("text")?)?,
            "screen" => return Ok(json!(self.terminal(text("as")?)?.screen())),
            "hang_up" => drop(self.terminals.remove(text("as")?)),
            "kill_relay" => self.relay.kill(),
            "resume_relay" => self.relay.resume()?,
            "kill_daemon" => self.agent.kill_daemon(),
            "run_daemon" => self.agent.run_daemon()?,
            "read_file" => return Ok(json!(std::fs::read_to_string(text("path")?)?)),
            other => bail!("unknown: {other}"),
        }
        Ok(Value::Null)
    }

    fn terminal(&mut self, name: &str) -> Result<&mut Terminal> {
        self.terminals.get_mut(name).with_context(|| format!("no terminal {name}"))
    }
}
