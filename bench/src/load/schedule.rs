//! When operations are due: at once (closed loop), or at a fixed rate (open loop).

use super::window::SECOND_NS;

/// The due times of an open loop: one every `1 / rate` seconds from `start_ns` on.
///
/// A due time does not move when the server is slow; latency is counted from it, so that what
/// waited in the client because the server was late counts as the server's (no coordinated
/// omission).
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start_ns: u64,
    rate: f64,
    number: u64,
}

impl Schedule {
    /// `rate` operations per second; the first one is due `phase` of a period after the start.
    pub fn new(start_ns: u64, rate: f64, phase: f64) -> Self {
        let period_ns = SECOND_NS as f64 / rate;
        Self { start_ns: start_ns + (period_ns * phase) as u64, rate, number: 0 }
    }

    /// When the next one is due.
    pub fn next_ns(&self) -> u64 {
        self.start_ns + (self.number as f64 * (SECOND_NS as f64 / self.rate)) as u64
    }

    /// Takes the next one if it is due.
    pub fn take(&mut self, now_ns: u64) -> Option<u64> {
        let due_ns = self.next_ns();
        if due_ns > now_ns {
            return None;
        }
        self.number += 1;
        Some(due_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_do_not_wait_for_anyone() {
        let mut schedule = Schedule::new(1000, 1e6, 0.5);
        assert_eq!(schedule.next_ns(), 1500);
        assert_eq!(schedule.take(1499), None);
        let taken: Vec<_> = std::iter::from_fn(|| schedule.take(4500)).collect();
        assert_eq!(taken, [1500, 2500, 3500, 4500]);
    }
}
