//! What docs/operating.md promises to explain, it explains.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a helper of a test may end it

use std::fs;
use std::path::Path;

use cobalance::error::Cause;

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// Cells of each table row that begins with a name in backticks.
fn rows(text: &str) -> Vec<Vec<String>> {
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

#[test]
fn every_reason_is_explained() {
    let rows = rows(&read("docs/operating.md"));
    for reason in Cause::REASONS {
        // Other tables have words of the same name.
        let row = rows.iter().find(|row| row[0] == format!("`{reason}`") && row.len() == 4);
        let Some([_, status, what, todo]) = row.map(Vec::as_slice) else {
            panic!("docs/operating.md must explain `{reason}` in four cells")
        };
        assert!(status.split(", ").all(|status| status.parse::<u16>().is_ok()), "`{reason}`");
        assert!(what.len() > 10 && todo.len() > 5, "`{reason}`: what happened, and what to do");
    }
}

#[test]
fn a_reason_has_the_status_that_is_documented() {
    let rows = rows(&read("docs/operating.md"));
    let causes = [
        Cause::BadRequest("x"),
        Cause::ExpectationUnknown,
        Cause::ClientLeft,
        Cause::ConnectRefused,
        Cause::ConnectTimeout,
        Cause::NoEligibleNode,
        Cause::Internal("x"),
    ];
    for cause in causes {
        let row = rows.iter().find(|row| row[0] == format!("`{}`", cause.reason())).unwrap();
        let status = cause.status().to_string();
        assert!(row[1].split(", ").any(|documented| documented == status), "{cause:?}: {row:?}");
    }
}

#[test]
fn every_metric_is_listed() {
    let files = [
        "metrics.rs",
        "metrics/acme.rs",
        "metrics/families.rs",
        "metrics/http2.rs",
        "metrics/tls.rs",
        "metrics/limits.rs",
        "metrics/proxy_header.rs",
    ];
    let source = files.map(|file| read(&format!("src/telemetry/{file}"))).concat();
    let documented = read("docs/operating.md");
    let names: Vec<&str> = source
        .split("r.")
        .filter_map(|call| {
            let kinds = ["counters(", "counter(", "int_gauges(", "gauges(", "histograms("];
            let arguments = kinds.iter().find_map(|kind| call.strip_prefix(kind))?;
            arguments.trim_start().strip_prefix('"')?.split('"').next()
        })
        .collect();
    assert!(names.len() > 30, "the names are found: {names:?}");
    for name in names {
        let row = format!("| `cobalance_{name}` |");
        assert!(documented.contains(&row), "docs/operating.md must list `cobalance_{name}`");
    }
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let model = read("docs/security.md");
    let quoted = model.split('`').skip(1).step_by(2);
    let named: Vec<(&str, &str)> = quoted.filter_map(|text| text.split_once(".rs: ")).collect();
    assert!(named.len() > 40, "they are found: {}", named.len());
    for (file, name) in named {
        let code = read(&format!("{file}.rs"));
        let at = code.find(&format!("fn {name}("));
        let at = at.unwrap_or_else(|| panic!("docs/security.md names `{name}`, not in {file}.rs"));
        // Also of a macro, or with attributes of its own: close before it.
        let before: Vec<&str> = code[..at].lines().rev().take(8).collect();
        assert!(
            before.iter().any(|line| line.contains("#[test]") || line.contains("#[tokio::test]")),
            "docs/security.md names `{name}` of {file}.rs, which is no test"
        );
    }
}

#[test]
fn every_row_of_the_threat_model_shows_something() {
    let model = read("docs/security.md");
    let (mut shown, mut heading) = (0, "");
    for line in model.lines() {
        if line.starts_with("## ") {
            heading = line;
        }
        let is_row = line.starts_with("| ") && !line.contains("| shown by |");
        if is_row {
            let last = line.trim_matches('|').rsplit('|').next().unwrap_or_default();
            assert!(last.contains(".rs: "), "{heading}: what shows it? {line}");
            shown += 1;
        }
    }
    assert!(shown > 40, "{shown}");
}

#[test]
fn every_symbol_of_the_tour_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut code = String::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => code.push_str(&fs::read_to_string(path).unwrap()),
            }
        }
    }
    let tour = read("docs/life-of-a-request.md");
    let quoted = tour.split('`').skip(1).step_by(2);
    let symbols: Vec<&str> =
        quoted.filter(|text| !text.contains(' ') && *text != "symbol").collect();
    assert!(symbols.len() > 20, "{symbols:?}");
    for symbol in symbols {
        let name = symbol.rsplit("::").next().unwrap();
        let kinds = ["fn ", "struct ", "enum ", "mod ", "trait ", "pub "];
        let defined = kinds.iter().any(|kind| {
            let defined = format!("{kind}{name}");
            let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
            code.match_indices(&defined).any(|(at, _)| ends(&code[at + defined.len()..]))
        });
        assert!(defined, "docs/life-of-a-request.md names `{symbol}`, which is not in src/");
    }
}
