//! HTTP/2 to nodes over TLS: both must choose it.

use std::sync::Arc;

use cobalance::control::ConfigSource;
use cobalance::server;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::node::{Asked, Node};
use super::support::tls::{Authority, Pair};
use super::support::{Proxy, parse, until};

fn server(pair: &Pair, protocols: &[&str]) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(&pair.chain).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
    let mut config = ServerConfig::builder_with_provider(cobalance::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

#[test]
fn only_a_node_that_chooses_it_is_asked() {
    let authority = Authority::new();
    let pair = authority.issue("node", &["127.0.0.1"]);
    for (protocols, status) in [(&["http/1.1", "h2"][..], 200), (&["http/1.1"], 502), (&[], 502)] {
        let node = Node::with(
            |_| (),
            Some(server(&pair, protocols)),
            |asked: Asked| asked.answer("hello"),
        );
        let proxy = Proxy::start(parse(&format!(
            "[server]\nthreads = 1\n[access_log]\nenabled = false\n\
             [[listener]]\nbind = \"127.0.0.1:0\"\n\
             [upstream.u]\npreset = \"none\"\nprotocol = \"h2\"\nconnect_timeout = \"20s\"\n\
             nodes = [\"{}\"]\n[upstream.u.tls]\nca = \"{}\"\n",
            node.address,
            authority.ca().display()
        )));
        for _ in 0..2 {
            let answer = proxy.get("/");
            assert_eq!(answer.status, status, "{protocols:?}: {}", answer.text());
        }
        let seen = node.seen();
        assert_eq!(seen.len(), if status == 200 { 2 } else { 0 });
        if let Some(seen) = seen.first() {
            assert_eq!(seen.request.uri().scheme_str(), Some("https"));
            assert_eq!(node.connections(), 1);
        }
    }
}

#[test]
fn probes_speak_it_too() {
    let authority = Authority::new();
    let pair = authority.issue("node", &["127.0.0.1"]);
    for (protocol, state) in [("h2", "up"), ("http/1.1", "down")] {
        let tls = Some(server(&pair, &[protocol]));
        let node = Node::with(|_| (), tls, |asked: Asked| asked.answer("fine"));
        let config = parse(&format!(
            "[server]\nthreads = 1\n[access_log]\nenabled = false\n[admin]\nbind = \"127.0.0.1:0\"\n\
             [[listener]]\nbind = \"127.0.0.1:0\"\n\
             [upstream.u]\npreset = \"none\"\nprotocol = \"h2\"\nnodes = [\"{}\"]\n\
             [upstream.u.health_check]\npath = \"/health\"\ninterval = \"50ms\"\ntimeout = \"20s\"\n\
             [upstream.u.tls]\nca = \"{}\"\n",
            node.address,
            authority.ca().display()
        ));
        let running = server::start(config, ConfigSource::Flags).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        until("it is judged", || {
            let status = runtime.block_on(running.handle().status()).unwrap();
            status.upstreams[0].nodes[0].state == state
        });
        let asked = node.seen().first().map(|seen| seen.request.uri().path().to_owned());
        assert_eq!(asked.as_deref(), (state == "up").then_some("/health"));
    }
}
