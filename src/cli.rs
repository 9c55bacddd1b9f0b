//! The command line: what is asked for, and the exit code that answers.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Parser, Subcommand};

mod check;
mod client;
mod drain;
mod find;
mod maintenance;
mod pin;
mod rollback;
mod serve;
mod status;
mod upgrade;

use self::check::Shown;
use self::client::{Answer, Client};
use self::find::Where;
use crate::control::status::{ReloadResult, ReloadStatus};
use crate::demo;
use crate::net::Address;
use crate::server::{EXIT_CONFIG, EXIT_FAILURE};
use crate::telemetry::process_log;

/// The load balancer that understands NocoBase
#[derive(Debug, Parser)]
#[command(name = "cobalance", version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 failure while running, 2 wrong usage, 75 not done in time, \
                  78 wrong configuration, 130 ended by a second signal."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Run),
    Demo(Demo),
    Check(Check),
    Status(StatusArgs),
    Drain(drain::Drain),
    Ready(drain::Ready),
    Pin(pin::Pin),
    Unpin(pin::Unpin),
    Maintenance(maintenance::Maintenance),
    /// Put a changed file in use now, and say what came of it
    #[command(long_about = None)]
    Reload(Where),
    Upgrade(upgrade::Upgrade),
    Rollback(rollback::Rollback),
    Health(Health),
}

/// Serve
///
/// With a file: everything docs/config-reference.md lists. Without one: --listen and --node, and every
/// default; a sidecar needs no more.
#[derive(Debug, Args)]
struct Run {
    /// The configuration [default: $COBALANCE_CONFIG, then config/cobalance.toml]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listen", "node", "admin"])]
    config: Option<PathBuf>,
    /// Where clients connect, as IP:PORT or unix:PATH; may be repeated
    #[arg(long, value_name = "ADDR", requires = "node", value_parser = crate::config::listen_address)]
    listen: Vec<Address>,
    /// A NocoBase node, as HOST:PORT or unix:PATH; may be repeated
    #[arg(long, value_name = "ADDR", requires = "listen")]
    node: Vec<String>,
    /// Where `status` and the other commands find it, also unix:PATH [default: 127.0.0.1:9901]
    #[arg(long, value_name = "ADDR", requires = "listen")]
    admin: Option<Address>,
}

/// See failover: three stand-ins for NocoBase nodes, killed, stopped and put to work under a small load
///
/// Everything runs in this one process, on loopback. The nodes behave like NocoBase's gateway: they refuse
/// connections at first, then answer 503 APP_COMMANDING while they start. One is killed, one is stopped,
/// one runs a command, and so on; each line tells what happened, and how many requests were sent,
/// answered, failed, and repeated on another node. Ctrl-C ends it with a summary.
#[derive(Debug, Args)]
struct Demo {
    /// End after so many seconds
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Where the balancer listens; if it is taken, any free port
    #[arg(long, value_name = "ADDR", default_value_t = demo::LISTEN)]
    listen: SocketAddr,
    /// Where its admin listener is; if it is taken, any free port
    #[arg(long, value_name = "ADDR", default_value_t = demo::ADMIN)]
    admin: SocketAddr,
}

/// Show all that is wrong with a configuration, each with its place and remedy
#[derive(Debug, Args)]
struct Check {
    /// The file [default: $COBALANCE_CONFIG, then config/cobalance.toml]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// For people, or for editors and scripts
    #[arg(long, value_enum, default_value_t = Shown::Human)]
    format: Shown,
    /// Exit 78 on warnings, too
    #[arg(long)]
    deny_warnings: bool,
}

/// Show the nodes of a running process: their states, and why
#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    at: Where,
    /// As JSON, with all there is
    #[arg(long)]
    json: bool,
}

/// Ask whether a process is alive: exit 0 if it is, for a container's health check
#[derive(Debug, Args)]
struct Health {
    #[command(flatten)]
    at: Where,
    /// Ask the listener of `[probes]` instead of the admin listener
    #[arg(long, value_name = "ADDR", conflicts_with = "admin")]
    probes: Option<String>,
}

/// Why a command ends otherwise than asked, and the exit code that says so.
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn configuration(message: impl Display) -> Failure {
        Failure { code: EXIT_CONFIG, message: message.to_string() }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure { code: EXIT_FAILURE, message: format!("{error:#}") }
    }
}

/// Does what the command line asks for.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap knows, and prints them to stdout.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match carry_out(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("error: {}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn carry_out(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(run) => serve::run(&run),
        Command::Demo(demo) => show(&demo),
        Command::Check(check) => judge(&check),
        Command::Status(status) => tell(&status),
        Command::Drain(asked) => drain::drain(&asked),
        Command::Ready(asked) => drain::ready(&asked),
        Command::Pin(asked) => pin::pin(&asked),
        Command::Unpin(asked) => pin::unpin(&asked),
        Command::Maintenance(asked) => maintenance::maintenance(&asked),
        Command::Reload(at) => reload(&at),
        Command::Upgrade(asked) => upgrade::upgrade(&asked),
        Command::Rollback(asked) => rollback::roll_back(&asked),
        Command::Health(health) => feel(&health),
    }
}

fn show(asked: &Demo) -> Result<(), Failure> {
    // The demo tells its own story; the log only what it leaves out.
    process_log::init("error");
    let lasting = asked.seconds.map(Duration::from_secs);
    let options = demo::Options { listen: asked.listen, admin: asked.admin, lasting };
    let summary = demo::run(&options, print)?;
    print(&format!("\n{summary}"));
    Ok(())
}

fn judge(asked: &Check) -> Result<(), Failure> {
    let file = find::file(asked.file.as_deref());
    let color = std::io::stdout().is_terminal();
    let report = check::check(&file, asked.format, asked.deny_warnings, color)
        .map_err(|error| Failure::configuration(format!("{error:#}")))?;
    print(report.text.trim_end());
    match report.good {
        true => Ok(()),
        false => Err(Failure::configuration("")),
    }
}

fn tell(asked: &StatusArgs) -> Result<(), Failure> {
    let client = find::admin(&asked.at)?;
    if asked.json {
        print(&good(client.get(status::PATH)?)?.body);
        return Ok(());
    }
    let status = status::ask(&client)?;
    print(status::render(&status, SystemTime::now()).trim_end());
    Ok(())
}

fn reload(at: &Where) -> Result<(), Failure> {
    let answer = find::admin(at)?.post("/api/v1/reload", "{}")?;
    let Ok(outcome) = serde_json::from_str::<ReloadStatus>(&answer.body) else {
        return good(answer).map(drop);
    };
    let generation = outcome.generation;
    match outcome.result {
        ReloadResult::Ok => print(&format!("configuration {generation} is in use")),
        ReloadResult::Unchanged => {
            print(&format!("nothing has changed; {generation} stays in use"))
        }
        ReloadResult::Invalid => {
            let why = outcome.error.unwrap_or_default();
            return Err(Failure::configuration(format!(
                "{why}\nconfiguration {generation} stays in use"
            )));
        }
    }
    Ok(())
}

fn feel(asked: &Health) -> Result<(), Failure> {
    let clients = match &asked.probes {
        Some(address) => vec![Client::new(address, None)],
        None => find::alive(&asked.at)?,
    };
    let mut failure = None;
    for client in clients {
        let answer = match client.get("/livez") {
            Ok(answer) if lives(&answer) => return Ok(()),
            Ok(answer) => good(answer).map(drop),
            Err(error) => Err(error.into()),
        };
        failure = failure.or(answer.err());
    }
    failure.map_or(Ok(()), Err)
}

/// Whether an answer shows that cobalance runs. What its guard says of a token, or of a name that it is not called
/// by, comes from the very loop that would have answered: whoever asks then knows a token too few, as after a
/// change of its file, and a container's health check that fails ends a process that serves. The form of such a
/// refusal is ours: another program at this port does not pass for us.
fn lives(answer: &Answer) -> bool {
    match answer.status {
        401 | 421 | 429 => {
            let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
            let error = &body["error"];
            error.as_object().is_some_and(|fields| fields.len() == 2)
                && error["status"] == answer.status
                && error["message"].is_string()
        }
        status => status < 300,
    }
}

/// An answer, if it is one of success; else what it says.
fn good(answer: Answer) -> Result<Answer, Failure> {
    if answer.status < 300 {
        return Ok(answer);
    }
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let said = body["error"]["message"].as_str().unwrap_or(answer.body.trim());
    let hint = match answer.status {
        401 | 403 => {
            " (the token comes from --token-file, $COBALANCE_ADMIN_TOKEN, $COBALANCE_TOKEN_FILE or the configuration's file)"
        }
        _ => "",
    };
    Err(Failure {
        code: EXIT_FAILURE,
        message: format!("it answers {}: {said}{hint}", answer.status),
    })
}

/// To stdout. A reader that has left, as `head` does, is no failure.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

#[cfg(test)]
mod tests;
