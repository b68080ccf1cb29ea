//! Where the time of a leader change went, from what the servers logged.
//!
//! Known are the lines of a ringkeeper: one who has lost its leader begins to look for another,
//! an election is decided, the new leader leads when a quorum has its history.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A server has lost its leader.
const LOST: &str = "looking for a leader";
/// A server knows for whom a quorum has voted.
const DECIDED: &str = ": decided ";
/// A server leads: it has its quorum.
pub const LEADING: &str = ": leading epoch=";

/// The parts of a leader change, milliseconds; they add up to the first write's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Stages {
    /// From the fault until the first survivor noticed: the kernel closes the links, or silence
    /// has lasted long enough.
    pub close_ms: f64,
    /// Until the next leader knew that it was elected.
    pub election_ms: f64,
    /// Until a quorum had accepted its epoch and had its history.
    pub discovery_ms: f64,
    /// Until a client had the first acknowledgement.
    pub commit_ms: f64,
}

impl Stages {
    /// Finds them in what the survivors logged; none if they log something else. What they
    /// logged up to `early` before the fault counts as logged at it.
    pub fn find(
        logs: &[String],
        fault: SystemTime,
        early: Duration,
        first_ack: Duration,
    ) -> Option<Self> {
        let moments: Vec<Moments> = logs.iter().map(|log| Moments::of(log, fault, early)).collect();
        let lost = moments.iter().filter_map(|moments| moments.lost).min_by(f64::total_cmp)?;
        let ack_ms = first_ack.as_secs_f64() * 1e3;
        // A leader that lost its quorum again has led to no write.
        let (decided, leading) = moments
            .iter()
            .flat_map(|moments| moments.led.iter().copied())
            .filter(|(_, leading)| *leading <= ack_ms)
            .max_by(|one, other| one.1.total_cmp(&other.1))?;
        Some(Self {
            close_ms: lost,
            election_ms: decided - lost,
            discovery_ms: leading - decided,
            commit_ms: ack_ms - leading,
        })
    }

    /// Each of them with its name.
    pub fn parts(self) -> [(&'static str, f64); 4] {
        [
            ("close seen by a server", self.close_ms),
            ("election", self.election_ms),
            ("discovery and synchronization", self.discovery_ms),
            ("first commit", self.commit_ms),
        ]
    }
}

/// What one server logged, milliseconds from the fault.
#[derive(Debug, Default)]
struct Moments {
    lost: Option<f64>,
    led: Vec<(f64, f64)>,
}

impl Moments {
    fn of(log: &str, fault: SystemTime, early: Duration) -> Self {
        let mut moments = Self::default();
        let mut decided = None;
        for line in log.lines() {
            let Some(at) = moment(line, fault, early) else { continue };
            if line.contains(LOST) {
                moments.lost.get_or_insert(at);
            } else if line.contains(DECIDED) {
                decided = Some(at);
            } else if line.contains(LEADING) {
                moments.led.extend(decided.take().map(|decided| (decided, at)));
            }
        }
        moments
    }
}

/// When a line was logged, milliseconds from the fault; none if more than `early` before it.
fn moment(line: &str, fault: SystemTime, early: Duration) -> Option<f64> {
    let time = OffsetDateTime::parse(line.split_whitespace().next()?, &Rfc3339).ok()?;
    let after = (time - OffsetDateTime::from(fault)).as_seconds_f64() * 1e3;
    (after >= -early.as_secs_f64() * 1e3).then_some(after.max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_follow_the_lines_of_the_server_that_came_to_lead() {
        let fault = OffsetDateTime::parse("2026-01-02T03:04:05.000000Z", &Rfc3339).unwrap();
        let line =
            |us: u32, words: &str| format!("2026-01-02T03:04:05.{us:06}Z  INFO e::z: {words}\n");
        let leader = [
            "a line of another form\n".to_owned(),
            line(3000, "looking for a leader: the leader has closed the link"),
            line(9000, "decided decision=Decision { }"),
            line(20_000, "leading epoch=4"),
        ];
        let follower = [
            "2026-01-02T03:04:04.900000Z  INFO e::z: decided of the election before\n".to_owned(),
            line(2000, "looking for a leader: the leader has closed the link"),
            line(8000, "decided decision=Decision { }"),
        ];
        let logs = [follower.concat(), leader.concat()];
        let find = |ack_ms| {
            Stages::find(&logs, fault.into(), Duration::ZERO, Duration::from_millis(ack_ms))
        };
        let stages = find(25).unwrap();
        let expected = [2.0, 7.0, 11.0, 5.0];
        for ((name, found), expected) in stages.parts().into_iter().zip(expected) {
            assert!((found - expected).abs() < 0.01, "{name}: {found}, not {expected}");
        }
        // Nobody led before that write, or nothing is logged that is known.
        assert_eq!(find(19), None);
        let silent = [String::new(), "12:00:00.000 WARN Follower - gone\n".to_owned()];
        let first_ack = Duration::from_secs(1);
        assert_eq!(Stages::find(&silent, fault.into(), Duration::ZERO, first_ack), None);
    }

    #[test]
    fn servers_that_notice_before_the_last_write_is_known_have_noticed_at_once() {
        let fault = OffsetDateTime::parse("2026-01-02T03:04:05.004000Z", &Rfc3339).unwrap();
        let log = [
            "2026-01-02T03:04:05.001000Z  INFO e::z: looking for a leader: the epoch ends\n",
            "2026-01-02T03:04:05.006000Z  INFO e::z: decided decision=Decision { }\n",
            "2026-01-02T03:04:05.009000Z  INFO e::z: leading epoch=4\n",
        ];
        let logs = [log.concat()];
        let find = |early_ms| {
            let [early, ack] = [early_ms, 10].map(Duration::from_millis);
            Stages::find(&logs, fault.into(), early, ack)
        };
        assert_eq!(find(2), None);
        let stages = find(3).unwrap();
        let expected = [0.0, 2.0, 3.0, 5.0];
        for ((name, found), expected) in stages.parts().into_iter().zip(expected) {
            assert!((found - expected).abs() < 0.01, "{name}: {found}, not {expected}");
        }
    }
}
