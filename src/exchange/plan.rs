//! What an exchange decides once, whatever becomes of its attempts: the head for the nodes, what may be
//! repeated, what it wishes of a node.

use super::pick::Wish;
use super::view::LocalUpstream;
use super::{Exchange, thread, unix_s};
use crate::clock;
use crate::config::Preset;
use crate::headers::forwarded::Forwarding;
use crate::headers::{self, ForNode};
use crate::http1::field::Known;
use crate::nocobase;
use crate::upstream::Signal;

/// What stays the same over all attempts.
pub(super) struct Plan<'a> {
    pub(super) upstream: &'a LocalUpstream,
    pub(super) wish: Wish,
    /// The head for the nodes.
    pub(super) node_head: Vec<u8>,
    /// End of the time for all attempts.
    pub(super) until_ns: u64,
    /// Whether the head time feeds the node's average.
    pub(super) feeds_latency: bool,
    /// Sent attempts that were repeated.
    pub(super) repeats: u32,
    /// The free repeat of a request that was lost on a kept connection was used.
    pub(super) race_lost: bool,
    /// It was moved away from a node that fell silent.
    pub(super) rescued: bool,
    /// The client speaks TLS, to us or to a trusted proxy.
    pub(super) https: bool,
}

impl Exchange<'_> {
    /// Decides what does not change between attempts.
    pub(super) fn plan<'u>(&mut self, upstream: &'u LocalUpstream) -> Plan<'u> {
        let (head, settings) = (self.head, &upstream.upstream.settings);
        let proxies = &self.client.listener.settings.trusted_proxies;
        let forwarding = Forwarding {
            secure: self.client.socket.tls().is_some(),
            certificate: self.client.certificate,
            ..Forwarding::new(self.client.peer.ip(), proxies, head)
        };
        self.warn_untrusted(&forwarding);
        self.record.client = forwarding.client;
        if forwarding.trusted
            && let Some(id) = head.value(Known::XRequestId).and_then(thread::RequestId::given)
        {
            self.record.id = id;
        }
        let method = str::from_utf8(head.method()).unwrap_or_default();
        // A target that is no text can be anything: it is not safe to repeat.
        let target = str::from_utf8(head.target()).unwrap_or("\u{fffd}");
        let is_text = str::from_utf8(head.target()).is_ok();
        let sticky = settings.sticky.as_ref();
        let mut node_head = self.client.thread.buffers.small();
        let parts = ForNode {
            forwarding: &forwarding,
            request_id: self.record.id.as_str(),
            default_host: &settings.name,
            hidden_cookie: sticky.map(|sticky| sticky.cookie.as_str()),
        };
        headers::write_request(&mut node_head, head, &parts);
        let now = self.client.thread.now_ns();
        Plan {
            upstream,
            wish: Wish {
                safe_to_repeat: is_text
                    && nocobase::safe_to_repeat(
                        method,
                        target,
                        settings.preset,
                        &settings.api_path,
                    ),
                tunnel: head.websocket,
                app: self.app(&settings.api_path),
                hash: Wish::hash_key(upstream, head, forwarding.client),
                sticky: self.sticky(upstream),
                tried: Vec::new(),
            },
            node_head,
            until_ns: match settings.deadline.is_zero() {
                true => u64::MAX,
                false => now.saturating_add(clock::nanos(settings.deadline)),
            },
            feeds_latency: settings.preset == Preset::None
                || nocobase::feeds_latency(method, target, &settings.api_path),
            repeats: 0,
            race_lost: false,
            rescued: false,
            https: forwarding.is_https(head),
        }
    }

    /// Tells control of a peer that looks like an outer proxy nobody has listed.
    fn warn_untrusted(&self, forwarding: &Forwarding<'_>) {
        if forwarding.trusted || !crate::net::is_private(forwarding.peer) {
            return;
        }
        let field = match (
            self.head.value(Known::XForwardedProto),
            self.head.value(Known::XForwardedFor),
        ) {
            (Some(_), _) => "X-Forwarded-Proto",
            (None, Some(_)) => "X-Forwarded-For",
            (None, None) => return,
        };
        if !self.client.thread.may_warn_of(forwarding.peer) {
            return;
        }
        let listener = self.client.listener.settings.name.clone();
        self.client.thread.signal(Signal::UntrustedForwarding {
            listener,
            peer: forwarding.peer,
            field,
        });
    }

    /// Hash of the app that the request names. The host is part of it: plugins map hosts to apps.
    fn app(&self, api_path: &str) -> u64 {
        let text = |bytes| str::from_utf8(bytes).ok();
        let x_app = self.head.value(Known::XApp).and_then(text);
        let target = text(self.head.target()).unwrap_or_default();
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        let name = nocobase::app_name(x_app, path, query, api_path).unwrap_or_default();
        xxhash_rust::xxh3::xxh3_64_with_seed(
            name.as_bytes(),
            xxhash_rust::xxh3::xxh3_64(self.head.host()),
        )
    }

    /// The node that a valid sticky cookie names.
    fn sticky(&self, upstream: &LocalUpstream) -> Option<u64> {
        let settings = upstream.upstream.settings.sticky.as_ref()?;
        let value = headers::cookie(self.head, &settings.cookie)?;
        upstream.signer.as_ref()?.verify(value, unix_s(), settings.max_life)
    }
}
