//! Several processes with one state directory.

use crate::pebble::Settings;
use crate::rig::{Balancer, Rig, patiently};

#[test]
fn two_replicas_order_once_and_either_answers_the_authority() {
    for challenge in ["http-01", "tls-alpn-01"] {
        let rig = Rig::start(Settings::default());
        let both = [(); 2].map(|()| rig.hidden(challenge, &["crm.test"], "", ""));
        // Who comes too late says for a moment that it orders as well.
        let mut who = None;
        patiently("one orders, and the other waits", || {
            let states = both.each_ref().map(Balancer::state);
            who = match states.each_ref().map(String::as_str) {
                ["ordering", "waiting"] => Some(0),
                ["waiting", "ordering"] => Some(1),
                _ => None,
            };
            who.is_some()
        });
        let who: usize = who.unwrap();
        // The authority comes to the one that knows of it by the directory alone.
        let other = &both[1 - who];
        rig.show(other);
        both.iter().for_each(|one| one.until_state("valid"));
        let count = |family: &str, label: &str| {
            both.iter().map(|one| one.count(family, &[label])).collect::<Vec<_>>()
        };
        let ordered = count("acme_orders_total", "public");
        assert_eq!(ordered.iter().sum::<f64>(), 1.0, "{ordered:?}");
        assert_eq!(ordered[who], 1.0, "{ordered:?}");
        patiently("its answers are counted", || {
            other.count("acme_challenges_answered_total", &[challenge]) >= 1.0
        });
        let shown = both.each_ref().map(|one| {
            let client = one.connect(rig.trusting(None), "crm.test").unwrap();
            client.conn.peer_certificates().unwrap()[0].to_vec()
        });
        assert_eq!(shown[0], shown[1]);
    }
}
