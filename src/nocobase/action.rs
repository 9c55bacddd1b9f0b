//! Which action a request calls, and what follows from it.
//!
//! `/api/[assoc/<index>/]<resource>:<action>[/<index>]`, or REST's way without an action, as
//! packages/core/resourcer/src/utils.ts reads it. Any method may call any action that is named, so
//! the action, not the method, says what may be repeated.

use super::Flow;
use super::app::{decode, split_app};
use crate::config::Preset;

/// What a request calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action<'a> {
    /// The resource, as `users` or `posts.tags`.
    pub resource: &'a str,
    /// The action, as `list`; REST's methods are translated.
    pub action: &'a str,
}

/// Actions that read on every resource, by NocoBase's own plugins. `check` and `getInfo` may renew a
/// token, which does no harm twice.
const READING: [&str; 30] = [
    "check",
    "checkLegacyFileAccess",
    "count",
    "get",
    "getAccessible",
    "getBind",
    "getDict",
    "getFlowModel",
    "getHtml",
    "getInfo",
    "getJsonSchema",
    "getLang",
    "getMeta",
    "getParentJsonSchema",
    "getParentProperty",
    "getProperties",
    "getSystemSettings",
    "getUrls",
    "list",
    "listAccessible",
    "listByUser",
    "listEnabled",
    "listEnabledV2",
    "listExcludeDept",
    "listExcludeRole",
    "listFileCollectionsWithPublicStorage",
    "listMeta",
    "listModels",
    "listPinned",
    "listRolePermissionTargets",
];

/// Actions that read, though their names alone would not tell.
const READING_OF: [(&str, &str); 5] = [
    ("backup", "status"),
    ("backups", "restoreStatus"),
    ("backups", "taskStatus"),
    ("charts", "query"),
    ("charts", "queryData"),
];

/// Paths below the API path that are handled before resources, where a GET may change something
/// (`idpOAuth/authorize`), or that the resourcer treats in its own way.
const NOT_RESOURCES: [&str; 3] = ["idpOAuth", "mcp", "resourcer"];

/// AI conversations: answers that come word by word.
const STREAMING: [&str; 5] =
    ["sendMessages", "resendMessages", "updateUserDecision", "resumeToolCall", "resumeStream"];

/// The action that a request calls. `target` is its path with or without a query.
///
/// `None` for what is outside of the API path, what is no resource, and for everything that is not
/// plain: escapes, empty segments, a second colon. NocoBase decodes paths; we do not guess how.
#[must_use]
pub fn action<'a>(method: &str, target: &'a str, api_path: &str) -> Option<Action<'a>> {
    let (_, rest) = split_app(path_of(target).strip_prefix(api_path)?);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let mut segments = rest.split('/');
    let parts = [segments.next(), segments.next(), segments.next(), segments.next()];
    let (name, index) = match (parts, segments.next()) {
        ([Some(name), index, None, None], None) => (name, index),
        ([Some(assoc), Some(of), Some(name), index], None) if plain(assoc) && is_index(of) => {
            (name, index)
        }
        _ => return None,
    };
    if !index.is_none_or(is_index) {
        return None;
    }
    let (resource, action) = match name.split_once(':') {
        Some(named) => named,
        None => (name, rest_action(method, index.is_some())?),
    };
    let known = plain(resource) && plain(action) && !parts[..1].contains(&Some("resourcer"));
    (known && !NOT_RESOURCES.contains(&rest.split('/').next()?))
        .then_some(Action { resource, action })
}

/// What follows from what a request calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// It may be sent again although a node may have begun with it: OPTIONS; GET and HEAD outside of the API
    /// path; inside of it only actions that read, whatever the method. With `preset = "none"`: GET, HEAD
    /// and OPTIONS.
    pub safe_to_repeat: bool,
    /// The time to the head of its answer says something about its node: not for exports, imports and
    /// backups, which take minutes, nor for AI conversations.
    pub feeds_latency: bool,
    /// An export or an import.
    pub is_bulk: bool,
    /// The flow that it belongs to, and whether what follows must come to its node.
    pub flow: Option<(Flow, bool)>,
}

/// What follows from what a request calls. `target` is its path with or without a query.
#[must_use]
pub fn traits(method: &str, target: &str, preset: Preset, api_path: &str) -> Traits {
    let reads = matches!(method, "GET" | "HEAD");
    let none = Traits {
        safe_to_repeat: method == "OPTIONS" || reads,
        feeds_latency: true,
        is_bulk: false,
        flow: None,
    };
    if preset == Preset::None || method == "OPTIONS" {
        return none;
    }
    match action(method, target, api_path) {
        Some(action) => Traits {
            safe_to_repeat: action.reads(),
            feeds_latency: action.feeds_latency(),
            is_bulk: action.is_bulk(),
            flow: action.flow(),
        },
        None => {
            let safe = reads && !may_be_api(path_of(target), api_path);
            Traits { safe_to_repeat: safe, ..none }
        }
    }
}

impl Action<'_> {
    /// Whether it reads and no more.
    #[must_use]
    pub fn reads(&self) -> bool {
        READING.binary_search(&self.action).is_ok()
            || READING_OF.contains(&(self.resource, self.action))
    }

    fn feeds_latency(&self) -> bool {
        match self.resource {
            "backups" | "backup" => false,
            "aiConversations" => !STREAMING.contains(&self.action),
            _ => !self.is_bulk(),
        }
    }
}

fn path_of(target: &str) -> &str {
    target.split(['?', '#']).next().unwrap_or_default()
}

/// What REST's methods call; the type of an association changes which of them, but never whether it
/// reads.
fn rest_action(method: &str, has_index: bool) -> Option<&'static str> {
    match (method, has_index) {
        ("GET" | "HEAD", false) => Some("list"),
        ("GET" | "HEAD", true) => Some("get"),
        ("POST", _) => Some("create"),
        ("PUT" | "PATCH", _) => Some("update"),
        ("DELETE", _) => Some("destroy"),
        _ => None,
    }
}

/// A name of a resource or an action.
fn plain(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(allowed)
}

/// A record's key; a colon would be a second action.
fn is_index(index: &str) -> bool {
    let odd = |b: u8| matches!(b, b'%' | b':' | b'\\') || !b.is_ascii_graphic();
    !index.is_empty() && !matches!(index, "." | "..") && !index.bytes().any(odd)
}

/// Whether the path is in the API, or might be taken for it by someone who decodes escapes, folds case,
/// or resolves dots and empty segments.
fn may_be_api(path: &str, api_path: &str) -> bool {
    let mut seen = [0; 5];
    path.starts_with(api_path)
        || decode(path.as_bytes()).any(|byte| {
            seen.rotate_left(1);
            seen[4] = if byte == b'\\' { b'/' } else { byte.to_ascii_lowercase() };
            &seen == b"/api/"
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(method: &str, target: &str) -> Option<(String, String)> {
        let action = action(method, target, "/api/")?;
        Some((action.resource.to_owned(), action.action.to_owned()))
    }

    fn safe_to_repeat(method: &str, target: &str, preset: Preset, api_path: &str) -> bool {
        traits(method, target, preset, api_path).safe_to_repeat
    }

    fn feeds_latency(method: &str, target: &str, api_path: &str) -> bool {
        traits(method, target, Preset::NocoBase, api_path).feeds_latency
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(READING.is_sorted());
    }

    #[test]
    fn actions_are_read_as_the_resourcer_reads_them() {
        let cases = [
            ("POST", "/api/users:list", "users", "list"),
            ("GET", "/api/users:destroy?filterByTk=1", "users", "destroy"),
            ("GET", "/api/users:get/1", "users", "get"),
            ("GET", "/api/users:list/", "users", "list"),
            ("POST", "/api/posts/1/tags:add", "tags", "add"),
            ("POST", "/api/posts/1/tags:set/2", "tags", "set"),
            ("GET", "/api/posts.tags:list", "posts.tags", "list"),
            ("GET", "/api/__app/hr/users:list", "users", "list"),
            ("GET", "/api/users", "users", "list"),
            ("HEAD", "/api/users/1", "users", "get"),
            ("POST", "/api/users", "users", "create"),
            ("PATCH", "/api/users/1", "users", "update"),
            ("DELETE", "/api/users/1", "users", "destroy"),
            ("GET", "/api/posts/1/tags", "tags", "list"),
            ("PUT", "/api/posts/1/tags/2", "tags", "update"),
            ("GET", "/api/users/a@b.c,d", "users", "get"),
        ];
        for (method, target, resource, action) in cases {
            let expected = Some((resource.to_owned(), action.to_owned()));
            assert_eq!(read(method, target), expected, "{method} {target}");
        }
    }

    #[test]
    fn what_is_not_plain_is_no_action() {
        let targets = [
            "/",
            "/api",
            "/api/",
            "/admin/users:list",
            "/api/users:",
            "/api/:list",
            "/api/users:list:get",
            "/api/users%3Alist",
            "/api/users:li%73t",
            "/api/users:destroy/1/posts",
            "/api/users/1:destroy",
            "/api//users:list",
            "/api/users//posts:list",
            "/api/a/1/b/2/c:list",
            "/api/../users:list",
            "/api/x/../users:list",
            "/api/users:list\\x",
            "/api/.well-known/openid-configuration",
            "/api/idpOAuth/authorize",
            "/api/mcp",
            "/api/resourcer/users:list",
            "/api/resourcer/1/users:list",
        ];
        for target in targets {
            assert_eq!(read("GET", target), None, "{target}");
        }
    }

    #[test]
    fn what_may_be_repeated() {
        let cases = [
            // (method, target, with the preset, without)
            ("OPTIONS", "/api/users:destroy", true, true),
            ("GET", "/", true, true),
            ("HEAD", "/admin", true, true),
            ("GET", "/files/main/main/attachments/a%20b.png", true, true),
            ("POST", "/", false, false),
            ("GET", "/api/users:list", true, true),
            ("POST", "/api/users:list", true, false),
            ("DELETE", "/api/users:list", true, false),
            ("POST", "/api/charts:queryData", true, false),
            ("POST", "/api/other:queryData", false, false),
            ("POST", "/api/backups:taskStatus", true, false),
            ("POST", "/api/backups:create", false, false),
            ("GET", "/api/app:getInfo", true, true),
            ("GET", "/api/users:destroy", false, true),
            ("GET", "/api/users:listen", false, true),
            ("GET", "/api/users:LIST", false, true),
            ("GET", "/api/users:export", false, true),
            ("GET", "/api/users", true, true),
            ("POST", "/api/users", false, false),
            ("DELETE", "/api/users/1", false, false),
            ("get", "/", false, false),
            ("GET", "/api/idpOAuth/authorize?x=/y:list", false, true),
            ("GET", "/api/x%3Adestroy", false, true),
            ("GET", "/%61pi/users:destroy", false, true),
            ("GET", "//api/users:destroy", false, true),
            ("GET", "/x/../API/users:destroy", false, true),
            ("GET", "/\\api\\users:destroy", false, true),
            ("GET", "/?next=/api/users:destroy", true, true),
        ];
        for (method, target, preset, none) in cases {
            let safe = |preset| safe_to_repeat(method, target, preset, "/api/");
            assert_eq!(safe(Preset::NocoBase), preset, "{method} {target}");
            assert_eq!(safe(Preset::None), none, "{method} {target} without preset");
        }
    }

    #[test]
    fn the_api_path_is_followed() {
        let safe = |target| safe_to_repeat("POST", target, Preset::NocoBase, "/nb/api/");
        assert!(safe("/nb/api/users:list"));
        assert!(!safe("/api/users:list"));
        assert!(safe_to_repeat("GET", "/nb/admin", Preset::NocoBase, "/nb/api/"));
    }

    #[test]
    fn long_work_feeds_no_latency() {
        let cases = [
            ("/api/users:list", true),
            ("/", true),
            ("/api/users:export", false),
            ("/api/users:exportXlsx", false),
            ("/api/posts/1/tags:importXlsx", false),
            ("/api/backups:create", false),
            ("/api/backup:status", false),
            ("/api/__app/hr/users:export", false),
            ("/api/aiConversations:sendMessages", false),
            ("/api/aiConversations:list", true),
        ];
        for (target, feeds) in cases {
            assert_eq!(feeds_latency("POST", target, "/api/"), feeds, "{target}");
        }
    }

    proptest! {
        #[test]
        fn an_odd_path_in_the_api_is_never_safe(tail in "[a-z:/%.]{0,20}") {
            let target = format!("/api/{tail}");
            let odd = tail.contains('%') || tail.contains("//") || tail.matches(':').count() > 1;
            if odd {
                prop_assert!(!safe_to_repeat("GET", &target, Preset::NocoBase, "/api/"));
            }
        }

        #[test]
        fn any_target_is_survived(method in ".{0,8}", target in ".{0,40}") {
            let _ = safe_to_repeat(&method, &target, Preset::NocoBase, "/api/");
            prop_assert!(feeds_latency(&method, &target, "/api/") || action(&method, &target, "/api/").is_some());
        }
    }
}
