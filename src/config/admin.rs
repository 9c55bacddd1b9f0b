//! `[admin]`, as meant.

use std::path::PathBuf;

use super::defaults;
use crate::net::Address;

/// `[admin]`
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// Off takes `status` and the other verbs away.
    pub enabled: bool,
    /// Loopback or a Unix socket unless `token_file` is given.
    pub bind: Address,
    /// Of a Unix socket: who of this machine may connect.
    pub mode: u32,
    /// Names that the listener is called by, besides addresses and `localhost`; in lower case.
    pub hosts: Vec<String>,
    /// Holds the tokens that may do everything.
    pub token_file: Option<PathBuf>,
    /// Holds the tokens that may only read.
    pub read_token_file: Option<PathBuf>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            enabled: true,
            bind: Address::Tcp(defaults::ADMIN_BIND),
            mode: defaults::ADMIN_SOCKET_MODE,
            hosts: Vec::new(),
            token_file: None,
            read_token_file: None,
        }
    }
}
