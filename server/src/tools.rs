//! What the binary does besides serving.

mod import;
mod zookeeper;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::{argument, key_and_value};
use crate::config::{Config, ConfigError, Sources};
use crate::exit::ExitCode;
use import::ImportError;

/// The tools, with their arguments.
#[derive(Debug, Subcommand)]
pub enum Tool {
    /// Takes over the data of a ZooKeeper, which must have stopped.
    ///
    /// Reads its newest good snapshot and the logs behind it, compares the digests on the way, and
    /// writes the result as ringkeeper's own data below the same directories. Then `version-2` is
    /// renamed to `version-2.imported-by-ringkeeper`, and a file takes its place, so that no
    /// ZooKeeper starts from what is out of date. Nothing is changed if anything is wrong.
    Import(Import),
}

/// Where data lies.
#[derive(Debug, Args)]
struct DataArgs {
    /// The zoo.cfg that says where the data is.
    #[arg(required_unless_present = "data_dir")]
    config: Option<PathBuf>,

    /// Where data lives (dataDir).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,

    /// Where the log lives, if elsewhere (dataLogDir).
    #[arg(long, value_name = "DIR")]
    data_log_dir: Option<String>,

    /// Any setting, as a line of zoo.cfg would have it; what was a system property of ZooKeeper,
    /// too: -D extendedTypesEnabled=true. May be given more than once.
    #[arg(short = 'D', value_name = "KEY=VALUE", value_parser = key_and_value)]
    define: Vec<(String, String)>,
}

/// The arguments of `ringkeeper import`.
#[derive(Debug, Args)]
pub struct Import {
    #[command(flatten)]
    data: DataArgs,

    /// Goes on where ZooKeeper would, but something is missing or not as it says it was.
    #[arg(long)]
    force: bool,
}

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data cannot be taken over.
    #[error("{0}")]
    Import(String, ExitCode),
    /// What is to be said cannot be written.
    #[error("writing the report: {0}")]
    Report(#[from] io::Error),
}

impl From<ImportError> for ToolError {
    fn from(error: ImportError) -> Self {
        Self::Import(error.to_string(), error.exit_code())
    }
}

impl ToolError {
    /// What the process tells whoever started it.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) => ExitCode::BadInvocation,
            Self::Import(_, code) => *code,
            Self::Report(_) => ExitCode::Unexpected,
        }
    }
}

impl Tool {
    /// Does it, and says on `out` what was done.
    pub fn run(self, out: &mut impl Write) -> Result<(), ToolError> {
        match self {
            Self::Import(Import { data, force }) => {
                let imported = import::run(&data.load()?, force)?;
                write!(out, "{imported}")?;
            }
        }
        Ok(out.flush()?)
    }
}

impl DataArgs {
    fn load(self) -> Result<Config, ConfigError> {
        let mut sources = Sources { file: self.config, ..Sources::default() };
        let places = [
            ("--data-dir", "dataDir", self.data_dir),
            ("--data-log-dir", "dataLogDir", self.data_log_dir),
        ];
        for (option, key, value) in places {
            sources.arguments.extend(value.map(|value| argument(option, key, value)));
        }
        for (key, value) in self.define {
            sources.arguments.push(argument(&format!("-D {key}"), &key, value));
        }
        Config::load(&sources)
    }
}
