//! Refusals of a node while a body is on its way.

use std::io::Read;

use super::support::origin::{Origin, read_head};
use super::support::{self, Proxy};
use super::{FAST, answer, begin, body, counted, until_empty};

#[test]
fn a_refusal_between_two_parts_of_a_streamed_body_is_the_clients() {
    // As much as is kept of a body that may follow as it comes.
    const PART: usize = 1024 * 1024;
    const REFUSAL: &str =
        r#"{"error":{"status":503,"maintaining":true,"message":"m","code":"APP_COMMANDING"}}"#;
    let chunk = [format!("{:x}\r\n", 2 * PART).into_bytes(), body(PART)].concat();
    for (framing, part) in
        [(counted(2 * PART), body(PART)), ("Transfer-Encoding: chunked".to_owned(), chunk)]
    {
        // It answers when it has all that was kept, and nothing of the rest has come yet.
        let refusing = Origin::scripted(|mut line| {
            let _head = read_head(&mut line.stream);
            let (mut came, mut buffer) = (0, [0; 65_536]);
            while came < PART {
                came += line.stream.read(&mut buffer).unwrap();
            }
            line.send(
                format!(
                    "HTTP/1.1 503 X\r\nContent-Type: application/json; charset=utf-8\r\n\
                 Content-Length: {}\r\n\r\n{REFUSAL}",
                    REFUSAL.len()
                )
                .as_bytes(),
            );
            line.wait_closed();
        });
        let good = Origin::ok("no");
        let nodes = format!(
            "[server]\nthreads = 1\n[access_log]\nenabled = false\n\
             [[listener]]\nbind = \"127.0.0.1:0\"\n[upstream.u]\n\
             nodes = [\"{}\", {{ address = \"{}\", backup = true }}]\n{FAST}",
            refusing.address, good.address
        );
        let proxy = Proxy::start(support::parse(&nodes));
        let mut stream = begin(&proxy, &framing, &part);
        let answer = answer(&mut stream);
        assert!(answer.status == 503 && answer.text() == REFUSAL, "{}", answer.text());
        assert_eq!((refusing.connections(), good.connections()), (1, 0), "{framing}");
        until_empty(&proxy);
    }
}
