//! When writes were acknowledged around a fault, to a millisecond; and the longest pause.

use serde::Serialize;

use super::writer::Ack;

/// Milliseconds before the fault that are kept.
const BEFORE_MS: u64 = 100;

/// Acknowledged writes per millisecond around a fault.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timeline {
    /// What it is called in a picture.
    #[serde(skip)]
    pub name: String,
    /// Where it begins, milliseconds from the fault (negative: before).
    pub from_ms: i64,
    /// One count per millisecond, all clients together.
    pub acks: Vec<u32>,
}

impl Timeline {
    /// Counts the acknowledgements until `end_us`.
    pub fn of<'a>(acks: impl Iterator<Item = &'a Ack>, fault_us: u64, end_us: u64) -> Self {
        let start_us = fault_us.saturating_sub(BEFORE_MS * 1000);
        let bins = end_us.saturating_sub(start_us).div_ceil(1000);
        let mut counts = vec![0; bins as usize];
        for ack in acks.filter(|ack| ack.acked_us >= start_us) {
            if let Some(count) = counts.get_mut(((ack.acked_us - start_us) / 1000) as usize) {
                *count += 1;
            }
        }
        let from_ms = -(((fault_us - start_us) / 1000) as i64);
        Self { name: String::new(), from_ms, acks: counts }
    }

    /// Points (milliseconds from the fault, writes acknowledged since the beginning).
    pub fn sums(&self) -> Vec<(f64, f64)> {
        let mut sum = 0;
        let points = self.acks.iter().zip(1..).map(|(count, bin)| {
            sum += u64::from(*count);
            ((self.from_ms + bin) as f64, sum as f64)
        });
        std::iter::once((self.from_ms as f64, 0.0)).chain(points).collect()
    }
}

/// A pause between two acknowledgements of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// From the one, microseconds,
    pub start_us: u64,
    /// to the other.
    pub end_us: u64,
}

impl Gap {
    /// How long it was, milliseconds.
    pub fn length_ms(self) -> f64 {
        (self.end_us - self.start_us) as f64 / 1e3
    }

    /// The longest one that ended behind the fault and began before `begun_us`. A pause that had
    /// not ended at `end_us` lasts until then at least.
    pub fn longest(acks: &[Ack], fault_us: u64, begun_us: u64, end_us: u64) -> Self {
        let starts = std::iter::once(fault_us).chain(acks.iter().map(|ack| ack.acked_us));
        let ends = acks.iter().map(|ack| ack.acked_us).chain([end_us]);
        // What stands before the first acknowledgement is no pause of this client.
        let gaps = starts.zip(ends).skip(usize::from(!acks.is_empty()));
        let gaps = gaps.map(|(start_us, end_us)| Self { start_us, end_us });
        let begun_us = begun_us.min(end_us);
        let counted = gaps.filter(|gap| gap.end_us > fault_us && gap.start_us < begun_us);
        let longest = counted.max_by_key(|gap| gap.end_us - gap.start_us);
        longest.unwrap_or(Self { start_us: fault_us, end_us: fault_us })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acks(moments_us: &[u64]) -> Vec<Ack> {
        let ack = |(acked_us, number)| Ack { number, sent_us: 0, acked_us, epoch: 1 };
        moments_us.iter().copied().zip(0..).map(ack).collect()
    }

    #[test]
    fn the_longest_gap_is_one_that_the_fault_can_have_made() {
        let check = |moments: &[u64], gap: (u64, u64)| {
            let longest = Gap::longest(&acks(moments), 1000, 5000, 5000);
            assert_eq!((longest.start_us, longest.end_us), gap, "{moments:?}");
        };
        // A longer one before it does not count, one that spans it does.
        check(&[10, 890, 900, 1300, 1400, 4990], (1400, 4990));
        check(&[10, 900, 1900, 2000, 2500, 3000, 3500, 4000, 4500], (900, 1900));
        // Not ended at the end: until then; and behind the end nothing counts.
        check(&[10, 900, 1100], (1100, 5000));
        check(&[900, 2000, 3000, 4000, 5050, 9000], (900, 2000));
        check(&[], (1000, 5000));
        // Only the first of these can have begun with the fault.
        let gap = Gap::longest(&acks(&[900, 1100, 2000, 4000]), 1000, 1500, 5000);
        assert_eq!((gap.start_us, gap.end_us), (1100, 2000));
    }

    #[test]
    fn a_timeline_counts_every_acknowledgement_once() {
        let acks = acks(&[1_000, 150_000, 199_999, 200_000, 201_500, 201_999, 300_000]);
        let timeline = Timeline::of(acks.iter(), 200_000, 203_000);
        assert_eq!((timeline.from_ms, timeline.acks.len()), (-100, 103));
        assert_eq!(timeline.acks.iter().sum::<u32>(), 5);
        assert_eq!(timeline.acks[99..], [1, 1, 2, 0]);
        assert_eq!(timeline.sums().last(), Some(&(3.0, 5.0)));
    }
}
