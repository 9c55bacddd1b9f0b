//! `cobalance upgrade`.

use std::time::Duration;

use super::client::Answer;
use super::find::{self, Where};
use super::{Failure, good, print};
use crate::admin::upgrade::{self, Old};
use crate::server::EXIT_FAILURE;

/// It answers when the new process serves, or after `upgrade_timeout`, which is its own.
const ANSWER_WITHIN: Duration = Duration::from_secs(3600);

/// Put another version of cobalance in the place of a running process, and say what came of it
///
/// The running process starts the program that is on disk now, with its own arguments, and hands its
/// listeners and all that is known of nodes over to it. When that serves, the old process accepts no more,
/// finishes its requests, passes its tunnels on, and ends. If the new one cannot serve, the old
/// one goes on, and this ends with exit code 1.
#[derive(clap::Args, Debug)]
pub(super) struct Upgrade {
    #[command(flatten)]
    at: Where,
}

pub(super) fn upgrade(asked: &Upgrade) -> Result<(), Failure> {
    let answer = find::admin(&asked.at)?.post_within(upgrade::PATH, "{}", ANSWER_WITHIN)?;
    if answer.status == 409 || answer.status == 422 {
        return Err(refused(&answer));
    }
    let answer = good(answer)?;
    let upgrade::Answer { pid, old } = serde_json::from_str(&answer.body)
        .map_err(|error| Failure { code: EXIT_FAILURE, message: error.to_string() })?;
    let Old { pid: old, requests, tunnels } = old;
    print(&format!(
        "process {pid} has taken over; process {old} finishes {requests} requests, passes {tunnels} \
         tunnels on, and ends"
    ));
    Ok(())
}

/// In the words of the new process, without a status that says nothing to an operator.
fn refused(answer: &Answer) -> Failure {
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let said = body["error"]["message"].as_str().unwrap_or(answer.body.trim()).trim_end();
    let message = format!("{said}\nno upgrade: the running process goes on");
    Failure { code: EXIT_FAILURE, message }
}
