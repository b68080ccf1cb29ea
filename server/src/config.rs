//! Configuration: from `zoo.cfg`, its dynamic part, `myid` and the command line to a [`Config`].
//!
//! The files are read as ZooKeeper reads them; then every value is checked against the table of
//! known settings. Whatever is wrong is reported at once, each with file, line and reason. What is
//! merely odd becomes a [`Note`], which the caller logs when there is a log.

pub mod check;
mod effects;
pub mod ensemble;
pub mod keys;
pub mod listening;
pub mod parse;
pub mod settings;

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::auth::AuthRules;
use engine::session::TimeoutLimits;

pub use ensemble::Ensemble;
pub use settings::{Argument, Note, Problem};

use crate::four_letter::Whitelist;
use check::Checker;
use settings::{Origin, Setting, Settings};

/// Everything a server needs to know to start.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch that operators know")]
pub struct Config {
    /// Where snapshots live.
    pub data_dir: PathBuf,
    /// Where the transaction log lives; the same unless `dataLogDir` says otherwise.
    pub data_log_dir: PathBuf,
    /// Whether they are made if they are missing.
    pub makes_data_dirs: bool,
    /// Where clients connect. Always there in a configuration that was loaded.
    pub listen: Option<Listen>,
    /// How many connections may wait to be accepted; -1 leaves it to the server.
    pub listen_backlog: i32,
    /// ZooKeeper's unit of time, milliseconds.
    pub tick_ms: i32,
    /// Which session timeouts are granted.
    pub timeouts: TimeoutLimits,
    /// Connections per client address; `None`: any number.
    pub client_cnxns_max: Option<u32>,
    /// Connections of all clients; `None`: any number.
    pub cnxns_max: Option<u32>,
    /// Requests of all clients that may be under way.
    pub outstanding_max: u32,
    /// The largest packet of a client, bytes.
    pub packet_bytes_max: usize,
    /// How long a connection may stay without a session.
    pub sessionless_timeout: Duration,
    /// Transactions between two snapshots, about.
    pub snap_count: u32,
    /// How many snapshots stay when old ones are removed.
    pub snapshots_kept: u32,
    /// Whether TTL znodes exist.
    pub extended_types: bool,
    /// Whether TTL owners have the form of ZooKeeper 3.5.3.
    pub emulate_353_ttl: bool,
    /// How empty containers and expired TTL znodes are removed.
    pub containers: Containers,
    /// Whether hard quotas are enforced.
    pub enforce_quota: bool,
    /// Whether other servers of the ensemble may have sessions of their own.
    pub local_sessions: bool,
    /// Whether ACLs are not checked.
    pub skip_acl: bool,
    /// How clients authenticate.
    pub auth: AuthRules,
    /// Which four-letter words are answered.
    pub whitelist: Whitelist,
    /// A log sync that takes longer is worth a warning.
    pub sync_warning: Duration,
    /// A request that takes longer is worth a line in the log; `None`: none is.
    pub slow_request: Option<Duration>,
    /// A core that is busy with one turn for longer ends the process.
    pub stuck_after: Option<Duration>,
    /// How many cores to run on; `None`: as many as there are.
    pub cores: Option<usize>,
    /// How to talk to the kernel; `None`: io_uring where it works.
    pub backend: Option<Backend>,
    /// What to log, in the form of [`crate::logging::init`].
    pub log_level: String,
    /// Soft limit on the memory of the tree, bytes.
    pub memory_bytes_max: Option<u64>,
    /// This server's id in the ensemble, from the file `myid`.
    pub server_id: Option<i64>,
    /// Whether a server that is alone in its ensemble runs standalone.
    pub standalone_enabled: bool,
    /// Who is in the ensemble.
    pub ensemble: Ensemble,
    /// How this server takes part in it.
    pub member: MemberSettings,
    /// What the log should say about the configuration.
    pub notes: Vec<Note>,
}

/// How a server takes part in its ensemble.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the configuration")]
pub struct MemberSettings {
    /// Ticks until a learner must be synchronized.
    pub init_limit: u32,
    /// Ticks that leader and learner may be silent.
    pub sync_limit: u32,
    /// How long a connection to another member may take.
    pub connect_timeout: Duration,
    /// How soon votes are sent again.
    pub notification_interval_min: Duration,
    /// How late they may be sent again.
    pub notification_interval_max: Duration,
    /// Whether it only learns.
    pub is_observer: bool,
    /// Whether clients are served while it leads.
    pub leader_serves: bool,
    /// Whether its two ports are open at all of the host's addresses.
    pub listens_everywhere: bool,
    /// How often its election port is tried; `None`: until it opens.
    pub bind_attempts_max: Option<u32>,
    /// Whether an empty data directory always counts as data: an ensemble may begin with it.
    pub begins_empty: bool,
    /// Whether an election may be decided before ZooKeeper would.
    pub fast_election: bool,
    /// Whether a sync proves that the leader still leads.
    pub linearizable_sync: bool,
    /// How much of the log is kept in memory for learners, bytes.
    pub history_bytes: usize,
    /// What part of the tree's size may be read of the log for one learner; `None`: nothing.
    pub log_share: Option<f64>,
    /// From this counter on a new epoch begins.
    pub rollover_counter: u32,
    /// How long clients' connections outlive the loss of a leader; `None`: as long as is good.
    pub grace: Option<Duration>,
}

/// Where clients connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address; `None`: all of them, of IPv6 and IPv4, or of IPv4 where there is no IPv6.
    pub host: Option<IpAddr>,
    /// The port; 0 takes any that is free.
    pub port: u16,
}

/// How empty containers and expired TTL znodes are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Containers {
    /// How often to look for them.
    pub check_interval: Duration,
    /// How many go in a minute.
    pub per_minute_max: u32,
    /// How long a container may stay that never had a child; `None`: for ever.
    pub never_used_max: Option<Duration>,
}

/// How the server talks to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Completion rings.
    IoUring,
    /// Readiness, and a thread for the log.
    Epoll,
}

/// What a start was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// Port and data directory were named in ZooKeeper's short form, in place of a file.
    pub is_short_form: bool,
    /// Settings of the command line, which count more than the file's. Later ones win.
    pub arguments: Vec<Argument>,
}

/// What a configuration is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Serving,
    /// A tool looks for data, and does not need to know who else is in the ensemble.
    Data,
}

/// The settings that say where data lies and how it is to be read.
const DATA_KEYS: [&str; 4] =
    ["dataDir", "dataLogDir", "extendedTypesEnabled", "emulate353TTLNodes"];

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file is not in the form of a properties file.
    #[error("{}, {error}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        error: parse::BadEscape,
    },
    /// Settings are wrong; keys that nobody knows may be meant for what is missing.
    #[error("{}", Lines(.0, .1))]
    Invalid(Vec<Problem>, Vec<Note>),
}

struct Lines<'a>(&'a [Problem], &'a [Note]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems = self.0.iter().map(|problem| problem as &dyn fmt::Display);
        let notes = self.1.iter().map(|note| &note.text as &dyn fmt::Display);
        for (index, line) in problems.chain(notes).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            line.fmt(f)?;
        }
        Ok(())
    }
}

impl Config {
    /// Reads the files that `sources` names and checks everything.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let (settings, problems) = sources.read(Purpose::Serving)?;
        let is_trial = sources.file.is_none() && !sources.is_short_form;
        Self::of(&settings, is_trial, problems, read_my_id)
    }

    /// Reads what says where data lies, and how it is to be read. Other settings that are wrong
    /// keep nobody from the data: they are as if they were not there. Of the notes, there are
    /// those about keys that are unknown or come twice.
    pub fn load_for_data(sources: &Sources) -> Result<Self, ConfigError> {
        let (settings, _) = sources.read(Purpose::Data)?;
        let mut checker = Checker::new(&settings, false);
        let mut config = checker.config();
        config.server_id = read_my_id(&config.data_dir).ok().flatten();
        checker.check_whole(&mut config);
        checker.problems.retain(|problem| DATA_KEYS.contains(&problem.key.as_str()));
        if !checker.problems.is_empty() {
            return Err(ConfigError::Invalid(checker.problems, checker.unknown));
        }
        config.notes = [&settings.notes[..], &checker.unknown].concat();
        Ok(config)
    }

    /// Checks everything that was read. `problems` are those that were met so far, `read_id` reads
    /// the server's number from its data directory.
    pub fn of(
        settings: &Settings,
        is_trial: bool,
        mut problems: Vec<Problem>,
        read_id: impl FnOnce(&Path) -> Result<Option<i64>, Problem>,
    ) -> Result<Self, ConfigError> {
        let mut checker = Checker::new(settings, is_trial);
        checker.problems.append(&mut problems);
        let mut config = checker.config();
        match read_id(&config.data_dir) {
            Ok(id) => config.server_id = id,
            Err(problem) => checker.problems.push(problem),
        }
        checker.check_whole(&mut config);
        if !checker.problems.is_empty() {
            return Err(ConfigError::Invalid(checker.problems, checker.unknown));
        }
        config.notes = checker.notes;
        config.notes.append(&mut checker.unknown);
        Ok(config)
    }

    /// Whether this server is one of an ensemble.
    // Compat: QuorumPeerConfig.isDistributed
    pub fn is_distributed(&self) -> bool {
        let voters = self.ensemble.voters().count();
        voters > 1 || voters == 1 && !self.standalone_enabled
    }

    /// This server's id in its ensemble; none where it runs standalone, whatever `myid` says.
    pub fn member_id(&self) -> Option<i64> {
        self.server_id.filter(|_| self.is_distributed())
    }

    /// Logs what is worth knowing about the configuration.
    pub fn log_notes(&self) {
        for note in &self.notes {
            note.log();
        }
    }
}

impl Sources {
    /// All settings, and what is wrong with the files that they stand in.
    fn read(&self, purpose: Purpose) -> Result<(Settings, Vec<Problem>), ConfigError> {
        let (mut settings, mut arguments) = (Settings::default(), Settings::default());
        let mut problems = Vec::new();
        for argument in &self.arguments {
            arguments.add_argument(argument);
        }
        if let Some(path) = &self.file {
            read_into(&mut settings, path)?;
        }
        let dynamic = "dynamicConfigFile";
        if let Some(file) = arguments.get(dynamic).or_else(|| settings.get(dynamic)) {
            let file = PathBuf::from(&file.value);
            problems = members_beside_dynamic_file(&settings);
            let read = read_into(&mut settings, &file);
            if purpose == Purpose::Serving {
                read?;
            }
            problems.extend(strangers_in_dynamic_file(&settings, &file));
        }
        settings.overrule(arguments);
        Ok((settings, problems))
    }
}

fn read_into(settings: &mut Settings, path: &Path) -> Result<(), ConfigError> {
    let bytes =
        fs::read(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
    settings
        .add_file(path, &bytes)
        .map_err(|error| ConfigError::Syntax { path: path.to_owned(), error })
}

/// How the keys begin that say who is in the ensemble.
const MEMBER_KEYS: [&str; 3] = ["server.", "group", "weight"];

// Compat: QuorumPeerConfig.parseProperties allows members in one of the two files only.
fn members_beside_dynamic_file(settings: &Settings) -> Vec<Problem> {
    let families = MEMBER_KEYS.map(|prefix| settings.family(prefix));
    let misplaced = families.into_iter().flatten();
    misplaced.map(|setting| setting.problem("must stand in the dynamicConfigFile")).collect()
}

// Compat: QuorumPeerConfig.parseDynamicConfig - "Unrecognised parameter". Of `version`, which it
// takes there, the check of the version complains.
fn strangers_in_dynamic_file(settings: &Settings, file: &Path) -> Vec<Problem> {
    let strangers = settings.iter().filter(|Setting { key, origin, .. }| {
        let belongs = key == "version" || MEMBER_KEYS.iter().any(|prefix| key.starts_with(prefix));
        origin.is_in(file) && !belongs
    });
    let reason = "must not stand in the dynamicConfigFile, which lists the members only";
    strangers.map(|setting| setting.problem(reason)).collect()
}

fn read_my_id(data_dir: &Path) -> Result<Option<i64>, Problem> {
    let path = data_dir.join("myid");
    let complain = |reason: String| Problem {
        origin: Origin::File { path: path.clone(), line: 1 },
        key: "myid".to_owned(),
        value: None,
        reason,
    };
    // Reading a pipe would wait for whoever writes to it.
    if fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(complain("must be a file".to_owned()));
    }
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
        Err(error) => return Err(complain(format!("cannot be read: {error}"))),
    };
    let id = ensemble::parse_my_id(&text);
    id.map(Some).ok_or_else(|| complain("must be a number in the first line".to_owned()))
}

#[cfg(test)]
mod tests;
