//! The `fanfare` binary: see [`fanfare::cli`].

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    fanfare::cli::run()
}
