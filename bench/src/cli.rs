//! The command line, and what a command gives back.
//!
//! `compare` runs the same commands out of a plan file, so parsing and running live here and not
//! in the binary.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use serde::Serialize;
use serde_json::Value;

use crate::compare::{self, CompareOptions};
use crate::failover::{self, timeline::Timeline};
use crate::fill::{self, FillOptions};
use crate::limits::close::{VictimOptions, be_victim};
use crate::limits::{self, LimitsOptions};
use crate::load::report::LoadReport;
use crate::load::{self, LoadOptions, Target};
use crate::output::Output;
use crate::plan::PlanOptions;
use crate::progress::Progress;
use crate::recovery::{self, RecoveryOptions};
use crate::sessions::{self, SessionsOptions};
use crate::soak::{self, SoakOptions};
use crate::watch::{self, WatchOptions};

/// Measures any server that speaks ZooKeeper's client protocol.
///
/// Starts nothing unless asked: load, watch, sessions and fill need a server that runs; limits
/// needs none; recovery and compare start servers from the templates of a plan file.
#[derive(Debug, Parser)]
#[command(name = "ringkeeper-bench", version)]
pub struct Arguments {
    /// Say nothing while running
    #[arg(long, short, global = true)]
    pub quiet: bool,
    #[command(flatten)]
    /// Where results go.
    pub output: Output,
    #[command(subcommand)]
    /// What to do.
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Operations at a depth or at a rate
    Load(LoadOptions),
    /// One setData, many watchers
    Watch(WatchOptions),
    /// Many idle sessions
    Sessions(SessionsOptions),
    /// A tree of many znodes
    Fill(FillOptions),
    /// kill -9 and restart of a server with many znodes; what happens to a server of an ensemble
    Recovery(RecoveryOptions),
    /// A load for hours: drift of latency and memory
    Soak(SoakOptions),
    /// What this machine allows: append, echo, fanout, wake, map, close; what this program costs
    Limits(LimitsOptions),
    /// The same work for several servers in turn, from a plan file
    Compare(CompareOptions),
    /// Holds memory until it is killed; started by limits
    #[command(hide = true)]
    LimitsVictim(VictimOptions),
}

/// What a command gives back.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The first word of the command.
    pub command: &'static str,
    /// For people.
    pub text: String,
    /// For programs.
    pub json: Value,
    /// Whether the server did nothing that it must not do.
    pub is_right: bool,
    /// Loads that were part of it, with a name each.
    pub loads: Vec<(String, LoadReport)>,
    /// Acknowledged writes around the loss of a server.
    pub timelines: Vec<Timeline>,
    /// Results of a comparison.
    pub table: Option<compare::Table>,
}

impl Outcome {
    fn of(
        command: &'static str,
        report: &(impl std::fmt::Display + Serialize),
    ) -> anyhow::Result<Self> {
        let json = serde_json::to_value(report).context("a result has no JSON")?;
        let text = report.to_string();
        Ok(Self { command, text, json, is_right: true, ..Self::default() })
    }
}

impl Command {
    /// Runs it.
    pub fn run(&self, progress: &Progress) -> anyhow::Result<Outcome> {
        Ok(match self {
            Self::Load(options) => {
                let report = load::run(options, progress)?;
                let is_right = report.violations.total() == 0;
                let outcome = Outcome::of("load", &report)?;
                Outcome { is_right, loads: vec![(options.mix.text.clone(), report)], ..outcome }
            }
            Self::Watch(options) => {
                let report = watch::run(options, progress)?;
                let is_right = report.violations.total() == 0;
                Outcome { is_right, ..Outcome::of("watch", &report)? }
            }
            Self::Sessions(options) => Outcome::of("sessions", &sessions::run(options, progress)?)?,
            Self::Fill(options) => Outcome::of("fill", &fill::run(options, progress)?)?,
            Self::Recovery(options) if options.is_of_ensemble()? => {
                let report = failover::run(options, progress)?;
                let is_right = report.violations.total() == 0;
                let outcome = Outcome::of("recovery", &report)?;
                Outcome { is_right, timelines: report.timelines(), ..outcome }
            }
            Self::Recovery(options) => {
                let report = recovery::run(options, progress)?;
                let is_right = report.violations.total() == 0;
                let outcome = Outcome::of("recovery", &report)?;
                let name = |number| format!("{}, killing {number}", options.server);
                let loads = (1..=report.loads.len()).map(name).zip(report.loads).collect();
                Outcome { is_right, loads, ..outcome }
            }
            Self::Soak(options) => {
                let report = soak::run(options, progress)?;
                let is_right = report.violations.total() == 0;
                Outcome { is_right, ..Outcome::of("soak", &report)? }
            }
            Self::Limits(options) => Outcome::of("limits", &limits::run(options, progress)?)?,
            Self::Compare(options) => compare::run(options, progress)?,
            Self::LimitsVictim(options) => {
                be_victim(*options)?;
                Outcome { is_right: true, ..Outcome::default() }
            }
        })
    }

    /// Points a command of a plan at a server: where it is, or where its template is.
    pub fn aim(&mut self, target: &Target, plan: &PlanOptions, server: &str) {
        match self {
            Self::Load(options) => options.target = target.clone(),
            Self::Watch(options) => options.target = target.clone(),
            Self::Sessions(options) => options.target = target.clone(),
            Self::Fill(options) => options.target = target.clone(),
            Self::Soak(options) => {
                options.target = target.clone();
                options.plan = plan.clone();
                if let Some(own) = &mut options.server {
                    server.clone_into(own);
                }
            }
            Self::Recovery(options) => {
                options.plan = plan.clone();
                server.clone_into(&mut options.server);
            }
            Self::Limits(_) | Self::Compare(_) | Self::LimitsVictim(_) => {}
        }
    }

    /// Whether it starts its server itself.
    pub fn starts_servers(&self) -> bool {
        match self {
            Self::Recovery(_) | Self::Compare(_) => true,
            Self::Soak(options) => options.server.is_some(),
            _ => false,
        }
    }
}

/// Parses a command of a plan file.
pub fn parse(line: &str) -> anyhow::Result<Command> {
    let words = std::iter::once("ringkeeper-bench").chain(line.split_whitespace());
    let arguments = Arguments::try_parse_from(words).with_context(|| format!("`{line}`"))?;
    Ok(arguments.command)
}
