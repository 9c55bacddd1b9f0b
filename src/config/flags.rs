//! A configuration without a file: `cobalance run --listen ADDR --node ADDR…`

use super::{AccessLog, Admin, Config, Listener, Node, Preset, Server, Spool, Upstream, address};
use crate::net::Address;

/// Reads what follows `--listen`.
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn listen_address(text: &str) -> Result<Address, String> {
    address::listener(text).map_err(|fault| format!("{}; {}", fault.label, fault.help))
}

/// The same defaults as in a file, one upstream named `nocobase`.
///
/// # Errors
///
/// All that is wrong, one sentence with its remedy each.
pub fn from_flags(
    listen: &[Address],
    nodes: &[String],
    admin: Option<Address>,
) -> Result<Config, Vec<String>> {
    let mut errors = Vec::new();
    let listeners = listeners(listen, &mut errors);
    let mut upstream = Upstream::named("nocobase".to_owned(), Preset::NocoBase);
    upstream.nodes = read_nodes(nodes, &mut errors);
    let mut admin_table = Admin::default();
    if let Some(bind) = admin {
        if !bind.is_local() {
            errors.push(format!(
                "--admin {bind} is not a loopback address; use 127.0.0.1, or a file with \
                 `token_file` in `[admin]`"
            ));
        }
        admin_table.bind = bind;
    }
    let taken = |l: &Listener| l.bind == admin_table.bind && !l.bind.is_any_port();
    if listeners.iter().any(taken) {
        let bind = &admin_table.bind;
        errors.push(format!(
            "--listen {bind} is the admin listener's; give one of them another port"
        ));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Config {
        server: Server::default(),
        tls: Default::default(),
        authorities: Vec::new(),
        certificates: Vec::new(),
        listeners,
        routes: Vec::new(),
        rate_limits: Vec::new(),
        upstreams: vec![upstream],
        spool: Spool::implied(&|name| std::env::var(name).ok()),
        admin: admin_table,
        probes: None,
        access_log: AccessLog::default(),
    })
}

fn listeners(listen: &[Address], errors: &mut Vec<String>) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    if listen.is_empty() {
        errors.push("no listener; add --listen 0.0.0.0:80".to_owned());
    }
    for (at, bind) in listen.iter().enumerate() {
        if !bind.is_any_port() && listen[..at].contains(bind) {
            errors.push(format!("--listen {bind} is given twice; remove one of them"));
            continue;
        }
        let mut listener = Listener::at(bind.clone());
        if listen[..at].contains(bind) {
            // Several free ports at one address still need names of their own.
            listener.name = format!("{bind}/{at}");
        }
        listeners.push(listener);
    }
    listeners
}

fn read_nodes(nodes: &[String], errors: &mut Vec<String>) -> Vec<Node> {
    let mut read: Vec<Node> = Vec::new();
    if nodes.is_empty() {
        errors.push("no node; add --node 127.0.0.1:13000".to_owned());
    }
    for text in nodes {
        match address::node(text, Preset::NocoBase) {
            Err(fault) => errors.push(format!("--node {text}: {}; {}", fault.label, fault.help)),
            Ok(address) if read.iter().any(|node| node.address == address) => {
                errors.push(format!("--node {text} is given twice; remove one of them"));
            }
            Ok(address) => read.push(Node::at(address)),
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, load};

    fn bind<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
        text.parse().unwrap()
    }

    #[test]
    fn flags_mean_what_the_smallest_file_means() {
        let text =
            "[[listener]]\nbind = \"0.0.0.0:80\"\n[upstream.nocobase]\nnodes = [\"a:13000\"]\n";
        let source = Source { name: "x".into(), text: text.into() };
        let (from_file, _) = load(&source, &|_| None).unwrap();
        let from_flags = from_flags(&[bind("0.0.0.0:80")], &["a:13000".into()], None).unwrap();
        assert_eq!(from_flags, from_file);
    }

    #[test]
    fn every_mistake_is_told() {
        let listen = [bind("0.0.0.0:80"), bind("0.0.0.0:80"), bind("127.0.0.1:9901")];
        let nodes = ["a".to_owned(), "b:1".to_owned(), "B:1".to_owned()];
        let errors = from_flags(&listen, &nodes, None).unwrap_err();
        assert_eq!(errors.len(), 4, "{errors:?}");
        assert!(errors[1].contains("write \"a:13000\""));
        let none = from_flags(&[], &[], Some(bind("0.0.0.0:9901"))).unwrap_err();
        assert_eq!(none.len(), 3, "{none:?}");
    }

    #[test]
    fn free_ports_have_names_of_their_own() {
        let listen = [bind("127.0.0.1:0"), bind("127.0.0.1:0")];
        let config = from_flags(&listen, &["a:1".into()], Some(bind("127.0.0.1:0"))).unwrap();
        assert_ne!(config.listeners[0].name, config.listeners[1].name);
    }
}
