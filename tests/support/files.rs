//! Files that others read or write meanwhile.

use std::fs;
use std::path::Path;

/// Puts a text in a file's place at once, as editors do: whoever looks meanwhile finds no file that is begun and
/// empty.
pub fn put(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

/// The whole lines of a file: what does not end yet is still being written.
pub fn written(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text[..text.rfind('\n').map_or(0, |end| end + 1)].to_owned()
}
