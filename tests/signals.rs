//! The program itself, told by signals.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // a test that fails here says where

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use support::until;

/// A running program, its file and what it has said. Killed with the test.
struct Program {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    file: PathBuf,
    dir: tempfile::TempDir,
}

impl Program {
    fn start(node: SocketAddr) -> Program {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cobalance.toml");
        fs::write(&file, text(&dir, node, "")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_cobalance"))
            .args(["run", "--config"])
            .arg(&file)
            .env_remove("COBALANCE_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), said.clone());
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| kept.lock().push(line));
        });
        let program = Program { child, said, file, dir };
        program.until_said("to=\"up\"");
        program
    }

    fn until_said(&self, text: &str) -> String {
        let find = || self.said.lock().iter().find(|line| line.contains(text)).cloned();
        until(text, || find().is_some());
        find().unwrap()
    }

    /// The address of the listener, on a port that the system chose.
    fn address(&self) -> SocketAddr {
        let line = self.until_said("listener=\"public\"");
        let address = line.split("address=").nth(1).unwrap().split(' ').next().unwrap();
        address.parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default()
    }

    fn exit_code(&mut self) -> Option<i32> {
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

fn text(dir: &tempfile::TempDir, node: SocketAddr, more: &str) -> String {
    format!(
        "[[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"127.0.0.1:0\"\n\
         [access_log]\npath = \"{}/access.log\"\n[upstream.app]\nnodes = [\"{node}\"]\n{more}",
        dir.path().display()
    )
}

/// An origin that is healthy, and answers `/slow` only when it is released.
fn origin() -> (SocketAddr, mpsc::Receiver<mpsc::Sender<()>>) {
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

fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn hangup_reloads_and_usr1_reopens_the_log() {
    let (node, _slow) = origin();
    let program = Program::start(node);
    let address = program.address();
    fs::write(&program.file, text(&program.dir, node, "retries = 1\n")).unwrap();
    program.signal(Signal::HUP);
    program.until_said("the configuration is in use generation=2");
    fs::write(&program.file, "[[listener]]\nbimd = 1\n").unwrap();
    program.signal(Signal::HUP);
    program.until_said("generation 2 stays in use");
    assert!(get(address, "/before").unwrap().starts_with("HTTP/1.1 200 "));
    until("a line", || program.log().contains("/before"));
    let log = program.dir.path().join("access.log");
    fs::rename(&log, program.dir.path().join("access.log.1")).unwrap();
    program.signal(Signal::USR1);
    until("a new file", || log.exists());
    assert!(get(address, "/after").unwrap().starts_with("HTTP/1.1 200 "));
    until("a line", || program.log().contains("/after"));
    assert!(!program.log().contains("/before"));
}

#[test]
fn term_finishes_what_runs_and_exits_with_0() {
    let (node, slow) = origin();
    let mut program = Program::start(node);
    let address = program.address();
    let under_way = std::thread::spawn(move || get(address, "/slow"));
    let release = slow.recv().unwrap();
    program.signal(Signal::TERM);
    until("no more connections", || TcpStream::connect(address).is_err());
    release.send(()).unwrap();
    let answer = under_way.join().unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
    assert_eq!(program.exit_code(), Some(0));
    assert!(program.log().contains("/slow"), "the last lines are written");
}

#[test]
fn a_second_signal_ends_at_once() {
    let (node, slow) = origin();
    let mut program = Program::start(node);
    let address = program.address();
    let under_way = std::thread::spawn(move || get(address, "/slow"));
    let _release = slow.recv().unwrap();
    program.signal(Signal::INT);
    program.until_said("SIGINT: ending");
    program.signal(Signal::TERM);
    assert_eq!(program.exit_code(), Some(130));
    program.until_said("cut: 1 requests");
    assert!(!under_way.join().unwrap().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")));
}
