//! The program `cobalance`. Everything is in the library, where tests reach it.

use std::process::ExitCode;

/// A proxy allocates small and often, and frees on the thread that allocated: what mimalloc is made for.
/// It also gives memory back after a storm of tunnels, which glibc's allocator does late. Measurement may
/// overrule this.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cobalance::cli::main()
}
