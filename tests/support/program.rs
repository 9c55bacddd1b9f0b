//! The program itself, started with a file of its own and told by signals.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

use super::until;

const BINARY: &str = env!("CARGO_BIN_EXE_cobalance");

/// A running program, its file and what it has said. Killed with the test.
pub struct Program {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    pub file: PathBuf,
    pub dir: tempfile::TempDir,
}

impl Program {
    /// Returns when the node is up.
    pub fn start(node: SocketAddr) -> Program {
        Program::with(node, "")
    }

    /// The same with more tables in its file.
    pub fn with(node: SocketAddr, more: &str) -> Program {
        let dir = tempfile::tempdir().unwrap();
        let text = text(&dir, node, more);
        let program = Program::of(dir, &text);
        program.until_said("to=\"up\"");
        program
    }

    /// With a file of this text in this directory, which is also its `$STATE_DIRECTORY`.
    pub fn of(dir: tempfile::TempDir, text: &str) -> Program {
        Program::run(Path::new(BINARY), dir, text)
    }

    /// The same from another place.
    pub fn run(binary: &Path, dir: tempfile::TempDir, text: &str) -> Program {
        Program::started(command(binary, &dir), dir, text)
    }

    /// The same with more of an environment.
    pub fn with_environment(
        dir: tempfile::TempDir,
        text: &str,
        environment: &[(&str, &OsStr)],
    ) -> Program {
        let mut command = command(Path::new(BINARY), &dir);
        command.envs(environment.iter().copied());
        Program::started(command, dir, text)
    }

    fn started(command: Command, dir: tempfile::TempDir, text: &str) -> Program {
        let file = dir.path().join("cobalance.toml");
        fs::write(&file, text).unwrap();
        let (child, said) = spawn(command);
        Program { child, said, file, dir }
    }

    /// Ends it as an operator does, and starts it again.
    pub fn restart(&mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.exit_code(), Some(0));
        self.restart_killed();
    }

    /// Starts it again after its end.
    pub fn restart_killed(&mut self) {
        (self.child, self.said) = spawn(command(Path::new(BINARY), &self.dir));
    }

    /// A command that talks to it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(arguments).args(["--admin", &self.admin().to_string()]);
        for variable in ["ADMIN_TOKEN", "TOKEN_FILE", "CONFIG"] {
            command.env_remove(format!("COBALANCE_{variable}"));
        }
        command
    }

    /// Waits for a line of its log that holds this.
    pub fn until_said(&self, text: &str) -> String {
        let find = || self.said.lock().iter().find(|line| line.contains(text)).cloned();
        until(text, || find().is_some());
        find().unwrap()
    }

    /// Whether a line of its log so far holds this.
    pub fn has_said(&self, text: &str) -> bool {
        self.said.lock().iter().any(|line| line.contains(text))
    }

    /// The address of the listener, on a port that the system chose.
    pub fn address(&self) -> SocketAddr {
        of_line(&self.until_said("listener=\"public\""))
    }

    /// The address of the admin server.
    pub fn admin(&self) -> SocketAddr {
        of_line(&self.until_said("admin listening"))
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The access log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default()
    }

    /// Waits for its end.
    pub fn exit_code(&mut self) -> Option<i32> {
        let mut ended = None;
        until("the end of the program", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap().code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program with the file of a directory.
fn command(binary: &Path, dir: &tempfile::TempDir) -> Command {
    let mut command = Command::new(binary);
    command
        .args(["run", "--config"])
        .arg(dir.path().join("cobalance.toml"))
        .env("STATE_DIRECTORY", dir.path())
        .env_remove("COBALANCE_LOG")
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Starts it, and keeps what it says.
fn spawn(mut command: Command) -> (Child, Arc<Mutex<Vec<String>>>) {
    let mut child = command.spawn().unwrap();
    let said: Arc<Mutex<Vec<String>>> = Arc::default();
    let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), said.clone());
    std::thread::spawn(move || {
        lines.map_while(Result::ok).for_each(|line| kept.lock().push(line));
    });
    (child, said)
}

fn of_line(line: &str) -> SocketAddr {
    line.split("address=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}

/// A file with one listener and one node.
pub fn text(dir: &tempfile::TempDir, node: SocketAddr, more: &str) -> String {
    format!(
        "[[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"127.0.0.1:0\"\n\
         [access_log]\npath = \"{}/access.log\"\n[upstream.app]\nnodes = [\"{node}\"]\n{more}",
        dir.path().display()
    )
}

/// An origin that is healthy, and answers `/slow` only when it is released.
pub fn origin() -> (SocketAddr, mpsc::Receiver<mpsc::Sender<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, slow) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, tell) = (stream.unwrap(), tell.clone());
            std::thread::spawn(move || serve(stream, &tell));
        }
    });
    (address, slow)
}

fn serve(stream: TcpStream, tell: &mpsc::Sender<mpsc::Sender<()>>) {
    let mut writer = stream.try_clone().unwrap();
    let mut line = String::new();
    for next in BufReader::new(stream).lines().map_while(Result::ok) {
        if line.is_empty() {
            line.clone_from(&next);
        }
        if !next.is_empty() {
            continue;
        }
        if line.contains(" /slow ") {
            let (release, released) = mpsc::channel();
            let _ = tell.send(release);
            // Also an end of the test releases it.
            let _ = released.recv();
        }
        line.clear();
        if writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}

/// Asks on a connection of its own, and reads to its end.
pub fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
