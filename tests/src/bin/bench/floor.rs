//! The floor: what the way of the product costs when nothing is done on it.
//!
//! Two programs. One copies a terminal to a TCP connection and back, as an agent would; the other copies that connection
//! to WebSocket viewers and back, as a relay would. Blocking threads, TCP_NODELAY, the product's read sizes, no history,
//! no screen, no flow control, no authentication. A viewer that does not read stops everybody.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::terminal;

/// First argument of the agent's part.
pub const AGENT: &str = "floor-agent";
/// First argument of the relay's part.
pub const RELAY: &str = "floor-relay";
const READ_BYTES: usize = 64 * 1024;

/// Both programs, running.
pub struct Floor {
    relay: Child,
    agent: Child,
    /// Where viewers connect.
    pub port: u16,
}

impl Floor {
    /// Starts both; the workload gets `env`.
    ///
    /// # Errors
    /// If one does not start.
    pub fn start(workload: &Command) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut relay = Command::new(&program).arg(RELAY).stdout(Stdio::piped()).spawn()?;
        let mut text = String::new();
        let mut out = std::io::BufReader::new(relay.stdout.take().context("the floor's output")?);
        std::io::BufRead::read_line(&mut out, &mut text)?;
        let port: u16 = text.trim().parse().context("the floor's port")?;
        let mut agent = Command::new(&program);
        agent.arg(AGENT).arg(port.to_string()).arg(workload.get_program()).args(workload.get_args());
        agent.env_clear().envs(workload.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let agent = agent.stdin(Stdio::null()).spawn()?;
        Ok(Self { relay, agent, port })
    }

    /// Process ids of both.
    pub fn pids(&self) -> [u32; 2] {
        [self.agent.id(), self.relay.id()]
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        for child in [&mut self.agent, &mut self.relay] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The agent's part.
///
/// # Errors
/// When the terminal or the connection ends.
pub fn run_agent(args: &[String]) -> Result<()> {
    let [port, program, rest @ ..] = args else { anyhow::bail!("floor-agent PORT PROGRAM ARGS…") };
    let mut relay = TcpStream::connect(("127.0.0.1", port.parse()?))?;
    relay.set_nodelay(true)?;
    relay.write_all(b"AGENT\r\n\r\n")?;
    let mut command = Command::new(program);
    command.args(rest).envs(std::env::vars_os());
    let (mut child, mut master) = terminal::spawn(&command)?;
    let (mut input, mut keys) = (master.try_clone()?, relay.try_clone()?);
    thread::spawn(move || copy(&mut keys, &mut input));
    let ended = copy(&mut master, &mut relay);
    let _ = child.kill();
    let _ = child.wait();
    ended
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let size = from.read(&mut buffer)?;
        ensure!(size > 0, "the end");
        to.write_all(&buffer[..size])?;
    }
}

/// The relay's part.
///
/// # Errors
/// When it cannot listen.
pub fn run_relay() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?.port());
    let viewers = Arc::new(Mutex::new(Vec::<TcpStream>::new()));
    let agent = Arc::new(Mutex::new(None::<TcpStream>));
    for stream in listener.incoming() {
        let mut stream = stream?;
        stream.set_nodelay(true)?;
        let request = read_request(&mut stream)?;
        if request.starts_with("AGENT") {
            *agent.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream.try_clone()?);
            let viewers = Arc::clone(&viewers);
            thread::spawn(move || fan_out(&mut stream, &viewers));
            continue;
        }
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
        let accept = derive_accept_key(key.context("a WebSocket key")?.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes())?;
        viewers.lock().unwrap_or_else(PoisonError::into_inner).push(stream.try_clone()?);
        let agent = Arc::clone(&agent);
        thread::spawn(move || take_keys(&mut stream, &agent));
    }
    Ok(())
}

fn read_request(stream: &mut TcpStream) -> Result<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        ensure!(stream.read(&mut byte)? > 0, "no request");
        bytes.push(byte[0]);
    }
    Ok(String::from_utf8(bytes)?)
}

/// Copies the agent's bytes to every viewer, each as one WebSocket message.
fn fan_out(agent: &mut TcpStream, viewers: &Mutex<Vec<TcpStream>>) -> Result<()> {
    // Room for the longest header before what is read: one write for both.
    let mut buffer = vec![0; 4 + READ_BYTES];
    loop {
        let size = agent.read(&mut buffer[4..4 + READ_BYTES - 1])?;
        ensure!(size > 0, "the end");
        let from = if size < 126 {
            buffer[2..4].copy_from_slice(&[0x82, size as u8]);
            2
        } else {
            buffer[0..2].copy_from_slice(&[0x82, 126]);
            buffer[2..4].copy_from_slice(&(size as u16).to_be_bytes());
            0
        };
        let message = &buffer[from..4 + size];
        let mut viewers = viewers.lock().unwrap_or_else(PoisonError::into_inner);
        viewers.retain_mut(|viewer| viewer.write_all(message).is_ok());
    }
}

/// Copies one viewer's keys to the agent.
fn take_keys(viewer: &mut TcpStream, agent: &Mutex<Option<TcpStream>>) -> Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        // The bench types single bytes: a message arrives whole.
        let size = viewer.read(&mut buffer)?;
        ensure!(size > 6, "the end");
        let mask: [u8; 4] = buffer[2..6].try_into()?;
        for (at, byte) in buffer[6..size].iter_mut().enumerate() {
            *byte ^= mask[at % 4];
        }
        if let Some(agent) = agent.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            agent.write_all(&buffer[6..size])?;
        }
    }
}
