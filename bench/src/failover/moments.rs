//! The moments of one failure, and the figures that they make of what the writers went through.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use super::report::{self, Failure};
use super::stages::Stages;
use super::timeline::{Gap, Timeline};
use super::writer::{Ack, Record};
use crate::wire;

/// How late what the lost server had said may still reach a client.
const LAST_WORDS: Duration = Duration::from_millis(10);

/// When things happened, microseconds of the run's clock.
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    /// When it happened,
    pub fault_us: u64,
    /// by the clock that logs tell.
    pub fault_time: SystemTime,
    /// How much earlier servers may have noticed.
    pub early: Duration,
    /// Until when pauses are counted.
    pub over_us: u64,
    /// From when on the server came back, and when it served; none if it was never away.
    pub back: Option<(u64, u64)>,
    /// When the lost server's idle client saw its connection closed.
    pub close: Option<Duration>,
    /// Whether that was the end of the server's words.
    pub is_killed: bool,
    /// Whether writes had to stop at all.
    pub is_pause: bool,
}

impl Moments {
    /// An epoch ended with the last write that was acknowledged before the next one's first. Its
    /// servers may have gone on while that acknowledgement was on its way.
    pub fn begin_where_epoch_ends(&mut self, records: &[Record]) -> anyhow::Result<()> {
        let last = last_of_epoch(records).context("no epoch ended")?;
        self.fault_time -= Duration::from_micros(self.fault_us.saturating_sub(last.acked_us));
        self.fault_us = last.acked_us;
        self.early = Duration::from_micros(last.acked_us - last.sent_us);
        Ok(())
    }

    /// Makes figures of what the writers went through.
    pub fn examine(
        &self,
        leader: usize,
        victim: usize,
        records: &[Record],
        logs: &[String],
    ) -> Failure {
        let Self { fault_us, over_us, .. } = *self;
        let longest = |from_us: u64, begun_us: u64, to_us: u64| -> Vec<Gap> {
            let gaps =
                records.iter().map(|record| Gap::longest(&record.acks, from_us, begun_us, to_us));
            gaps.collect()
        };
        let worst_ms = |gaps: &[Gap]| gaps.iter().map(|gap| gap.length_ms()).fold(0.0, f64::max);
        let gaps = longest(fault_us, over_us, over_us);
        let after = |us: u64| us.saturating_sub(fault_us) as f64 / 1e3;
        let of_next = || first_of_next_epoch(records, fault_us).filter(|_| leader == victim);
        let first_us = of_next().unwrap_or_else(|| {
            // A longer pause may have come later, of something else.
            let close = self.close.filter(|_| self.is_killed).unwrap_or_default();
            let noticed_us = fault_us + (close + LAST_WORDS).as_micros() as u64;
            let pauses = longest(fault_us, noticed_us, over_us);
            pauses.iter().map(|gap| gap.end_us).min().unwrap_or(fault_us)
        });
        let first = Duration::from_micros(first_us.saturating_sub(fault_us));
        let acks = || records.iter().flat_map(|record| &record.acks);
        let p99_ms = |from_us: u64, to_us: u64| {
            let within = acks().filter(|ack| (from_us..to_us).contains(&ack.acked_us));
            report::p99_ms(within.map(|ack| ack.acked_us - ack.sent_us))
        };
        let broken = records.iter().flat_map(|record| &record.disconnects_us);
        let mut refused = BTreeMap::new();
        for (code, count) in records.iter().flat_map(|record| &record.refused) {
            *refused.entry(wire::error_name(*code)).or_default() += count;
        }
        let ms = |(from_us, to_us): (u64, u64)| (to_us - from_us) as f64 / 1e3;
        let find_stages = || Stages::find(logs, self.fault_time, self.early, first);
        Failure {
            leader: leader + 1,
            victim: victim + 1,
            gaps_ms: gaps.iter().map(|gap| gap.length_ms()).collect(),
            gap_ms: worst_ms(&gaps),
            first_ack_ms: self.is_pause.then(|| after(first_us)),
            close_ms: self.close.map(|close| close.as_secs_f64() * 1e3),
            stages: if leader == victim { find_stages() } else { None },
            rejoin_ms: self.back.map(ms),
            rejoin_gap_ms: self.back.map(|(from, to)| worst_ms(&longest(from, to, to))),
            p99_before_ms: p99_ms(0, fault_us),
            p99_rejoin_ms: self.back.and_then(|(from, to)| p99_ms(from, to)),
            disconnects: broken.filter(|moment| **moment >= fault_us).count() as u64,
            expired: records.iter().map(|record| record.expired).sum(),
            acknowledged: acks().count() as u64,
            unknown: records.iter().map(|record| record.unknown).sum(),
            refused,
            timeline: Timeline::of(acks(), fault_us, over_us),
        }
    }
}

/// The last write that was acknowledged before the first one of a later epoch than the first.
fn last_of_epoch(records: &[Record]) -> Option<&Ack> {
    let acks = || records.iter().flat_map(|record| &record.acks);
    let epoch = acks().map(|ack| ack.epoch).min()?;
    let first_us = first_behind(records, epoch)?;
    acks().filter(|ack| ack.acked_us < first_us).max_by_key(|ack| ack.acked_us)
}

/// When the first write of a later epoch than those before the fault was acknowledged: the first
/// one by the next leader, however long writes took before.
fn first_of_next_epoch(records: &[Record], fault_us: u64) -> Option<u64> {
    let acks = || records.iter().flat_map(|record| &record.acks);
    let before = acks().filter(|ack| ack.acked_us <= fault_us).map(|ack| ack.epoch).max()?;
    first_behind(records, before)
}

/// When the first write of a later epoch was acknowledged.
fn first_behind(records: &[Record], epoch: u32) -> Option<u64> {
    let acks = records.iter().flat_map(|record| &record.acks);
    acks.filter(|ack| ack.epoch > epoch).map(|ack| ack.acked_us).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_tell_whose_a_write_is() {
        let record = |acks: &[(u64, u32)]| {
            let ack = |(acked_us, epoch): &(u64, u32)| Ack {
                number: 0,
                sent_us: 0,
                acked_us: *acked_us,
                epoch: *epoch,
            };
            Record { acks: acks.iter().map(ack).collect(), ..Record::default() }
        };
        let records = [record(&[(10, 1), (30, 1), (90, 2)]), record(&[(20, 1), (80, 2), (95, 2)])];
        let last_us = |records: &[Record]| last_of_epoch(records).map(|ack| ack.acked_us);
        assert_eq!(last_us(&records), Some(30));
        assert_eq!(last_us(&[record(&[(10, 2), (20, 2)])]), None);
        // A slow write that the lost leader still acknowledged is none of the next one's.
        let next_us = |fault_us| first_of_next_epoch(&records, fault_us);
        assert_eq!([15, 30, 85].map(next_us), [Some(80), Some(80), None]);
    }
}
