//! The log: lines on the standard error, written by a thread of their own, so that nobody who
//! reads them slowly can stop a core.
//!
//! What belongs where: *error*: an operator must act; *warn*: a client misbehaves, or the server
//! serves worse than it should; *info*: start, stop, snapshots, recovery, changes of role;
//! *debug*: single connections; *trace*: single messages.

use std::io::{self, IsTerminal as _};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that may wait for the writing thread; further ones are dropped.
const LINES_MAX: usize = 65_536;

/// Words for how much is logged.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Keeps the log open. Dropping it writes out what still waits.
#[must_use = "the log closes when this is dropped"]
#[derive(Debug)]
pub struct Log {
    _writer: WorkerGuard,
}

/// Why the log was not opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not in the right form.
    #[error("log level {level:?}: {reason}")]
    Level {
        /// What was given.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody has opened one before.
    #[error("the log is open already")]
    AlreadyOpen,
}

/// Whether `level` is a level, or a list of levels and of `target=level`; if not, why.
pub fn check(level: &str) -> Result<(), String> {
    filter(level).map(drop)
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    let allowed = format!("allowed: {}, or a list like info,server::ring=debug", LEVELS.join(", "));
    // Any other word is taken for a target, of which all would be logged, and of the rest nothing.
    let is_known = |part: &&str| {
        part.contains('=') || LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part))
    };
    if let Some(word) = level.split(',').find(|part| !is_known(part)) {
        return Err(format!("{word:?} is no level; {allowed}"));
    }
    EnvFilter::builder().parse(level).map_err(|error| format!("{error}; {allowed}"))
}

/// Opens the log of the process.
pub fn init(level: &str) -> Result<Log, LogError> {
    let filter =
        filter(level).map_err(|reason| LogError::Level { level: level.to_owned(), reason })?;
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_MAX)
        .thread_name("log")
        .finish(io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(writer)
        .try_init()
        .map_err(|_| LogError::AlreadyOpen)?;
    Ok(Log { _writer: guard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(level: &str, fits: bool) {
        assert_eq!(filter(level).is_ok(), fits, "{level}");
    }

    #[test]
    fn levels_and_lists_of_them_are_taken() {
        for level in ["info", "WARN", "off", "info,server::ring=debug", "server=trace"] {
            check(level, true);
        }
        for level in ["server::ring=loud", "a=b=c", "info,==", "inof", "info,server::ring", ""] {
            check(level, false);
        }
        let reason = super::check("warn,inof").unwrap_err();
        assert!(reason.starts_with("\"inof\" is no level; allowed: error, warn,"), "{reason}");
    }
}
