//! The admin listener as operators and scripts meet it: sockets, tokens, and what the log keeps of changes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::{Pid, Signal, kill_process};
use support::origin::Origin;
use support::program::Program;
use support::until;

const FULL: &str = "full-0123456789abcdef";
const READ: &str = "read-0123456789abcdef";

struct Rig {
    program: Program,
    origin: Origin,
}

impl Rig {
    /// `admin` are lines of `[admin]`; `DIR` in them is a directory that also holds files of tokens.
    fn start(admin: &str) -> Rig {
        let (dir, origin) = (tempfile::tempdir().unwrap(), Origin::ok("a"));
        write(&dir.path().join("full"), &format!("ops {FULL}\n"));
        write(&dir.path().join("read"), &format!("# scrapers\neyes {READ}\n"));
        let text = format!(
            "[[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n[access_log]\nenabled = false\n\
             [upstream.app]\npreset = \"none\"\nnodes = [{{ name = \"n1\", address = \"{}\" }}]\n\
             [admin]\n{}\n",
            origin.address,
            admin.replace("DIR", dir.path().to_str().unwrap()),
        );
        let program = Program::of(dir, &text);
        program.until_said("admin listening");
        Rig { program, origin }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.program.dir.path().join(name)
    }

    /// A command with nothing but this environment to find the listener by.
    fn say(&self, arguments: &[&str], environment: &[(&str, &Path)]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cobalance"));
        command.args(arguments).current_dir(self.program.dir.path());
        for name in ["CONFIG", "ADMIN", "ADMIN_TOKEN", "TOKEN_FILE"] {
            command.env_remove(format!("COBALANCE_{name}"));
        }
        command.envs(environment.iter().copied());
        let Output { status, stdout, stderr } = command.output().unwrap();
        (status.code().unwrap(), String::from_utf8([stdout, stderr].concat()).unwrap())
    }

    /// The same, with the configuration to find it by.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        self.say(arguments, &[("COBALANCE_CONFIG", &self.program.file)])
    }

    fn pid(&self) -> i32 {
        let (code, json) = self.run(&["status", "--json"]);
        assert_eq!(code, 0, "{json}");
        let status: serde_json::Value = serde_json::from_str(&json).unwrap();
        i32::try_from(status["pid"].as_i64().unwrap()).unwrap()
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// What is answered to a request of these lines.
fn ask(mut stream: impl Read + Write, lines: &str) -> String {
    write!(stream, "{lines}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_unix_socket_is_found_in_all_ways_and_is_for_its_user_alone() {
    let mut rig = Rig::start("bind = \"unix:DIR/admin.sock\"");
    let socket = rig.path("admin.sock");
    let at = format!("unix:{}", socket.display());
    assert_eq!(mode(&socket), 0o600);
    assert_eq!(rig.run(&["health"]).0, 0);
    assert_eq!(rig.say(&["health", "--admin", &at], &[]).0, 0);
    assert_eq!(rig.say(&["health"], &[("COBALANCE_ADMIN", Path::new(&at))]).0, 0);
    let (code, told) = rig.say(&["health", "--admin", "unix:admin.sock"], &[]);
    assert!(code == 1 && told.contains("write the whole path"), "{told}");

    let (code, told) = rig.run(&["drain", "n1", "--force"]);
    assert_eq!(code, 0, "{told}");
    let uid = rustix::process::getuid().as_raw();
    let line = rig.program.until_said("audit: done");
    for part in ["verb=\"drain\"", "node=\"n1\"", "\"force\":true", "status=200", " id=\"0"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(line.contains(&format!("who=uid {uid} pid=")), "{line}");
    let (_, table) = rig.run(&["status"]);
    assert!(table.contains(&format!("drained by the operator, from uid {uid}")), "{table}");
    let (code, _) = rig.run(&["ready", "nobody"]);
    assert_eq!(code, 1);
    let line = rig.program.until_said("audit: not done");
    assert!(line.contains("status=404") && line.contains("there is no node `nobody`"), "{line}");

    let connect = || UnixStream::connect(&socket).unwrap();
    let answer = ask(connect(), "GET /metrics HTTP/1.1\r\nHost: localhost");
    for part in [
        "cobalance_admin_changes_total{result=\"done\",verb=\"drain\"} 1",
        "cobalance_admin_changes_total{result=\"refused\",verb=\"ready\"} 1",
        "cobalance_admin_refused_total{reason=\"host\"} 0",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    let answer = ask(connect(), "GET / HTTP/1.1\r\nHost: evil.example");
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
    assert!(answer.contains("\r\nx-request-id: 0"), "{answer}");
    assert!(rig.program.until_said("audit: refused").contains("reason=\"host\""));

    // Whoever asks and leaves at once has asked all the same.
    let body = "POST /api/v1/unpin HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 2\r\n\r\n{}";
    connect().write_all(body.as_bytes()).unwrap();
    rig.program.until_said("verb=\"unpin\"");

    // Another mode, by a reload: the same place.
    let text = fs::read_to_string(&rig.program.file).unwrap();
    fs::write(&rig.program.file, format!("{text}mode = \"0660\"\n")).unwrap();
    until("the other mode", || fs::metadata(&socket).is_ok_and(|_| mode(&socket) == 0o660));
    fs::write(&rig.program.file, text).unwrap();
    until("the first again", || fs::metadata(&socket).is_ok_and(|_| mode(&socket) == 0o600));
    // Somebody tidies up.
    fs::remove_file(&socket).unwrap();
    until("it is there again", || rig.run(&["health"]).0 == 0);
    assert_eq!(mode(&socket), 0o600);
    rig.program.signal(Signal::TERM);
    assert_eq!(rig.program.exit_code(), Some(0));
    assert!(!socket.exists(), "nothing is left");
    let (code, told) = rig.run(&["status"]);
    assert!(code == 1 && told.contains("is it running there?"), "{told}");
}

#[test]
fn an_upgrade_puts_the_new_process_s_socket_in_its_place() {
    let mut rig = Rig::start("bind = \"unix:DIR/admin.sock\"\nmode = \"0660\"");
    let (socket, before) = (rig.path("admin.sock"), rig.pid());
    let (code, told) = rig.run(&["upgrade"]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(rig.program.exit_code(), Some(0));
    let after = rig.pid();
    assert_ne!(before, after);
    assert_eq!(mode(&socket), 0o660);
    kill_process(Pid::from_raw(after).unwrap(), Signal::TERM).unwrap();
    until("it has ended", || !socket.exists());
}

#[test]
fn an_upgrade_to_a_socket_elsewhere_leaves_no_file() {
    let mut rig = Rig::start("bind = \"unix:DIR/admin.sock\"");
    let (before, after) = (rig.path("admin.sock"), rig.path("other.sock"));
    let text = fs::read_to_string(&rig.program.file).unwrap();
    fs::write(&rig.program.file, text.replace("admin.sock", "other.sock")).unwrap();
    let at = format!("unix:{}", before.display());
    let (code, told) = rig.say(&["upgrade", "--admin", &at], &[]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(rig.program.exit_code(), Some(0));
    assert!(!before.exists());
    until("it is there", || UnixStream::connect(&after).is_ok());
    kill_process(Pid::from_raw(rig.pid()).unwrap(), Signal::TERM).unwrap();
    until("it has ended", || !after.exists());
}

#[test]
fn a_token_may_what_its_file_says_and_is_taken_back_without_a_reload() {
    let rig = Rig::start(
        "bind = \"127.0.0.1:0\"\ntoken_file = \"DIR/full\"\nread_token_file = \"DIR/read\"",
    );
    let admin = rig.program.admin().to_string();
    let (full, read) = (rig.path("full"), rig.path("read"));
    let by = |file: &Path, arguments: &[&str]| {
        let at = ["--admin", &admin];
        rig.say(&[arguments, &at[..]].concat(), &[("COBALANCE_TOKEN_FILE", file)])
    };
    let (code, told) = rig.say(&["status", "--admin", &admin], &[]);
    assert!(code == 1 && told.contains("a token is needed"), "{told}");
    assert_eq!(by(&read, &["status"]).0, 0);
    let (code, told) = by(&read, &["drain", "n1", "--force"]);
    assert!(code == 1 && told.contains("this token may only read"), "{told}");
    let line = rig.program.until_said("audit: refused");
    for part in ["who=127.0.0.1", "token=\"eyes\"", "path=/api/v1/nodes/n1/drain", "read_only"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let flag = ["drain", "n1", "--force", "--token-file", full.to_str().unwrap()];
    assert_eq!(by(&read, &flag).0, 0, "the flag comes first");
    assert!(rig.program.until_said("audit: done").contains("who=127.0.0.1 (token ops)"));

    // A browser has no field for a bearer token: it asks its user for a password.
    let get = |fields: &str| {
        let stream = TcpStream::connect(&admin).unwrap();
        ask(stream, &format!("GET / HTTP/1.1\r\nHost: {admin}{fields}"))
    };
    let answer = get("");
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("www-authenticate: Basic "));
    let page = get("\r\nAuthorization: Basic OnJlYWQtMDEyMzQ1Njc4OWFiY2RlZg==");
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("event-loop lag"), "{page}");
    for part in ["content-security-policy: default-src 'none'", "x-frame-options: DENY"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let answer = get("\r\nAuthorization: Bearer nonsense\r\nUser-Agent: x");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(rig.program.until_said("wrong_token").contains("who=127.0.0.1"));

    let new = "new-0123456789abcdef";
    write(&full, &format!("ops {new}\n"));
    until("the new one is known", || by(&full, &["ready", "n1"]).0 == 0);
    write(&read, "not a\nfile of tokens");
    until("it is told", || by(&full, &["status"]).1.contains("`read_token_file` "));
    let bearer = format!("\r\nAuthorization: Bearer {READ}");
    assert!(get(&bearer).starts_with("HTTP/1.1 200 "), "those that were known go on to be");
    fs::set_permissions(&full, PermissionsExt::from_mode(0o644)).unwrap();
    write(&read, &format!("eyes {READ}\n"));
    until("it is told", || by(&full, &["status"]).1.contains("can be read by everybody here"));
    let answer = get(&format!("\r\nAuthorization: Bearer {FULL}"));
    // Tries with the new one, before it was known, may have been too many; that kept nobody out.
    assert!(["401", "429"].contains(&&answer[9..12]), "the old one is nobody's: {answer}");
    for secret in [FULL, READ, new, "nonsense"] {
        assert!(!rig.program.has_said(secret), "{secret}");
    }
    drop(rig.origin);
}
