//! Which actions a request might call, however it spells them: for limits, where missing one is a way round.
//!
//! [`super::action()`] says what a request certainly calls, and is silent where it is in doubt. This errs on the
//! other side, and says everything that NocoBase, or a later version of it, might make of the target. NocoBase's own
//! parser (packages/core/resourcer/src/utils.ts) takes the first two parts of a segment between colons, wherever
//! an index or a third colon follows; folds the case of the prefix, not of names; allows a slash at the end; decodes
//! nothing as of 2.2. Here escapes are decoded until there are none, case is folded, backslashes are slashes, and
//! each segment counts, so that `/api/x/1/auth:signIn:y/z`, `/api/__app/crm/auth:signIn` and `/api/auth%253AsignIn`
//! all name `auth:signIn`. A request that counts although it calls nothing costs its client one of its own requests.

use super::app::decode;

/// Escapes within escapes are followed so far.
const DECODED: usize = 3;

/// What a request may call, ready to be compared with names.
#[derive(Debug)]
pub struct Naming {
    /// Folded, decoded, with single slashes.
    path: String,
    method: Method,
    /// Where what follows the API path begins, if it is one.
    resources: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Read,
    Post,
    Put,
    Delete,
    Other,
}

impl Naming {
    /// Of a request; `target` is its path with or without a query.
    #[must_use]
    pub fn of(method: &[u8], target: &[u8], api_path: &str) -> Naming {
        let path = fold(target);
        let resources = path.find(&api_path.to_ascii_lowercase()).map(|at| at + api_path.len());
        let method = match method {
            b"GET" | b"HEAD" => Method::Read,
            b"POST" => Method::Post,
            b"PUT" | b"PATCH" => Method::Put,
            b"DELETE" => Method::Delete,
            _ => Method::Other,
        };
        Naming { path, method, resources }
    }

    /// Whether it may call this action of this resource; `*` is any.
    #[must_use]
    pub fn may_call(&self, resource: &str, action: &str) -> bool {
        let segments = || self.path.split('/').filter(|segment| !segment.is_empty());
        let names = |segment: &str| {
            let mut parts = segment.split(':');
            let (named, called) = (parts.next().unwrap_or_default(), parts.next());
            called.is_some_and(|called| is(action, called) && is_resource(resource, named))
        };
        segments().any(names) || self.may_call_by_method(resource, action)
    }

    /// REST's way: the resource is a segment, and the method says the action.
    fn may_call_by_method(&self, resource: &str, action: &str) -> bool {
        let Some(rest) = self.resources.and_then(|at| self.path.get(at..)) else { return false };
        let mut segments: Vec<&str> =
            rest.split('/').filter(|segment| !segment.is_empty()).take(8).collect();
        while segments.first() == Some(&"__app") {
            segments.drain(..segments.len().min(2));
        }
        let name = match segments.len() {
            1 | 2 => segments[0],
            3 | 4 => segments[2],
            _ => return false,
        };
        // With a colon it says the action itself.
        !name.contains(':')
            && self.actions().iter().any(|called| is(action, called))
            && is_resource(resource, name)
    }

    /// What the method may mean, whatever the type of the resource's association.
    fn actions(&self) -> &'static [&'static str] {
        match self.method {
            Method::Read => &["list", "get"],
            Method::Post => &["create", "update", "set", "add"],
            Method::Put => &["update"],
            Method::Delete => &["destroy", "remove"],
            Method::Other => &[],
        }
    }
}

fn is(pattern: &str, name: &str) -> bool {
    pattern == "*" || pattern.eq_ignore_ascii_case(name)
}

/// `tags` is also what is called as `posts.tags`.
fn is_resource(pattern: &str, name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    // `posts.tags` may be asked for as `posts/1/tags`, where the segment names no more than `tags`.
    let of_pattern = pattern.rsplit('.').next().unwrap_or(pattern);
    is(pattern, name) || is(of_pattern, last)
}

fn fold(target: &[u8]) -> String {
    let end = target.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(target.len());
    let mut path = target[..end].to_vec();
    for _ in 0..DECODED {
        if !path.contains(&b'%') {
            break;
        }
        path = decode(&path).collect();
    }
    let mut folded = String::with_capacity(path.len());
    for byte in path {
        let byte = if byte == b'\\' { b'/' } else { byte.to_ascii_lowercase() };
        // Control characters and white space are dropped: some parser may do the same.
        if byte <= b' ' || byte == 0x7f || byte == b'/' && folded.ends_with('/') {
            continue;
        }
        folded.push(if byte.is_ascii() { char::from(byte) } else { '\u{fffd}' });
    }
    folded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::nocobase::action;

    fn may_call(method: &str, target: &str, name: &str) -> bool {
        let (resource, action) = name.split_once(':').unwrap();
        Naming::of(method.as_bytes(), target.as_bytes(), "/api/").may_call(resource, action)
    }

    #[test]
    fn no_spelling_goes_round() {
        for target in [
            "/api/auth:signIn",
            "/api/auth:signIn/",
            "/api/auth:signIn?x=1",
            "/api/auth:signIn#x",
            "/api/auth:signIn/1",
            "/api/auth:signIn/a:b",
            "/api/auth:signIn:x",
            "/api/auth:signIn:list/1",
            "/api/x/1/auth:signIn",
            "/api/x/1/auth:signIn/2",
            "/api/__app/crm/auth:signIn",
            "/api/__app/crm/__app/hr/auth:signIn",
            "/API/auth:signIn",
            "/api/AUTH:SIGNIN",
            "//api//auth:signIn",
            "/api/./auth:signIn",
            "/api/x/../auth:signIn",
            "\\api\\auth:signIn",
            "/api/auth%3AsignIn",
            "/api/auth%3asign%49n",
            "/api/%61uth:signIn",
            "/%61pi/auth:signIn",
            "/api%2Fauth:signIn",
            "/api/auth%253AsignIn",
            "/api/auth%25253AsignIn",
            "/api/auth:signIn%00",
            "/api/auth:sign%0aIn",
            "/api/resourcer/auth:signIn",
            "/resourcer/auth:signIn",
            "/api/x.auth:signIn",
            "/api/\u{e9}/1/auth:signIn",
        ] {
            for method in ["POST", "GET", "PURGE"] {
                assert!(may_call(method, target, "auth:signIn"), "{method} {target}");
            }
            assert!(may_call("POST", target, "auth:*") && may_call("POST", target, "*:signIn"));
            assert!(may_call("POST", target, "*:*") && !may_call("POST", target, "users:list"));
        }
    }

    #[test]
    fn others_are_others() {
        for target in [
            "/api/auth:signOut",
            "/api/auth:signInX",
            "/api/xauth:signIn",
            "/api/auth",
            "/api/users:list?filter=/auth:signIn",
            "/api/users:list?resource=auth:signIn",
            "/",
            "/auth/signIn",
            "/api/auth/signIn",
        ] {
            assert!(!may_call("POST", target, "auth:signIn"), "{target}");
        }
    }

    #[test]
    fn methods_name_actions_too() {
        for (method, target, name, expected) in [
            ("POST", "/api/users", "users:create", true),
            ("POST", "/api/us%65rs/", "users:create", true),
            ("POST", "/api/__app/hr/users", "users:create", true),
            ("GET", "/api/users", "users:list", true),
            ("GET", "/api/users/1", "users:get", true),
            ("PATCH", "/api/users/1:2", "users:update", true),
            ("DELETE", "/api/users/1", "users:destroy", true),
            ("DELETE", "/api/posts/1/tags/2", "tags:remove", true),
            ("POST", "/api/posts/1/tags/2", "posts.tags:add", true),
            ("POST", "/api/posts/1/tags:add", "posts.tags:add", true),
            ("POST", "/api/users:list", "users:create", false),
            ("POST", "/users", "users:create", false),
            ("POST", "/api/users", "users:list", false),
            ("BREW", "/api/users", "users:create", false),
        ] {
            assert_eq!(may_call(method, target, name), expected, "{method} {target} {name}");
        }
    }

    #[test]
    fn the_api_path_is_followed() {
        let naming = Naming::of(b"POST", b"/NB/api/users", "/nb/api/");
        assert!(naming.may_call("users", "create"));
    }

    proptest! {
        #[test]
        fn what_is_certainly_called_may_be_called(
            method in "GET|POST|PUT|DELETE|X", target in "/(api|x)(/[ab1.:]{1,4}){1,5}/?",
        ) {
            if let Some(action) = action(&method, &target, "/api/") {
                let naming = Naming::of(method.as_bytes(), target.as_bytes(), "/api/");
                prop_assert!(naming.may_call(action.resource, action.action), "{action:?}");
            }
        }

        #[test]
        fn any_target_is_survived(target in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Naming::of(b"GET", &target, "/api/").may_call("auth", "signIn");
        }
    }
}
