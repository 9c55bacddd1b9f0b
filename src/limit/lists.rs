//! Lists of networks, and who may come by them.
//!
//! A list is a sorted table of ranges that do not touch: a look-up is a binary search, 17 steps among 100,000
//! networks. That suffices because **deny wins**: who is on the deny list is refused whatever the allow list
//! says, and where an allow list is written, only those on it may come. So all that is asked of a list is
//! whether an address is on it, never which of its networks is the longest.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::config;
use crate::net::canonical;

/// A set of networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl Networks {
    /// Whether an address is in one of them. IPv4 that came over IPv6 is IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match canonical(address) {
            IpAddr::V4(v4) => is_in(&self.v4, u32::from(v4)),
            IpAddr::V6(v6) => is_in(&self.v6, u128::from(v6)),
        }
    }

    /// Ranges that are left of the networks when those that touch are one.
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.v4.len() + self.v6.len()
    }
}

impl<'a> FromIterator<&'a IpNet> for Networks {
    fn from_iter<T: IntoIterator<Item = &'a IpNet>>(networks: T) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match (canonical(network.network()), canonical(network.broadcast())) {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((first.into(), last.into())),
                (IpAddr::V6(first), IpAddr::V6(last)) => v6.push((first.into(), last.into())),
                // A network of IPv6 that reaches into the mapped addresses and beyond: there is no such
                // prefix but those that cover all of them.
                _ => v6.push(whole(network)),
            }
        }
        Networks { v4: merged(v4, 1), v6: merged(v6, 1) }
    }
}

/// The range of a network, nothing mapped.
fn whole(network: &IpNet) -> (u128, u128) {
    match network {
        IpNet::V4(v4) => (u32::from(v4.network()).into(), u32::from(v4.broadcast()).into()),
        IpNet::V6(v6) => (v6.network().into(), v6.broadcast().into()),
    }
}

/// Sorted, and without two that overlap or touch; `one` is the step from an address to the next.
fn merged<T>(mut ranges: Vec<(T, T)>, one: T) -> Box<[(T, T)]>
where
    T: Ord + Copy + std::ops::Sub<Output = T>,
{
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            // Sorted: the second begins at or after the first, so the difference is none below zero.
            Some(before) if first <= before.1 || first - before.1 <= one => {
                before.1 = before.1.max(last);
            }
            _ => merged.push((first, last)),
        }
    }
    merged.into()
}

fn is_in<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|range| range.0 <= address);
    after > 0 && address <= ranges[after - 1].1
}

/// The networks of a file; control puts newer ones in while requests look.
#[derive(Debug)]
pub struct Slot {
    /// The file.
    pub path: PathBuf,
    networks: ArcSwap<Networks>,
}

impl Slot {
    /// With what was read first.
    #[must_use]
    pub fn new(path: &Path, networks: &[IpNet]) -> Slot {
        Slot { path: path.to_owned(), networks: ArcSwap::from_pointee(networks.iter().collect()) }
    }

    /// Puts these in use. Whether they are others than before.
    pub fn put(&self, networks: &[IpNet]) -> bool {
        let networks: Networks = networks.iter().collect();
        let other = **self.networks.load() != networks;
        if other {
            self.networks.store(Arc::new(networks));
        }
        other
    }

    /// Those in use.
    #[must_use]
    pub fn get(&self) -> Arc<Networks> {
        self.networks.load_full()
    }
}

/// One list: what is written, and what its file says.
#[derive(Debug)]
struct List {
    written: Networks,
    file: Option<Arc<Slot>>,
}

impl List {
    fn contains(&self, address: IpAddr) -> bool {
        self.written.contains(address)
            || self.file.as_ref().is_some_and(|file| file.networks.load().contains(address))
    }
}

/// Who may come.
#[derive(Debug)]
pub struct Access {
    allow: Option<List>,
    deny: Option<List>,
}

impl Access {
    /// From what is configured; none where everybody may come. `slot` finds the slot of a file.
    pub fn of(
        config: &config::Access,
        slot: impl Fn(&Path) -> Option<Arc<Slot>>,
    ) -> Option<Access> {
        let list = |list: &config::NetworkList| List {
            written: list.networks.iter().collect(),
            file: list.file.as_ref().and_then(|file| slot(&file.path)),
        };
        let (allow, deny) = (config.allow.as_ref().map(list), config.deny.as_ref().map(list));
        (allow.is_some() || deny.is_some()).then_some(Access { allow, deny })
    }

    /// Whether an address may come: it is not denied, and allowed if there is a list of those who are.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        !self.deny.as_ref().is_some_and(|deny| deny.contains(address))
            && self.allow.as_ref().is_none_or(|allow| allow.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap_or_else(|_| IpNet::from(text.parse::<IpAddr>().unwrap()))
    }

    fn networks(texts: &[&str]) -> Networks {
        texts.iter().map(|text| net(text)).collect::<Vec<_>>().iter().collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn access(allow: Option<&[&str]>, deny: Option<&[&str]>) -> Access {
        let list = |texts: &[&str]| config::NetworkList {
            networks: texts.iter().map(|text| net(text)).collect(),
            file: None,
        };
        let config = config::Access { allow: allow.map(list), deny: deny.map(list) };
        Access::of(&config, |_| None).unwrap()
    }

    #[test]
    fn edges_of_networks() {
        let set = networks(&["192.0.2.0/24", "198.51.100.7", "2001:db8::/32", "0.0.0.0/8"]);
        for (address, inside) in [
            ("192.0.2.0", true),
            ("192.0.2.255", true),
            ("192.0.1.255", false),
            ("192.0.3.0", false),
            ("198.51.100.7", true),
            ("198.51.100.8", false),
            ("::ffff:192.0.2.9", true),
            ("2001:db8::", true),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db9::", false),
            ("0.0.0.0", true),
            ("255.255.255.255", false),
        ] {
            assert_eq!(set.contains(ip(address)), inside, "{address}");
        }
        assert!(networks(&["0.0.0.0/0"]).contains(ip("255.255.255.255")));
        assert!(!networks(&["0.0.0.0/0"]).contains(ip("::1")));
        assert!(networks(&["::/0"]).contains(ip("ffff::1")));
        assert!(networks(&["::ffff:10.0.0.0/104"]).contains(ip("10.1.2.3")), "mapped is IPv4");
        assert!(!networks(&[]).contains(ip("10.0.0.1")));
    }

    #[test]
    fn neighbours_become_one_range() {
        assert_eq!(networks(&["10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16"]).ranges(), 1);
        assert_eq!(networks(&["10.0.0.0/9", "10.129.0.0/16"]).ranges(), 2);
        assert_eq!(networks(&["255.255.255.255", "255.255.255.254", "0.0.0.0"]).ranges(), 2);
    }

    #[test]
    fn deny_wins_and_an_allow_list_is_whole() {
        let both =
            access(Some(&["10.0.0.0/8", "192.0.2.7"]), Some(&["10.9.0.0/16", "192.0.2.0/24"]));
        assert!(both.admits(ip("10.1.1.1")));
        assert!(!both.admits(ip("10.9.1.1")), "denied within what is allowed");
        assert!(!both.admits(ip("192.0.2.7")), "denied, though the allowed network is longer");
        assert!(!both.admits(ip("203.0.113.1")), "on neither list");
        let deny = access(None, Some(&["10.0.0.0/8"]));
        assert!(deny.admits(ip("203.0.113.1")) && !deny.admits(ip("10.0.0.1")));
        assert!(
            !access(Some(&[]), None).admits(ip("10.0.0.1")),
            "an empty allow list allows nobody"
        );
    }

    #[test]
    fn a_file_is_looked_at_as_it_is_now() {
        let slot = Arc::new(Slot::new(Path::new("x"), &[net("10.0.0.0/8")]));
        let file = config::ListFile { path: "x".into(), loaded: Arc::new([]) };
        let deny = config::NetworkList { networks: vec![net("192.0.2.1")], file: Some(file) };
        let config = config::Access { allow: None, deny: Some(deny) };
        let access = Access::of(&config, |_| Some(slot.clone())).unwrap();
        let refused = |text| !access.admits(ip(text));
        assert!(refused("10.0.0.1") && refused("192.0.2.1") && !refused("172.16.0.1"));
        assert!(slot.put(&[net("172.16.0.0/12")]) && !slot.put(&[net("172.16.0.0/12")]));
        assert!(!refused("10.0.0.1") && refused("192.0.2.1") && refused("172.16.0.1"));
    }

    proptest! {
        #[test]
        fn as_the_slow_way_finds(
            nets in proptest::collection::vec((0u32..64, 24u8..=32), 0..12),
            address in 0u32..80,
        ) {
            let base = u32::from(std::net::Ipv4Addr::new(10, 0, 0, 0));
            let nets: Vec<IpNet> = nets
                .into_iter()
                .map(|(offset, bits)| {
                    let address = std::net::Ipv4Addr::from(base + offset * 5);
                    IpNet::new(address.into(), bits).unwrap().trunc()
                })
                .collect();
            let address = IpAddr::from(std::net::Ipv4Addr::from(base + address * 4));
            let set: Networks = nets.iter().collect();
            prop_assert_eq!(set.contains(address), nets.iter().any(|net| net.contains(&address)));
        }
    }
}
