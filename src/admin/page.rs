//! The page at `/`: what is here, for people who come with a browser.

use std::fmt::Write as _;

use http::StatusCode;

use super::reply::{self, Reply};
use crate::control::Handle;

const HEAD: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>cobalance</title>\
<style>body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:46rem;padding:0 1rem;\
color-scheme:light dark}td,th{text-align:left;padding:.1rem 1rem .1rem 0}</style>";

const LINKS: &str = "<ul><li><a href=\"/api/v1/status\">/api/v1/status</a>: nodes, configuration and \
warnings as JSON</li><li><a href=\"/metrics\">/metrics</a>: for Prometheus</li>\
<li><a href=\"/readyz\">/readyz</a>, <a href=\"/livez\">/livez</a>: for orchestrators</li></ul>\
<p>In a terminal, <code>cobalance status</code> shows the same as a table.</p>";

/// The nodes as they are at this moment, and where to find more.
pub(super) fn render(handle: &Handle) -> Reply {
    let mut page = format!("{HEAD}<h1>cobalance {}</h1>", env!("CARGO_PKG_VERSION"));
    page.push_str("<table><tr><th>upstream<th>node<th>state<th>in flight<th>tunnels");
    for upstream in &handle.snapshot().upstreams {
        for member in &upstream.nodes {
            let (node, name) = (&member.node, escape(&upstream.settings.name));
            // Writing to a String cannot fail.
            let _ = write!(
                page,
                "<tr><td>{name}<td>{}<td>{}<td>{}<td>{}",
                escape(&node.label),
                node.shown().as_str(),
                node.in_flight(),
                node.tunnels()
            );
        }
    }
    page.push_str("</table>");
    page.push_str(LINKS);
    reply::with_type(StatusCode::OK, "text/html; charset=utf-8", page)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_cannot_become_markup() {
        assert_eq!(super::escape("a<b>&c"), "a&lt;b&gt;&amp;c");
    }
}
