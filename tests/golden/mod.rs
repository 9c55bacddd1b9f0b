//! Golden files: for each `NAME.toml` of a folder, `NAME.txt` holds what is expected of it.
//! `UPDATE_GOLDEN=1` writes them anew.

use std::path::{Path, PathBuf};

/// The `.toml` files of a folder, in order.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    assert!(!files.is_empty(), "no files in {}", folder.display());
    files
}

/// Compares what `show` makes of each file's name and text with its golden file.
pub(crate) fn compare(folder: &Path, show: impl Fn(&str, &str) -> String) {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut different = Vec::new();
    for path in files(folder) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let actual = show(&name, &std::fs::read_to_string(&path).unwrap());
        let golden = path.with_extension("txt");
        if update {
            std::fs::write(&golden, actual).unwrap();
            continue;
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if actual != expected {
            different.push(format!("{name}: expected\n{expected}\nbut it is\n{actual}"));
        }
    }
    assert!(different.is_empty(), "{}\nUPDATE_GOLDEN=1 accepts this", different.join("\n"));
}
