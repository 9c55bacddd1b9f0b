use std::io::{Read, Write};
use std::net::TcpStream;

use super::*;

async fn running() -> (StandIn, Journal) {
    let journal = Journal::default();
    let node = StandIn::new("node1", &journal).unwrap();
    node.start(Pace::NONE).await;
    assert!(node.wait_for(|phase| *phase == Phase::Running).await);
    (node, journal)
}

/// Sends `head` and `body`, and reads one answer that has a `Content-Length`, or none.
fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        let n = stream.read(&mut part).unwrap();
        answer.extend_from_slice(&part[..n]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            assert!(n > 0, "closed before a head: {text}");
            continue;
        };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if n == 0 || body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            return text;
        }
    }
}

fn get(node: &StandIn, path: &str, fields: &str) -> String {
    let mut stream = TcpStream::connect(node.address()).unwrap();
    ask(&mut stream, &format!("GET {path} HTTP/1.1\r\nhost: a\r\n{fields}\r\n"))
}

#[tokio::test]
async fn the_health_check_is_bare() {
    let (node, _) = running().await;
    let answer = get(&node, "/api/__health_check", "").to_lowercase();
    assert!(answer.starts_with("http/1.1 200 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    assert!(!answer.contains("content-type") && !answer.contains("x-request-id"), "{answer}");
    assert!(answer.contains("keep-alive: timeout=5"), "{answer}");
}

#[tokio::test]
async fn both_grammars() {
    let (node, _) = running().await;
    let body = |answer: String| -> serde_json::Value {
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    let failed = get(&node, "/api/fail", "");
    assert!(failed.starts_with("HTTP/1.1 500 ") && failed.contains("x-request-id: "), "{failed}");
    assert!(body(failed)["errors"][0]["code"].is_string());
    for answer in [
        get(&node, "/api/app:getInfo", "x-app: stranger\r\n"),
        get(&node, "/api/app:getInfo?a=1&__appName=stranger", ""),
    ] {
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        let body = body(answer);
        assert_eq!(body["error"]["code"], "APP_NOT_FOUND");
        assert_eq!(body["error"]["maintaining"], true);
    }
    let found = get(&node, "/api/app:getInfo", "x-app: main\r\n");
    assert_eq!(body(found)["data"]["node"], "node1");
    assert!(get(&node, "/api/nothing", "").ends_with("\r\n\r\nNot Found"));
    assert!(get(&node, "/admin", "").contains("Served by node1"));
}

#[tokio::test]
async fn a_command_refuses_the_api_and_not_the_page() {
    let (node, _) = running().await;
    node.command("pm.enable", Duration::from_secs(3600)).await;
    assert!(node.wait_for(|phase| matches!(phase, Phase::Commanding { .. })).await);
    let answer = get(&node, "/api/__health_check", "");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("APP_COMMANDING") && answer.contains("pm.enable"), "{answer}");
    assert!(get(&node, "/", "").starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn the_journal_counts_what_ran() {
    let (node, journal) = running().await;
    let mut stream = TcpStream::connect(node.address()).unwrap();
    let body = "{\"title\":\"one\"}";
    let request = format!(
        "POST /api/posts:create HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for n in 1..=2 {
        assert!(ask(&mut stream, &request).starts_with("HTTP/1.1 200 "));
        assert_eq!(journal.lock()["one"], n);
    }
}

#[tokio::test]
async fn killed_it_cuts_and_refuses_and_comes_back_on_its_port() {
    let (node, _) = running().await;
    let mut stream = TcpStream::connect(node.address()).unwrap();
    ask(&mut stream, "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    node.kill().await;
    assert_eq!(node.phase(), Phase::Off);
    assert!(matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_)));
    let error = TcpStream::connect(node.address()).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    node.start(Pace::NONE).await;
    assert!(node.wait_for(|phase| *phase == Phase::Running).await);
    assert!(get(&node, "/api/__health_check", "").ends_with("ok"));
}

#[tokio::test]
async fn terminated_it_finishes_what_it_has() {
    let (node, _) = running().await;
    let mut stream = TcpStream::connect(node.address()).unwrap();
    let slow = std::thread::spawn(move || {
        ask(&mut stream, "GET /api/slow:list?ms=1000 HTTP/1.1\r\nhost: a\r\n\r\n")
    });
    node.terminate().await;
    assert!(node.wait_for(|phase| matches!(phase, Phase::Ending { .. })).await);
    assert!(get(&node, "/api/__health_check", "").ends_with("ok"), "it tells only over `/ws`");
    assert!(node.wait_for(|phase| *phase == Phase::Stopped).await);
    assert!(get(&node, "/api/__health_check", "").contains("APP_STOPPED"));
    assert!(node.wait_for(|phase| *phase == Phase::Off).await);
    assert!(TcpStream::connect(node.address()).is_err());
    let answer = tokio::task::spawn_blocking(move || slow.join().unwrap()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") || answer.contains("APP_STOPPED"), "{answer}");
}

/// A WebSocket, with more fields in its handshake.
fn tunnel(node: &StandIn, fields: &str) -> tokio::net::TcpStream {
    let mut stream = TcpStream::connect(node.address()).unwrap();
    let answer = ask(
        &mut stream,
        &format!(
            "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n{fields}\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ),
    );
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    stream.set_nonblocking(true).unwrap();
    tokio::net::TcpStream::from_std(stream).unwrap()
}

/// The next state that is told: its code and its text.
async fn told(stream: &mut tokio::net::TcpStream) -> (String, String) {
    let (opcode, frame) = crate::demo::ws::read(stream).await.unwrap();
    let frame: serde_json::Value = serde_json::from_slice(&frame).unwrap();
    assert_eq!((opcode, &frame["type"]), (crate::demo::ws::TEXT, &"maintaining".into()), "{frame}");
    let text = |key: &str| frame["payload"][key].as_str().unwrap().to_owned();
    (text("code"), text("message"))
}

#[tokio::test]
async fn a_tunnel_hears_of_phases_to_the_end() {
    let (node, _) = running().await;
    let mut stream = tunnel(&node, "x-app: main\r\n");
    node.command("restart", Duration::from_millis(100)).await;
    let codes = [told(&mut stream).await.0, told(&mut stream).await.0];
    assert_eq!(codes, ["APP_COMMANDING", "APP_RUNNING"]);
    node.terminate().await;
    for text in ["destroying app...", "stopping app..."] {
        assert_eq!(told(&mut stream).await, ("APP_RUNNING".into(), text.into()));
    }
    assert_eq!(told(&mut stream).await.0, "APP_STOPPED");
}

#[tokio::test]
async fn a_tunnel_of_another_app_hears_nothing_and_pings_are_answered() {
    let (node, _) = running().await;
    let (mut stream, mut main) = (tunnel(&node, "x-app: hr\r\n"), tunnel(&node, ""));
    node.command("restart", Duration::from_millis(100)).await;
    assert_eq!(told(&mut main).await.0, "APP_COMMANDING");
    assert_eq!(told(&mut main).await.0, "APP_RUNNING");
    crate::demo::ws::write(&mut stream, crate::demo::ws::PING, b"there?", true).await.unwrap();
    let pong = crate::demo::ws::read(&mut stream).await.unwrap();
    assert_eq!(pong, (crate::demo::ws::PONG, b"there?".to_vec()));
}

#[tokio::test]
async fn another_upgrade_is_cut_without_a_word() {
    let (node, _) = running().await;
    let mut stream = TcpStream::connect(node.address()).unwrap();
    let request = "GET /x HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    assert!(matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_)));
}
