//! Notices a core that does nothing any more: one that is caught in a loop, or in the kernel.
//!
//! ```text
//!   the watchdog's thread, in rounds          a core, in each turn
//!   look: who has not answered?               answer the round that is asked
//!   ask for the next round, wake all cores
//! ```
//!
//! A core that waits in the kernel for something to do is woken and answers, so silence means that
//! a turn does not end. Such a server still holds its port, its lock and the connections of its
//! clients, and serves none of them: a restarted one is better.
//!
//! When the watchdog itself comes late, everything stood still (the process was stopped, or the
//! machine slept), and the cores get their whole time again.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::Duration;

use crossbeam_utils::CachePadded;
use engine::ids::CoreId;
use engine::time::Instant;

use super::failure::{CoreError, Report};
use super::mailbox::Shared;
use crate::clock::Clock;
use crate::threads;

/// What a core that has ended answers for ever.
const ENDED: u64 = u64::MAX;

/// How long a core may be silent.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// After this there is a warning.
    pub warn: Duration,
    /// After this the process ends; never if there is none.
    pub end: Option<Duration>,
}

/// Questions and answers.
#[derive(Debug)]
pub(super) struct Pulse {
    asked: CachePadded<AtomicU64>,
    answered: Vec<CachePadded<AtomicU64>>,
}

impl Pulse {
    pub(super) fn new(cores: usize) -> Self {
        let asked = CachePadded::new(AtomicU64::new(0));
        Self { asked, answered: (0..cores).map(|_| CachePadded::new(AtomicU64::new(0))).collect() }
    }

    /// A core is in a turn.
    pub(super) fn answer(&self, core: CoreId) {
        let round = self.asked.load(Ordering::Relaxed);
        self.answered[usize::from(core.0)].store(round, Ordering::Relaxed);
    }

    /// A core has ended.
    pub(super) fn end(&self, core: CoreId) {
        self.answered[usize::from(core.0)].store(ENDED, Ordering::Relaxed);
    }
}

/// What a look has found of one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// It is slow; told once.
    Slow(CoreId, Duration),
    /// It answers again, after this time.
    Back(CoreId, Duration),
    /// It will not answer.
    Silent(CoreId, Duration),
}

/// Judges, by the times at which it looks.
#[derive(Debug)]
struct Judge {
    patience: Patience,
    /// How far apart its looks are to be.
    period: Duration,
    last_look: Instant,
    round: u64,
    cores: Vec<Suspect>,
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    /// When it had answered for certain.
    heard: Instant,
    is_slow: bool,
}

impl Judge {
    fn new(patience: Patience, cores: usize, now: Instant) -> Self {
        let shortest = patience.end.map_or(patience.warn, |end| end.min(patience.warn));
        let period = (shortest / 4).clamp(Duration::from_millis(20), Duration::from_millis(500));
        let suspect = Suspect { heard: now, is_slow: false };
        Self { patience, period, last_look: now, round: 0, cores: vec![suspect; cores] }
    }

    /// Looks at the answers to the last round, and begins the next one.
    fn look(&mut self, now: Instant, answers: impl Iterator<Item = u64>) -> Vec<Finding> {
        let stood_still = now.since(self.last_look) > 3 * self.period;
        let mut findings = Vec::new();
        for ((core, suspect), answer) in (0..).map(CoreId).zip(&mut self.cores).zip(answers) {
            let silence = now.since(suspect.heard);
            let answers = answer == self.round || answer == ENDED;
            if answers && suspect.is_slow {
                findings.push(Finding::Back(core, silence));
            }
            if answers || stood_still {
                *suspect = Suspect { heard: now, is_slow: false };
            } else if self.patience.end.is_some_and(|end| silence >= end) {
                findings.push(Finding::Silent(core, silence));
            } else if silence >= self.patience.warn && !suspect.is_slow {
                suspect.is_slow = true;
                findings.push(Finding::Slow(core, silence));
            }
        }
        self.round += 1;
        self.last_look = now;
        findings
    }
}

/// Starts to watch; ends when `shared` is gone.
pub(super) fn start(
    patience: Patience,
    clock: Clock,
    shared: &Arc<Shared>,
    reports: mpsc::Sender<Report>,
) -> io::Result<()> {
    let judge = Judge::new(patience, shared.cores_count(), clock.instant());
    let shared = Arc::downgrade(shared);
    let watch = move || watch(judge, clock, &shared, &reports);
    threads::start("watchdog", watch).map(drop)
}

fn watch(mut judge: Judge, clock: Clock, shared: &Weak<Shared>, reports: &mpsc::Sender<Report>) {
    while let Some(shared) = shared.upgrade() {
        let answers = shared.pulse.answered.iter().map(|answer| answer.load(Ordering::Relaxed));
        for finding in judge.look(clock.instant(), answers) {
            match finding {
                Finding::Slow(core, time) => {
                    let (core, silent_ms) = (core.0, time.as_millis());
                    tracing::warn!(core, silent_ms, "a core has been busy with one turn for long");
                }
                Finding::Back(core, time) => {
                    let (core, silent_ms) = (core.0, time.as_millis());
                    tracing::info!(core, silent_ms, "the core goes on");
                }
                Finding::Silent(core, time) => {
                    // Nobody listens any more if another failure came first.
                    drop(reports.send(Report::Failed(core, CoreError::Silent(time))));
                    return;
                }
            }
        }
        shared.pulse.asked.store(judge.round, Ordering::Relaxed);
        shared.wake_all();
        drop(shared);
        thread::sleep(judge.period);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WARN: Duration = Duration::from_secs(1);
    const END: Duration = Duration::from_secs(5);
    const PERIOD: Duration = Duration::from_millis(250);

    /// A judge of two cores, and what it finds while the second answers as `answer` says, which is
    /// asked for each round. The first always does.
    fn findings(
        end: Option<Duration>,
        looks: u64,
        answer: impl Fn(u64) -> u64,
    ) -> Vec<(u64, Finding)> {
        let mut judge = Judge::new(Patience { warn: WARN, end }, 2, Instant::ZERO);
        assert_eq!(judge.period, PERIOD);
        let mut now = Instant::ZERO;
        let mut found = Vec::new();
        for look in 1..=looks {
            now = now.after(PERIOD);
            let answers = [judge.round, answer(judge.round)].into_iter();
            found.extend(judge.look(now, answers).into_iter().map(|finding| (look, finding)));
        }
        found
    }

    #[test]
    fn cores_that_answer_are_left_alone_and_so_are_those_that_ended() {
        assert_eq!(findings(Some(END), 100, |round| round), []);
        let ends = |round| if round < 10 { round } else { ENDED };
        assert_eq!(findings(Some(END), 100, ends), []);
    }

    #[test]
    fn a_core_that_is_silent_is_told_once_and_given_up_in_the_end() {
        let core = CoreId(1);
        let found = findings(Some(END), 23, |round| round.min(2));
        // It answered the look of round 2, which was the third.
        let expect = [(7, Finding::Slow(core, WARN)), (23, Finding::Silent(core, END))];
        assert_eq!(found, expect);
        let found = findings(None, 1_000, |round| round.min(2));
        assert_eq!(found, [(7, Finding::Slow(core, WARN))]);
    }

    #[test]
    fn a_core_that_comes_back_begins_anew() {
        let core = CoreId(1);
        let answer = |round| if (3..13).contains(&round) { 2 } else { round };
        let back = PERIOD * 11;
        let expect = [(7, Finding::Slow(core, WARN)), (14, Finding::Back(core, back))];
        assert_eq!(findings(Some(END), 60, answer), expect);
    }

    #[test]
    fn time_in_which_all_stood_still_counts_for_nobody() {
        let mut judge = Judge::new(Patience { warn: WARN, end: Some(END) }, 1, Instant::ZERO);
        let mut now = Instant::ZERO;
        // Stopped again and again, for longer than anyone may be silent.
        for _ in 0..20 {
            now = now.after(END * 10);
            assert_eq!(judge.look(now, [ENDED - 1].into_iter()), []);
        }
        for _ in 0..19 {
            now = now.after(PERIOD);
            let found = judge.look(now, [ENDED - 1].into_iter());
            assert!(!matches!(found[..], [Finding::Silent(..)]), "{found:?}");
        }
        now = now.after(PERIOD);
        let silent = Finding::Silent(CoreId(0), END);
        assert_eq!(judge.look(now, [ENDED - 1].into_iter()), [silent]);
    }
}
