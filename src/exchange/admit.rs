//! What an exchange must pass before anything is done for it: lists of addresses, rates, and how many tunnels
//! its client has. Where nothing of it is configured, that is one look at an option.

use super::Exchange;
use super::view::{LocalUpstream, View};
use crate::config::Preset;
use crate::error::{Cause, Limited};
use crate::limit::gate::{Asks, TooEarly};

impl Exchange<'_> {
    /// Whether the exchange may begin. Its client is known by now: `plan` has looked who that is.
    ///
    /// # Errors
    /// Its client is denied, too quick, or has too many tunnels.
    pub(super) fn pass_gate(&mut self, view: &View, upstream: &LocalUpstream) -> Result<(), Cause> {
        let (listener, client) = (&self.client.listener, self.record.client);
        // Again for each request: behind a proxy each is of another client, and lists change.
        if let Some(access) = &listener.access
            && !access.admits(client)
        {
            return Err(Cause::ClientDenied);
        }
        let most = listener.settings.max_tunnels_per_client;
        if self.head.websocket && most > 0 {
            let taken = listener.tunnels.take(client, 1, most).ok_or(Cause::TooManyTunnels)?;
            self.tunnel_share = Some(Box::new(taken));
        }
        let Some(gate) = &view.snapshot.gate else { return Ok(()) };
        let route = self.record.route.unwrap_or_default();
        if !gate.admits(route, client) {
            return Err(Cause::ClientDenied);
        }
        let settings = &upstream.upstream.settings;
        let asks = Asks {
            route,
            upstream: self.record.upstream.unwrap_or_default(),
            client,
            request: (self.head.method(), self.head.target()),
            api_path: (settings.preset == Preset::NocoBase).then_some(&*settings.api_path),
        };
        let field = |name: &str| self.head.value_named(name.as_bytes());
        let counted = gate.count(&asks, field, self.client.thread.now_ns());
        counted.map_err(|early| Cause::RateLimited(Box::new(told(&early))))
    }
}

/// Whole seconds, never too few: a client that comes back when it was told is let through.
fn told(early: &TooEarly<'_>) -> Limited {
    let seconds =
        |duration: std::time::Duration| duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    let after_s = seconds(early.wait.0);
    Limited {
        limit: early.name.into(),
        quota: early.table.rate().burst,
        window_s: seconds(early.table.window()),
        after_s: u32::try_from(after_s).unwrap_or(u32::MAX),
    }
}
