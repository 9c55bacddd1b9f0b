//! What a request must pass before anything is done for it: lists and rates, as configured.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use super::clients::client_key;
use super::lists::{Access, Slot};
use super::rate::{Table, Wait};
use crate::config::{ActionPattern, Config, RateKey, RateLimit};
use crate::nocobase::Naming;

/// What all requests must pass; there is none where nothing is configured.
#[derive(Debug)]
pub struct Gate {
    routes: Vec<Option<Access>>,
    limits: Vec<Limit>,
}

/// One rate limit with what it remembers.
#[derive(Debug)]
pub struct Limit {
    settings: RateLimit,
    whole: Option<Arc<Table>>,
    actions: Vec<(ActionPattern, Arc<Table>)>,
}

/// Where a request goes, and from whom it is.
#[derive(Clone, Copy, Debug)]
pub struct Asks<'a> {
    /// Index of its route.
    pub route: usize,
    /// Index of its upstream.
    pub upstream: usize,
    /// After trusted proxies.
    pub client: IpAddr,
    /// Its method and target.
    pub request: (&'a [u8], &'a [u8]),
    /// Where the API of NocoBase is, if that is what it goes to.
    pub api_path: Option<&'a str>,
}

/// A request that came too early.
#[derive(Clone, Copy, Debug)]
pub struct TooEarly<'a> {
    /// Index of the limit.
    pub limit: usize,
    /// The limit's name.
    pub name: &'a str,
    /// Its rate's table.
    pub table: &'a Table,
    /// When it might have come.
    pub wait: Wait,
}

impl Gate {
    /// From a configuration; none if that sets no limit. What was counted before goes on where a rate has not
    /// changed. `seed` makes one that clients cannot know.
    pub fn of(
        config: &Config,
        slot: impl Fn(&Path) -> Option<Arc<Slot>>,
        previous: Option<&Gate>,
        mut seed: impl FnMut() -> u64,
    ) -> Option<Gate> {
        let routes: Vec<_> =
            config.routes.iter().map(|route| Access::of(&route.access, &slot)).collect();
        let known = previous.map(|previous| previous.limits.as_slice()).unwrap_or_default();
        let limits: Vec<_> = config
            .rate_limits
            .iter()
            .map(|settings| {
                let same = |old: &&Limit| {
                    let (a, b) = (&old.settings, settings);
                    (&a.name, &a.by, a.clients) == (&b.name, &b.by, b.clients)
                };
                Limit::new(settings, known.iter().find(same), &mut seed)
            })
            .collect();
        let any = !limits.is_empty() || routes.iter().any(Option::is_some);
        any.then_some(Gate { routes, limits })
    }

    /// Whether a client may come by a route.
    #[must_use]
    pub fn admits(&self, route: usize, client: IpAddr) -> bool {
        self.routes.get(route).and_then(Option::as_ref).is_none_or(|access| access.admits(client))
    }

    /// Counts a request. `value` looks a request field up by its lower-case name.
    ///
    /// # Errors
    /// It came too early for one of the limits; the others may have counted it.
    pub fn count<'g, 'v>(
        &'g self,
        asks: &Asks<'_>,
        value: impl Fn(&str) -> Option<&'v [u8]>,
        now_ns: u64,
    ) -> Result<(), TooEarly<'g>> {
        let mut naming = None;
        for (index, limit) in self.limits.iter().enumerate() {
            let settings = &limit.settings;
            let elsewhere = settings.route.is_some_and(|route| route != asks.route)
                || settings.upstream.is_some_and(|upstream| upstream != asks.upstream);
            if elsewhere {
                continue;
            }
            let mut of_actions = Vec::new();
            if let (false, Some(api_path)) = (limit.actions.is_empty(), asks.api_path) {
                let (method, target) = asks.request;
                let naming = naming.get_or_insert_with(|| Naming::of(method, target, api_path));
                let called = |(pattern, _): &&(ActionPattern, _)| {
                    naming.may_call(&pattern.resource, &pattern.action)
                };
                of_actions.extend(limit.actions.iter().filter(called).map(|(_, table)| table));
            }
            let address = client_key(asks.client).to_be_bytes();
            let client = match &settings.by {
                RateKey::ClientIp => &address[..],
                RateKey::Header(name) => value(name).unwrap_or(&address),
            };
            // The narrow ones first: what they refuse shall not use up the wide one.
            for table in of_actions.into_iter().chain(&limit.whole) {
                table.take(client, now_ns).map_err(|wait| TooEarly {
                    limit: index,
                    name: &settings.name,
                    table,
                    wait,
                })?;
            }
        }
        Ok(())
    }

    /// The limits, in the order of the configuration.
    #[must_use]
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }
}

impl Limit {
    fn new(settings: &RateLimit, old: Option<&Limit>, seed: &mut impl FnMut() -> u64) -> Limit {
        let mut table = |rate, known: Option<&Arc<Table>>| match known {
            Some(known) if known.rate() == rate => known.clone(),
            _ => Arc::new(Table::new(rate, settings.clients, seed())),
        };
        let whole = settings.rate.map(|rate| table(rate, old.and_then(|old| old.whole.as_ref())));
        let actions = settings.actions.iter().map(|(pattern, rate)| {
            let known = old.and_then(|old| old.actions.iter().find(|(one, _)| one == pattern));
            (pattern.clone(), table(*rate, known.map(|(_, table)| table)))
        });
        Limit { whole, actions: actions.collect(), settings: settings.clone() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Its tables: of all requests, and of each action.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.whole.iter().chain(self.actions.iter().map(|(_, table)| table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Source};

    fn gate(text: &str, previous: Option<&Gate>) -> Option<Gate> {
        let text =
            format!("[[listener]]\nbind = \"0.0.0.0:80\"\n[upstream.u]\nnodes = [\"a:1\"]\n{text}");
        let source = Source { name: "x.toml".into(), text };
        let found = config::load(&source, &|_| None);
        let (config, _) =
            found.unwrap_or_else(|e| panic!("{}", config::render(&e, &source, false)));
        Gate::of(&config, |_| None, previous, || 7)
    }

    fn passes(gate: &Gate, target: &str) -> bool {
        let asks = Asks {
            route: 0,
            upstream: 0,
            client: "192.0.2.1".parse().unwrap(),
            request: (b"POST", target.as_bytes()),
            api_path: Some("/api/"),
        };
        gate.count(&asks, |_| None, 1_000_000_000).is_ok()
    }

    #[test]
    fn without_limits_there_is_no_gate() {
        assert!(gate("", None).is_none());
        assert!(gate("[[route]]\nupstream = \"u\"\ndeny = []\n", None).is_some());
    }

    #[test]
    fn what_a_narrow_rate_refuses_does_not_use_up_a_wide_one() {
        let text = "[[rate_limit]]\nname = \"a\"\nrate = \"3/h\"\nactions = { \"auth:signIn\" = \"1/h\" }\n";
        let gate = gate(text, None).unwrap();
        assert!(passes(&gate, "/api/auth:signIn"));
        assert!((0..9).all(|_| !passes(&gate, "/api/auth:signIn")));
        assert!(passes(&gate, "/api/x:y") && passes(&gate, "/") && !passes(&gate, "/"));
    }

    #[test]
    fn counts_go_on_where_the_rate_is_the_same() {
        let text = |wide: &str, action: &str| {
            format!(
                "[[rate_limit]]\nname = \"a\"\nrate = \"{wide}\"\nactions = {{ \"{action}\" = \"1/h\" }}\n"
            )
        };
        let first = gate(&text("9/h", "auth:signIn"), None).unwrap();
        assert!(passes(&first, "/api/auth:signIn") && !passes(&first, "/api/auth:signIn"));
        let same = gate(&text("8/h", "auth:signIn"), Some(&first)).unwrap();
        assert!(!passes(&same, "/api/auth:signIn"), "of the action; the other begins anew");
        let other = gate(&text("8/h", "auth:*"), Some(&same)).unwrap();
        assert!(passes(&other, "/api/auth:signIn"));
        assert_eq!(other.limits()[0].tables().count(), 2);
    }
}
