//! What the binary does besides serving.

mod backup;
mod dev_ensemble;
mod export;
mod handover;
mod import;
mod inspect;
mod owners;
mod running;
mod zookeeper;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use engine::zookeeper_files::Compression;

use crate::cli::{argument, key_and_value};
use crate::config::{Config, ConfigError, Sources};
use crate::exit::ExitCode;
use backup::BackupError;
use dev_ensemble::DevEnsembleError;
use export::ExportError;
use import::ImportError;
use inspect::InspectError;

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
    /// Writes the data of a server that has stopped as a data directory for a ZooKeeper.
    ///
    /// The snapshot is read back and compared, digest included, before it gets its name; nothing
    /// is overwritten. With `--in-place`, the ZooKeeper goes on where ringkeeper was: `version-2`
    /// comes back with the present data, and `ringkeeper` is renamed, so that no server starts
    /// from what is out of date.
    Export(Export),
    /// Copies the state of a server, running or stopped, to a directory to start from.
    ///
    /// Every write that a client was told of before is in the copy, and nothing of a later one is
    /// there without all before it. A running server goes on meanwhile; this must run on its
    /// machine, as its user or as root.
    Backup(Backup),
    /// Shows what is in a log, a snapshot or another file, of ringkeeper or of ZooKeeper.
    ///
    /// A line for each record: headers, frames, transactions, sessions, ACL lists, znodes, and
    /// damage with its place and reason; then it ends with code 6. Files are known by their bytes,
    /// not by their names, and may be packed with gzip or snappy. Nothing is changed.
    Inspect(Inspect),
    /// Runs an ensemble on this machine, for trying things out.
    ///
    /// Each server is a process with a directory of its own: zoo.cfg, myid, data, log. Their
    /// addresses are printed when they serve. A server that ends is not started again. Ctrl-C
    /// stops all; another start with the same directory goes on with the data.
    DevEnsemble(DevEnsemble),
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

    /// Takes what can be read where something is missing or not as it says it was. A ZooKeeper
    /// would start from most of that, but not from logs without a snapshot (unless it is told
    /// snapshot.trust.empty=true), nor from epochs that contradict each other, nor from a damaged
    /// log. Of that, if it is the last one, all is taken up to the damage.
    #[arg(long)]
    force: bool,
}

/// The arguments of `ringkeeper export`.
#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    data: DataArgs,

    /// The dataDir of the ZooKeeper that is to start from it; made if need be.
    #[arg(long, value_name = "DIR", required_unless_present = "in_place")]
    to: Option<PathBuf>,

    /// Hands the data back to the ZooKeeper whose configuration this is.
    #[arg(long, conflicts_with = "to")]
    in_place: bool,

    /// How the snapshot is packed (snapshot.compression.method); each ZooKeeper reads all of them.
    #[arg(long, value_enum, default_value_t = CompressionName::None)]
    compression: CompressionName,

    /// Goes on where the logged digests say that the tree is not what it was.
    #[arg(long)]
    force: bool,
}

/// The arguments of `ringkeeper backup`.
#[derive(Debug, Args)]
pub struct Backup {
    #[command(flatten)]
    data: DataArgs,

    /// Where the copy goes: a dataDir that holds no data, made if need be.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// The arguments of `ringkeeper dev-ensemble`.
#[derive(Debug, Args)]
pub struct DevEnsemble {
    /// How many servers vote.
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u16).range(2..=99))]
    servers: u16,

    /// How many servers learn without a vote.
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u16).range(0..=99))]
    observers: u16,

    /// Where the servers' directories go.
    #[arg(long, value_name = "DIR", default_value = "ringkeeper-ensemble")]
    dir: PathBuf,

    /// The first server's port for clients; the next ones follow, those for learners from 707 on,
    /// those for elections from 1707 on. 0 takes ports that are free.
    #[arg(long, value_name = "PORT", default_value_t = 2181)]
    base_port: u16,
}

/// The arguments of `ringkeeper inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// A file, or a directory of which all files are shown.
    path: PathBuf,

    /// Lines of JSON, for programs.
    #[arg(long)]
    json: bool,

    /// The data of znodes and transactions, and not only its length.
    #[arg(long)]
    data: bool,

    /// Headers, frames, damage and totals only.
    #[arg(long)]
    summary: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CompressionName {
    /// Not at all.
    None,
    /// As gzip does.
    Gz,
    /// As snappy-java does.
    Snappy,
}

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data cannot be taken over, handed over or copied.
    #[error("{0}")]
    Failed(String, ExitCode),
    /// What is to be said cannot be written.
    #[error("writing the report: {0}")]
    Report(#[from] io::Error),
}

impl From<ImportError> for ToolError {
    fn from(error: ImportError) -> Self {
        Self::Failed(error.to_string(), error.exit_code())
    }
}

impl From<DevEnsembleError> for ToolError {
    fn from(error: DevEnsembleError) -> Self {
        Self::Failed(error.to_string(), error.exit_code())
    }
}

impl From<BackupError> for ToolError {
    fn from(error: BackupError) -> Self {
        Self::Failed(error.to_string(), error.exit_code())
    }
}

impl From<InspectError> for ToolError {
    fn from(error: InspectError) -> Self {
        Self::Failed(error.to_string(), error.exit_code())
    }
}

impl From<ExportError> for ToolError {
    fn from(error: ExportError) -> Self {
        Self::Failed(error.to_string(), error.exit_code())
    }
}

impl ToolError {
    /// What the process tells whoever started it.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) => ExitCode::BadInvocation,
            Self::Failed(_, code) => *code,
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
            Self::Inspect(Inspect { path, json, data, summary }) => {
                let form = if json { inspect::Form::Json } else { inspect::Form::Text };
                inspect::run(&path, inspect::Options { form, data, summary }, out)?;
            }
            Self::DevEnsemble(options) => dev_ensemble::run(&options, out)?,
            Self::Backup(Backup { data, to }) => {
                write!(out, "{}", backup::run(&data.load()?, &to)?)?;
            }
            Self::Export(Export { data, to, in_place: _, compression, force }) => {
                let compression = compression.into();
                let request = export::Request { to, compression, force };
                write!(out, "{}", export::run(&data.load()?, &request)?)?;
            }
        }
        match out.flush() {
            // Whoever read it has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            flushed => Ok(flushed?),
        }
    }
}

impl From<CompressionName> for Compression {
    fn from(name: CompressionName) -> Self {
        match name {
            CompressionName::None => Self::None,
            CompressionName::Gz => Self::Gzip,
            CompressionName::Snappy => Self::Snappy,
        }
    }
}

impl DataArgs {
    /// What a tool needs of the configuration. What is odd about it is said on the terminal.
    #[expect(clippy::print_stderr, reason = "standard output is for the report")]
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
        let config = Config::load_for_data(&sources)?;
        for note in &config.notes {
            eprintln!("ringkeeper: {}", note.text);
        }
        Ok(config)
    }
}
