//! `POST /api/v1/upgrade`.

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::reply::{self, Reply};
use crate::control::Handle;
use crate::control::upgrade::{UpgradeError, Upgraded};

/// Where.
pub(crate) const PATH: &str = "/api/v1/upgrade";

/// What an upgrade that went well is answered with.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The process that has taken over.
    pub(crate) pid: u32,
    /// The one that answers this, and ends.
    pub(crate) old: Old,
}

/// What is left to the old process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Old {
    /// Its number.
    pub(crate) pid: u32,
    /// Requests that it finishes.
    pub(crate) requests: u32,
    /// Tunnels that it moves to the new one.
    pub(crate) tunnels: u32,
}

/// 200 when the new process serves; 409 where none is started; 422 when the new one could not.
pub(super) async fn answer(handle: &Handle) -> Reply {
    match handle.upgrade().await {
        Ok(Upgraded { pid, requests, tunnels }) => {
            let old = Old { pid: std::process::id(), requests, tunnels };
            reply::json(StatusCode::OK, &Answer { pid, old })
        }
        Err(error) => reply::error(status(&error), &error.to_string()),
    }
}

fn status(error: &UpgradeError) -> StatusCode {
    match error {
        UpgradeError::Failed(_) => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::CONFLICT,
    }
}
