//! The corpora of the fuzz targets and mutations of them, through the same harnesses, without a fuzzer.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]
#![allow(clippy::duplicate_mod)] // two targets have the second reading of HTTP/1.1, each for itself

#[path = "../fuzz/src/config.rs"]
mod config;
#[path = "../fuzz/src/cookies.rs"]
mod cookies;
#[path = "../fuzz/src/forwarded.rs"]
mod forwarded;
#[path = "../fuzz/src/frames.rs"]
mod frames;
#[path = "../fuzz/src/harness.rs"]
mod harness;
#[path = "../fuzz/src/nocobase.rs"]
mod nocobase;
#[path = "../fuzz/src/proxy_header.rs"]
mod proxy_header;

/// Names and contents.
type Corpus = Vec<(String, Vec<u8>)>;

/// A fuzz target.
struct Target {
    name: &'static str,
    run: fn(&[u8]) -> Result<(), String>,
    /// So many scripts are there at least.
    seeds: usize,
    mutations: usize,
    /// What matters to its parser, put where it does not belong.
    words: &'static [&'static [u8]],
}

const TARGETS: [Target; 8] = [
    Target { name: "http1_path", run: harness::run, seeds: 200, mutations: 4000, words: &WORDS },
    Target {
        name: "http2_path",
        run: harness::http2::run,
        seeds: 120,
        mutations: 3000,
        words: &FRAMES,
    },
    Target { name: "config", run: config::run, seeds: 40, mutations: 300, words: &WORDS },
    Target { name: "cookies", run: cookies::run, seeds: 10, mutations: 4000, words: &WORDS },
    Target { name: "forwarded", run: forwarded::run, seeds: 10, mutations: 4000, words: &WORDS },
    Target { name: "frames", run: frames::run, seeds: 10, mutations: 4000, words: &WORDS },
    Target { name: "nocobase", run: nocobase::run, seeds: 20, mutations: 4000, words: &WORDS },
    Target {
        name: "proxy_protocol",
        // It reads each beginning of its bytes again.
        run: |bytes| proxy_header::run(&bytes[..bytes.len().min(300)]),
        seeds: 40,
        mutations: 4000,
        words: &WORDS,
    },
];

/// Seeds and what fuzzing has added.
fn corpus(target: &str) -> Corpus {
    let directory = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let mut all: Vec<_> = entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn each_corpus_holds() {
    for Target { name, run, seeds, .. } in TARGETS {
        let corpus = corpus(name);
        assert!(corpus.len() >= seeds, "{name}: {}", corpus.len());
        let wrong: Vec<String> = corpus
            .iter()
            .filter_map(|(seed, script)| Some(format!("{name}: {seed}: {}", run(script).err()?)))
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

/// Each target of the crate has its corpus replayed.
#[test]
fn no_target_is_left_out() {
    let manifest = include_str!("../fuzz/Cargo.toml");
    let named = manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/"));
    let mut named: Vec<&str> = named.map(|rest| rest.trim_end_matches(".rs\"")).collect();
    let mut known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    named.sort_unstable();
    known.sort_unstable();
    assert_eq!(named, known);
}

/// Words that matter to a parser, put where they do not belong.
const WORDS: [&[u8]; 24] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b" ",
    b":",
    b"\0",
    b"0\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n",
    b"Host: t\r\n",
    b"GET /in HTTP/1.1\r\nHost: t\r\n\r\n",
    b"HEAD /in HTTP/1.1\r\nHost: t\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 103 E\r\n\r\n",
    b"HTTP/1.0",
    b"5\r\nhello\r\n",
    b";x=y",
    b"ffffffffffffffff",
];

/// Frames, and heads of frames.
const FRAMES: [&[u8]; 12] = [
    b"\0\0\0\0\x01\0\0\0\x01",
    b"\0\0\x05\0\0\0\0\0\x01hello",
    b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
    b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01",
    b"\0\0\0\x04\0\0\0\0\0",
    b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0",
    b"\0\0\0\x09\x04\0\0\0\x01",
    b"\0\0\x06\x01\x05\0\0\0\x03\x82\x86\x84\x41\x01t",
    b"\0\0\x06\x01\x04\0\0\0\x05\x83\x86\x84\x41\x01t",
    b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\xff\xff\xff",
    b"\x7f\xff",
];

#[test]
fn mutations_of_each_corpus_hold() {
    for Target { name, run, mutations, words, .. } in TARGETS {
        let corpus = corpus(name);
        let mut rng = fastrand::Rng::with_seed(9112);
        for round in 0..mutations {
            let mut script = corpus[rng.usize(..corpus.len())].1.clone();
            for _ in 0..rng.usize(1..4) {
                mutate(&mut script, &corpus, words, &mut rng);
            }
            if let Err(wrong) = run(&script) {
                let script = String::from_utf8_lossy(&script);
                panic!("{name}, round {round}: {wrong}\nby {script:?}");
            }
        }
    }
}

fn mutate(
    script: &mut Vec<u8>,
    corpus: &[(String, Vec<u8>)],
    words: &[&[u8]],
    rng: &mut fastrand::Rng,
) {
    if script.is_empty() {
        script.push(rng.u8(..));
    }
    let at = rng.usize(..script.len());
    match rng.u8(..6) {
        0 => script[at] = rng.u8(..),
        1 => drop(script.remove(at)),
        2 => drop(script.splice(at..at, words[rng.usize(..words.len())].iter().copied())),
        3 => script.truncate(at + 1),
        4 => {
            let end = rng.usize(at..script.len());
            let part = script[at..end].to_vec();
            script.splice(at..at, part);
        }
        _ => {
            let other = &corpus[rng.usize(..corpus.len())].1;
            script.extend_from_slice(other.get(2..).unwrap_or_default());
        }
    }
    script.truncate(4096);
}
