//! What an exchange decides once, whatever becomes of its attempts: the head for the nodes, what may be
//! repeated, what it wishes of a node.

use std::time::Duration;

use super::affinity::app_key;
use super::client::Client;
use super::pick::Wish;
use super::upload::Upload;
use super::view::LocalUpstream;
use super::{Exchange, thread, unix_s};
use crate::clock;
use crate::config::Preset;
use crate::headers::forwarded::Forwarding;
use crate::headers::{self, ForNode};
use crate::http1::field::Known;
use crate::nocobase;
use crate::upstream::Signal;
use crate::upstream::maintenance::Pass;

/// What stays the same over all attempts.
pub(super) struct Plan<'a> {
    pub(super) upstream: &'a LocalUpstream,
    pub(super) wish: Wish,
    /// The head for the nodes.
    pub(super) node_head: Vec<u8>,
    /// The client waits for the node to say that the body may come.
    pub(super) expects_continue: bool,
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
    /// A second node was asked because the first was late.
    pub(super) hedged: bool,
    /// The client speaks TLS, to us or to a trusted proxy.
    pub(super) https: bool,
}

impl Plan<'_> {
    /// How long the client may take to go on with its body: as long as the node, if it waits for that.
    pub(super) fn patience(&self, client: &Client<'_>) -> Duration {
        match self.expects_continue {
            true => self.upstream.upstream.settings.response_timeout,
            false => client.listener.settings.body_idle_timeout,
        }
    }
}

impl Exchange<'_> {
    /// Decides what does not change between attempts.
    pub(super) fn plan<'u>(&mut self, upstream: &'u LocalUpstream, upload: &Upload) -> Plan<'u> {
        let (head, settings) = (self.head, &upstream.upstream.settings);
        let proxies = &self.client.listener.settings.trusted_proxies;
        let forwarding = Forwarding {
            secure: self.client.socket.is_encrypted(),
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
        let text = str::from_utf8(head.target()).ok();
        let (target, is_text) = (text.unwrap_or("\u{fffd}"), text.is_some());
        self.note_work(upstream, method, target);
        let sticky = settings.sticky.as_ref();
        let terms = upstream.upstream.shared.maintenance.terms();
        let pass = terms.as_ref().and_then(|terms| terms.pass.as_ref());
        let mut node_head = self.client.thread.buffers.small();
        let expects_continue = head.expect_continue && !upload.is_shielded();
        let parts = ForNode {
            forwarding: &forwarding,
            request_id: self.record.id.as_str(),
            default_host: &settings.name,
            hidden_cookies: [
                sticky.map(|sticky| sticky.cookie.as_str()),
                pass.map(Pass::cookie_name),
            ],
            framing: upload.framing(),
            expect_continue: expects_continue,
        };
        headers::write_request(&mut node_head, head, &parts);
        let now = self.client.thread.now_ns();
        let mut traits = nocobase::traits(method, target, settings.preset, &settings.api_path);
        traits.safe_to_repeat &= is_text;
        let app_name = self.app_name(&settings.api_path);
        let app = app_key(app_name, head.host());
        Plan {
            upstream,
            wish: Wish {
                safe_to_repeat: traits.safe_to_repeat,
                tunnel: head.websocket,
                app,
                names_sub_app: settings.preset == Preset::NocoBase && app_name.is_some(),
                is_bulk: traits.is_bulk,
                follow: self.follow(upstream, &traits, (app, app_name)),
                hash: Wish::hash_key(upstream, head, forwarding.client),
                sticky: self.sticky(upstream),
                tried: Vec::new(),
            },
            node_head,
            expects_continue,
            until_ns: match settings.deadline.is_zero() {
                true => u64::MAX,
                false => now.saturating_add(clock::nanos(settings.deadline)),
            },
            feeds_latency: traits.feeds_latency,
            repeats: 0,
            race_lost: false,
            rescued: false,
            hedged: false,
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

    /// The app that the request names; none is the main one.
    pub(super) fn app_name(&self, api_path: &str) -> Option<&str> {
        let text = |bytes| str::from_utf8(bytes).ok();
        let x_app = self.head.value(Known::XApp).and_then(text);
        let target = text(self.head.target()).unwrap_or_default();
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        nocobase::app_name(x_app, path, query, api_path)
    }

    /// The node that a valid sticky cookie names.
    fn sticky(&self, upstream: &LocalUpstream) -> Option<u64> {
        let settings = upstream.upstream.settings.sticky.as_ref()?;
        let value = headers::cookie(self.head, &settings.cookie)?;
        upstream.signer.as_ref()?.verify(value, unix_s(), settings.max_life)
    }
}
