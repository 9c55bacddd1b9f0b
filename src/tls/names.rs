//! Which certificate a client gets: by the name that it asks for (SNI, RFC 6066, 3).

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Certificate;

/// A certificate of the configuration, in use; control puts a newer one in its place. It is empty until an ACME
/// authority has given the first.
#[derive(Debug)]
pub struct Slot {
    /// As configured.
    pub name: String,
    current: ArcSwapOption<Certificate>,
}

impl Slot {
    /// With its first certificate, if there is one.
    pub fn new(name: String, certificate: Option<Arc<Certificate>>) -> Slot {
        Slot { name, current: ArcSwapOption::new(certificate) }
    }

    /// The one in use.
    pub fn get(&self) -> Option<Arc<Certificate>> {
        self.current.load_full()
    }

    /// Uses another from now on. Whoever resolves names of it must be told: [`Resolver::renew`].
    pub fn put(&self, certificate: Arc<Certificate>) {
        self.current.store(Some(certificate));
    }
}

/// The certificates of one listener.
#[derive(Debug)]
pub struct Resolver {
    slots: Vec<Arc<Slot>>,
    table: ArcSwap<Table>,
}

/// Keys by name, in the order of the configuration: several for one name are keys of several kinds.
#[derive(Debug, Default)]
struct Table {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what stands behind the star and its dot.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// For clients that ask for no name, or for one that nobody has.
    default: Vec<Arc<CertifiedKey>>,
}

impl Resolver {
    /// The first that has a certificate is the default.
    pub fn new(slots: Vec<Arc<Slot>>) -> Resolver {
        let resolver = Resolver { slots, table: ArcSwap::default() };
        resolver.renew();
        resolver
    }

    /// Looks at the certificates again.
    pub fn renew(&self) {
        let mut table = Table::default();
        for slot in &self.slots {
            let Some(certificate) = slot.get() else { continue };
            if table.default.is_empty() {
                table.default.push(certificate.key().clone());
            }
            for name in certificate.names() {
                let keys = match name.strip_prefix("*.") {
                    Some(rest) => table.wildcard.entry(rest.to_owned()),
                    None => table.exact.entry(name.clone()),
                };
                keys.or_default().push(certificate.key().clone());
            }
        }
        self.table.store(Arc::new(table));
    }

    /// For a name, and a client that says which keys it can verify.
    fn find(
        &self,
        name: Option<&str>,
        fits: impl Fn(&CertifiedKey) -> bool,
    ) -> Option<Arc<CertifiedKey>> {
        let table = self.table.load();
        let keys = name.and_then(|name| table.named(&name.to_ascii_lowercase()));
        let keys = keys.unwrap_or(&table.default);
        keys.iter().find(|key| fits(key)).or(keys.first()).cloned()
    }
}

impl Table {
    fn named(&self, name: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        // A star stands for one label (RFC 6125, 6.4.3).
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wildcard)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &CertifiedKey| key.key.choose_scheme(hello.signature_schemes()).is_some();
        self.find(hello.server_name(), fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(names: &[&str]) -> Arc<Slot> {
        Arc::new(Slot::new(names[0].into(), Some(certificate(names))))
    }

    fn certificate(names: &[&str]) -> Arc<Certificate> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        Arc::new(Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap())
    }

    #[test]
    fn exact_names_come_before_stars_and_the_first_is_the_default() {
        let slots =
            [&["first.test"][..], &["*.a.test", "A.test"], &["x.a.test"]].map(slot).to_vec();
        let resolver = Resolver::new(slots.clone());
        let cases = [
            (None, 0),
            (Some("first.test"), 0),
            (Some("nobody.test"), 0),
            (Some("a.test"), 1),
            (Some("b.a.test"), 1),
            (Some("X.A.Test"), 2),
            (Some("deep.b.a.test"), 0),
            (Some("test"), 0),
        ];
        for (name, expected) in cases {
            let found = resolver.find(name, |_| true).unwrap();
            assert!(Arc::ptr_eq(&found, slots[expected].get().unwrap().key()), "{name:?}");
        }
    }

    #[test]
    fn a_newer_certificate_takes_the_place_of_the_old_with_its_names() {
        let slots = [&["first.test"][..], &["a.test"]].map(slot).to_vec();
        let resolver = Resolver::new(slots.clone());
        slots[1].put(certificate(&["b.test"]));
        resolver.renew();
        let found = |name| resolver.find(Some(name), |_| true).unwrap();
        assert!(Arc::ptr_eq(&found("b.test"), slots[1].get().unwrap().key()));
        assert!(Arc::ptr_eq(&found("a.test"), slots[0].get().unwrap().key()));
    }

    #[test]
    fn where_nothing_is_there_yet_nothing_is_shown() {
        let empty = Arc::new(Slot::new("e.test".into(), None));
        let resolver = Resolver::new(vec![empty.clone(), slot(&["a.test"])]);
        let found = |resolver: &Resolver, name| resolver.find(Some(name), |_| true);
        let other = found(&resolver, "a.test").unwrap();
        assert!(Arc::ptr_eq(&found(&resolver, "e.test").unwrap(), &other), "the default");
        let alone = Resolver::new(vec![empty.clone()]);
        assert!(found(&alone, "e.test").is_none());
        empty.put(certificate(&["e.test"]));
        alone.renew();
        resolver.renew();
        assert!(Arc::ptr_eq(
            &found(&alone, "x.test").unwrap(),
            &found(&resolver, "x.test").unwrap()
        ));
    }

    #[test]
    fn of_two_keys_for_one_name_the_client_gets_the_one_it_can_verify() {
        let slots = [&["a.test"][..], &["a.test"]].map(slot).to_vec();
        let resolver = Resolver::new(slots.clone());
        let second = slots[1].get().unwrap().key().clone();
        let fits = |key: &CertifiedKey| std::ptr::eq(key, &*second);
        assert!(Arc::ptr_eq(&resolver.find(Some("a.test"), fits).unwrap(), &second));
        let neither = resolver.find(Some("a.test"), |_| false).unwrap();
        assert!(
            Arc::ptr_eq(&neither, slots[0].get().unwrap().key()),
            "its handshake says what is wrong"
        );
    }
}
