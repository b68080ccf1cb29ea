//! `recovery` of an ensemble: a server is lost under writes, and comes back.
//!
//! Every survivor has closed-loop writers. One server is killed, frozen or cut off; how long each
//! writer waited, when the first write was acknowledged again, and what its clients noticed is
//! known to a millisecond or better. Then the server comes back while the writers go on, and at
//! last every acknowledged write is looked for at every server.
//!
//! Two things that happen are no loss: a follower joins that was not there before, and the zxids
//! of an epoch run out.

pub mod fault;
pub mod moments;
pub mod report;
pub mod stages;
pub mod timeline;
pub mod writer;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail, ensure};

pub use self::fault::EnsembleOptions;
use self::fault::{Blow, Fault};
use self::moments::Moments;
use self::report::{FailoverReport, Failure};
use self::writer::{Record, Sight, Writer};
use crate::client::Client;
use crate::cpu;
use crate::ensemble::Ensemble;
use crate::fill;
use crate::load::Target;
use crate::load::setup::catch_up;
use crate::progress::Progress;
use crate::recorder::{Violation, Violations};
use crate::recovery::{self, RecoveryOptions};
use crate::server::scratch_in;

/// Below which everything is written.
const ROOT: &str = "/failover";
/// Every writer must have had an acknowledgement within this time before a fault counts as over.
const LIVELY: Duration = Duration::from_millis(100);
/// How long that may take.
const OVER_WAIT: Duration = Duration::from_secs(90);
/// How long the zxids of an epoch may last.
const ROLLOVER_WAIT: Duration = Duration::from_secs(120);
/// Pause between two looks at the writers.
const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// Writers go on for this long when the server is back.
const AFTER_REJOIN: Duration = Duration::from_millis(200);
/// Servers rest when they have read and written hardly anything for so long.
const REST: Duration = Duration::from_secs(2);
/// And that is at most.
const REST_BYTES: u64 = 1 << 20;
/// How long it may take until they do.
const REST_WAIT: Duration = Duration::from_secs(300);
/// Session timeout of those who prepare and check.
const TIMEOUT: Duration = Duration::from_secs(30);

struct Run<'a> {
    options: &'a RecoveryOptions,
    ensemble: Ensemble,
    voters: usize,
    progress: &'a Progress,
    clock: Instant,
    violations: Violations,
}

/// Starts the ensemble, fills it, and loses a server as often as asked.
pub fn run(options: &RecoveryOptions, progress: &Progress) -> anyhow::Result<FailoverReport> {
    ensure!(options.repeats > 0, "--repeats must be at least 1");
    ensure!(options.ensemble.writers > 0, "--writers must be at least 1");
    ensure!(!options.idle, "--idle is for a single server");
    let fault = options.ensemble.fault;
    ensure!(fault.blow() == Blow::Kill || !options.ensemble.wipe, "--wipe is for a kill");
    let znodes = options.znodes.unwrap_or(0);
    ensure!(fault != Fault::Rollover || znodes == 0, "--znodes would use up zxids");
    let plan = options.plan.read()?;
    let mut template = plan.template(&options.server)?.clone();
    if fault == Fault::Rollover {
        let used = u32::MAX - options.ensemble.rollover_after;
        template.config.push_str(&format!("\ntestingonly.initialZxid={used}\n"));
    }
    ensure!(template.servers > 2, "{} cannot lose a server", template.name);
    let scratch = scratch_in(&options.plan.directory)?;
    let observers = options.ensemble.observers.max(usize::from(fault.is_of_observer()));
    let (voters, variables) = (template.servers, options.plan.variables(&plan));
    let is_parted = fault.blow() == Blow::Part;
    let mut ensemble =
        Ensemble::prepare_with(&template, observers, is_parted, &variables, scratch.path())?;
    ensemble.start()?;
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

/// Waits until what servers do in the background after a fill or a restart is over: the snapshots
/// of a large tree take a while, and much of the disk's time.
fn rest(pids: &[u32]) -> anyhow::Result<()> {
    let begin = Instant::now();
    let mut before = cpu::storage_bytes(pids)?;
    loop {
        thread::sleep(REST);
        let now = cpu::storage_bytes(pids)?;
        if now - before <= REST_BYTES {
            return Ok(());
        }
        ensure!(begin.elapsed() < REST_WAIT, "the servers do not come to rest");
        before = now;
    }
}

impl Run<'_> {
    /// One failure from beginning to end.
    fn fail(&mut self, number: usize) -> anyhow::Result<Failure> {
        let leader = self.ensemble.leader()?;
        let count = self.ensemble.servers.len();
        let fault = self.options.ensemble.fault;
        let victim = fault.victim(self.voters, leader);
        // Nobody is lost where an epoch ends.
        let is_there = |index: &usize| *index != victim || fault == Fault::Rollover;
        let survivors: Vec<usize> = (0..count).filter(is_there).collect();
        let root = format!("{ROOT}/{number}");
        let writers = survivors.len() * self.options.ensemble.writers;
        let directories: Vec<String> =
            (0..writers).map(|writer| format!("{root}/{writer}")).collect();
        self.prepare(&directories)?;
        if self.options.znodes.is_some_and(|znodes| znodes > 0) {
            self.progress.say("waiting until the servers rest");
            rest(&self.ensemble.pids())?;
        }
        if fault.blow() == Blow::Join {
            self.lose(Blow::Join, victim)?;
        }
        let starts: Vec<u64> =
            self.ensemble.servers.iter().map(crate::server::Server::log_bytes).collect();
        let (records, moments) = self.strike_under_writes(victim, &survivors, &directories)?;
        let logs: anyhow::Result<Vec<String>> = survivors
            .iter()
            .map(|index| self.ensemble.servers[*index].log_from(starts[*index]))
            .collect();
        let failure = moments.examine(leader, victim, &records, &logs?);
        self.check(&records)?;
        if fault != Fault::Rollover {
            // There, each of these writes would count, too.
            self.remove(&root)?;
        }
        Ok(failure)
    }

    fn prepare(&self, directories: &[String]) -> anyhow::Result<()> {
        let addresses = self.ensemble.addresses();
        let mut client = Client::connect(addresses[0], TIMEOUT)?;
        directories.iter().try_for_each(|directory| client.ensure_path(directory))?;
        client.close()?;
        catch_up(&addresses, TIMEOUT)
    }

    fn strike_under_writes(
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
            let blow = self.options.ensemble.fault.blow();
            let moments = match blow {
                Blow::Join => self.join(victim, &sights),
                Blow::Rollover => self.roll_over(&sights),
                Blow::Kill | Blow::Stop | Blow::Part => self.lose_and_regain(victim, &sights),
            };
            stop.store(true, Ordering::Relaxed);
            let records = writers.into_iter().map(|writer| writer.join().expect("writers go on"));
            let (records, mut moments) = (records.collect::<Vec<_>>(), moments?);
            if blow == Blow::Rollover {
                moments.begin_where_epoch_ends(&records)?;
            }
            Ok((records, moments))
        })
    }

    /// What happens to the server while others write.
    fn lose_and_regain(&mut self, victim: usize, sights: &[Sight]) -> anyhow::Result<Moments> {
        let half = self.half();
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
        let back = Some((back_us, served_us));
        let (is_killed, is_pause) = (blow == Blow::Kill, true);
        let over_us = back_us;
        let early = Duration::ZERO;
        Ok(Moments { fault_us, fault_time, early, over_us, back, close, is_killed, is_pause })
    }

    /// A server that was not there comes while others write.
    fn join(&mut self, victim: usize, sights: &[Sight]) -> anyhow::Result<Moments> {
        self.wait_lively(self.now_us(), self.half(), sights).context("before the join")?;
        let (fault_us, fault_time) = (self.now_us(), SystemTime::now());
        self.regain(Blow::Join, victim)?;
        self.ensemble.servers[victim].wait_serving()?;
        let served_us = self.now_us();
        thread::sleep(AFTER_REJOIN);
        self.wait_lively(served_us, Duration::ZERO, sights).context("after the join")?;
        Ok(Moments {
            fault_us,
            fault_time,
            early: Duration::ZERO,
            over_us: served_us,
            back: Some((fault_us, served_us)),
            close: None,
            is_killed: false,
            is_pause: false,
        })
    }

    /// An epoch ends under writes. When it did is known when the writers tell.
    fn roll_over(&self, sights: &[Sight]) -> anyhow::Result<Moments> {
        self.wait_lively(self.now_us(), self.half(), sights).context("before the rollover")?;
        let newest = || sights.iter().map(|sight| sight.epoch.load(Ordering::Relaxed)).max();
        let (epoch, begin) = (newest(), Instant::now());
        while newest() == epoch {
            ensure!(begin.elapsed() < ROLLOVER_WAIT, "the epoch does not end");
            thread::sleep(LOOK_PAUSE);
        }
        let (fault_us, fault_time) = (self.now_us(), SystemTime::now());
        self.wait_lively(fault_us, self.half(), sights).context("after the rollover")?;
        let over_us = self.now_us();
        let (back, close, is_killed, is_pause) = (None, None, false, true);
        let early = Duration::ZERO;
        Ok(Moments { fault_us, fault_time, early, over_us, back, close, is_killed, is_pause })
    }

    /// How long is written before and after what happens.
    fn half(&self) -> Duration {
        Duration::from_secs_f64(self.options.seconds / 2.0)
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
            Blow::Join => {
                servers[victim].kill()?;
                servers[victim].wipe()
            }
            // There is nothing to do but to write.
            Blow::Rollover => Ok(()),
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
            Blow::Join => server.start(),
            Blow::Rollover => Ok(()),
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
