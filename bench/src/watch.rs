//! `watch`: one setData, many watchers; how long until the last of them has its event.
//!
//! In each round every watcher has a watch on the same znode, armed with getData. The znode is
//! set once; every watcher must get exactly one event, of the right kind, path and zxid.
//!
//! The setter is one more connection of the watchers' thread: it sends and waits for nothing, so
//! that events are taken while the server still sends others, whenever the setter's reply comes.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use engine::ids::Xid;
use engine::jute::Reader;
use engine::op::OpCode;
use engine::records::{NOTIFICATION_XID, ReplyHeader, WatchEvent};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::client::Client;
use crate::cpu;
use crate::crowd::{Crowd, Happening};
use crate::load::Target;
use crate::load::report::Latency;
use crate::load::setup;
use crate::progress::Progress;
use crate::recorder::{Violation, Violations, histogram};
use crate::wire;

/// How long may pass between two looks at the time.
const LOOK_WAIT: Duration = Duration::from_millis(100);
/// NodeDataChanged.
const DATA_CHANGED: i32 = 3;
/// The connection that sets; the watchers' follow.
const SETTER: usize = 0;
/// The xid of what it sends,
const SET_XID: Xid = Xid(2);
/// and of what arms a watcher.
const ARM_XID: Xid = Xid(1);

/// The arguments of `watch`.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct WatchOptions {
    #[command(flatten)]
    #[serde(flatten)]
    /// Where.
    pub target: Target,
    /// Connections that watch
    #[arg(short, long, default_value_t = 1000)]
    pub watchers: usize,
    /// How often the znode is set
    #[arg(short, long, default_value_t = 50)]
    pub rounds: usize,
    /// Rounds before that, unmeasured
    #[arg(long, default_value_t = 5)]
    pub warm_up: usize,
    /// Seconds that a round may take before what has not come is missed
    #[arg(long, default_value_t = 10.0)]
    pub round_wait: f64,
    /// Bytes of the value
    #[arg(long, default_value_t = 100)]
    pub value_bytes: usize,
    /// The znode
    #[arg(long, default_value = "/bench-watch")]
    pub path: String,
}

impl WatchOptions {
    fn round_wait(&self) -> Duration {
        Duration::from_secs_f64(self.round_wait)
    }
}

/// The figures of `watch`.
#[derive(Clone, Debug, Serialize)]
pub struct WatchReport {
    /// What was asked for.
    pub options: WatchOptions,
    /// From sending the setData to the last event of its round.
    pub all_notified: Latency,
    /// From sending the setData to each event.
    pub each_notified: Latency,
    /// From sending the setData to its reply.
    pub set: Latency,
    /// Events that came.
    pub events: u64,
    /// This program's CPU time per event, microseconds, arming not included.
    pub client_cpu_us_per_event: f64,
    /// The server's CPU time per event, microseconds, arming included.
    pub server_cpu_us_per_event: Option<f64>,
    /// What the server must not do, and did.
    pub violations: Violations,
}

/// The latencies of the measured rounds.
struct Histograms {
    all: Histogram<u64>,
    each: Histogram<u64>,
    set: Histogram<u64>,
}

impl Histograms {
    fn new() -> Self {
        Self { all: histogram(), each: histogram(), set: histogram() }
    }
}

/// What a round knows of its watchers.
#[derive(Debug)]
struct Round {
    /// By connection; the setter's is never.
    armed: Vec<bool>,
    armed_count: usize,
    zxids: Vec<i64>,
    /// The reply to the setter.
    set: Option<ReplyHeader>,
}

/// Runs the rounds.
pub fn run(options: &WatchOptions, progress: &Progress) -> anyhow::Result<WatchReport> {
    ensure!(options.watchers > 0 && options.rounds > 0, "--watchers and --rounds must not be 0");
    ensure!(options.round_wait > 0.0, "--round-wait must be more than 0");
    let hosts = options.target.addresses()?;
    let first = *hosts.first().context("no host was given")?;
    let mut keeper = Client::connect(first, options.target.timeout())?;
    keeper.ensure_path(&options.path)?;
    setup::catch_up(&hosts, options.target.timeout())?;
    progress.say(&format!("opening {} sessions", options.watchers));
    let mut crowd = Crowd::open(hosts, 1 + options.watchers, options.target.timeout_ms, |_| {})?;
    let mut report = WatchReport {
        options: options.clone(),
        all_notified: Latency::default(),
        each_notified: Latency::default(),
        set: Latency::default(),
        events: 0,
        client_cpu_us_per_event: 0.0,
        server_cpu_us_per_event: None,
        violations: Violations::default(),
    };
    let mut histograms = Histograms::new();
    let cpu_time = || options.target.cpu_time();
    let (mut cpu_begin, mut spent) = (None, Duration::ZERO);
    for number in 0..options.warm_up + options.rounds {
        if number == options.warm_up {
            histograms = Histograms::new();
            report.events = 0;
            (cpu_begin, spent) = (cpu_time()?, Duration::ZERO);
        }
        let mut round = arm(&mut crowd, options, &mut report)?;
        let before = cpu::thread_time();
        set_and_gather(&mut crowd, options, &mut round, &mut histograms, &mut report)?;
        spent += cpu::thread_time() - before;
        judge(&round, &mut report)?;
    }
    let events = report.events.max(1) as f64;
    report.client_cpu_us_per_event = spent.as_secs_f64() * 1e6 / events;
    let spent = cpu_begin.zip(cpu_time()?).map(|(begin, end)| (end - begin).as_secs_f64() * 1e6);
    report.server_cpu_us_per_event = spent.map(|spent| spent / events);
    report.all_notified = Latency::of(&histograms.all);
    report.each_notified = Latency::of(&histograms.each);
    report.set = Latency::of(&histograms.set);
    crowd.close()?;
    keeper.delete_tree(&options.path)?;
    keeper.close()?;
    Ok(report)
}

/// Gives every watcher its watch.
fn arm(
    crowd: &mut Crowd,
    options: &WatchOptions,
    report: &mut WatchReport,
) -> anyhow::Result<Round> {
    let count = options.watchers;
    let armed = vec![false; crowd.connections.len()];
    let mut round = Round { armed, armed_count: 0, zxids: Vec::with_capacity(count), set: None };
    crowd.send_all(SETTER + 1.., |out| {
        let path = options.path.as_bytes();
        wire::request(out, ARM_XID, OpCode::GetData, |w| wire::read_body(w, path, true));
    });
    let deadline = Instant::now() + options.round_wait();
    while round.armed_count < count {
        ensure!(Instant::now() < deadline, "only {} watches were armed", round.armed_count);
        let mut lost = None;
        crowd.wait(LOOK_WAIT, &mut |index, happening, _| match happening {
            Happening::Up => {}
            Happening::Lost(loss) => lost = Some((index, loss)),
            Happening::Frame(frame) => match wire::split_reply(frame) {
                Some((header, _))
                    if header.xid == ARM_XID && header.err == 0 && !round.armed[index] =>
                {
                    round.armed[index] = true;
                    round.armed_count += 1;
                }
                Some((header, _)) if header.xid == NOTIFICATION_XID => {
                    report.violations.add(Violation::StaleEvent, || {
                        format!("watcher {index} was told again, {:#x}", header.zxid)
                    });
                }
                other => report.violations.add(Violation::UninvitedReply, || {
                    format!("watcher {index}: {:?}", other.map(|(header, _)| header))
                }),
            },
        })?;
        if let Some((index, loss)) = lost {
            bail!("watcher {index} lost its connection ({loss:?})");
        }
    }
    Ok(round)
}

/// Sends the setData, then takes its reply and the events, in the order in which they come.
fn set_and_gather(
    crowd: &mut Crowd,
    options: &WatchOptions,
    round: &mut Round,
    histograms: &mut Histograms,
    report: &mut WatchReport,
) -> anyhow::Result<()> {
    let value = vec![b'v'; options.value_bytes];
    let path = options.path.as_bytes();
    let begin = Instant::now();
    let sent = crowd.send(SETTER, |out| {
        wire::request(out, SET_XID, OpCode::SetData, |w| wire::set_body(w, path, &value));
    });
    sent.map_err(|loss| anyhow::anyhow!("the setter lost its connection ({loss:?})"))?;
    let mut last = Duration::ZERO;
    while round.armed_count > 0 || round.set.is_none() {
        if begin.elapsed() > options.round_wait() {
            ensure!(round.set.is_some(), "the setData was not answered in time");
            let missed = round.armed_count;
            for _ in 0..missed {
                let words = || format!("{missed} of a round");
                report.violations.add(Violation::MissedEvent, words);
            }
            last = begin.elapsed();
            break;
        }
        crowd.wait(LOOK_WAIT, &mut |index, happening, _| {
            let Happening::Frame(frame) = happening else { return };
            let now = begin.elapsed();
            let latency = now.as_nanos() as u64;
            if index == SETTER {
                if round.take_reply(frame, report) {
                    histograms.set.saturating_record(latency);
                }
            } else if round.take_event(index, frame, options, report) {
                last = now;
                histograms.each.saturating_record(latency);
            }
        })?;
    }
    histograms.all.saturating_record(last.as_nanos() as u64);
    Ok(())
}

impl Round {
    /// Takes what came for the setter; whether it is the reply.
    fn take_reply(&mut self, frame: &[u8], report: &mut WatchReport) -> bool {
        match wire::split_reply(frame) {
            Some((header, _)) if header.xid == SET_XID && self.set.is_none() => {
                self.set = Some(header);
                true
            }
            other => {
                report.violations.add(Violation::UninvitedReply, || {
                    format!("the setter: {:?}", other.map(|(header, _)| header))
                });
                false
            }
        }
    }

    /// Takes what came for a watcher; whether it is its event.
    fn take_event(
        &mut self,
        index: usize,
        frame: &[u8],
        options: &WatchOptions,
        report: &mut WatchReport,
    ) -> bool {
        match event_zxid(frame, &options.path) {
            Some(zxid) if self.armed[index] => {
                self.armed[index] = false;
                self.armed_count -= 1;
                self.zxids.push(zxid);
                report.events += 1;
                return true;
            }
            Some(zxid) => report
                .violations
                .add(Violation::StaleEvent, || format!("watcher {index} again, {zxid:#x}")),
            None => report
                .violations
                .add(Violation::WrongContent, || format!("watcher {index}: another event")),
        }
        false
    }
}

/// The zxid of an event, if it says that the data of `path` changed.
fn event_zxid(frame: &[u8], path: &str) -> Option<i64> {
    let (header, body) = wire::split_reply(frame)?;
    let event = WatchEvent::read(&mut Reader::new(body)).ok()?;
    let fits = header.xid == NOTIFICATION_XID && event.kind == DATA_CHANGED && event.path == path;
    fits.then_some(header.zxid)
}

/// An event carries the zxid of its cause; -1 in ZooKeeper before 3.9.
fn judge(round: &Round, report: &mut WatchReport) -> anyhow::Result<()> {
    let set = round.set.context("a round ends behind its setData's reply")?;
    ensure!(set.err == 0, "setData: {}", wire::error_name(set.err));
    for other in round.zxids.iter().filter(|other| **other != set.zxid && **other != -1) {
        report.violations.add(Violation::StaleEvent, || format!("{other:#x} for {:#x}", set.zxid));
    }
    Ok(())
}

impl fmt::Display for WatchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        writeln!(f, "watch: {} rounds, {} watchers", options.rounds, options.watchers)?;
        writeln!(f, "  all notified   {}", self.all_notified)?;
        writeln!(f, "  each notified  {}", self.each_notified)?;
        writeln!(f, "  set            {}", self.set)?;
        write!(f, "  {} events; client CPU", self.events)?;
        write!(f, " {:.2} us/event", self.client_cpu_us_per_event)?;
        if let Some(cpu) = self.server_cpu_us_per_event {
            write!(f, "; server CPU {cpu:.2} us/event (arming included)")?;
        }
        writeln!(f)?;
        for (violation, count) in &self.violations.counts {
            writeln!(f, "  THE SERVER IS WRONG: {violation:?} {count} times")?;
        }
        self.violations.examples.iter().try_for_each(|words| writeln!(f, "  {words}"))
    }
}

#[cfg(test)]
mod tests {
    use engine::jute::Writer;

    use super::*;

    #[test]
    fn an_event_of_another_kind_or_path_is_not_the_event() {
        let event = |kind: i32, path: &str| {
            let mut frame = Vec::new();
            let mut writer = Writer::new(&mut frame);
            writer.i32(-1);
            writer.i64(9);
            writer.i32(0);
            writer.i32(kind);
            writer.i32(3);
            writer.string(path);
            frame
        };
        assert_eq!(event_zxid(&event(3, "/w"), "/w"), Some(9));
        assert_eq!(event_zxid(&event(2, "/w"), "/w"), None);
        assert_eq!(event_zxid(&event(3, "/v"), "/w"), None);
        assert_eq!(event_zxid(&event(3, "/w")[..20], "/w"), None);
    }
}
