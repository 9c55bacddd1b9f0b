//! What the program is made of besides its own code: from where, under which licences, and what of it runs while
//! it is built. Everything that is asked here is on the machine that builds; known vulnerabilities are not, see
//! docs/security.md.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a helper of a test may end it

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Any of these binds nobody who uses the program to more than naming authors.
const LICENCES: [&str; 12] = [
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that are there in two versions, and why that has no end yet.
const TWICE: [(&str, &str); 2] = [
    (
        "syn",
        "runs while it is built only; the macros of x509-parser's asn1-rs and of zerocopy have not moved to 3 yet",
    ),
    (
        "untrusted",
        "400 lines that read bytes one by one: instant-acme asks for the default features of aws-lc-rs, which has 0.7 \
         with them and not without; rustls-webpki has 0.9",
    ),
];

/// Never, and why.
const BANNED: [(&str, &str); 8] = [
    ("openssl", "all cryptography is aws-lc, in one place"),
    ("openssl-sys", "as above; and it links what the machine happens to have"),
    ("native-tls", "as above"),
    ("ring", "as above: two libraries of cryptography are two to keep"),
    ("rustls-pemfile", "unmaintained; rustls-pki-types reads PEM"),
    ("atty", "unmaintained"),
    ("serde_yaml", "unmaintained"),
    ("users", "unmaintained"),
];

/// Crates whose build scripts run on the machine that builds, and what for.
const BUILD_SCRIPTS: [(&str, &str); 24] = [
    ("alloca", "compiles a few lines of C, for benchmarks only"),
    ("anyhow", "asks the compiler what it can"),
    ("aws-lc-rs", "says which of its two backing libraries is used"),
    ("aws-lc-sys", "compiles aws-lc, in C and assembly"),
    ("crossbeam-utils", "asks which atomics there are"),
    ("getrandom", "asks for the target"),
    ("httparse", "asks which SIMD instructions there are"),
    ("libc", "asks for the versions of compiler and system"),
    ("libmimalloc-sys", "compiles mimalloc, in C"),
    ("num-traits", "asks the compiler what it can"),
    ("oid-registry", "writes a table of object identifiers"),
    ("parking_lot_core", "asks for the target"),
    ("proc-macro2", "asks the compiler what it can"),
    ("prometheus", "writes code of protobuf, which is off here"),
    ("quote", "asks for the compiler's version"),
    ("rustix", "asks for target and compiler"),
    ("rustls", "asks for the compiler's kind"),
    ("rustversion", "asks for the compiler's version"),
    ("serde", "asks for the compiler's version"),
    ("serde_core", "asks for the compiler's version"),
    ("serde_json", "asks for the target's arithmetic"),
    ("thiserror", "asks the compiler what it can"),
    ("zerocopy", "asks for the compiler's version"),
    ("zmij", "asks for the compiler's version"),
];

/// A crate of the tree, as it is built here.
struct Crate {
    name: String,
    version: String,
    licence: String,
    /// None: it lies beside our own code.
    source: Option<String>,
    build_script: bool,
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(arguments)
        .args(["--offline", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn metadata() -> Value {
    let triple = cargo_host();
    serde_json::from_str(&cargo(&[
        "metadata",
        "--format-version",
        "1",
        "--filter-platform",
        &triple,
    ]))
    .unwrap()
}

/// The machine that this is built for.
fn cargo_host() -> String {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let told = Command::new(rustc).arg("-vV").output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    told.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

/// All crates that are really built: what features turn off is not in `cargo tree`.
fn crates() -> Vec<Crate> {
    let listed =
        cargo(&["tree", "--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}"]);
    let built: BTreeSet<(String, String)> = listed
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(" v")?;
            Some((name.to_owned(), rest.split(' ').next()?.to_owned()))
        })
        .collect();
    let metadata = metadata();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all: Vec<Crate> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| Crate {
            name: text(&package["name"]),
            version: text(&package["version"]),
            licence: text(&package["license"]),
            source: package["source"].as_str().map(str::to_owned),
            build_script: package["targets"].as_array().unwrap().iter().any(|target| {
                target["kind"].as_array().unwrap().iter().any(|kind| kind == "custom-build")
            }),
        })
        .filter(|one| built.contains(&(one.name.clone(), one.version.clone())))
        .collect();
    assert_eq!(all.len(), built.len(), "each is known");
    assert!(all.len() > 100, "they are found: {}", all.len());
    all
}

/// Whether an expression (SPDX, annex D) can be met with [`LICENCES`].
fn is_free(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (free, rest) = alternatives(&words);
    free && rest.is_empty()
}

fn alternatives<'a>(words: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    let (mut free, mut rest) = together(words);
    while let Some(("OR", more)) = rest.split_first().map(|(word, more)| (*word, more)) {
        let (other, left) = together(more);
        (free, rest) = (free | other, left);
    }
    (free, rest)
}

fn together<'a>(words: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    let (mut free, mut rest) = single(words);
    while let Some(("AND", more)) = rest.split_first().map(|(word, more)| (*word, more)) {
        let (other, left) = single(more);
        (free, rest) = (free & other, left);
    }
    (free, rest)
}

fn single<'a>(words: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    match words {
        ["(", inner @ ..] => match alternatives(inner) {
            (free, [")", rest @ ..]) => (free, rest),
            (_, rest) => (false, rest),
        },
        [name, "WITH", exception, rest @ ..] => {
            (LICENCES.contains(&format!("{name} WITH {exception}").as_str()), rest)
        }
        [name, rest @ ..] => (LICENCES.contains(name), rest),
        [] => (false, &[]),
    }
}

#[test]
fn licences_are_read_as_they_are_meant() {
    for (expression, free) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0", false),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR GPL-3.0) AND ISC", true),
        ("MIT OR GPL-3.0 AND AGPL-3.0", true),
        ("GPL-3.0 OR AGPL-3.0 AND MIT", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("MIT WITH Classpath-exception", false),
        ("(MIT", false),
        ("", false),
    ] {
        assert_eq!(is_free(expression), free, "{expression}");
    }
}

#[test]
fn every_licence_is_one_that_binds_nobody() {
    let bad = crates().into_iter().filter(|one| !is_free(&one.licence));
    let bad: Vec<String> = bad.map(|one| format!("{}: `{}`", one.name, one.licence)).collect();
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn no_crate_is_there_in_two_versions_without_a_reason() {
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in crates() {
        versions.entry(one.name).or_default().push(one.version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    let listed: BTreeSet<&str> = TWICE.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<&str> = versions.keys().map(String::as_str).collect();
    assert_eq!(found, listed, "what is there twice, and the list: {versions:?}");
}

#[test]
fn all_comes_from_one_registry_and_nothing_that_is_banned_does() {
    let all = crates();
    let own: Vec<&str> =
        all.iter().filter(|one| one.source.is_none()).map(|one| one.name.as_str()).collect();
    assert_eq!(own, ["cobalance"], "neither paths nor copies");
    let sources: BTreeSet<&str> = all.iter().filter_map(|one| one.source.as_deref()).collect();
    assert_eq!(sources.len(), 1, "{sources:?}");
    assert!(sources.iter().all(|source| source.starts_with("registry+")), "{sources:?}");
    let lock = read("Cargo.lock");
    let without_sum = lock.split("[[package]]").skip(1).filter(|one| !one.contains("checksum = "));
    let without_sum: Vec<&str> =
        without_sum.map(|one| one.trim().lines().next().unwrap_or_default()).collect();
    assert_eq!(without_sum, ["name = \"cobalance\""], "each is known by its sum");
    for (name, why) in BANNED {
        assert!(all.iter().all(|one| one.name != name), "`{name}`: {why}");
    }
}

#[test]
fn what_runs_while_it_is_built_is_known() {
    let found: BTreeSet<String> =
        crates().into_iter().filter(|one| one.build_script).map(|one| one.name).collect();
    let listed: BTreeSet<String> =
        BUILD_SCRIPTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let new: Vec<_> = found.difference(&listed).collect();
    assert!(new.is_empty(), "read these build scripts, then list them with what they do: {new:?}");
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(gone.is_empty(), "these have none any more: {gone:?}");
}

#[test]
fn every_declared_dependency_is_used() {
    let metadata = metadata();
    let mut packages = metadata["packages"].as_array().unwrap().iter();
    let own = packages.find(|package| package["name"] == "cobalance").unwrap();
    let (program, all) = (code(&["src"]), code(&["src", "tests", "benches"]));
    let mut unused = Vec::new();
    for dependency in own["dependencies"].as_array().unwrap() {
        let name = dependency["name"].as_str().unwrap();
        let text = if dependency["kind"].is_null() { &program } else { &all };
        let word = name.replace('-', "_");
        // As a path, in a `use`, or as a macro; not as a part of another name.
        let used = text.match_indices(&word).any(|(at, _)| {
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            let (before, after) = (&text[..at], &text[at + word.len()..]);
            let imported = before.ends_with("use ") && after.starts_with([';', ':', ' ']);
            let named = after.starts_with("::") || after.starts_with('!');
            !before.ends_with(is_part) && (imported || named)
        });
        if !used {
            unused.push(name.to_owned());
        }
    }
    assert!(unused.is_empty(), "declared and not used: {unused:?}");
}

#[test]
fn our_own_code_has_nothing_unsafe() {
    let manifest = read("Cargo.toml");
    assert!(
        manifest.contains("\n[lints.rust]\nunsafe_code = \"forbid\"\n"),
        "the compiler sees to it"
    );
    // Forbidden is forbidden: `allow` would be an error. What the lint does not see is what is left out.
    for folder in ["src", "tests", "benches", "fuzz/src", "fuzz/fuzz_targets"] {
        for file in files(&root().join(folder)) {
            if file.ends_with("tests/supply_chain.rs") {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap();
            let found = text.lines().position(|line| {
                let code = line.split("//").next().unwrap_or_default();
                ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "allow(unsafe_code"]
                    .iter()
                    .any(|word| code.contains(word))
            });
            assert_eq!(found, None, "{}", file.display());
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

fn code(folders: &[&str]) -> String {
    let all = folders.iter().flat_map(|folder| files(&root().join(folder)));
    all.map(|file| fs::read_to_string(file).unwrap()).collect()
}

/// The Rust files of a folder; none if it is not there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
