//! Moving an exchange away from a node that fell silent after it had taken the request.
//!
//! Without this, whoever was being served by a process that hangs waits for the whole response time-out.
//! Only what is safe to repeat is moved, once, and within the budget: the node may run it all the same.

use super::Plan;
use super::pick::is_full;
use super::thread::Thread;
use super::view::LocalUpstream;

/// None older is moved: it takes long by its nature, or its client has given up.
const MAX_AGE_NS: u64 = 10_000_000_000;
/// Two nodes that fell silent within this time may have done so because of what they were asked: then
/// nothing is handed on to a third.
const TOGETHER_NS: u64 = 10_000_000_000;

/// Whether a request that a node has owed an answer to since `since_ns` should be asked of another. True
/// takes it from the budget.
pub(super) fn may_rescue(
    thread: &Thread,
    (node, plan): (usize, &Plan<'_>),
    since_ns: u64,
    now: u64,
) -> bool {
    plan.wish.safe_to_repeat
        && !plan.rescued
        && now.saturating_sub(since_ns) < MAX_AGE_NS
        && plan.upstream.nodes[node].local.node.is_lost(since_ns)
        && !fell_together(plan.upstream, now)
        && another_may_take_it(thread, node, plan)
        && plan.upstream.upstream.shared.budget.withdraw(now / 1_000_000_000)
}

/// Whether a node is left that has not been asked.
pub(super) fn another_may_take_it(thread: &Thread, node: usize, plan: &Plan<'_>) -> bool {
    let now = thread.now_ns();
    let nodes = plan.upstream.nodes.iter().enumerate();
    now < plan.until_ns
        && nodes.filter(|(index, _)| *index != node).any(|(index, member)| {
            !plan.wish.tried.contains(&index)
                && member.local.node.eligible(plan.wish.safe_to_repeat)
                && !is_full(member)
                && !plan.upstream.is_passed_over(index, plan.wish.app, now)
        })
}

/// Whether more than one node fell silent of late.
fn fell_together(upstream: &LocalUpstream, now: u64) -> bool {
    let fell = |at: u64| at != 0 && now.saturating_sub(at) < TOGETHER_NS;
    upstream.nodes.iter().filter(|member| fell(member.local.node.fell_ns())).count() > 1
}
