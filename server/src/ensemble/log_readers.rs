//! Reads the files of the log for learners that lack more than memory holds: a thread for each of
//! them, beside the cores.
//!
//! ```text
//!   ordering core                         a reader's thread
//!   Open ────────────────starts─────────> locate
//!   done() ──> Opened <──channel, wake──
//!   Next ────────────────token──────────> feed: waits for a token before each piece
//!   done() ──> Piece <──channel, wake───
//!   Close, or the link is forgotten: no more tokens, the thread ends
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};

use engine::ids::LinkId;
use engine::txnlog::history::Place;
use engine::zab::log_reading::{LogDone, LogOp, Stretch, feed, locate};

use crate::disk::volume::Directory;
use crate::threads;

/// All of them, as the ordering core sees them.
pub struct LogReaders {
    directory: Directory,
    /// Where each reader's tokens come from.
    tokens: BTreeMap<LinkId, Sender<()>>,
    answers: Receiver<LogDone>,
    answering: Answering,
}

/// What a reader has to say goes here.
#[derive(Clone)]
struct Answering {
    answers: Sender<LogDone>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl LogReaders {
    /// None yet, of the log in this directory. `wake` is called when there is an answer.
    pub fn new(directory: Directory, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let (sender, answers) = mpsc::channel();
        let answering = Answering { answers: sender, wake: Arc::new(wake) };
        Self { directory, tokens: BTreeMap::new(), answers, answering }
    }

    /// There is another log now.
    pub fn change_directory(&mut self, directory: Directory) {
        self.tokens.clear();
        self.directory = directory;
    }

    /// Does what a machine wants.
    pub fn execute(&mut self, op: LogOp) {
        match op {
            LogOp::Open(stretch) => self.open(stretch),
            LogOp::Next(link) => {
                // One that has ended has told why.
                let _has_ended = self.tokens.get(&link).map(|tokens| tokens.send(()));
            }
            LogOp::Close(link) => {
                self.tokens.remove(&link);
            }
        }
    }

    /// What was read.
    pub fn done(&self) -> Option<LogDone> {
        self.answers.try_recv().ok()
    }

    fn open(&mut self, stretch: Stretch) {
        let (sender, tokens) = mpsc::channel();
        self.tokens.insert(stretch.link, sender);
        let (directory, answering) = (self.directory.again(), self.answering.clone());
        let work = move || read(&directory, &stretch, &tokens, &answering);
        let started = threads::start("log-reader", work);
        if let Err(error) = started {
            tracing::warn!("the log cannot be read for a learner: {error}");
            self.answering.tell(LogDone::Failed(stretch.link));
        }
    }
}

impl fmt::Debug for LogReaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogReaders").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Answering {
    fn tell(&self, done: LogDone) {
        // Nobody listens any more when the server ends.
        if self.answers.send(done).is_ok() {
            (self.wake)();
        }
    }
}

fn read(directory: &Directory, stretch: &Stretch, tokens: &Receiver<()>, answering: &Answering) {
    let link = stretch.link;
    // No token comes before the answer; that none can come any more is the end.
    let is_wanted = || tokens.try_recv() != Err(TryRecvError::Disconnected);
    let place = locate(directory, stretch, is_wanted).unwrap_or_else(|error| {
        tracing::warn!("the log cannot be read for a learner: {error}");
        Place::Unknown
    });
    answering.tell(LogDone::Opened(link, place));
    let (Place::Behind(from) | Place::Cut(from)) = place else { return };
    let fed = feed(directory, from, stretch.until, |run| {
        let is_wanted = tokens.recv().is_ok();
        if is_wanted {
            answering.tell(LogDone::Piece(link, run));
        }
        is_wanted
    });
    if let Err(error) = fed {
        tracing::warn!("the log cannot be read any more for a learner: {error}");
        answering.tell(LogDone::Failed(link));
    }
}
