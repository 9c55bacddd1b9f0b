//! Control as a whole, with real origins and data threads that only obey.

pub(crate) mod support;
