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
    assert!(TcpStream::connect(public).await.is_err());
    assert!(TcpStream::connect(admin).await.is_err());
}
