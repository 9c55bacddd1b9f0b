use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::*;

fn is_ready(place: &Place<'_>) -> bool {
    place.poll_turn(&Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn it_is_bounded_and_in_order() {
    let queue = Queue::default();
    let first = queue.enter(true, 2).unwrap();
    let second = queue.enter(true, 2).unwrap();
    assert!(queue.enter(true, 2).is_none());
    let third = queue.enter(true, 3).expect("each asks for the bound of its own settings");
    queue.wake_first();
    assert!(is_ready(&first) && !is_ready(&second) && !is_ready(&third));
    drop(first);
    assert!(is_ready(&second), "the next one looks when the first has given up");
    second.leave();
    assert!(!is_ready(&third), "there is nothing for it to look for");
    assert!(!queue.is_empty());
    drop(third);
    assert!(queue.is_empty());
}

#[test]
fn a_turn_that_is_of_no_use_is_for_those_behind() {
    let queue = Queue::default();
    let places = [(); 3].map(|()| queue.enter(true, 9).unwrap());
    queue.wake_first();
    for place in &places {
        assert!(is_ready(place));
        place.pass_on();
    }
    assert!(!places.iter().any(is_ready), "the line is at its end");
}

#[test]
fn a_turn_of_one_that_gave_up_is_not_lost() {
    let queue = Queue::default();
    let [first, second, third] = [(); 3].map(|()| queue.enter(true, 9).unwrap());
    queue.wake_first();
    drop(first);
    assert!(is_ready(&second) && !is_ready(&third));
}

/// Far beyond what a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Threads that go through one gate, one at a time: each enters and then looks whether it is open, and each
/// opens it and then wakes whoever is first.
#[test]
fn no_turn_is_lost_between_threads() {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let (queue, shut) = (Queue::default(), AtomicBool::new(false));
    let goes_through = || shut.compare_exchange(false, true, SeqCst, SeqCst).is_ok();
    let passes = || {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let cx = Context::from_waker(&waker);
        for _ in 0..1_000 {
            let place = queue.enter(true, 9).unwrap();
            if !shut.load(SeqCst) {
                queue.wake_first();
            }
            let begun = Instant::now();
            loop {
                match place.poll_turn(&cx) {
                    Poll::Ready(()) if goes_through() => break,
                    Poll::Ready(()) => {}
                    Poll::Pending => thread::park_timeout(PATIENCE),
                }
                assert!(begun.elapsed() < PATIENCE, "nobody wakes it");
            }
            place.leave();
            shut.store(false, SeqCst);
            queue.wake_first();
        }
    };
    thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(passes))));
    assert!(queue.is_empty());
}
