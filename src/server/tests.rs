//! The whole, in this process, on any port.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::control::tests::support::{Behaviour, Obeyed, Origin, config, until};

async fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn it_serves_from_a_node_that_answered_its_probe() {
    let origin = Origin::start(Behaviour::Ok).await;
    let running = start(config(&[&origin.address().to_string()]), ConfigSource::Flags).unwrap();
    let (public, admin) = (running.address("public").unwrap(), running.admin_address().unwrap());
    until("ready", || async { running.handle().is_ready().then_some(()) }).await;
    let answer = get(public, "/").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
    let page = get(admin, "/readyz").await.unwrap();
    assert!(page.contains("app: 1 of 1 nodes up"), "{page}");
    running.shutdown();
    // It waits for a second at most.
    for address in [public, admin] {
        let refused = || async { TcpStream::connect(address).await.is_err().then_some(()) };
        until("nobody listens", refused).await;
    }
}

#[tokio::test]
async fn at_the_end_what_runs_is_finished_and_nothing_new_is_accepted() {
    let origin = Origin::start(Behaviour::Ok).await;
    let running = start(config(&[&origin.address().to_string()]), ConfigSource::Flags).unwrap();
    let public = running.address("public").unwrap();
    until("ready", || async { running.handle().is_ready().then_some(()) }).await;
    // From now on the origin takes requests and does not answer: one is under way at the end.
    let asked = origin.asked();
    origin.behave(Behaviour::Silent);
    let under_way = tokio::spawn(async move { get(public, "/slow").await });
    let received = || async { origin.has_heard("GET /slow ").then_some(()) };
    until("the request at the origin", received).await;
    assert!(origin.asked() > asked);
    let handle = running.handle().clone();
    let ended = tokio::spawn(async move { end(&handle).await });
    let refused = || async { TcpStream::connect(public).await.is_err().then_some(()) };
    until("the listener to close", refused).await;
    assert!(!under_way.is_finished() && !ended.is_finished());
    origin.stop().await;
    assert!(under_way.await.unwrap().unwrap().starts_with("HTTP/1.1 50"));
    ended.await.unwrap();
    running.shutdown();
}

#[tokio::test]
async fn after_the_timeout_the_rest_is_cut() {
    let origin = Origin::start(Behaviour::Ok).await;
    let mut config = config(&[&origin.address().to_string()]);
    config.server.shutdown_timeout = Duration::from_millis(50);
    let running = start(config, ConfigSource::Flags).unwrap();
    let public = running.address("public").unwrap();
    until("ready", || async { running.handle().is_ready().then_some(()) }).await;
    origin.behave(Behaviour::Silent);
    let under_way = tokio::spawn(async move { get(public, "/slow").await });
    let received = || async { origin.has_heard("GET /slow ").then_some(()) };
    until("the request at the origin", received).await;
    end(running.handle()).await;
    assert_eq!(open_work(running.handle()), "1 requests, 0 tunnels");
    running.shutdown();
    assert!(!under_way.await.unwrap().is_ok_and(|answer| answer.contains(" 200 ")));
}

#[test]
fn what_cannot_be_used_has_the_exit_code_of_its_kind() {
    let dir = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = dir.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        Options::File(path)
    };
    assert_eq!(run(Options::File(dir.path().join("none"))), EXIT_CONFIG);
    assert_eq!(run(file("[[listener]]\nbimd = 1\n")), EXIT_CONFIG);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!(
        "[[listener]]\nbind = \"{}\"\n[upstream.a]\nnodes = [\"127.0.0.1:9\"]\n",
        taken.local_addr().unwrap()
    );
    assert_eq!(run(file(&text)), EXIT_FAILURE);
}

#[test]
fn a_data_thread_that_cannot_start_stops_the_others() {
    let threads = Obeyed::default();
    let spawn = |parts: ThreadParts| match parts.index {
        0 => threads.spawn(parts),
        _ => Err(io::Error::other("no thread is left")),
    };
    let (config, source) = (config(&["127.0.0.1:9"]), ConfigSource::Flags);
    let begin = Begin { config, source, text: None };
    let error = start_with(begin, None, spawn).err().unwrap();
    assert_eq!(error.to_string(), "no thread is left");
    let deadline = Instant::now() + Duration::from_secs(30);
    while threads.stopped.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        assert!(Instant::now() < deadline, "the first thread still runs");
        std::thread::yield_now();
    }
}
