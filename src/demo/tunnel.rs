//! A WebSocket as NocoBase's page keeps one: it listens, and when it is cut it comes back.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::tell::Teller;
use super::ws;

/// NocoBase's client waits as long.
const RECONNECT: Duration = Duration::from_secs(1);
/// A handshake takes no longer, even while a node is passed over.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Of the answer to the handshake.
const MAX_HEAD: usize = 16 * 1024;

/// Keeps one open until it is dropped.
pub(super) async fn keep(number: u32, address: SocketAddr, teller: &Teller) {
    loop {
        match timeout(HANDSHAKE_WITHIN, open(address)).await {
            Ok(Ok((stream, node))) => {
                teller.count(|summary| summary.tunnels += 1);
                teller.event(&format!("WebSocket {number} is open, to {node}"));
                let why = listen(number, stream, &node, teller).await;
                teller.event(&format!("WebSocket {number} lost {node}: {why}"));
            }
            Ok(Err(error)) => teller.event(&format!("WebSocket {number} is not let in: {error:#}")),
            Err(_) => teller.event(&format!("WebSocket {number} gets no answer")),
        }
        sleep(RECONNECT).await;
    }
}

/// Tells what the node says, until the end; returns its reason.
async fn listen(number: u32, mut stream: TcpStream, node: &str, teller: &Teller) -> String {
    loop {
        match ws::read(&mut stream).await {
            Ok((ws::CLOSE, payload)) => {
                // A client answers a Close with its own; the other side may be gone by then.
                let _ = ws::write(&mut stream, ws::CLOSE, &payload, true).await;
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                return code.map_or("closed".into(), |code| format!("closed with {code}"));
            }
            Ok((_, payload)) => {
                let frame: Value = serde_json::from_slice(&payload).unwrap_or_default();
                if let Some(code) = frame["payload"]["code"].as_str() {
                    teller.event(&format!("WebSocket {number} hears from {node}: {code}"));
                }
            }
            Err(error) => return error.to_string(),
        }
    }
}

/// Opens one; gives the name of the node behind it.
async fn open(address: SocketAddr) -> Result<(TcpStream, String)> {
    let mut stream = TcpStream::connect(address).await.context("connecting")?;
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bm8gc2VjcmV0IGluIGl0IQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    // Byte by byte: what follows the head is frames.
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.context("no answer to the handshake")?);
        if head.len() > MAX_HEAD {
            bail!("the answer has no end");
        }
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status != "101" {
        bail!("status {status}");
    }
    let node = head.lines().find_map(|line| line.strip_prefix("x-served-by:"));
    Ok((stream, node.unwrap_or("nobody").trim().to_owned()))
}
