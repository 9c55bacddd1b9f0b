//! Which route a request takes.
//!
//! The most specific host wins (exact, then the longest suffix, then any), and within it the most
//! specific path (exact, then the longest prefix, then any). A host none of whose routes match the
//! path gives way to the next less specific one. The order of the file decides nothing.

use std::collections::HashMap;

use crate::config::{HostMatch, PathMatch, Route};

/// All routes, ready to be asked. A look-up costs a few hashes, however many routes there are.
#[derive(Clone, Debug, Default)]
pub struct Router {
    exact: HashMap<String, Paths>,
    /// Keys begin with a dot.
    suffix: HashMap<String, Paths>,
    any: Paths,
}

/// The routes of one host; the numbers are indices into the configuration's routes.
#[derive(Clone, Debug, Default)]
struct Paths {
    exact: HashMap<Box<[u8]>, usize>,
    prefix: HashMap<Box<[u8]>, usize>,
    /// The distinct lengths of `prefix`'s keys, longest first.
    lengths: Vec<usize>,
    any: Option<usize>,
}

impl Router {
    /// A router over `routes`. Of two with the same conditions the first stays.
    #[must_use]
    pub fn new(routes: &[Route]) -> Self {
        let mut router = Self::default();
        for (index, route) in routes.iter().enumerate() {
            router.paths_of(route.host.as_ref()).insert(route.path.as_ref(), index);
        }
        let hosts = router.exact.values_mut().chain(router.suffix.values_mut());
        hosts.chain([&mut router.any]).for_each(Paths::sort);
        router
    }

    /// The index of the route for a request, in the order given to [`Router::new`].
    ///
    /// `host` is lower case, without a port and without a dot at its end. `path` is without its
    /// query and is compared byte by byte, nothing decoded: `/%61pi/` is not `/api/`. What is decoded
    /// here would be decoded again by the node, perhaps otherwise. `None`: no route matches.
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<usize> {
        let path = path.as_bytes();
        self.hosts(host).find_map(|paths| paths.find(path))
    }

    /// The tables that apply to a host, the most specific first.
    fn hosts<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Paths> {
        // A star stands for one label or more, so a suffix begins after the first byte.
        let dots = host.match_indices('.').map(|(at, _)| at).filter(|&at| at > 0);
        let suffixes = dots.filter_map(|at| self.suffix.get(&host[at..]));
        self.exact.get(host).into_iter().chain(suffixes).chain([&self.any])
    }

    fn paths_of(&mut self, host: Option<&HostMatch>) -> &mut Paths {
        match host {
            Some(HostMatch::Exact(host)) => self.exact.entry(host.clone()).or_default(),
            Some(HostMatch::Suffix(suffix)) => self.suffix.entry(suffix.clone()).or_default(),
            None => &mut self.any,
        }
    }
}

impl Paths {
    fn insert(&mut self, path: Option<&PathMatch>, index: usize) {
        match path {
            Some(PathMatch::Exact(path)) => {
                self.exact.entry(path.as_bytes().into()).or_insert(index);
            }
            Some(PathMatch::Prefix(prefix)) => {
                self.prefix.entry(prefix.as_bytes().into()).or_insert(index);
            }
            None => {
                self.any.get_or_insert(index);
            }
        }
    }

    fn sort(&mut self) {
        self.lengths = self.prefix.keys().map(|key| key.len()).collect();
        self.lengths.sort_unstable_by(|a, b| b.cmp(a));
        self.lengths.dedup();
    }

    fn find(&self, path: &[u8]) -> Option<usize> {
        self.exact.get(path).or_else(|| self.longest_prefix(path)).copied().or(self.any)
    }

    /// One look-up per length that occurs and fits: configurations have a handful.
    fn longest_prefix(&self, path: &[u8]) -> Option<&usize> {
        let fitting = self.lengths.iter().filter_map(|&length| path.get(..length));
        fitting.filter_map(|prefix| self.prefix.get(prefix)).next()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `crm.example.com/api/*`, `*.example.com`, `/ws` and so on.
    fn route(text: &str) -> Route {
        let at = text.find('/').unwrap_or(text.len());
        let (host, path) = text.split_at(at);
        let host = match host.strip_prefix('*') {
            Some(suffix) => Some(HostMatch::Suffix(suffix.into())),
            None => (!host.is_empty()).then(|| HostMatch::Exact(host.into())),
        };
        let path = match path.strip_suffix('*') {
            Some(prefix) => Some(PathMatch::Prefix(prefix.into())),
            None => (!path.is_empty()).then(|| PathMatch::Exact(path.into())),
        };
        Route { name: text.into(), host, path, upstream: 0, access: Default::default() }
    }

    fn router(routes: &[&str]) -> Router {
        Router::new(&routes.iter().map(|text| route(text)).collect::<Vec<_>>())
    }

    #[test]
    fn the_most_specific_wins_whatever_the_order() {
        let routes = [
            "",
            "/api/*",
            "/api/users/*",
            "/ws",
            "*.example.com",
            "*.eu.example.com/api/*",
            "crm.eu.example.com/only",
            "crm.example.com/api/*",
            "crm.example.com",
        ];
        let cases = [
            // (host, path, the route)
            ("other.org", "/", ""),
            ("other.org", "/api/x", "/api/*"),
            ("other.org", "/api/users/1", "/api/users/*"),
            ("other.org", "/api", ""),
            ("other.org", "/ws", "/ws"),
            ("other.org", "/ws/", ""),
            ("crm.example.com", "/api/x", "crm.example.com/api/*"),
            ("crm.example.com", "/", "crm.example.com"),
            ("a.example.com", "/api/x", "*.example.com"),
            ("a.b.example.com", "/", "*.example.com"),
            ("example.com", "/api/x", "/api/*"),
            (".example.com", "/", ""),
            ("badexample.com", "/", ""),
            ("crm.eu.example.com", "/only", "crm.eu.example.com/only"),
            ("crm.eu.example.com", "/api/x", "*.eu.example.com/api/*"),
            ("crm.eu.example.com", "/other", "*.example.com"),
            ("", "/ws", "/ws"),
        ];
        let mut reversed = routes;
        reversed.reverse();
        for routes in [routes, reversed] {
            let router = router(&routes);
            for (host, path, expected) in cases {
                let found = router.find(host, path).map(|index| routes[index]);
                assert_eq!(found, Some(expected), "{host} {path}");
            }
        }
    }

    #[test]
    fn no_route_matches() {
        assert_eq!(Router::new(&[]).find("a", "/"), None);
        assert_eq!(router(&["a.example.com", "/api/*"]).find("b.example.com", "/"), None);
    }

    #[test]
    fn of_equal_routes_the_first_stays() {
        assert_eq!(router(&["/a/*", "/a/*", "", ""]).find("x", "/a/b"), Some(0));
        assert_eq!(router(&["/a/*", "/a/*", "", ""]).find("x", "/b"), Some(2));
    }

    #[test]
    fn paths_are_compared_byte_by_byte() {
        let router = router(&["/api/*"]);
        for path in ["/%61pi/x", "/API/x", "//api/x", "/x/../api/x", "/\u{e9}"] {
            assert_eq!(router.find("x", path), None, "{path}");
        }
        assert_eq!(router.find("x", "/api/../x"), Some(0));
    }

    #[test]
    fn a_hundred_thousand_routes() {
        let mut routes: Vec<Route> =
            (0..50_000).map(|i| route(&format!("h{i}.example.com/api/*"))).collect();
        routes.extend((0..50_000).map(|i| route(&format!("/p{i}/*"))));
        let router = Router::new(&routes);
        assert_eq!(router.any.lengths, [8, 7, 6, 5, 4]);
        for i in [0, 1, 777, 49_999] {
            assert_eq!(router.find(&format!("h{i}.example.com"), "/api/x"), Some(i));
            assert_eq!(router.find("h0.example.com", &format!("/p{i}/x")), Some(50_000 + i));
        }
    }

    /// How much a route asks for, if it matches at all; written down again, the slow way.
    fn rank(route: &Route, host: &str, path: &str) -> Option<(usize, usize, usize, usize)> {
        let (host_kind, host_len) = match &route.host {
            Some(HostMatch::Exact(exact)) => (exact == host).then_some((2, 0))?,
            Some(HostMatch::Suffix(suffix)) => {
                let matches = host.len() > suffix.len() && host.ends_with(suffix.as_str());
                matches.then_some((1, suffix.len()))?
            }
            None => (0, 0),
        };
        let (path_kind, path_len) = match &route.path {
            Some(PathMatch::Exact(exact)) => (exact == path).then_some((2, 0))?,
            Some(PathMatch::Prefix(prefix)) => {
                path.starts_with(prefix.as_str()).then_some((1, prefix.len()))?
            }
            None => (0, 0),
        };
        Some((host_kind, host_len, path_kind, path_len))
    }

    proptest! {
        #[test]
        fn as_the_slow_way_finds(
            routes in proptest::collection::vec("(|[ab](\\.[ab]){0,2}|\\*(\\.[ab]){1,2})(|(/[xy]){1,2}|/([xy]/){0,2}\\*)", 0..12),
            host in "[ab](\\.[ab]){0,3}", path in "(/[xy]){1,3}",
        ) {
            let routes: Vec<Route> = routes.iter().map(|text| route(text)).collect();
            let ranks = routes.iter().map(|route| rank(route, &host, &path));
            let best = ranks.clone().flatten().max();
            let expected = best.and_then(|best| ranks.clone().position(|rank| rank == Some(best)));
            prop_assert_eq!(Router::new(&routes).find(&host, &path), expected);
        }
    }
}
