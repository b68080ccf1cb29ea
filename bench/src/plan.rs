//! Plan files: which servers, which work, how often, and which figures count.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::server::{Template, Variables};

/// Which plan, and what its placeholders stand for.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct PlanOptions {
    /// The plan file (its servers are the templates to start from)
    #[arg(long, default_value = "bench/plans/standalone.toml")]
    pub plan: PathBuf,
    /// What a placeholder of the plan stands for, as name=value; may be given several times
    #[arg(long = "set", value_parser = parse_variable)]
    pub variables: Vec<(String, String)>,
    /// Where the servers' directories are made
    #[arg(long, default_value = ".")]
    pub directory: PathBuf,
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text} is not name=value"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A plan file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// How often everything is measured.
    pub repeats: usize,
    /// The server that others are compared with.
    pub reference: String,
    /// The command that measures the floors, once per repeat.
    pub limits: Option<String>,
    /// Commands that run before anything is measured on a server that was just started.
    #[serde(default)]
    pub warm_up: Vec<String>,
    /// What placeholders stand for unless the command line says otherwise.
    #[serde(default)]
    pub variables: Variables,
    /// The servers.
    pub server: Vec<Template>,
    /// What is measured.
    #[serde(default)]
    pub work: Vec<Work>,
}

/// One line of the table.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// What it is called.
    pub name: String,
    /// The command, without hosts and pid.
    pub run: String,
    /// The field of its JSON that counts, as a JSON pointer.
    pub figure: String,
    /// What the figure is multiplied by, to have it in `unit`.
    #[serde(default = "one")]
    pub scale: f64,
    /// Its unit.
    pub unit: String,
    /// Which way is better.
    pub better: Better,
    /// Whether it needs a server that has just been started on an empty directory.
    #[serde(default)]
    pub fresh: bool,
    /// Which servers of an ensemble it talks to.
    #[serde(default)]
    pub via: Via,
    /// The floors that add up to the least it can be: echo-get, echo-set, append, fanout. Only
    /// for figures that are microseconds before they are scaled.
    #[serde(default)]
    pub floor: Vec<String>,
}

fn one() -> f64 {
    1.0
}

/// Which servers of an ensemble are talked to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// All of them, the leader last: connections are dealt out in turn.
    #[default]
    All,
    /// Only the leader.
    Leader,
    /// Only one follower.
    Follower,
}

impl Via {
    /// The servers, of `count`, one of which leads.
    pub fn choose(self, count: usize, leader: usize) -> Vec<usize> {
        let followers = (0..count).filter(|index| *index != leader);
        match self {
            Self::All => followers.chain([leader]).collect(),
            Self::Leader => vec![leader],
            // The only server is its own leader, and all there is.
            Self::Follower => vec![followers.min().unwrap_or(leader)],
        }
    }
}

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

impl Better {
    /// How many times better `figure` is than `reference`.
    pub fn times(self, figure: f64, reference: f64) -> f64 {
        match self {
            Self::Higher => figure / reference,
            Self::Lower => reference / figure,
        }
    }
}

impl PlanOptions {
    /// Reads and checks the plan.
    pub fn read(&self) -> anyhow::Result<Plan> {
        read(&self.plan)
    }

    /// The plan's variables, and those of the command line over them.
    pub fn variables(&self, plan: &Plan) -> Variables {
        let mut variables = plan.variables.clone();
        variables.extend(self.variables.iter().cloned());
        variables
    }
}

fn read(path: &Path) -> anyhow::Result<Plan> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let plan: Plan = toml::from_str(&text).with_context(|| format!("{}", path.display()))?;
    ensure!(plan.repeats > 0, "{}: repeats must be at least 1", path.display());
    plan.template(&plan.reference)?;
    Ok(plan)
}

impl Plan {
    /// The server of a name.
    pub fn template(&self, name: &str) -> anyhow::Result<&Template> {
        let found = self.server.iter().find(|template| template.name == name);
        found.with_context(|| format!("the plan has no server called {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_reaches_the_servers_that_its_plan_names() {
        let chosen = [Via::All, Via::Leader, Via::Follower].map(|via| via.choose(3, 0));
        assert_eq!(chosen, [vec![1, 2, 0], vec![0], vec![1]]);
        let alone = [Via::All, Via::Leader, Via::Follower].map(|via| via.choose(1, 0));
        assert_eq!(alone, [[0], [0], [0]]);
    }

    #[test]
    fn the_plans_that_are_kept_here_can_be_read() {
        for plan in ["standalone.toml", "ensemble.toml", "ringkeeper.toml"] {
            let plans = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
            let plan = read(&plans.join(plan)).unwrap();
            for line in plan.warm_up.iter().chain(plan.work.iter().map(|work| &work.run)) {
                crate::cli::parse(line).unwrap();
            }
        }
    }
}
