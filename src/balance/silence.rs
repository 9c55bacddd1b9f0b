//! How long a node has been silent while something waits for it.
//!
//! Silence, not the age of one request, tells a node that hangs from a request that is slow: as long
//! as the node answers others it is alive, and one URL that never answers must not move its share.

/// Nanoseconds of silence until `now_ns`, or until the last of those who waited gave up.
///
/// `first_sent_ns` is when the oldest request was sent that is still unanswered and was sent after the
/// node's last head, which came at `last_head_ns`; 0 is none, for each. A request sent before that head
/// is not counted: the node has answered since. So a head clears `first_sent_ns`, and a request sets it
/// if it is clear. All times are on one clock.
///
/// A good probe must count as a head. On a quiet upstream the one request that waits would otherwise
/// keep all others away, and with them the heads that could tell that the node is alive.
#[must_use]
pub fn silence(last_head_ns: u64, first_sent_ns: u64, now_ns: u64) -> u64 {
    if first_sent_ns == 0 || first_sent_ns <= last_head_ns {
        return 0;
    }
    now_ns.saturating_sub(first_sent_ns)
}

/// Since when a node counts as silent, for a request that is sent to it at `now_ns`.
///
/// It was silent since `since_ns` (0: not at all), and `given_up_ns` is when the last of those who waited
/// gave up (0: somebody still waits). A head has ended a silence that began before it. One that nobody
/// waited through to its end goes on, without the time in between when nobody asked for anything: clients
/// that are impatient would otherwise make a node that hangs look well each time one of them leaves.
#[must_use]
pub fn began(last_head_ns: u64, since_ns: u64, given_up_ns: u64, now_ns: u64) -> u64 {
    if since_ns == 0 || since_ns <= last_head_ns {
        return now_ns;
    }
    match given_up_ns {
        0 => since_ns,
        // At least just after the head, for which it would be over otherwise.
        _ => now_ns.saturating_sub(given_up_ns.saturating_sub(since_ns)).max(last_head_ns + 1),
    }
}

/// No exchange lingers before it has waited for this long. Until then it counts in full, so this is
/// also how far a URL that never answers can move a share while it is requested again and again.
const LINGER_NS: u64 = 250_000_000;
/// Nor before it has waited for so many times its node's average.
const LINGER_AVERAGES: u64 = 20;

/// Whether an exchange lingers: it has waited far longer than is usual at its node, which has answered
/// others since. It then says nothing about the node's load (see `Load::lingering`).
#[must_use]
pub fn lingers(sent_ns: u64, last_head_ns: u64, average_ns: u64, now_ns: u64) -> bool {
    let waited = now_ns.saturating_sub(sent_ns);
    last_head_ns > sent_ns && waited > LINGER_NS.max(average_ns.saturating_mul(LINGER_AVERAGES))
}

#[cfg(test)]
mod tests {
    use super::{began, lingers, silence};

    #[test]
    fn lingering_takes_long_and_a_node_that_answers() {
        let second = 1_000_000_000;
        let cases = [
            // (sent, last head, average, now, lingers)
            (second, 3 * second, 0, 3 * second, true),
            (second, 2 * second, 0, second + second / 4, false),
            (second, 2 * second, 0, second + second / 4 + 1, true),
            (second, second, 0, 30 * second, false),
            (second, 0, 0, 30 * second, false),
            (second, 3 * second, second / 2, 10 * second, false),
            (second, 3 * second, second / 2, 12 * second, true),
        ];
        for (sent, head, average, now, expected) in cases {
            assert_eq!(
                lingers(sent, head, average, now),
                expected,
                "{sent} {head} {average} {now}"
            );
        }
    }

    #[test]
    fn a_silence_goes_on_where_the_last_who_waited_left_it() {
        let cases = [
            // (last head, silent since, given up, now, counts from, why)
            (0, 0, 0, 100, 100, "the first request ever"),
            (50, 40, 0, 100, 100, "it answered since"),
            (0, 40, 0, 100, 40, "another still waits"),
            (50, 40, 45, 100, 100, "it answered after that was given up"),
            (0, 40, 70, 100, 70, "silent for 30 so far"),
            (10, 40, 40, 100, 100, "given up at once"),
            (39, 40, 99, 100, 41, "nobody waited for a moment"),
            (60, 61, 200, 100, 61, "clocks read in another order never end it"),
        ];
        for (head, since, given_up, now, expected, why) in cases {
            assert_eq!(began(head, since, given_up, now), expected, "{why}");
        }
    }

    #[test]
    fn cases() {
        let cases = [
            // (last head, first sent, now, silence, why)
            (0, 0, 100, 0, "nothing waits"),
            (0, 40, 100, 60, "the first request ever waits"),
            (50, 40, 100, 0, "it answered since"),
            (40, 40, 100, 0, "the same instant counts as answered"),
            (40, 50, 100, 50, "silent since the request, not since the head"),
            (40, 120, 100, 0, "a clock read in another order is no silence"),
        ];
        for (head, sent, now, expected, why) in cases {
            assert_eq!(silence(head, sent, now), expected, "{why}");
        }
    }
}
