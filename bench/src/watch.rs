//! `watch`: one setData, many watchers; how long until the last of them has its event.
//!
//! In each round every watcher has a watch on the same znode, armed with getData. The znode is
//! set once; every watcher must get exactly one event, of the right kind, path and zxid.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use engine::jute::Reader;
use engine::op::OpCode;
use serde::Serialize;

use crate::client::Client;
use crate::crowd::{Crowd, Happening};
use crate::load::Target;
use crate::load::report::Latency;
use crate::progress::Progress;
use crate::recorder::{Violation, Violations, histogram};
use crate::wire::{self, ReplyHeader};

/// How long a round may take before what is missing is missed.
const ROUND_WAIT: Duration = Duration::from_secs(10);
/// NodeDataChanged.
const DATA_CHANGED: i32 = 3;

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
    /// Bytes of the value
    #[arg(long, default_value_t = 100)]
    pub value_bytes: usize,
    /// The znode
    #[arg(long, default_value = "/bench-watch")]
    pub path: String,
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
    /// The server's CPU time per event, microseconds, arming included.
    pub server_cpu_us_per_event: Option<f64>,
    /// What the server must not do, and did.
    pub violations: Violations,
}

/// What a round knows of its watchers.
#[derive(Debug, Default)]
struct Round {
    armed: Vec<bool>,
    armed_count: usize,
    zxids: Vec<i64>,
}

/// Runs the rounds.
pub fn run(options: &WatchOptions, progress: &Progress) -> anyhow::Result<WatchReport> {
    ensure!(options.watchers > 0 && options.rounds > 0, "--watchers and --rounds must not be 0");
    let hosts = options.target.addresses()?;
    let first = *hosts.first().context("no host was given")?;
    let mut setter = Client::connect(first, options.target.timeout())?;
    setter.ensure_path(&options.path)?;
    progress.say(&format!("opening {} sessions", options.watchers));
    let mut crowd = Crowd::open(hosts, options.watchers, options.target.timeout_ms, |_| {})?;
    let mut report = WatchReport {
        options: options.clone(),
        all_notified: Latency::default(),
        each_notified: Latency::default(),
        set: Latency::default(),
        events: 0,
        server_cpu_us_per_event: None,
        violations: Violations::default(),
    };
    let (mut all, mut each, mut set) = (histogram(), histogram(), histogram());
    let cpu_time = || options.target.cpu_time();
    let mut cpu_begin = None;
    for number in 0..options.warm_up + options.rounds {
        if number == options.warm_up {
            (all, each, set) = (histogram(), histogram(), histogram());
            report.events = 0;
            cpu_begin = cpu_time()?;
        }
        let mut round = arm(&mut crowd, options, &mut report)?;
        let begin = Instant::now();
        let zxid = set_once(&mut setter, options)?;
        set.saturating_record(begin.elapsed().as_nanos() as u64);
        gather(&mut crowd, options, &mut round, begin, &mut each, &mut report)?;
        all.saturating_record(begin.elapsed().as_nanos() as u64);
        judge(&round, zxid, &mut report);
    }
    let spent = cpu_begin.zip(cpu_time()?).map(|(begin, end)| (end - begin).as_secs_f64() * 1e6);
    report.server_cpu_us_per_event = spent.map(|spent| spent / report.events.max(1) as f64);
    report.all_notified = Latency::of(&all);
    report.each_notified = Latency::of(&each);
    report.set = Latency::of(&set);
    crowd.close()?;
    setter.delete_tree(&options.path)?;
    setter.close()?;
    Ok(report)
}

/// Gives every watcher its watch.
fn arm(
    crowd: &mut Crowd,
    options: &WatchOptions,
    report: &mut WatchReport,
) -> anyhow::Result<Round> {
    let count = crowd.connections.len();
    let mut round = Round { armed: vec![false; count], ..Round::default() };
    crowd.send_all(|out| {
        let path = options.path.as_bytes();
        wire::request(out, 1, OpCode::GetData, |w| wire::read_body(w, path, true));
    });
    let deadline = Instant::now() + ROUND_WAIT;
    while round.armed_count < count {
        ensure!(Instant::now() < deadline, "only {} watches were armed", round.armed_count);
        let mut lost = None;
        crowd.wait(Duration::from_millis(100), &mut |index, happening, _| match happening {
            Happening::Up => {}
            Happening::Lost(loss) => lost = Some((index, loss)),
            Happening::Frame(frame) => match ReplyHeader::split(frame) {
                Some((header, _)) if header.xid == 1 && header.err == 0 && !round.armed[index] => {
                    round.armed[index] = true;
                    round.armed_count += 1;
                }
                Some((header, _)) if header.xid == wire::XID_EVENT => {
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
            anyhow::bail!("watcher {index} lost its connection ({loss:?})");
        }
    }
    Ok(round)
}

fn set_once(setter: &mut Client, options: &WatchOptions) -> anyhow::Result<i64> {
    let value = vec![b'v'; options.value_bytes];
    let path = options.path.as_bytes();
    let reply = setter.call(OpCode::SetData, |w| wire::set_body(w, path, &value))?;
    ensure!(reply.header.err == 0, "setData: {}", wire::error_name(reply.header.err));
    Ok(reply.header.zxid)
}

/// Takes events until every watcher has one.
fn gather(
    crowd: &mut Crowd,
    options: &WatchOptions,
    round: &mut Round,
    begin: Instant,
    each: &mut hdrhistogram::Histogram<u64>,
    report: &mut WatchReport,
) -> anyhow::Result<()> {
    while round.armed_count > 0 {
        if begin.elapsed() > ROUND_WAIT {
            let missed = round.armed_count;
            for _ in 0..missed {
                report.violations.add(Violation::MissedEvent, || format!("{missed} in 10 s"));
            }
            break;
        }
        crowd.wait(Duration::from_millis(100), &mut |index, happening, _| {
            let Happening::Frame(frame) = happening else { return };
            let now = begin.elapsed();
            match event_zxid(frame, &options.path) {
                Some(zxid) if round.armed[index] => {
                    round.armed[index] = false;
                    round.armed_count -= 1;
                    round.zxids.push(zxid);
                    report.events += 1;
                    each.saturating_record(now.as_nanos() as u64);
                }
                Some(zxid) => report
                    .violations
                    .add(Violation::StaleEvent, || format!("watcher {index} again, {zxid:#x}")),
                None => report
                    .violations
                    .add(Violation::WrongContent, || format!("watcher {index}: another event")),
            }
        })?;
    }
    Ok(())
}

/// The zxid of an event, if it says that the data of `path` changed.
fn event_zxid(frame: &[u8], path: &str) -> Option<i64> {
    let (header, body) = ReplyHeader::split(frame)?;
    let mut reader = Reader::new(body);
    let kind = reader.i32().ok()?;
    let _state = reader.i32().ok()?;
    let about = reader.buf().ok()??;
    let fits = header.xid == wire::XID_EVENT && kind == DATA_CHANGED && about == path.as_bytes();
    fits.then_some(header.zxid)
}

/// An event carries the zxid of its cause; -1 in ZooKeeper before 3.9.
fn judge(round: &Round, zxid: i64, report: &mut WatchReport) {
    for other in round.zxids.iter().filter(|other| **other != zxid && **other != -1) {
        report.violations.add(Violation::StaleEvent, || format!("{other:#x} for {zxid:#x}"));
    }
}

impl fmt::Display for WatchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        writeln!(f, "watch: {} rounds, {} watchers", options.rounds, options.watchers)?;
        writeln!(f, "  all notified   {}", self.all_notified)?;
        writeln!(f, "  each notified  {}", self.each_notified)?;
        writeln!(f, "  set            {}", self.set)?;
        write!(f, "  {} events", self.events)?;
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
