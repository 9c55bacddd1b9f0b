//! `cobalance run`.

use super::{Failure, Run, find};
use crate::config::{self, Server};
use crate::server::{self, Options};
use crate::telemetry::process_log;

/// Serves until a signal ends it.
pub(super) fn run(asked: &Run) -> Result<(), Failure> {
    process_log::init(process_log::DEFAULT);
    match server::run(options(asked)?) {
        0 => Ok(()),
        // Why has been told where it happened.
        code => Err(Failure { code, message: String::new() }),
    }
}

fn options(asked: &Run) -> Result<Options, Failure> {
    if asked.listen.is_empty() {
        return Ok(Options::File(find::file(asked.config.as_deref())));
    }
    let config = config::from_flags(&asked.listen, &asked.node, asked.admin.clone());
    let mut config = config.map_err(|errors| Failure::configuration(errors.join("\nerror: ")))?;
    config.server.state_file = Server::implied_state_file(&|name| std::env::var(name).ok());
    Ok(Options::Flags(Box::new(config)))
}
