//! `compare`: the same work for several servers in turn, and how many times better one is.
//!
//! In each repeat the floors are measured, then each server is started on an empty directory,
//! warmed up, and given all the work; then the next. Ratios are of medians; their spread is that
//! of the ratios within a repeat, where both servers met the same mood of the machine.

pub mod table;

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::{self, Command, Outcome};
use crate::ensemble::Ensemble;
use crate::failover::timeline::Timeline;
use crate::limits::{self, Group, LimitsReport};
use crate::load::Target;
use crate::plan::{Plan, PlanOptions, Via, Work};
use crate::progress::Progress;
use crate::server::{Variables, scratch_in};

pub use self::table::{Row, Table};

/// Pause after a server has stopped, for the disk to settle.
const SETTLE: Duration = Duration::from_millis(500);

/// The arguments of `compare`.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct CompareOptions {
    #[command(flatten)]
    #[serde(flatten)]
    /// The plan.
    pub plan: PlanOptions,
    /// Only these servers of it
    #[arg(long, value_delimiter = ',')]
    pub servers: Vec<String>,
    /// Only work whose name contains this
    #[arg(long)]
    pub only: Option<String>,
    /// How often, in place of what the plan says
    #[arg(long)]
    pub repeats: Option<usize>,
}

/// One figure that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Which repeat, from 0.
    pub repeat: usize,
    /// Which server.
    pub server: String,
    /// Which work, by its place in the plan.
    pub work: usize,
    /// The figure, in its unit.
    pub figure: f64,
    /// The server's CPU time per operation, microseconds.
    pub cpu_us: Option<f64>,
}

struct Run<'a> {
    options: &'a CompareOptions,
    plan: &'a Plan,
    variables: Variables,
    scratch: &'a Path,
    progress: &'a Progress,
    table: Table,
    results: Vec<Value>,
    outcome: Outcome,
}

/// Runs the plan.
pub fn run(options: &CompareOptions, progress: &Progress) -> anyhow::Result<Outcome> {
    let mut plan = options.plan.read()?;
    if let Some(only) = &options.only {
        plan.work.retain(|work| work.name.contains(only.as_str()));
    }
    if !options.servers.is_empty() {
        plan.server.retain(|template| options.servers.contains(&template.name));
    }
    ensure!(!plan.work.is_empty() && !plan.server.is_empty(), "nothing of the plan is left to do");
    // A mistake in the last line of a plan must not show after an hour.
    plan.work.iter().try_for_each(|work| cli::parse(&work.run).map(drop))?;
    let scratch = scratch_in(&options.plan.directory)?;
    let names = plan.server.iter().map(|template| template.name.clone()).collect();
    let mut run = Run {
        options,
        plan: &plan,
        variables: options.plan.variables(&plan),
        scratch: scratch.path(),
        progress,
        table: Table::new(names, plan.reference.clone(), plan.work.clone()),
        results: Vec::new(),
        outcome: Outcome { command: "compare", is_right: true, ..Outcome::default() },
    };
    for repeat in 0..options.repeats.unwrap_or(plan.repeats) {
        run.repeat(repeat)?;
    }
    let Run { table, results, mut outcome, .. } = run;
    outcome.text = table.to_string();
    outcome.json = json!({ "table": table.rows(), "results": results });
    outcome.table = Some(table);
    Ok(outcome)
}

impl Run<'_> {
    fn repeat(&mut self, repeat: usize) -> anyhow::Result<()> {
        if let Some(line) = &self.plan.limits {
            self.progress.say(&format!("repeat {}: {line}", repeat + 1));
            if let Command::Limits(mut limits) = cli::parse(line)? {
                limits.directory.clone_from(&self.options.plan.directory);
                let floors = limits::run(&limits, &Progress::new(true))?;
                self.results.push(json!({ "repeat": repeat, "limits": floors }));
                self.table.floors.push(floors_of(&floors));
            }
        }
        for index in 0..self.plan.server.len() {
            self.serve(repeat, index)?;
            thread::sleep(SETTLE);
        }
        Ok(())
    }

    /// All work for one server.
    fn serve(&mut self, repeat: usize, index: usize) -> anyhow::Result<()> {
        let plan = self.plan;
        let name = &plan.server[index].name;
        let works: Vec<_> = plan.work.iter().enumerate().collect();
        let (apart, shared): (Vec<_>, Vec<_>) =
            works.into_iter().partition(|(_, work)| work.fresh || starts_servers(work));
        if !shared.is_empty() {
            let servers = self.start(repeat, index)?;
            let target = target_of(&servers, Via::All)?;
            for line in &plan.warm_up {
                self.progress.say(&format!("repeat {}, {name}: {line}", repeat + 1));
                let mut command = cli::parse(line)?;
                command.aim(&target, &self.options.plan, name);
                command.run(&Progress::new(true))?;
            }
            let mut last = None;
            for (number, work) in shared {
                // Two figures of the same command are taken from one run of it.
                let outcome = match last.take() {
                    Some((run, via, outcome)) if (run, via) == (&work.run, work.via) => outcome,
                    _ => self.measure(repeat, name, work, &target_of(&servers, work.via)?)?,
                };
                self.take(repeat, name, number, work, &outcome)?;
                last = Some((&work.run, work.via, outcome));
            }
        }
        let mut last = None;
        for (number, work) in apart {
            let outcome = match last.take() {
                Some((run, outcome)) if run == &work.run && !work.fresh => outcome,
                _ => self.measure_apart(repeat, index, work)?,
            };
            if let Some(outcome) = &outcome {
                self.take(repeat, name, number, work, outcome)?;
            }
            last = Some((&work.run, outcome));
        }
        Ok(())
    }

    /// Measures what has servers of its own. If that fails, all else is still worth knowing: it has
    /// no figure, and the comparison is not right.
    fn measure_apart(
        &mut self,
        repeat: usize,
        index: usize,
        work: &Work,
    ) -> anyhow::Result<Option<Outcome>> {
        let name = &self.plan.server[index].name;
        let servers = if work.fresh { Some(self.start(repeat, index)?) } else { None };
        let target = match &servers {
            Some(servers) => target_of(servers, work.via)?,
            None => nowhere(),
        };
        let measured = self.measure(repeat, name, work, &target);
        let Err(error) = measured else { return measured.map(Some) };
        self.progress.say(&format!("failed: {error:#}"));
        self.results.push(json!({
            "repeat": repeat, "server": name, "work": work.name, "error": format!("{error:#}"),
        }));
        self.outcome.is_right = false;
        Ok(None)
    }

    fn start(&self, repeat: usize, index: usize) -> anyhow::Result<Ensemble> {
        let template = &self.plan.server[index];
        let directory = self.scratch.join(format!("{}-{repeat}", template.name));
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        let mut servers = Ensemble::prepare(template, &self.variables, &directory)?;
        servers.start()?;
        Ok(servers)
    }

    fn measure(
        &mut self,
        repeat: usize,
        server: &str,
        work: &Work,
        target: &Target,
    ) -> anyhow::Result<Outcome> {
        self.progress.say(&format!("repeat {}, {server}: {}", repeat + 1, work.name));
        let mut command = cli::parse(&work.run)?;
        let mut plan = self.options.plan.clone();
        plan.directory = self.scratch.to_owned();
        command.aim(target, &plan, server);
        let mut outcome = command
            .run(&Progress::new(true))
            .with_context(|| format!("{server}: {}", work.name))?;
        self.results.push(json!({
            "repeat": repeat, "server": server, "work": work.name, "result": outcome.json,
        }));
        self.outcome.is_right &= outcome.is_right;
        if repeat == 0 {
            let named = |(_, load)| (format!("{server}: {}", work.name), load);
            self.outcome.loads.extend(outcome.loads.drain(..).map(named));
            let named = |timeline: Timeline| Timeline {
                name: format!("{server}: {}", work.name),
                ..timeline
            };
            self.outcome.timelines.extend(outcome.timelines.drain(..).next().map(named));
        }
        Ok(outcome)
    }

    fn take(
        &mut self,
        repeat: usize,
        server: &str,
        number: usize,
        work: &Work,
        outcome: &Outcome,
    ) -> anyhow::Result<()> {
        let field = outcome.json.pointer(&work.figure).and_then(Value::as_f64);
        let figure =
            field.with_context(|| format!("`{}` has no number at {}", work.run, work.figure))?;
        let cpu = ["/server_cpu_us_per_op", "/server_cpu_us_per_event"];
        let cpu_us = cpu.iter().find_map(|field| outcome.json.pointer(field)?.as_f64());
        let figure = figure * work.scale;
        self.progress.say(&format!("  {} {}", table::number(figure), work.unit));
        let server = server.to_owned();
        self.table.samples.push(Sample { repeat, server, work: number, figure, cpu_us });
        Ok(())
    }
}

fn starts_servers(work: &Work) -> bool {
    cli::parse(&work.run).is_ok_and(|command| command.starts_servers())
}

/// The servers that a work talks to; CPU time and memory are always those of all.
fn target_of(servers: &Ensemble, via: Via) -> anyhow::Result<Target> {
    let addresses = servers.addresses();
    let chosen = via.choose(addresses.len(), servers.leader()?);
    let chosen: Vec<_> = chosen.into_iter().map(|index| addresses[index]).collect();
    Ok(Target::of_all(&chosen, servers.pids()))
}

/// The target of a command that starts its server itself.
fn nowhere() -> Target {
    Target::of_all(&[], Vec::new())
}

/// The floors that works refer to: name, group, and what the ways of measuring it begin with.
const FLOORS: [(&str, Group, &str); 4] = [
    ("echo-get", Group::Echo, "getData"),
    ("echo-set", Group::Echo, "setData"),
    ("append", Group::Append, "4 KiB"),
    ("fanout", Group::Fanout, ""),
];

/// The floors that were measured, microseconds.
fn floors_of(report: &LimitsReport) -> BTreeMap<String, f64> {
    let floors = FLOORS.into_iter();
    floors
        .filter_map(|(name, group, way)| Some((name.into(), report.best_us(group, way)?)))
        .collect()
}
