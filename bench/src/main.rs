//! The `ringkeeper-bench` binary: measures any server that speaks ZooKeeper's client protocol.

use std::process::ExitCode;

use bench::cli::Arguments;
use bench::progress::Progress;
use clap::Parser as _;

/// The server did what it must not do.
const EXIT_WRONG: u8 = 2;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ringkeeper-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let outcome = arguments.command.run(&Progress::new(arguments.quiet))?;
    arguments.output.show(&outcome)?;
    Ok(if outcome.is_right { ExitCode::SUCCESS } else { ExitCode::from(EXIT_WRONG) })
}
