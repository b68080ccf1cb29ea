//! The `ringkeeper-bench` binary: measures any server that speaks ZooKeeper's client protocol.

use std::fmt;
use std::process::ExitCode;

use bench::fill::{self, FillOptions};
use bench::limits::close::{VictimOptions, be_victim};
use bench::limits::{self, LimitsOptions};
use bench::load::{self, LoadOptions};
use bench::progress::Progress;
use bench::sessions::{self, SessionsOptions};
use bench::watch::{self, WatchOptions};
use clap::{Parser, Subcommand};
use serde::Serialize;

/// Measures any server that speaks ZooKeeper's client protocol.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Say nothing while running
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Print the result as one line of JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Operations at a depth or at a rate
    Load(LoadOptions),
    /// One setData, many watchers
    Watch(WatchOptions),
    /// Many idle sessions
    Sessions(SessionsOptions),
    /// A tree of many znodes
    Fill(FillOptions),
    /// What this machine allows: append, echo, wake, map and close
    Limits(LimitsOptions),
    /// Holds memory until it is killed; started by limits
    #[command(hide = true)]
    LimitsVictim(VictimOptions),
}

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
    let progress = Progress::new(arguments.quiet);
    match &arguments.command {
        Command::Load(options) => {
            let report = load::run(options, &progress)?;
            show(arguments, &report)?;
            return Ok(verdict(report.violations.total() == 0));
        }
        Command::Watch(options) => {
            let report = watch::run(options, &progress)?;
            show(arguments, &report)?;
            return Ok(verdict(report.violations.total() == 0));
        }
        Command::Sessions(options) => show(arguments, &sessions::run(options, &progress)?)?,
        Command::Fill(options) => show(arguments, &fill::run(options, &progress)?)?,
        Command::Limits(options) => show(arguments, &limits::run(options, &progress)?)?,
        Command::LimitsVictim(options) => be_victim(*options)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(arguments: &Arguments, report: &(impl fmt::Display + Serialize)) -> anyhow::Result<()> {
    if arguments.json {
        println!("{}", serde_json::to_string(report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

/// A server that did what it must not do is worth an exit code.
fn verdict(is_right: bool) -> ExitCode {
    if is_right { ExitCode::SUCCESS } else { ExitCode::from(2) }
}
