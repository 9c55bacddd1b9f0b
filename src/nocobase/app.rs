//! Which app of a NocoBase process a request names.

/// The main app, which every process runs.
pub const MAIN: &str = "main";

/// The sub-app that a request names, as written; `None` is the main one.
///
/// `x_app` is the `X-App` field, `path` has no query, `api_path` has slashes at both ends. The order is
/// that of the selector in server/gateway/index.ts: `X-App`, `?__appName=`, `/api/__app/<name>/`,
/// `/files/<name>/`; a later one wins. A host that a plugin maps to a sub-app is not known here.
///
/// The name is for keeping the refusals of apps apart, so when in doubt a request names one: a query
/// key that is encoded, or goes on (`__appName[]`), counts.
#[must_use]
pub fn app_name<'a>(
    x_app: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
    api_path: &str,
) -> Option<&'a str> {
    let name = app_in_files(path, api_path)
        .or_else(|| app_in_api(path, api_path))
        .or_else(|| query.and_then(app_in_query))
        .or(x_app.map(str::trim))?;
    (!name.is_empty() && name != MAIN).then_some(name)
}

/// `/api/__app/<name>/…`
fn app_in_api<'a>(path: &'a str, api_path: &str) -> Option<&'a str> {
    split_app(path.strip_prefix(api_path)?).0
}

/// The path below the API path without its `__app/<name>/`, and that name.
pub(super) fn split_app(rest: &str) -> (Option<&str>, &str) {
    match rest.strip_prefix("__app/").map(|rest| rest.split_once('/').unwrap_or((rest, ""))) {
        Some((name, rest)) => (Some(name), rest),
        None => (None, rest),
    }
}

/// `/files/<name>/…`, with or without the public path in front.
fn app_in_files<'a>(path: &'a str, api_path: &str) -> Option<&'a str> {
    let public = api_path.strip_suffix("api/").unwrap_or("/");
    let files = path.strip_prefix(public).and_then(|rest| rest.strip_prefix("files/"));
    let rest = files.or_else(|| path.strip_prefix("/files/"))?;
    rest.split('/').next()
}

fn app_in_query(query: &str) -> Option<&str> {
    let names_app = |pair: &&str| starts_with_decoded(pair, "__appName");
    let pair = query.split('&').rfind(names_app)?;
    Some(pair.split_once('=').map_or(pair, |(_, value)| value))
}

fn starts_with_decoded(text: &str, prefix: &str) -> bool {
    let mut decoded = decode(text.as_bytes());
    prefix.bytes().all(|byte| decoded.next() == Some(byte))
}

/// The bytes with `%XX` decoded; what is not hex stays as it is.
pub(super) fn decode(mut text: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let (&first, rest) = text.split_first()?;
        let escaped = rest.first_chunk::<2>().filter(|_| first == b'%');
        let hex = escaped.and_then(|pair| std::str::from_utf8(pair).ok());
        let byte = hex.filter(|hex| !hex.starts_with('+'));
        match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                text = &rest[2..];
                Some(byte)
            }
            None => {
                text = rest;
                Some(first)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_selector_wins_and_main_is_none() {
        let cases = [
            // (X-App, path, query, app)
            (None, "/api/users:list", None, None),
            (Some("crm"), "/api/users:list", None, Some("crm")),
            (Some(" main "), "/api/users:list", None, None),
            (Some(""), "/", None, None),
            (Some("crm"), "/ws", Some("__appName=hr"), Some("hr")),
            (None, "/ws", Some("a=1&__appName=hr&b"), Some("hr")),
            (None, "/ws", Some("x__appName=hr"), None),
            (None, "/ws", Some("__app%4eame=hr"), Some("hr")),
            (None, "/ws", Some("__appName[]=hr"), Some("hr")),
            (None, "/ws", Some("__appName=a&__appName=b"), Some("b")),
            (None, "/ws", Some("__appName=main"), None),
            (None, "/api/__app/hr/users:list", Some("__appName=crm"), Some("hr")),
            (None, "/api/__app/hr", None, Some("hr")),
            (Some("crm"), "/api/__app/main/users:list", None, None),
            (Some("crm"), "/files/hr/main/attachments/1.png", None, Some("hr")),
            (None, "/files/main/main/attachments/1.png", None, None),
            (None, "/admin/files/hr/", None, None),
        ];
        for (x_app, path, query, expected) in cases {
            assert_eq!(
                app_name(x_app, path, query, "/api/"),
                expected,
                "{x_app:?} {path} {query:?}"
            );
        }
    }

    #[test]
    fn the_public_path_is_followed() {
        let app = |path| app_name(None, path, None, "/nb/api/");
        assert_eq!(app("/nb/api/__app/hr/x"), Some("hr"));
        assert_eq!(app("/api/__app/hr/x"), None);
        assert_eq!(app("/nb/files/hr/x"), Some("hr"));
        assert_eq!(app("/files/hr/x"), Some("hr"));
    }

    #[test]
    fn escapes_are_decoded_once() {
        let cases =
            [("a%62c", "abc"), ("%2561", "%61"), ("%", "%"), ("%4", "%4"), ("%+1x", "%+1x")];
        for (text, expected) in cases {
            assert!(decode(text.as_bytes()).eq(expected.bytes()), "{text}");
        }
    }
}
