//! The `edgegen` program.

mod cli;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: cli::measure::Counting = cli::measure::Counting;

fn main() -> ExitCode {
    cli::main()
}
