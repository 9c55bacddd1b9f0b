//! `cobalance rollback`.

use super::find::{self, Where};
use super::{Failure, good, print};
use crate::control::rollback::RolledBack;

/// Go back to the last configuration that passed its probation
///
/// A reloaded file is on probation until enough requests have shown that it does no worse than what was in
/// use before; then this goes back to the one before it. The file on disk stays as it is: the next change of
/// it is put in use as ever, and so it is by `cobalance reload` or a restart.
#[derive(Debug, clap::Args)]
pub(super) struct Rollback {
    #[command(flatten)]
    at: Where,
}

/// Goes back, and says what holds now.
pub(super) fn roll_back(asked: &Rollback) -> Result<(), Failure> {
    let answer = good(find::admin(&asked.at)?.post("/api/v1/rollback", "{}")?)?;
    let done: RolledBack = serde_json::from_str(&answer.body)
        .map_err(|error| anyhow::anyhow!("the answer is of another version: {error}"))?;
    let RolledBack { from, to, generation, .. } = done;
    print(&format!("rolled back from configuration {from}: {generation} is in use, as {to} was"));
    eprintln!("note: the file on disk is another one now; correct it before the next restart");
    Ok(())
}
