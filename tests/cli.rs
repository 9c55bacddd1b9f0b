//! The program itself: its commands, what they print, and their exit codes.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a helper of a test may end it

#[allow(dead_code, unreachable_pub)] // only one kind is needed here
#[path = "support/ports.rs"]
mod ports;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use cobalance::demo::node::{Journal, Pace, Phase, StandIn};
use ports::Closed;

fn cobalance(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cobalance"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    for variable in ["CONFIG", "ADMIN", "ADMIN_TOKEN", "TOKEN_FILE", "LOG"] {
        command.env_remove(format!("COBALANCE_{variable}"));
    }
    command
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = cobalance(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// A process that serves. It is killed if the test ends before it does.
struct Serving {
    child: Child,
    log: BufReader<ChildStderr>,
    told: Vec<String>,
    listener: String,
    admin: String,
}

impl Serving {
    fn start(arguments: &[&str]) -> Serving {
        let mut child = cobalance(arguments).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (listener, admin) = (String::new(), String::new());
        let mut serving = Serving { child, log, told: Vec::new(), listener, admin };
        serving.listener = serving.address("INFO listening address=");
        serving.admin = serving.address("admin listening address=");
        serving
    }

    /// The address in the line of the log that has `before` in it.
    fn address(&mut self, before: &str) -> String {
        let line = self.line(before);
        let (_, after) = line.split_once(before).unwrap();
        after.split_whitespace().next().unwrap().to_owned()
    }

    /// A line of the log with `part` in it: one that came already, or the next.
    fn line(&mut self, part: &str) -> String {
        loop {
            if let Some(line) = self.told.iter().find(|line| line.contains(part)) {
                return line.clone();
            }
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "the log ends before `{part}`");
            self.told.push(line);
        }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.listener).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Most tests have ended it already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn running_node() -> StandIn {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let node = StandIn::new("node1", &Journal::default()).unwrap();
    runtime.block_on(async {
        node.start(Pace::NONE).await;
        assert!(node.wait_for(|phase| *phase == Phase::Running).await);
    });
    node
}

fn write(file: &Path, node: &StandIn, weight: u32) {
    let text = format!(
        "[[listener]]\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"127.0.0.1:0\"\n\
         [access_log]\nenabled = false\n[upstream.nocobase]\n\
         nodes = [{{ name = \"node1\", address = \"{}\", weight = {weight} }}]\n",
        node.address()
    );
    fs::write(file, text).unwrap();
}

#[test]
fn usage_is_2_and_help_is_0() {
    assert_eq!(run(&[]).0, 2);
    assert_eq!(run(&["serve"]).0, 2);
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for command in
        ["run", "demo", "check", "status", "drain", "ready", "pin", "unpin", "reload", "health"]
    {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
    }
    assert!(run(&["--version"]).1.contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_bad_file_is_78_and_everything_is_told() {
    for command in [&["check"][..], &["run", "--config"]] {
        let arguments = [command, &["tests/config/bad_duration.toml"]].concat();
        let (code, stdout, stderr) = run(&arguments);
        let told = stdout + &stderr;
        assert_eq!(code, 78, "{told}");
        assert_eq!(told.matches("error[bad-duration]").count(), 4, "{told}");
        assert!(told.contains("4 errors"), "{told}");
    }
    let (code, json, _) = run(&["check", "tests/config/bad_duration.toml", "--format", "json"]);
    let found: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, found.as_array().unwrap().len()), (78, 4));
    assert_eq!(run(&["check", "/nonexistent.toml"]).0, 78);
    assert_eq!(run(&["run", "--config", "/nonexistent.toml"]).0, 78);
}

#[test]
fn nobody_there_is_1() {
    let closed = Closed::new();
    let address = closed.address.to_string();
    for command in [
        &["status"][..],
        &["drain", "n"],
        &["ready", "n"],
        &["pin", "n"],
        &["unpin"],
        &["reload"],
        &["health"],
    ] {
        let (code, _, stderr) = run(&[command, &["--admin", &address]].concat());
        assert_eq!(code, 1, "{command:?}: {stderr}");
        assert!(stderr.contains(&address), "{command:?}: {stderr}");
    }
}

#[test]
fn a_file_is_served_shown_reloaded_and_ended() {
    let node = running_node();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cobalance.toml");
    write(&file, &node, 1);
    let mut serving = Serving::start(&["run", "--config", file.to_str().unwrap()]);
    serving.line("to=\"up\"");
    assert!(serving.get("/").contains("Served by node1"));

    let admin = serving.admin.clone();
    assert_eq!(run(&["health", "--admin", &admin]).0, 0);
    let (code, table, stderr) = run(&["status", "--admin", &admin]);
    assert_eq!(code, 0, "{stderr}");
    let row = table.lines().find(|line| line.contains("node1")).unwrap();
    assert!(row.contains(&node.address().to_string()) && row.contains(" up "), "{table}");
    let (_, json, _) = run(&["status", "--json", "--admin", &admin]);
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(status["upstreams"][0]["nodes"][0]["state"], "up");

    write(&file, &node, 7);
    // The file's own watch may have been quicker: then nothing is left to do.
    let (code, told, stderr) = run(&["reload", "--admin", &admin]);
    assert_eq!(code, 0, "{told}{stderr}");
    let (_, json, _) = run(&["status", "--json", "--admin", &admin]);
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(status["upstreams"][0]["nodes"][0]["weight"], 7);
    fs::write(&file, "[[listener]]\nbnid = 1\n").unwrap();
    let (code, _, stderr) = run(&["reload", "--admin", &admin]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("bnid") && stderr.contains("stays in use"), "{stderr}");
    assert!(serving.get("/").contains("Served by node1"));

    serving.signal(rustix::process::Signal::TERM);
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_file_that_is_refused_hides_no_process_that_serves() {
    let node = running_node();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (file, token, socket) = (path("cobalance.toml"), path("token"), path("admin.sock"));
    fs::write(&token, "t".repeat(32)).unwrap();
    write(Path::new(&file), &node, 1);
    let good = fs::read_to_string(&file).unwrap().replace(
        "[admin]\nbind = \"127.0.0.1:0\"",
        &format!("[admin]\nbind = \"unix:{socket}\"\ntoken_file = \"{token}\""),
    );
    fs::write(&file, &good).unwrap();
    let mut serving = Serving::start(&["run", "--config", &file]);
    serving.line("to=\"up\"");
    let asks = |command: &str| {
        let output = cobalance(&[command]).env("COBALANCE_CONFIG", &file).output().unwrap();
        let (code, _, stderr) = run(&[command, "--config", &file]);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        (code, stderr)
    };
    for bad in ["[server]\nthreads = \"many\"\n", "]] no TOML [[\n"] {
        fs::write(&file, format!("{good}{bad}")).unwrap();
        for command in ["health", "status"] {
            assert_eq!(asks(command), (0, String::new()), "{command} {bad}");
        }
        let (code, said) = asks("rollback");
        assert!(code == 1 && said.contains("it answers 409"), "{said}");
    }
    // Nor does a token that only others have.
    fs::write(&token, "u".repeat(32)).unwrap();
    let other = ["--token-file", &path("other")];
    fs::write(other[1], "v".repeat(32)).unwrap();
    assert_eq!(run(&[&["health", "--config", &file], &other[..]].concat()).0, 0);
    let (code, _, stderr) = run(&[&["status", "--config", &file], &other[..]].concat());
    assert!(code == 1 && stderr.contains("it answers 401"), "{stderr}");
    fs::remove_file(&token).unwrap();
    assert_eq!(asks("health").0, 0);
    drop(serving);
    // The default is not asked where the file says where it is: another process may be there.
    fs::write(&file, format!("{good}[sever]\n")).unwrap();
    let (code, said) = asks("health");
    assert!(code == 1 && said.contains("does not answer at unix:"), "{said}");
}

#[test]
fn flags_are_enough() {
    let node = running_node();
    let address = node.address().to_string();
    let arguments =
        ["run", "--listen", "127.0.0.1:0", "--node", &address, "--admin", "127.0.0.1:0"];
    let mut serving = Serving::start(&arguments);
    serving.line("to=\"up\"");
    assert!(serving.get("/api/app:getInfo").contains("\"node\":\"node1\""));
    serving.signal(rustix::process::Signal::INT);
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
}
