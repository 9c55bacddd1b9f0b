//! Words of ours before a Close frame: never within a message of the node.

use cobalance::upstream::maintenance::Terms;

use super::pages::{Page, RESTART, Speaker, part};
use super::proxy;
use super::support::until;

#[test]
fn last_words_stand_between_messages_and_not_within_one() {
    let node = Speaker::new(b"");
    let proxy = proxy(&[&node], "");
    let begun = part(0x01, b"ab");
    // They are closed a few at a time, and are so many that some are left whenever this thread looks.
    let mut pages: Vec<Page> = (0..120).map(|_| Page::open(proxy.address, "one")).collect();
    node.until_open(120);
    node.give(&begun);
    pages.iter_mut().for_each(|page| page.reads(&begun));
    let switch = &proxy.snapshot.upstreams[0].shared.maintenance;
    switch.begin(Terms::default());
    let closing = || node.got().iter().filter(|got| got.len() == 8).count();
    until("the first is closed", || closing() > 0);
    switch.end();
    let before = closing();
    until("one is closed after the end", || closing() > before);
    // What belongs to the message still passes, whatever stands in it.
    let end = [part(0x89, b"?"), part(0x00, b"c"), part(0x80, b"d")].concat();
    node.give(&[&end[..], &part(0x81, b"no more")].concat());
    let rests: Vec<Vec<u8>> = pages.iter_mut().map(Page::rest).collect();
    let with_words = |rest: &&Vec<u8>| rest.windows(11).any(|part| part == b"APP_RUNNING");
    let told: Vec<_> = rests.iter().filter(with_words).collect();
    assert!(told.len() < rests.len(), "the first had nothing to be told");
    assert!(!told.is_empty());
    for rest in told {
        assert!(rest.starts_with(&end) && rest.ends_with(&RESTART), "{rest:x?}");
        assert_eq!(rest[end.len()], 0x81, "then a message of ours");
    }
    // A Close frame alone may stand within a message.
    assert!(rests.iter().any(|rest| *rest == RESTART));
}
