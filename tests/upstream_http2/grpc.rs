//! gRPC from client to node: calls of all four kinds, with their trailers.

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};

use super::node::{Asked, Node, fields};
use super::support::h2::{Client, read_all, request, send_all, whole};
use super::support::ports::Closed;
use super::to;

fn call(path: &str) -> Request<()> {
    let mut request = request("POST", path);
    let fields = request.headers_mut();
    for (name, value) in
        [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "20S")]
    {
        fields.insert(name, value.parse().unwrap());
    }
    request
}

/// A message in gRPC's frame.
fn message(text: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend((text.len() as u32).to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

fn ok() -> HeaderMap {
    fields("grpc-status", "0")
}

fn head() -> http::response::Builder {
    Response::builder().header("content-type", "application/grpc")
}

/// What a server of gRPC does with each kind of call.
fn service() -> Node {
    Node::scripted(|mut asked: Asked| async move {
        if asked.path() == "/none" {
            let answer = head().header("grpc-status", 12).header("grpc-message", "no such method");
            drop(asked.head(answer, true));
            return;
        }
        if asked.path() == "/both" {
            let mut send = asked.head(head(), false).unwrap();
            let recv = asked.request.body_mut();
            while let Some(Ok(data)) = recv.data().await {
                recv.flow_control().release_capacity(data.len()).unwrap();
                send_all(&mut send, &data, false).await.unwrap();
            }
            send.send_trailers(ok()).unwrap();
            return;
        }
        let path = asked.path().to_owned();
        let heard = read_all(asked.request.body_mut()).await.unwrap();
        let mut send = asked.head(head(), false).unwrap();
        let times = if path == "/server" { 3 } else { 1 };
        for _ in 0..times {
            send_all(&mut send, &heard, false).await.unwrap();
        }
        send.send_trailers(ok()).unwrap();
    })
}

#[test]
fn unary_calls_and_streams_of_either_side_pass_with_their_trailers() {
    let node = service();
    let proxy = to(&[node.address]);
    let mut client = Client::plain(proxy.address);
    for (path, sent, times) in
        [("/unary", vec!["a"], 1), ("/server", vec!["b"], 3), ("/client", vec!["c", "d", "e"], 1)]
    {
        let (answer, mut send) = client.begin(call(path), false);
        let messages: Vec<_> = sent.iter().map(|text| message(text)).collect();
        let got = client.run(async {
            for message in &messages {
                send_all(&mut send, message, false).await.unwrap();
            }
            send.send_data(Bytes::new(), true).unwrap();
            whole(answer).await.unwrap()
        });
        assert_eq!((got.status, got.field("content-type")), (200, Some("application/grpc")));
        assert_eq!(got.body, messages.concat().repeat(times), "{path}");
        assert_eq!(got.trailers, Some(ok()), "{path}");
    }
    let seen = node.seen();
    let headers = seen[0].request.headers();
    assert_eq!(
        (&headers["te"], &headers["grpc-timeout"]),
        (&"trailers".parse().unwrap(), &"20S".parse().unwrap())
    );
    assert_eq!(node.connections(), 1);
}

#[test]
fn an_answer_of_trailers_alone_stays_one() {
    let node = service();
    let proxy = to(&[node.address]);
    let mut client = Client::plain(proxy.address);
    let (answer, mut send) = client.begin(call("/none"), false);
    let answer = client.run(async {
        send_all(&mut send, &message("x"), true).await.unwrap();
        answer.await.unwrap()
    });
    assert_eq!(
        (&answer.headers()["grpc-status"], answer.status().as_u16()),
        (&"12".parse().unwrap(), 200)
    );
    assert!(answer.body().is_end_stream(), "nothing comes after the head");
}

/// Says one thing and hears it come back, before it says the next.
async fn turn(send: &mut SendStream<Bytes>, recv: &mut RecvStream, text: &str) {
    let message = message(text);
    send_all(send, &message, false).await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < message.len() {
        let data = recv.data().await.unwrap().unwrap();
        recv.flow_control().release_capacity(data.len()).unwrap();
        heard.extend_from_slice(&data);
    }
    assert_eq!(heard, message);
}

#[test]
fn both_sides_may_speak_in_turns() {
    let node = service();
    let proxy = to(&[node.address]);
    let mut client = Client::plain(proxy.address);
    let (answer, mut send): (ResponseFuture, _) = client.begin(call("/both"), false);
    client.run(async {
        // The head comes before the client has said a word.
        let (head, mut recv) = answer.await.unwrap().into_parts();
        assert_eq!(head.status, 200);
        for nth in 0..20 {
            turn(&mut send, &mut recv, &format!("word {nth}")).await;
        }
        turn(&mut send, &mut recv, &"x".repeat(200_000)).await;
        send.send_data(Bytes::new(), true).unwrap();
        assert!(recv.data().await.is_none());
        assert_eq!(recv.trailers().await.unwrap(), Some(ok()));
    });
}

#[test]
fn many_calls_share_one_connection_on_both_sides() {
    let node = service();
    let proxy = to(&[node.address]);
    let mut client = Client::plain(proxy.address);
    let calls: Vec<_> = (0..50)
        .map(|nth| {
            let (answer, mut send) = client.begin(call("/unary"), false);
            let text = message(&format!("call {nth}"));
            send.send_data(Bytes::from(text.clone()), true).unwrap();
            (answer, text)
        })
        .collect();
    for (answer, text) in calls {
        let got = client.run(whole(answer)).unwrap();
        assert_eq!((got.body, got.trailers), (text, Some(ok())));
    }
    assert_eq!(node.connections(), 1);
}

#[test]
fn a_node_that_cannot_be_reached_is_told_plainly() {
    let closed = Closed::new();
    let proxy = to(&[closed.address]);
    let mut client = Client::plain(proxy.address);
    let got = client.ask(call("/unary")).unwrap();
    // Clients of gRPC take it for UNAVAILABLE.
    assert!(matches!(got.status, 502 | 503), "{got:?}");
}
