//! `guard_changes`: what would change one node of several is answered with an explanation instead.

use super::Exchange;
use super::view::LocalUpstream;
use crate::config::Role;
use crate::error::Cause;
use crate::nocobase;

/// More of an action's name than any has; it goes into an answer and into the log.
const MOST_NAME: usize = 64;

impl Exchange<'_> {
    /// Whether the exchange may change its node. While a node is pinned no other is up.
    ///
    /// # Errors
    /// It would change one of several nodes that are up.
    pub(super) fn guard(&self, upstream: &LocalUpstream) -> Result<(), Cause> {
        let settings = &upstream.upstream.settings;
        if !settings.guard_changes {
            return Ok(());
        }
        let text = |bytes| str::from_utf8(bytes).unwrap_or_default();
        let (method, target) = (text(self.head.method()), text(self.head.target()));
        let Some(action) = nocobase::changes_one_node(method, target, &settings.api_path) else {
            return Ok(());
        };
        let up = upstream
            .upstream
            .nodes
            .iter()
            .filter(|member| member.role == Role::Serve && member.node.shown().is_eligible());
        if up.count() < 2 {
            return Ok(());
        }
        let name: String =
            format!("{}:{}", action.resource, action.action).chars().take(MOST_NAME).collect();
        Err(Cause::Guarded(name.into()))
    }
}
