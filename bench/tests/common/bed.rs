//! Runs commands of a plan against the real ringkeeper binary.

use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::LazyLock;

use bench::cli::{self, Outcome};
use bench::ensemble::Ensemble;
use bench::load::Target;
use bench::plan::{Plan, PlanOptions};
use bench::progress::Progress;
use serde_json::Value;

/// The server's binary: what `RINGKEEPER` names, or the release build, made up to date.
pub static RINGKEEPER: LazyLock<PathBuf> = LazyLock::new(|| {
    if let Some(given) = std::env::var_os("RINGKEEPER") {
        return given.into();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let built = Process::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--package", "ringkeeper"])
        .current_dir(root)
        .status()
        .unwrap();
    assert!(built.success());
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    target.join("release/ringkeeper")
});

/// A plan in a directory of its own, and what is run of it.
pub struct Bed {
    pub options: PlanOptions,
    plan: Plan,
    _scratch: tempfile::TempDir,
}

impl Bed {
    pub fn new(plan: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("plan.toml");
        std::fs::write(&path, plan).unwrap();
        let options = PlanOptions {
            plan: path,
            variables: vec![("ringkeeper".into(), RINGKEEPER.display().to_string())],
            directory: scratch.path().to_owned(),
        };
        let plan = options.read().unwrap();
        Self { options, plan, _scratch: scratch }
    }

    fn start(&self) -> Ensemble {
        let template = self.plan.template("ringkeeper").unwrap();
        let variables = self.options.variables(&self.plan);
        let directory = self.options.directory.join("servers");
        let mut servers = Ensemble::prepare(template, &variables, &directory).unwrap();
        servers.start().unwrap();
        servers
    }

    /// Runs a command against servers of its own, or ones that the command starts.
    pub fn run(&self, line: &str) -> Outcome {
        let mut command = cli::parse(line).unwrap();
        let servers = (!command.starts_servers()).then(|| self.start());
        let target = servers.as_ref().map_or_else(
            || Target::of_all(&[], Vec::new()),
            |servers| Target::of_all(&servers.addresses(), servers.pids()),
        );
        command.aim(&target, &self.options, "ringkeeper");
        let outcome = command.run(&Progress::new(true)).unwrap();
        assert!(outcome.is_right, "{}", outcome.text);
        outcome
    }
}

/// The number at a JSON pointer.
pub fn number(json: &Value, field: &str) -> f64 {
    json.pointer(field).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {field} in {json}"))
}
