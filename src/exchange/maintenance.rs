//! Exchanges of an upstream under maintenance, or whose pinned node is gone: a page for people, NocoBase's JSON
//! for its client, and WebSockets that are kept open here, until the nodes may be asked again.
//!
//! Whoever the operator lets through goes on to the nodes, or to the one that is to be verified.

use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;

use super::answer::{self, Content, Shape};
use super::view::LocalUpstream;
use super::{Exchange, Next, Plan};
use crate::config::Preset;
use crate::error::Cause;
use crate::headers::write_field;
use crate::http1::request::RequestHead;
use crate::http1::websocket;
use crate::nocobase;
use crate::telemetry::metrics::MaintenanceKind;
use crate::upstream::Maintenance;
use crate::upstream::maintenance::{self, Terms};

use super::tunnel::frames;

mod held;
mod keeper;
mod pass;
mod reader;

pub use held::{Hold, spawn};
pub use keeper::Keeper;

impl Exchange<'_> {
    /// Answers an exchange of an upstream under maintenance. None if it may go on: it is let through, or
    /// all is over.
    pub(super) async fn maintain(&mut self, plan: &mut Plan<'_>) -> Option<Result<Next, Cause>> {
        let upstream = plan.upstream;
        let shared = &upstream.upstream.shared;
        let Some(terms) = shared.maintenance.terms() else {
            let terms = shared.outage.terms()?;
            return Some(
                self.turn_away(plan, &shared.outage, &terms, Cause::PinnedUnavailable).await,
            );
        };
        let link = terms.pass.as_ref().and_then(|pass| Some((pass, pass::Link::of(self.head)?)));
        if let Some((pass, link)) = link.as_ref().filter(|(pass, link)| link.is_good(pass)) {
            self.client.thread.buffers.give_back(std::mem::take(&mut plan.node_head));
            return Some(Ok(self.admit(pass, link).await));
        }
        if terms.lets_through(self.record.client) || self.has_pass(&terms) {
            self.record.let_through = terms.state;
            let nodes = upstream.nodes.iter().enumerate();
            let closed = nodes.filter(|(_, member)| !terms.is_open(&member.local.node));
            // What was tried is not picked.
            plan.wish.tried.extend(closed.map(|(index, _)| index));
            return None;
        }
        let terms = match link {
            None => terms,
            Some(_) => Arc::new(Terms { message: pass::stale(&terms.message), ..(*terms).clone() }),
        };
        Some(self.turn_away(plan, &shared.maintenance, &terms, Cause::Maintenance).await)
    }

    /// Whether the exchange may still go where it was let go: nothing was switched while it waited or was at
    /// another node.
    pub(super) fn is_still_let_through(&self, plan: &Plan<'_>) -> bool {
        let state = plan.upstream.upstream.shared.maintenance.state();
        let known = if maintenance::is_on(state) { state } else { 0 };
        self.record.let_through == known
    }

    async fn turn_away(
        &mut self,
        plan: &mut Plan<'_>,
        switch: &Arc<Maintenance>,
        terms: &Terms,
        cause: Cause,
    ) -> Result<Next, Cause> {
        let upstream = plan.upstream;
        self.client.thread.buffers.give_back(std::mem::take(&mut plan.node_head));
        let kind = kind(upstream, self.head);
        upstream.upstream.metrics.maintenance_answers[kind as usize].inc();
        self.record.cause = Some(cause.clone());
        match kind {
            MaintenanceKind::Ws => self.hold(upstream, switch, terms).await,
            kind => Ok(self.say(kind, &cause, &terms.message).await),
        }
    }

    async fn say(&mut self, kind: MaintenanceKind, cause: &Cause, message: &str) -> Next {
        self.record.status = cause.status();
        let (id, keep_alive) = (self.record.id, self.body_done && self.keeps_alive());
        let again = cause.retry_after().unwrap_or_default();
        let (kind, body): (&[u8], String) = match kind {
            MaintenanceKind::Page => {
                (b"text/html; charset=utf-8", page(message, again, id.as_str()))
            }
            MaintenanceKind::Api => (
                b"application/json; charset=utf-8",
                nocobase::maintaining_body(message, id.as_str()),
            ),
            _ => (b"text/plain; charset=utf-8", format!("{message}\n")),
        };
        let content = Content {
            status: cause.status(),
            retry_after: cause.retry_after(),
            limited: None,
            kind,
            body: &body,
        };
        let shape = Shape {
            json: false,
            to_head: self.head.method() == b"HEAD",
            keep_alive,
            maintaining: true,
            request_id: id.as_str(),
        };
        let mut out = self.client.thread.buffers.small();
        answer::write_content(&mut out, &content, &shape);
        self.deliver(out, keep_alive).await
    }

    /// Takes a WebSocket ourselves, and tells its page that there is maintenance.
    async fn hold(
        &mut self,
        upstream: &LocalUpstream,
        switch: &Arc<Maintenance>,
        terms: &Terms,
    ) -> Result<Next, Cause> {
        let key = self.head.value_named(b"sec-websocket-key");
        let key = key.ok_or(Cause::BadRequest("a WebSocket handshake without a key"))?;
        let mut out = self.client.thread.buffers.small();
        out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
        write_field(&mut out, b"Upgrade", b"websocket");
        write_field(&mut out, b"Connection", b"Upgrade");
        write_field(&mut out, b"Sec-WebSocket-Accept", websocket::accept(key).as_bytes());
        // Writing into a Vec cannot fail.
        let _ = write!(out, "X-Request-Id: {}\r\n\r\n", self.record.id.as_str());
        out.extend_from_slice(&frames::text(&nocobase::maintaining_frame(&terms.message)));
        self.begun = true;
        self.client.write([&out, &[], &[]], &self.deadlines.down).await?;
        self.client.thread.buffers.give_back(out);
        self.record.status = 101;
        Ok(Next::Held(Box::new(Hold {
            switch: switch.clone(),
            state: terms.state,
            idle: upstream.upstream.settings.tunnel_idle_timeout,
            counted: Rc::new(upstream.upstream.metrics.count_held()),
            share: self.tunnel_share.take(),
        })))
    }
}

/// Whether a request is for NocoBase's API.
pub(super) fn is_api(upstream: &LocalUpstream, head: &RequestHead) -> bool {
    let settings = &upstream.upstream.settings;
    settings.preset == Preset::NocoBase && head.path().starts_with(settings.api_path.as_bytes())
}

/// What the client can make something of.
fn kind(upstream: &LocalUpstream, head: &RequestHead) -> MaintenanceKind {
    let settings = &upstream.upstream.settings;
    let nocobase = settings.preset == Preset::NocoBase;
    if nocobase && head.websocket && nocobase::is_ws_path(head.path(), &settings.api_path) {
        return MaintenanceKind::Ws;
    }
    if is_api(upstream, head) {
        return MaintenanceKind::Api;
    }
    // Browsers ask for documents in these words, and for nothing else.
    let accept = head.value_named(b"accept").unwrap_or_default();
    match !head.websocket && memchr::memmem::find(accept, b"text/html").is_some() {
        true => MaintenanceKind::Page,
        false => MaintenanceKind::Plain,
    }
}

/// A page that needs nothing else, and comes back by itself.
fn page(message: &str, seconds: u32, request_id: &str) -> String {
    let message = escape(message);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"robots\" content=\"noindex\">\
         <meta http-equiv=\"refresh\" content=\"{seconds}\"><title>Maintenance</title>\
         <style>:root{{color-scheme:light dark}}\
         body{{font:16px/1.5 system-ui,sans-serif;margin:15vh auto;max-width:34em;padding:0 1em}}\
         h1{{font-weight:600}}p{{white-space:pre-line}}small{{opacity:.65}}</style></head>\n\
         <body><h1>Maintenance</h1>\n<p>{message}</p>\n\
         <p><small>This page tries again every {seconds} seconds.\n503 · request {request_id}\
         </small></p></body></html>\n",
    )
}

fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_become_markup() {
        let page = page("<img src=x onerror='a(\"b\")'> & more", 30, "id-1");
        let escaped = "&lt;img src=x onerror=&#39;a(&quot;b&quot;)&#39;&gt; &amp; more";
        assert!(page.contains(escaped) && page.contains("id-1"), "{page}");
        assert!(!page.contains("<img") && !page.contains("src=\"") && !page.contains("href"));
        assert!(page.len() < 2_000);
    }
}
