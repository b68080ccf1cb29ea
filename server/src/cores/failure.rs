//! How cores end: each says so on one channel, so that the first failure is heard of at once,
//! whichever core's it is.

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use engine::disk::StorageError;
use engine::ids::CoreId;

use crate::ensemble::data::DataError;
use crate::ring::RingError;

/// Why a core has failed.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// The kernel does not give what a ring needs.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Threads, descriptors or memory cannot be had, or a ring does not work any more.
    #[error("{0}")]
    System(#[from] io::Error),
    /// The disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// It is caught somewhere.
    #[error("it has been busy with one turn for {} ms; the process ends", .0.as_millis())]
    Silent(Duration),
    /// A mistake of ours.
    #[error("it panicked")]
    Panicked,
    /// It could not begin because another one could not.
    #[error("another core failed")]
    Another,
}

impl From<DataError> for CoreError {
    fn from(error: DataError) -> Self {
        match error {
            DataError::Storage(error) => error.into(),
            DataError::Snapshot(error) => {
                StorageError::io("snapshot".to_owned(), "write the leader's tree", &error).into()
            }
        }
    }
}

/// What is said of a core.
#[derive(Debug)]
pub(super) enum Report {
    /// It was told to stop, and did.
    Ended,
    /// It failed.
    Failed(CoreId, CoreError),
}

/// Tells about one core, whatever becomes of its thread.
pub(super) struct Reporter {
    core: CoreId,
    reports: mpsc::Sender<Report>,
    has_reported: bool,
}

impl Reporter {
    pub(super) fn new(core: CoreId, reports: mpsc::Sender<Report>) -> Self {
        Self { core, reports, has_reported: false }
    }

    pub(super) fn report(mut self, result: Result<(), CoreError>) {
        let core = self.core;
        self.send(result.map_or_else(|error| Report::Failed(core, error), |()| Report::Ended));
    }

    fn send(&mut self, report: Report) {
        self.has_reported = true;
        // Nobody listens any more if another failure came first.
        drop(self.reports.send(report));
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if !self.has_reported {
            self.send(Report::Failed(self.core, CoreError::Panicked));
        }
    }
}

/// Waits until `cores` have ended, or one has failed.
pub(super) fn wait(reports: &mpsc::Receiver<Report>, cores: usize) -> Result<(), CoreFailure> {
    for _ in 0..cores {
        match reports.recv().expect("each core reports once") {
            Report::Ended => {}
            Report::Failed(core, error) => return Err(CoreFailure { core, error }),
        }
    }
    Ok(())
}

/// Why not all cores have started: what the first said that did not only wait for another.
pub(super) fn first(reports: &mpsc::Receiver<Report>) -> CoreFailure {
    let failures = reports.iter().filter_map(|report| match report {
        Report::Ended => None,
        Report::Failed(core, error) => Some(CoreFailure { core, error }),
    });
    let own = |failure: &CoreFailure| !matches!(failure.error, CoreError::Another);
    let mut failures: Vec<_> = failures.collect();
    let first = failures.iter().position(own).unwrap_or(0);
    failures.swap_remove(first)
}

/// A core, and why it has failed.
#[derive(Debug, thiserror::Error)]
#[error("core {}: {error}", core.0)]
pub struct CoreFailure {
    /// Which.
    pub core: CoreId,
    /// Why.
    pub error: CoreError,
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn system() -> CoreError {
        CoreError::System(io::Error::other("no more"))
    }

    #[test]
    fn the_first_failure_is_heard_of_while_other_cores_go_on() {
        let (sender, reports) = mpsc::channel();
        let others: Vec<_> =
            (0..3).map(|core| Reporter::new(CoreId(core), sender.clone())).collect();
        Reporter::new(CoreId(3), sender).report(Err(system()));
        let failure = wait(&reports, 4).unwrap_err();
        assert_eq!(failure.to_string(), "core 3: no more");
        for other in others {
            other.report(Ok(()));
        }
    }

    #[test]
    fn a_core_that_panics_is_told_of_too() {
        let (sender, reports) = mpsc::channel();
        let reporter = Reporter::new(CoreId(1), sender);
        let thread = thread::spawn(move || {
            let _reporter = reporter;
            std::panic::resume_unwind(Box::new("not on the terminal"));
        });
        assert!(thread.join().is_err());
        let failure = wait(&reports, 1).unwrap_err();
        assert!(matches!(failure, CoreFailure { core: CoreId(1), error: CoreError::Panicked }));
    }

    #[test]
    fn a_start_fails_for_the_reason_that_is_one() {
        let (sender, reports) = mpsc::channel();
        for (core, error) in [(0, CoreError::Another), (1, system()), (2, CoreError::Another)] {
            Reporter::new(CoreId(core), sender.clone()).report(Err(error));
        }
        drop(sender);
        assert_eq!(first(&reports).core, CoreId(1));
    }
}
