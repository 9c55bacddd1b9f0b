//! What a node says in a tunnel, and what of it a page gets.

use cobalance::health::HealthState;
use cobalance::telemetry::metrics::{ClosedBy, DialogOutcome};

use super::pages::{Page, RESTART, Speaker, masked_code, message, part};
use super::support::until;
use super::{CLOSING, STOPPED, only, outcomes, proxy};

const NEWS: &str = r#"{"type":"in-app-message:created","payload":{"code":"APP_STOPPED"}}"#;

#[test]
fn a_page_is_moved_before_its_dialog_opens_and_lands_at_another_node() {
    let (a, b) = (Speaker::new(b""), Speaker::new(b""));
    let proxy = proxy(&[&a, &b], "");
    let mut page = Page::open(proxy.address, "one");
    a.until_open(1);
    a.say(NEWS);
    a.say(STOPPED);
    a.say(NEWS);
    assert_eq!(page.rest(), [&message(NEWS)[..], &RESTART].concat(), "nothing after that");
    until("the node is told", || a.got()[0].len() == 8);
    assert_eq!(masked_code(&a.got()[0]), 1001);
    assert_eq!(outcomes(&proxy, 0), only(DialogOutcome::Withheld, 1));
    let metrics = &proxy.node(0).metrics;
    let closed = &metrics.ws_closed[ClosedBy::Drain as usize];
    until("it is counted", || (metrics.ws_moved.get(), closed.get()) == (1, 1));
    // It may have met the dialog elsewhere; who it is not meant for does not get it.
    proxy.node(0).set_health(HealthState::Down);
    let mut back = Page::open(proxy.address, "one");
    let mut other = Page::open(proxy.address, "another");
    b.until_open(2);
    b.say(NEWS);
    back.reads(&[message(CLOSING), message(NEWS)].concat());
    other.reads(&message(NEWS));
    assert_eq!(proxy.snapshot.upstreams[0].metrics.dialogs_closed.get(), 1);
}

#[test]
fn frames_are_recognised_however_they_arrive_and_all_others_pass_as_they_are() {
    let (head, tail) = STOPPED.as_bytes().split_at(9);
    let parts = [part(0x01, head), part(0x89, b"?"), part(0x80, tail)].concat();
    for stopped in [message(STOPPED), parts] {
        for piece in [1, 2, 7, 64, 500] {
            let (a, b) = (Speaker::new(b""), Speaker::new(b""));
            let proxy = proxy(&[&a, &b], "");
            let mut page = Page::open(proxy.address, "one");
            a.until_open(1);
            let passes = [
                message(NEWS),
                part(0x82, &[7; 300]),
                part(0x01, b"{\"type\":\"mai"),
                part(0x80, b"l\"}"),
                message(r#"{"type":"maintaining","payload":{"code":"APP_RUNNING"}}"#),
                message("{\"ty"),
                part(0x8a, b""),
            ];
            let passes = passes.concat();
            let all = [&passes[..], &stopped, &message(NEWS)].concat();
            all.chunks(piece).for_each(|bytes| a.give(bytes));
            assert_eq!(page.rest(), [&passes[..], &RESTART].concat(), "{piece}");
        }
    }
}

#[test]
fn what_cannot_be_read_passes() {
    let (a, b) = (Speaker::new(b""), Speaker::new(b""));
    let proxy = proxy(&[&a, &b], "");
    let mut page = Page::open(proxy.address, "one");
    a.until_open(1);
    let long = format!(
        r#"{{"type":"maintaining","payload":{{"code":"APP_STOPPED","x":"{}"}}}}"#,
        "x".repeat(70_000)
    );
    let compressed = part(0xc1, STOPPED.as_bytes());
    let in_many = [part(0x01, b"{\"type\":\"maintaining\""), part(0x00, &[b' '; 40_000])].concat();
    let bytes = [&message(&long)[..], &compressed, &in_many, &part(0x80, &[b' '; 40_000])].concat();
    // At the same time: nobody promises that all of it fits between the two.
    std::thread::scope(|scope| {
        scope.spawn(|| a.give(&bytes));
        page.reads(&bytes);
    });
    assert_eq!(outcomes(&proxy, 0), [0; 5]);
}

#[test]
fn a_frame_right_behind_the_handshake_is_withheld_as_well() {
    // Longer than a constant expression may be made of the two others.
    let first: &'static [u8] =
        Box::leak([message(NEWS), message(STOPPED), message(NEWS)].concat().into());
    let (a, b) = (Speaker::new(first), Speaker::new(b""));
    let proxy = proxy(&[&a, &b], "");
    let mut page = Page::open(proxy.address, "one");
    assert_eq!(page.rest(), [&message(NEWS)[..], &RESTART].concat());
}

#[test]
fn where_no_other_node_serves_the_page_is_told_and_told_of_the_end() {
    let (a, b) = (Speaker::new(b""), Speaker::new(b""));
    let proxy = proxy(&[&a, &b], "");
    proxy.node(1).set_health(HealthState::Down);
    let mut page = Page::open(proxy.address, "one");
    a.until_open(1);
    a.say(STOPPED);
    page.reads(&message(STOPPED));
    assert_eq!(outcomes(&proxy, 0), only(DialogOutcome::Alone, 1));
    a.end();
    assert!(page.rest().is_empty());
    let mut back = Page::open(proxy.address, "one");
    back.reads(&message(CLOSING));
}

#[test]
fn a_page_whose_node_is_lost_is_sent_what_closes_a_dialog() {
    let (a, b) = (Speaker::new(b""), Speaker::new(b""));
    let proxy = proxy(&[&a, &b], "");
    let mut page = Page::open(proxy.address, "");
    a.until_open(1);
    a.end();
    assert!(page.rest().is_empty(), "it is not kept waiting");
    proxy.node(0).set_health(HealthState::Down);
    Page::open(proxy.address, "").reads(&message(CLOSING));
    // Nor is one that left by itself.
    let left = Page::open(proxy.address, "two");
    drop(left);
    until("it has left", || proxy.node(1).tunnels() == 0);
    let mut back = Page::open(proxy.address, "two");
    b.until_open(3);
    b.say(NEWS);
    // By its address it is: others there were lost.
    back.reads(&[message(CLOSING), message(NEWS)].concat());
}

#[test]
fn a_page_that_was_refused_is_sent_it_too() {
    let a = Speaker::new(b"");
    let proxy = proxy(&[&a], "park_upgrades = \"0s\"");
    proxy.node(0).set_health(HealthState::Down);
    assert!(Page::open_at(proxy.address, "/ws", "one").is_none());
    proxy.node(0).set_health(HealthState::Up);
    Page::open(proxy.address, "one").reads(&message(CLOSING));
    a.until_open(1);
    assert_eq!(a.cookies(), ["a=b; nb_auth_token_main=one"]);
}

#[test]
fn where_it_is_not_wanted_nothing_is_looked_at() {
    for upstream in ["quiet_restarts = false", "preset = \"none\""] {
        let (a, b) = (Speaker::new(b""), Speaker::new(b""));
        let proxy = proxy(&[&a, &b], upstream);
        let mut page = Page::open(proxy.address, "one");
        a.until_open(1);
        a.say(STOPPED);
        page.reads(&message(STOPPED));
        proxy.node(0).set_not_serving();
        proxy.node(0).set_health(HealthState::Maintaining);
        a.say(NEWS);
        page.reads(&message(NEWS));
        a.end();
        assert!(page.rest().is_empty());
        let mut back = Page::open(proxy.address, "one");
        b.until_open(1);
        b.say(NEWS);
        back.reads(&message(NEWS));
        assert_eq!(outcomes(&proxy, 0), [0; 5]);
    }
}
