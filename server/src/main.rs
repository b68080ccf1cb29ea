//! The `ringkeeper` binary: arguments in, exit code out.

use std::process::ExitCode as ProcessExitCode;

use clap::Parser;
use server::cli::Cli;
use server::config::Config;
use server::exit::ExitCode;
use server::{assembly, logging};

/// Says why the server does not start, on the terminal: there may be no log yet.
#[expect(clippy::print_stderr, reason = "the user of a command line looks there")]
fn complain(reason: impl std::fmt::Display) -> ProcessExitCode {
    eprintln!("ringkeeper: {reason}");
    ExitCode::BadInvocation.into()
}

fn main() -> ProcessExitCode {
    let mut cli = Cli::parse();
    if let Some(tool) = cli.tool.take() {
        return match tool.run(&mut std::io::stdout().lock()) {
            Ok(()) => ExitCode::Finished.into(),
            Err(err) => {
                complain(&err);
                err.exit_code().into()
            }
        };
    }
    let sources = match cli.sources() {
        Ok(sources) => sources,
        Err(err) => return complain(err),
    };
    let config = match Config::load(&sources) {
        Ok(config) => config,
        Err(err) => return complain(err),
    };
    // Kept to the end: dropping it writes out the last lines.
    let _log = match logging::init(&config.log_level) {
        Ok(log) => log,
        Err(err) => return complain(err),
    };
    config.log_notes();
    match assembly::run(&config) {
        Ok(()) => ExitCode::Finished.into(),
        Err(err) => {
            tracing::error!("{err}");
            err.exit_code().into()
        }
    }
}
