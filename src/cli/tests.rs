use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Command, clap::Error> {
    let words = std::iter::once("cobalance").chain(line.split_whitespace());
    Cli::try_parse_from(words).map(|cli| cli.command)
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn what_is_good_is_taken() {
    let lines = [
        "run",
        "run --config a.toml",
        "run --listen 127.0.0.1:80 --node a:1 --node b:2 --admin 127.0.0.1:0",
        "demo",
        "demo --seconds 5 --listen 127.0.0.1:0",
        "check",
        "check a.toml --format json --deny-warnings",
        "status --admin 127.0.0.1:9901 --json",
        "drain node1",
        "drain 172.31.0.1:13000 --upstream u --wait --timeout 90s --window 500ms --force",
        "ready node1 --upstream u --admin 127.0.0.1:9901",
        "pin node1",
        "pin node1 --upstream u --wait --timeout 90s --window 500ms --force",
        "unpin",
        "unpin --upstream u",
        "maintenance on --cookie --node n",
        "maintenance on --cookie --allow 10.0.0.1 --node n",
        "reload --token-file t",
        "rollback --admin 127.0.0.1:9901",
        "health",
        "health --probes 127.0.0.1:9900",
    ];
    for line in lines {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
    }
}

#[test]
fn what_is_wrong_is_refused() {
    let lines = [
        "",
        "serve",
        "run --listen 127.0.0.1:80",
        "run --node a:1",
        "run --admin 127.0.0.1:1",
        "run --config a.toml --listen 127.0.0.1:80 --node a:1",
        "run --listen example.com --node a:1",
        "check a.toml --format xml",
        "drain",
        "drain n --timeout 5s",
        "drain n --wait --timeout 5",
        "drain n --window soon",
        "ready n --wait",
        "pin",
        "pin n --timeout 5s",
        "unpin n",
        "maintenance on --node n",
        "maintenance off --cookie",
        "rollback 3",
        "health --probes a:1 --admin b:2",
    ];
    for line in lines {
        assert!(parse(line).is_err_and(|error| error.use_stderr()), "{line}");
    }
}

#[test]
fn an_answer_of_failure_says_why() {
    let body = "{\"error\":{\"message\":\"a token is needed\"}}".to_owned();
    let failure = good(Answer { status: 401, body }).err().unwrap();
    assert_eq!(failure.code, 1);
    assert!(failure.message.contains("401: a token is needed"), "{}", failure.message);
    assert!(failure.message.contains("--token-file"), "{}", failure.message);
    assert!(good(Answer { status: 200, body: String::new() }).is_ok());
}

#[test]
fn who_refuses_as_cobalance_does_is_alive() {
    let ours = |status: u16| {
        format!("{{\"error\":{{\"status\":{status},\"message\":\"a token is needed\"}}}}")
    };
    let nocobase = "{\"error\":{\"status\":401,\"message\":\"no\",\"code\":\"X\"}}".to_owned();
    for (status, body, expected) in [
        (200, "ok".to_owned(), true),
        (401, ours(401), true),
        (421, ours(421), true),
        (429, ours(429), true),
        (401, ours(403), false),
        (401, nocobase, false),
        (401, "{\"error\":{\"message\":1,\"code\":2}}".to_owned(), false),
        (401, "<h1>Who are you?</h1>".to_owned(), false),
        (404, ours(404), false),
        (503, ours(503), false),
        (302, String::new(), false),
    ] {
        let told = format!("{status} {body}");
        assert_eq!(lives(&Answer { status, body }), expected, "{told}");
    }
}
