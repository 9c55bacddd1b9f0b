//! Configuration files: what they mean, and what is said of those that mean nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cobalance::config::{
    Balance, Config, Diagnostic, HashKey, HostMatch, LogFormat, PathMatch, Preset, Role, Source,
    keys, load, render, summary, to_json,
};

mod golden;

/// The variables that files of these tests may use.
fn env(name: &str) -> Option<String> {
    match name {
        "HOST" => Some("172.31.0.3".to_owned()),
        "PASSWORD" => Some("hunter2".to_owned()),
        "WEIGHT" => Some("7".to_owned()),
        "YES" => Some("true".to_owned()),
        "SECRET" | "COBALANCE_STICKY_SECRET" => Some("0123456789abcdef".to_owned()),
        _ => None,
    }
}

fn source(text: &str) -> Source {
    Source { name: "cobalance.toml".to_owned(), text: text.to_owned() }
}

fn good(text: &str) -> Config {
    let source = source(text);
    match load(&source, &env) {
        Ok((config, found)) if found.is_empty() => config,
        Ok((_, found)) | Err(found) => panic!("{}", render(&found, &source, false)),
    }
}

fn found(text: &str) -> Vec<Diagnostic> {
    match load(&source(text), &env) {
        Ok((_, found)) | Err(found) => found,
    }
}

fn in_package(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn example(name: &str) -> String {
    std::fs::read_to_string(in_package("config").join(name)).unwrap()
}

#[test]
fn every_diagnostic_reads_as_its_golden_file_says() {
    golden::compare(&in_package("tests/config"), |name, text| {
        let source = Source { name: name.to_owned(), text: text.to_owned() };
        let (word, found) = match load(&source, &env) {
            Ok((_, found)) => ("usable", found),
            Err(found) => ("refused", found),
        };
        format!("{}{word}: {}\n", render(&found, &source, false), summary(&found))
    });
}

#[test]
fn every_file_with_a_golden_has_something_to_say() {
    for path in golden::files(&in_package("tests/config")) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!found(&text).is_empty(), "{}", path.display());
    }
}

#[test]
fn eight_mistakes_are_eight_errors_with_remedies() {
    let text = std::fs::read_to_string(in_package("tests/config/eight_mistakes.toml")).unwrap();
    let found = load(&source(&text), &env).unwrap_err();
    assert_eq!(found.iter().filter(|d| d.is_error()).count(), 8);
    assert!(found.iter().all(|d| d.help.is_some() && !d.span.is_empty()));
    assert!(found.is_sorted_by_key(|d| d.span.start), "in the order of the file");
}

#[test]
fn the_examples_load_without_a_word() {
    for name in ["cobalance.toml", "sidecar.toml", "minimal.toml"] {
        good(&example(name));
    }
}

#[test]
fn the_smallest_file_takes_every_default() {
    let config = good(&example("minimal.toml"));
    assert!(config.routes.is_empty() && config.probes.is_none());
    assert!(config.admin.enabled && config.admin.bind.to_string() == "127.0.0.1:9901");
    assert_eq!(config.access_log.format, LogFormat::Json);
    let listener = &config.listeners[0];
    assert_eq!(listener.name, "0.0.0.0:80");
    assert_eq!((listener.max_head, listener.max_body), (16 << 10, 1 << 30));
    let upstream = &config.upstreams[0];
    assert_eq!((upstream.name.as_str(), upstream.preset), ("nocobase", Preset::NocoBase));
    assert_eq!(upstream.nodes.len(), 3);
    assert_eq!(upstream.nodes[0].name, "172.31.0.1:13000");
    let check = upstream.health_check.as_ref().unwrap();
    assert_eq!(check.path, "/api/__health_check");
    assert_eq!((check.expect_status, check.expect_body.as_deref()), (200, Some("ok")));
}

#[test]
fn the_edge_example_writes_the_defaults() {
    // Where the example writes a key, it writes the default: only names and nodes may differ.
    let mut edge = good(&example("cobalance.toml"));
    let mut plain = good(&example("minimal.toml"));
    assert_eq!(edge.listeners.len(), 1);
    edge.listeners[0].name.clone_from(&plain.listeners[0].name);
    for config in [&mut edge, &mut plain] {
        config.upstreams[0].nodes.clear();
        config.routes.clear();
    }
    assert_eq!(edge, plain);
}

#[test]
fn the_edge_example_shows_every_key_and_its_comments_are_valid() {
    let text = example("cobalance.toml");
    for key in keys::tables()[1..].iter().flat_map(|table| table.keys) {
        let table = [format!(".{key}]"), format!("{key} = ")];
        assert!(table.iter().any(|form| text.contains(form)), "{key}");
    }
    let is_code = |line: &str| {
        let key = line.split(" = ").next().unwrap_or_default();
        line.starts_with('[')
            || (key != line && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    let uncommented: Vec<&str> = text
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|code| is_code(code)).unwrap_or(line))
        .collect();
    assert!(uncommented.contains(&"[upstream.nocobase.sticky]"));
    // The files that it names are made here.
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["example.com".to_owned()]).unwrap();
    let files = [
        ("example.pem", made.cert.pem()),
        ("clients.pem", made.cert.pem()),
        ("example.key", made.signing_key.serialize_pem()),
        ("office.txt", "10.0.0.0/8\n".to_owned()),
        ("denied.txt", "192.0.2.0/24 # somebody\n".to_owned()),
        ("tickets.secret", "0123456789abcdef0123456789abcdef".to_owned()),
        ("acme.hmac", "AQID".to_owned()),
    ];
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    let text = uncommented.join("\n").replace("/etc/cobalance", dir.path().to_str().unwrap());
    let source = source(&text);
    let result = load(&source, &env);
    let config = result.unwrap_or_else(|found| panic!("{}", render(&found, &source, false))).0;
    assert!(config.probes.is_some() && config.upstreams[0].sticky.is_some());
    assert!(config.tls.tickets.is_some() && config.listeners[0].client_auth.is_some());
    assert!(config.authorities[0].external_account.is_some());
    assert_eq!(config.certificates[0].order.as_ref().unwrap().domains, ["crm.example.com"]);
    assert_eq!((config.routes.len(), config.rate_limits.len()), (1, 1));
    assert_eq!(config.list_files().count(), 2);
}

const LISTENER: &str = "[[listener]]\nbind = \"0.0.0.0:80\"\n";

fn upstream(body: &str) -> cobalance::config::Upstream {
    let text = format!("{LISTENER}[upstream.a]\nnodes = [\"a:1\"]\n{body}");
    good(&text).upstreams.remove(0)
}

fn watch(body: &str) -> bool {
    upstream(&format!("[upstream.a.health_check]\n{body}")).health_check.unwrap().watch
}

#[test]
fn an_authority_has_a_name_for_its_directory_and_a_place_for_what_it_gives() {
    let certificate = "[[certificate]]\nname = \"a\"\nacme = \"le\"\ndomains = [\"A.test\", \"a.test\"]\n\
        [[listener]]\nbind = \"0.0.0.0:443\"\ncertificates = [\"a\"]\n[upstream.a]\nnodes = [\"a:1\"]\n\
        [acme.le]\nca = \"tests/config/ca.pem\"\nagree_to_terms = true\n";
    let text = format!(
        "{certificate}state = \"/none/of/tests\"\ncontact = [\"mailto:a@b.test\", \"c@d.test\"]\n"
    );
    let config = good(&text);
    let authority = &config.authorities[0];
    assert_eq!(authority.directory, "https://acme-v02.api.letsencrypt.org/directory");
    assert_eq!(authority.contact, ["mailto:a@b.test", "mailto:c@d.test"]);
    assert_eq!(authority.challenge.as_str(), "tls-alpn-01");
    let ordered = &config.certificates[0];
    let order = ordered.order.as_ref().unwrap();
    assert_eq!((order.domains.as_slice(), &ordered.loaded), (&["a.test".to_owned()][..], &None));
    assert!(ordered.chain.starts_with("/none/of/tests") && ordered.chain == ordered.key);
    // What systemd has made is used where nothing is said.
    let state =
        |name: &str| (name == "STATE_DIRECTORY").then(|| "/var/lib/cobalance:/x".to_owned());
    let (config, _) = load(&source(certificate), &state).unwrap();
    assert_eq!(config.authorities[0].state, Path::new("/var/lib/cobalance/acme"));
}

#[test]
fn the_health_check_follows_the_preset_and_the_public_path() {
    let check = |body: &str| upstream(body).health_check;
    assert_eq!(check("preset = \"none\""), None);
    let written = check("preset = \"none\"\n[upstream.a.health_check]").unwrap();
    assert_eq!((written.path.as_str(), written.expect_body), ("/", None));
    assert_eq!(check("public_path = \"/nb/\"").unwrap().path, "/nb/api/__health_check");
    assert_eq!(check("api_path = \"/v1/\"").unwrap().path, "/v1/__health_check");
    assert_eq!(check("[upstream.a.health_check]\nenabled = false"), None);
    assert!(watch("") && !watch("watch = false"));
    assert!(!check("preset = \"none\"\n[upstream.a.health_check]").unwrap().watch);
    let partial = check("[upstream.a.health_check]\ninterval = \"5s\"").unwrap();
    assert_eq!(partial.interval, Duration::from_secs(5));
    assert_eq!(partial.expect_body.as_deref(), Some("ok"));
    assert_eq!(upstream("public_path = \"/nb/\"").api_path, "/nb/api/");
    assert_eq!(upstream("public_path = \"/nb/\"\napi_path = \"/x/\"").api_path, "/x/");
}

#[test]
fn slow_uploads_are_spooled_for_nocobase_and_where_it_is_written() {
    let within = |body: &str| upstream(body).stream_within;
    assert_eq!(within(""), Duration::from_secs(60));
    assert_eq!(within("preset = \"none\""), Duration::ZERO);
    assert_eq!(within("preset = \"none\"\nstream_within = \"5s\""), Duration::from_secs(5));
    let text = |spool: &str| format!("{LISTENER}[upstream.a]\nnodes = [\"a:1\"]\n{spool}");
    let spool = good(&text("[spool]\ndirectory = \"/x\"\nmemory = \"64KiB\"")).spool;
    assert_eq!((spool.directory.as_path(), spool.memory), (Path::new("/x"), 65_536));
    assert_eq!(
        (spool.max_body, spool.total_memory, spool.total_files),
        (1 << 30, 64 << 20, 4 << 30)
    );
    assert_eq!(good(&text("")).spool.directory, Path::new("/tmp"));
    let temporary = |name: &str| (name == "TMPDIR").then(|| "/var/x".to_owned());
    let config = load(&source(&text("")), &temporary).unwrap().0;
    assert_eq!(config.spool.directory, Path::new("/var/x"));
}

#[test]
fn balance_is_read() {
    let of = |body: &str| {
        let upstream = upstream(body);
        (upstream.balance, upstream.hash_key)
    };
    assert_eq!(of(""), (Balance::LeastLoad, HashKey::ClientIp));
    assert_eq!(of("balance = \"hash\""), (Balance::Hash, HashKey::ClientIp));
    let header = HashKey::Header("x-tenant".to_owned());
    assert_eq!(of("balance = \"hash\"\nhash_key = \"header:X-Tenant\""), (Balance::Hash, header));
    let cookie = HashKey::Cookie("Sid".to_owned());
    assert_eq!(of("balance = \"hash\"\nhash_key = \"cookie:Sid\""), (Balance::Hash, cookie));
}

#[test]
fn nodes_are_read_in_both_forms() {
    let text = format!(
        "{LISTENER}[upstream.a]\nmax_requests = 9\nnodes = [\n\"A:1\",\n\
         {{ name = \"two\", address = \"[::1]:2\", weight = 3, backup = true, max_requests = 0 }},\n\
         {{ address = \"c:3\", role = \"task\", disabled = true, weight = \"${{WEIGHT}}\" }},\n]\n"
    );
    let nodes = good(&text).upstreams.remove(0).nodes;
    let first = &nodes[0];
    assert_eq!((first.address.as_str(), first.weight, first.max_requests), ("a:1", 1, 9));
    assert_eq!((nodes[1].name.as_str(), nodes[1].weight), ("two", 3));
    assert!(nodes[1].backup && nodes[1].max_requests == 0);
    assert_eq!((nodes[2].role, nodes[2].disabled, nodes[2].weight), (Role::Task, true, 7));
}

#[test]
fn routes_are_read_and_point_at_their_upstreams() {
    let text = format!(
        "{LISTENER}[upstream.z]\nnodes = [\"a:1\"]\n[upstream.b]\nnodes = [\"a:2\"]\n\
         [[route]]\nhost = \"CRM.example.com\"\npath = \"/ws\"\nupstream = \"b\"\n\
         [[route]]\nhost = \"*.example.com\"\npath = \"/api/*\"\nupstream = \"z\"\n\
         [[route]]\nname = \"rest\"\nupstream = \"z\"\n"
    );
    let config = good(&text);
    assert_eq!(config.upstreams[0].name, "z", "in the order of the file");
    let [first, second, third] = config.routes.as_slice() else { panic!("three routes") };
    assert_eq!(first.host, Some(HostMatch::Exact("crm.example.com".to_owned())));
    assert_eq!(first.path, Some(PathMatch::Exact("/ws".to_owned())));
    assert_eq!(first.upstream, 1);
    assert_eq!(second.host, Some(HostMatch::Suffix(".example.com".to_owned())));
    assert_eq!(second.path, Some(PathMatch::Prefix("/api/".to_owned())));
    assert_eq!(second.name, "*.example.com/api/*");
    assert_eq!((third.name.as_str(), &third.host, &third.path), ("rest", &None, &None));
}

#[test]
fn variables_stand_for_any_value() {
    let text = "[[listener]]\nbind = \"${BIND:-127.0.0.1:0}\"\nmax_fields = \"${FIELDS:-50}\"\n\
                [upstream.a]\nnodes = [{ address = \"${HOST}:1\", backup = false }, \"b:1\"]\n\
                [upstream.a.outlier_detection]\nenabled = \"${YES}\"\n\
                [upstream.a.sticky]\nsecret = \"${SECRET}\"\n";
    let config = good(text);
    assert_eq!(config.listeners[0].bind, "127.0.0.1:0".parse().unwrap());
    assert_eq!(config.listeners[0].max_fields, 50);
    let upstream = &config.upstreams[0];
    assert_eq!(upstream.nodes[0].address, "172.31.0.3:1");
    assert_eq!(upstream.sticky.as_ref().unwrap().secret, "0123456789abcdef");
    assert!(!format!("{config:?}").contains("0123456789abcdef"), "secrets are not for logs");
}

#[test]
fn line_ends_and_a_byte_order_mark_do_no_harm() {
    let text = example("minimal.toml");
    let plain = good(&text);
    assert_eq!(good(&text.replace('\n', "\r\n")), plain);
    assert_eq!(good(&format!("\u{feff}{text}")), plain);
    let wrong = format!("\u{feff}# x\r\n{text}").replace("bind", "bnd");
    let found = found(&wrong);
    assert_eq!(&wrong[found[0].span.clone()], "bnd");
}

#[test]
fn other_tables_are_read() {
    let text = format!(
        "{LISTENER}[upstream.a]\nnodes = [\"a:1\"]\n[server]\nthreads = 3\nshutdown_delay = \"5s\"\n\
         state_file = \"/var/lib/x.json\"\n\
         [admin]\nbind = \"0.0.0.0:0\"\ntoken_file = \"/run/token\"\n[probes]\nbind = \"[::]:9900\"\n\
         [access_log]\nenabled = false\npath = \"/var/log/x\"\nformat = \"combined\"\n"
    );
    let config = good(&text);
    assert_eq!((config.server.threads, config.server.shutdown_delay.as_secs()), (3, 5));
    assert_eq!(config.server.state_file.as_deref(), Some(Path::new("/var/lib/x.json")));
    assert_eq!(config.admin.token_file.as_deref(), Some(Path::new("/run/token")));
    assert_eq!(config.probes.unwrap().bind, "[::]:9900".parse().unwrap());
    assert_eq!(config.access_log.path, "/var/log/x");
    assert!(!config.access_log.enabled && config.access_log.format == LogFormat::Combined);
}

#[test]
fn the_state_file_is_where_systemd_made_room_for_it() {
    let text = example("minimal.toml");
    let file = |text: &str, directory: Option<&str>| {
        let env = |name: &str| match name {
            "STATE_DIRECTORY" => directory.map(str::to_owned),
            _ => None,
        };
        load(&source(text), &env).unwrap().0.server.state_file
    };
    let path = |path: &str| Some(std::path::PathBuf::from(path));
    assert_eq!(file(&text, None), None);
    assert_eq!(file(&text, Some("")), None);
    let one = Some("/var/lib/cobalance");
    assert_eq!(file(&text, one), path("/var/lib/cobalance/state.json"));
    assert_eq!(file(&text, Some("/var/lib/a:/var/lib/b")), path("/var/lib/a/state.json"));
    let with_server = format!("{text}[server]\nthreads = 1\n");
    assert_eq!(file(&with_server, one), path("/var/lib/cobalance/state.json"));
    let written = format!("{text}[server]\nstate_file = \"x.json\"\n");
    assert_eq!(file(&written, one), path("x.json"));
}

#[test]
fn nothing_shown_holds_a_secret_or_a_variable() {
    for path in golden::files(&in_package("tests/config")) {
        let source = source(&std::fs::read_to_string(&path).unwrap());
        let found = found(&source.text);
        for shown in [render(&found, &source, false), to_json(&found, &source)] {
            for secret in ["hunter2", "too-short", "1234567890", "0123456789abcdef"] {
                assert!(!shown.contains(secret), "{}: {shown}", path.display());
            }
        }
    }
}

#[test]
fn json_holds_what_the_text_holds() {
    let source =
        source(&std::fs::read_to_string(in_package("tests/config/wide_characters.toml")).unwrap());
    let found = found(&source.text);
    let json: serde_json::Value = serde_json::from_str(&to_json(&found, &source)).unwrap();
    let text = render(&found, &source, false);
    for object in json.as_array().unwrap() {
        let place =
            format!("{}:{}:{}", object["file"].as_str().unwrap(), object["line"], object["column"]);
        assert!(text.contains(&place), "{place} in {text}");
    }
}

/// The tables of the reference: a heading names the table, rows begin with the key in backticks.
#[test]
fn the_reference_knows_the_same_keys_as_the_reader() {
    let text = std::fs::read_to_string(in_package("docs/config-reference.md")).unwrap();
    let mut written = BTreeSet::new();
    let mut heading = "";
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            heading = title.strip_prefix("`[").map_or(title, |_| title.trim_matches('`'));
        } else if let Some(rest) = line.strip_prefix("| `") {
            written.insert((heading, rest.split('`').next().unwrap()));
        }
    }
    let root = keys::tables()[0].title;
    let known: BTreeSet<_> = keys::tables()
        .into_iter()
        .filter(|table| table.title != root)
        .flat_map(|table| table.keys.iter().map(|key| (table.title, *key)))
        .collect();
    assert_eq!(written, known);
    for key in keys::tables()[0].keys {
        assert!(known.iter().any(|(title, _)| title.contains(key)), "{key} has no section");
    }
}

mod arbitrary {
    use proptest::prelude::*;

    use super::{env, example, found, source};
    use cobalance::config::{load, render, to_json};

    fn check(text: &str) {
        let source = source(text);
        let found = found(text);
        for diagnostic in &found {
            assert!(text.get(diagnostic.span.clone()).is_some(), "{diagnostic:?}");
        }
        assert_eq!(load(&source, &env).is_err(), found.iter().any(|d| d.is_error()));
        assert_eq!(render(&found, &source, false).is_empty(), found.is_empty());
        assert!(to_json(&found, &source).starts_with('['));
    }

    /// Pieces of the language, so that more than syntax errors come out.
    const PIECES: [&str; 24] = [
        "[[listener]]\n",
        "[upstream.a]\n",
        "[upstream]\n",
        "[[route]]\n",
        "[upstream.a.sticky]\n",
        "bind = ",
        "nodes = ",
        "secret = ",
        "name = ",
        "upstream = ",
        "weight = ",
        "path = ",
        "\"0.0.0.0:80\"\n",
        "\"a\"\n",
        "[\"a:1\", ",
        "]\n",
        "{ address = ",
        "}",
        "0\n",
        "1e9\n",
        "\"${HOST}",
        "\"\"\"",
        "\n",
        "ß",
    ];

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            check(&text);
        }

        #[test]
        fn no_mixture_panics(picks in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..24)) {
            check(&picks.concat());
        }

        #[test]
        fn no_mutation_of_the_example_panics(
            at in any::<prop::sample::Index>(),
            length in 0usize..20,
            insert in "[\\[\\]{}=\",.\n#$0a ß-]{0,4}",
        ) {
            let mut text = example("cobalance.toml");
            let start = text.floor_char_boundary(at.index(text.len()));
            let end = text.floor_char_boundary((start + length).min(text.len())).max(start);
            text.replace_range(start..end, &insert);
            check(&text);
        }
    }
}
