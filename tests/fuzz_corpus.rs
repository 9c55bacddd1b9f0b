//! The corpora of the fuzz targets and mutations of them, through the same harnesses, without a fuzzer.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]

#[path = "../fuzz/src/harness.rs"]
mod harness;

/// Seeds and what fuzzing has added.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
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
fn the_corpus_holds() {
    let corpus = corpus("http1_path");
    assert!(corpus.len() >= 200, "{}", corpus.len());
    let wrong: Vec<String> = corpus
        .iter()
        .filter_map(|(name, script)| Some(format!("{name}: {}", harness::run(script).err()?)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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

#[test]
fn mutations_of_the_corpus_hold() {
    let corpus = corpus("http1_path");
    let mut rng = fastrand::Rng::with_seed(9112);
    for round in 0..4000 {
        let mut script = corpus[rng.usize(..corpus.len())].1.clone();
        for _ in 0..rng.usize(1..4) {
            mutate(&mut script, &corpus, &WORDS, &mut rng);
        }
        if let Err(wrong) = harness::run(&script) {
            panic!("round {round}: {wrong}\nby {:?}", String::from_utf8_lossy(&script));
        }
    }
}

#[test]
fn the_corpus_of_http2_holds() {
    let corpus = corpus("http2_path");
    assert!(corpus.len() >= 120, "{}", corpus.len());
    let wrong: Vec<String> = corpus
        .iter()
        .filter_map(|(name, script)| {
            Some(format!("{name}: {}", harness::http2::run(script).err()?))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Frames, and heads of frames, put where they do not belong.
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
fn mutations_of_the_corpus_of_http2_hold() {
    let corpus = corpus("http2_path");
    let mut rng = fastrand::Rng::with_seed(9113);
    for round in 0..3000 {
        let mut script = corpus[rng.usize(..corpus.len())].1.clone();
        for _ in 0..rng.usize(1..4) {
            mutate(&mut script, &corpus, &FRAMES, &mut rng);
        }
        if let Err(wrong) = harness::http2::run(&script) {
            panic!("round {round}: {wrong}\nby {script:?}");
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
