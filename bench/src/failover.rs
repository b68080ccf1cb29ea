//! `recovery` of an ensemble: a server is lost under writes, and comes back.
//!
//! Every survivor has closed-loop writers. One server is killed, frozen or cut off; how long each
//! writer waited, when the first write was acknowledged again, and what its clients noticed is
//! known to a millisecond or better. Then the server comes back while the writers go on, and at
//! last every acknowledged write is looked for at every server.

pub mod report;
pub mod stages;
pub mod timeline;
pub mod writer;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;

use self::report::{FailoverReport, Failure};
use self::stages::Stages;
use self::timeline::{Gap, Timeline};
use self::writer::{Record, Sight, Writer};
use crate::client::Client;
use crate::ensemble::Ensemble;
use crate::fill;
use crate::load::Target;
use crate::load::setup::catch_up;
use crate::progress::Progress;
use crate::recorder::{Violation, Violations};
use crate::recovery::{self, RecoveryOptions};

/// Below which everything is written.
const ROOT: &str = "/failover";
/// Every writer must have had an acknowledgement within this time before a fault counts as over.
const LIVELY: Duration = Duration::from_millis(100);
/// How long that may take.
const OVER_WAIT: Duration = Duration::from_secs(90);
/// How late what the lost server had said may still reach a client.
const LAST_WORDS: Duration = Duration::from_millis(10);
/// Pause between two looks at the writers.
const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// Writers go on for this long when the server is back.
const AFTER_REJOIN: Duration = Duration::from_millis(200);
/// Session timeout of those who prepare and check.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What is done to an ensemble.
#[derive(Clone, Debug, clap::Args, Serialize)]
#[command(next_help_heading = "Ensembles")]
pub struct EnsembleOptions {
    /// What happens to which server
    #[arg(long, value_enum, default_value_t = Fault::KillLeader)]
    pub fault: Fault,
    /// Writers per surviving server
    #[arg(long, default_value_t = 1)]
    pub writers: usize,
    /// Bytes of a value that they write
    #[arg(long, default_value_t = 100)]
    pub value_bytes: usize,
    /// Observers beside the template's servers [default: 1 if one is to be lost, else 0]
    #[arg(long, default_value_t = 0)]
    pub observers: usize,
    /// Take away the data of a killed server: it comes back as a new one
    #[arg(long)]
    pub wipe: bool,
}

/// How a server is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// kill -9 of the leader
    KillLeader,
    /// SIGSTOP of the leader: its connections stay open and silent
    StopLeader,
    /// The leader is cut off from the others, and not from clients
    PartitionLeader,
    /// kill -9 of a follower
    KillFollower,
    /// SIGSTOP of a follower
    StopFollower,
    /// A follower is cut off
    PartitionFollower,
    /// kill -9 of an observer
    KillObserver,
    /// SIGSTOP of an observer
    StopObserver,
    /// An observer is cut off
    PartitionObserver,
}

/// What happens to the server that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Kill,
    Stop,
    Part,
}

impl Fault {
    fn blow(self) -> Blow {
        match self {
            Self::KillLeader | Self::KillFollower | Self::KillObserver => Blow::Kill,
            Self::StopLeader | Self::StopFollower | Self::StopObserver => Blow::Stop,
            Self::PartitionLeader | Self::PartitionFollower | Self::PartitionObserver => Blow::Part,
        }
    }

    fn is_of_observer(self) -> bool {
        matches!(self, Self::KillObserver | Self::StopObserver | Self::PartitionObserver)
    }

    /// The server that is lost, where the first ones vote.
    fn victim(self, voters: usize, leader: usize) -> usize {
        match self {
            Self::KillLeader | Self::StopLeader | Self::PartitionLeader => leader,
            Self::KillFollower | Self::StopFollower | Self::PartitionFollower => {
                usize::from(leader == 0) % voters
            }
            Self::KillObserver | Self::StopObserver | Self::PartitionObserver => voters,
        }
    }
}

struct Run<'a> {
    options: &'a RecoveryOptions,
    ensemble: Ensemble,
    voters: usize,
    progress: &'a Progress,
    clock: Instant,
    violations: Violations,
}

/// The moments of one failure, microseconds of the run's clock.
struct Moments {
    fault_us: u64,
    fault_time: SystemTime,
    /// From when on the server came back,
    back_us: u64,
    /// and when it served.
    served_us: u64,
    /// When the lost server's idle client saw its connection closed,
    close: Option<Duration>,
    /// and when the server's last words can have come, which a kill ends.
    noticed: Duration,
}

/// Starts the ensemble, fills it, and loses a server as often as asked.
pub fn run(options: &RecoveryOptions, progress: &Progress) -> anyhow::Result<FailoverReport> {
    ensure!(options.repeats > 0, "--repeats must be at least 1");
    ensure!(options.ensemble.writers > 0, "--writers must be at least 1");
    ensure!(!options.idle, "--idle is for a single server");
    let fault = options.ensemble.fault;
    ensure!(fault.blow() == Blow::Kill || !options.ensemble.wipe, "--wipe is for a kill");
    let plan = options.plan.read()?;
    let template = plan.template(&options.server)?;
    ensure!(template.servers > 2, "{} cannot lose a server", template.name);
    let scratch =
        tempfile::Builder::new().prefix("ringkeeper-bench-").tempdir_in(&options.plan.directory)?;
    let observers = options.ensemble.observers.max(usize::from(fault.is_of_observer()));
    let (voters, variables) = (template.servers, options.plan.variables(&plan));
    let is_parted = fault.blow() == Blow::Part;
    let mut ensemble =
        Ensemble::prepare_with(template, observers, is_parted, &variables, scratch.path())?;
    ensemble.start()?;
    let znodes = options.znodes.unwrap_or(0);
    let target = Target::of_all(&ensemble.addresses(), Vec::new());
    let filled = recovery::fill_options(znodes, target);
    if znodes > 0 {
        fill::run(&filled, progress)?;
    }
    let clock = Instant::now();
    let violations = Violations::default();
    let mut run = Run { options, ensemble, voters, progress, clock, violations };
    let mut failures = Vec::new();
    for number in 1..=options.repeats {
        progress.say(&format!("failure {number} of {}", options.repeats));
        failures.push(run.fail(number)?);
        for address in run.ensemble.addresses().into_iter().filter(|_| znodes > 0) {
            recovery::check_filled(address, &filled.keyspace(), &mut run.violations)?;
        }
    }
    for server in &mut run.ensemble.servers {
        server.stop()?;
    }
    Ok(FailoverReport::new(options.clone(), failures, run.violations))
}

impl Run<'_> {
    /// One failure from beginning to end.
    fn fail(&mut self, number: usize) -> anyhow::Result<Failure> {
        let leader = self.ensemble.leader()?;
        let count = self.ensemble.servers.len();
        let victim = self.options.ensemble.fault.victim(self.voters, leader);
        let survivors: Vec<usize> = (0..count).filter(|index| *index != victim).collect();
        let root = format!("{ROOT}/{number}");
        let writers = survivors.len() * self.options.ensemble.writers;
        let directories: Vec<String> =
            (0..writers).map(|writer| format!("{root}/{writer}")).collect();
        self.prepare(&directories)?;
        let starts: Vec<u64> =
            self.ensemble.servers.iter().map(crate::server::Server::log_bytes).collect();
        let (records, moments) = self.lose_under_writes(victim, &survivors, &directories)?;
        let logs: anyhow::Result<Vec<String>> = survivors
            .iter()
            .map(|index| self.ensemble.servers[*index].log_from(starts[*index]))
            .collect();
        let failure = examine(leader, victim, &records, &moments, &logs?);
        self.check(&records)?;
        self.remove(&root)?;
        Ok(failure)
    }

    fn prepare(&self, directories: &[String]) -> anyhow::Result<()> {
        let addresses = self.ensemble.addresses();
        let mut client = Client::connect(addresses[0], TIMEOUT)?;
        directories.iter().try_for_each(|directory| client.ensure_path(directory))?;
        client.close()?;
        catch_up(&addresses, TIMEOUT)
    }

    fn lose_under_writes(
        &mut self,
        victim: usize,
        survivors: &[usize],
        directories: &[String],
    ) -> anyhow::Result<(Vec<Record>, Moments)> {
        let addresses = self.ensemble.addresses();
        let stop = AtomicBool::new(false);
        let sights: Vec<Sight> = directories.iter().map(|_| Sight::default()).collect();
        let (clock, value_bytes) = (self.clock, self.options.ensemble.value_bytes);
        thread::scope(|scope| {
            let writers: Vec<_> = directories
                .iter()
                .zip(&sights)
                .enumerate()
                .map(|(number, (directory, sight))| {
                    let mut servers: Vec<SocketAddr> =
                        survivors.iter().map(|index| addresses[*index]).collect();
                    servers.rotate_left(number % survivors.len());
                    let (directory, stop) = (directory.clone(), &stop);
                    let writer = Writer { clock, servers, directory, value_bytes, stop, sight };
                    scope.spawn(move || writer.run())
                })
                .collect();
            let moments = self.lose_and_regain(victim, &sights);
            stop.store(true, Ordering::Relaxed);
            let records = writers.into_iter().map(|writer| writer.join().expect("writers go on"));
            Ok((records.collect(), moments?))
        })
    }

    /// What happens to the server while others write.
    fn lose_and_regain(&mut self, victim: usize, sights: &[Sight]) -> anyhow::Result<Moments> {
        let half = Duration::from_secs_f64(self.options.seconds / 2.0);
        self.wait_lively(self.now_us(), half, sights).context("before the fault")?;
        let blow = self.options.ensemble.fault.blow();
        let address = self.ensemble.servers[victim].address;
        let mut witness = Client::connect(address, TIMEOUT)?.into_stream();
        let (fault, fault_time) = (Instant::now(), SystemTime::now());
        // One that stands still closes nothing.
        let close = (blow != Blow::Stop).then(|| {
            thread::spawn(move || recovery::wait_end(&mut witness).map(|()| fault.elapsed()))
        });
        self.lose(blow, victim)?;
        let fault_us = (fault - self.clock).as_micros() as u64;
        self.wait_lively(fault_us, half, sights).context("after the fault")?;
        // A server that is cut off has to turn its clients away before it may come back.
        let close = close.map(|close| close.join().expect("waiting does not panic")).transpose();
        let close = close.context("the lost server keeps its clients")?;
        let back_us = self.now_us();
        self.regain(blow, victim)?;
        let server = &mut self.ensemble.servers[victim];
        server.wait_serving()?;
        let served_us = self.now_us();
        thread::sleep(AFTER_REJOIN);
        self.wait_lively(served_us, Duration::ZERO, sights).context("after the return")?;
        let noticed = close.filter(|_| blow == Blow::Kill).unwrap_or_default() + LAST_WORDS;
        Ok(Moments { fault_us, fault_time, back_us, served_us, close, noticed })
    }

    fn lose(&mut self, blow: Blow, victim: usize) -> anyhow::Result<()> {
        let Ensemble { servers, relays } = &mut self.ensemble;
        match blow {
            Blow::Kill => servers[victim].kill(),
            Blow::Stop => servers[victim].freeze(),
            Blow::Part => {
                relays.as_ref().expect("made for this").part(victim);
                Ok(())
            }
        }
    }

    fn regain(&mut self, blow: Blow, victim: usize) -> anyhow::Result<()> {
        let Ensemble { servers, relays } = &mut self.ensemble;
        let server = &mut servers[victim];
        match blow {
            Blow::Kill => {
                if self.options.ensemble.wipe {
                    server.wipe()?;
                }
                if self.options.cold {
                    server.drop_page_cache()?;
                }
                server.start()
            }
            Blow::Stop => server.thaw(),
            Blow::Part => {
                relays.as_ref().expect("made for this").heal();
                Ok(())
            }
        }
    }

    /// Waits for `least`, and until every writer's last write was sent behind a moment and
    /// acknowledged just now.
    fn wait_lively(&self, since_us: u64, least: Duration, sights: &[Sight]) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            thread::sleep(LOOK_PAUSE);
            let now_us = self.now_us();
            let is_lively = |sight: &Sight| {
                let acked_us = sight.acked_us.load(Ordering::Relaxed);
                sight.sent_us.load(Ordering::Relaxed) > since_us
                    && now_us.saturating_sub(acked_us) < LIVELY.as_micros() as u64
            };
            if begin.elapsed() >= least && sights.iter().all(is_lively) {
                return Ok(());
            }
            if begin.elapsed() > OVER_WAIT + least {
                bail!("no writes at some server for {} s", OVER_WAIT.as_secs());
            }
        }
    }

    /// Every acknowledged write must be at every server.
    fn check(&mut self, records: &[Record]) -> anyhow::Result<()> {
        for (address, id) in self.ensemble.addresses().into_iter().zip(1..) {
            let mut client = Client::connect(address, TIMEOUT)?;
            client.sync()?;
            for record in records {
                let names = client.children(&record.directory)?;
                let mut there: Vec<u64> =
                    names.iter().filter_map(|name| name.parse().ok()).collect();
                there.sort_unstable();
                for ack in &record.acks {
                    if there.binary_search(&ack.number).is_err() {
                        let path = format!("{}/{}", record.directory, ack.number);
                        let words = || format!("{path} is gone at server {id}");
                        self.violations.add(Violation::LostWrite, words);
                    }
                }
            }
            client.close()?;
        }
        Ok(())
    }

    fn remove(&self, root: &str) -> anyhow::Result<()> {
        self.progress.say("removing what was written");
        let mut client = Client::connect(self.ensemble.servers[0].address, TIMEOUT)?;
        client.delete_tree(root)?;
        client.close()
    }

    fn now_us(&self) -> u64 {
        self.clock.elapsed().as_micros() as u64
    }
}

/// Makes figures of what the writers went through.
fn examine(
    leader: usize,
    victim: usize,
    records: &[Record],
    moments: &Moments,
    logs: &[String],
) -> Failure {
    let Moments { fault_us, back_us, served_us, noticed, .. } = *moments;
    let longest = |from_us: u64, begun_us: u64, to_us: u64| -> Vec<Gap> {
        let gaps =
            records.iter().map(|record| Gap::longest(&record.acks, from_us, begun_us, to_us));
        gaps.collect()
    };
    let worst_ms = |gaps: &[Gap]| gaps.iter().map(|gap| gap.length_ms()).fold(0.0, f64::max);
    let gaps = longest(fault_us, back_us, back_us);
    let after = |us: u64| us.saturating_sub(fault_us) as f64 / 1e3;
    // A longer pause may have come later, of something else.
    let pauses = longest(fault_us, fault_us + noticed.as_micros() as u64, back_us);
    let first_us = pauses.iter().map(|gap| gap.end_us).min().unwrap_or(fault_us);
    let first = Duration::from_micros(first_us.saturating_sub(fault_us));
    let acks = || records.iter().flat_map(|record| &record.acks);
    let latencies = |from_us: u64, to_us: u64| {
        let within = acks().filter(|ack| (from_us..to_us).contains(&ack.acked_us));
        report::p99_ms(within.map(|ack| ack.acked_us - ack.sent_us))
    };
    let broken = records.iter().flat_map(|record| &record.disconnects_us);
    let mut failure = Failure {
        leader: leader + 1,
        victim: victim + 1,
        gaps_ms: gaps.iter().map(|gap| gap.length_ms()).collect(),
        gap_ms: worst_ms(&gaps),
        first_ack_ms: after(first_us),
        close_ms: moments.close.map(|close| close.as_secs_f64() * 1e3),
        stages: Stages::find(logs, moments.fault_time, first).filter(|_| leader == victim),
        rejoin_ms: (served_us - back_us) as f64 / 1e3,
        rejoin_gap_ms: worst_ms(&longest(back_us, served_us, served_us)),
        p99_before_ms: latencies(0, fault_us),
        p99_rejoin_ms: latencies(back_us, served_us),
        disconnects: broken.filter(|moment| **moment >= fault_us).count() as u64,
        expired: records.iter().map(|record| record.expired).sum(),
        acknowledged: acks().count() as u64,
        unknown: records.iter().map(|record| record.unknown).sum(),
        refused: std::collections::BTreeMap::new(),
        timeline: Timeline::of(acks(), fault_us, back_us),
    };
    for (code, count) in records.iter().flat_map(|record| &record.refused) {
        *failure.refused.entry(crate::wire::error_name(*code)).or_default() += count;
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observer_is_lost_where_observers_are() {
        for fault in [Fault::KillObserver, Fault::StopObserver, Fault::PartitionObserver] {
            assert!(fault.is_of_observer() && fault.victim(3, 1) == 3);
        }
        assert!(!Fault::PartitionLeader.is_of_observer());
    }

    #[test]
    fn the_victim_is_the_leader_or_never_the_leader() {
        for leader in 0..3 {
            assert_eq!(Fault::KillLeader.victim(3, leader), leader);
            let follower = Fault::KillFollower.victim(3, leader);
            assert!(follower != leader && follower < 3);
        }
    }
}
