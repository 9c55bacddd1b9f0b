//! How long a node has been silent while something waits for it.
//!
//! Silence, not the age of one request, tells a node that hangs from a request that is slow: as long
//! as the node answers others it is alive, and one URL that never answers must not move its share.

/// Nanoseconds of silence at `now_ns`.
///
/// `first_sent_ns` is when the oldest request was sent that is still unanswered and was sent after the
/// node's last head, which came at `last_head_ns`; 0 is none, for each. A request sent before that head
/// is not counted: the node has answered since. All times are on one clock.
#[must_use]
pub fn silence(last_head_ns: u64, first_sent_ns: u64, now_ns: u64) -> u64 {
    if first_sent_ns == 0 || first_sent_ns <= last_head_ns {
        return 0;
    }
    now_ns.saturating_sub(first_sent_ns)
}

#[cfg(test)]
mod tests {
    use super::silence;

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
