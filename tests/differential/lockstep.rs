//! Takes each step on both servers and compares what they say.
//!
//! Only one session is active at a time: a burst is answered in full, then every other connection
//! is asked for a fence, so that all events of the burst are in before the next step begins. What
//! remains is a function of the steps alone.

use std::fmt::Write as _;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::normal::Frame;
use crate::script::Step;
use crate::side::Side;

/// How long the answers to a four-letter word may take to become the same: closed connections are
/// noticed late.
const SETTLE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Lockstep {
    sides: [Side; 2],
    slots: usize,
    pub replies: u64,
    pub events: u64,
}

/// Why the comparison ends early.
#[derive(Debug)]
pub enum Failure {
    /// The servers differ; for people.
    Difference(String),
    /// A server was gone or silent.
    Broken { server: String, error: io::Error },
}

/// What came out of a step, the same on both sides.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The replies, in the order of the requests; without events.
    pub replies: Vec<Frame>,
    pub connected: bool,
    pub last_zxid: i64,
}

impl Lockstep {
    pub fn new(sides: [Side; 2], slots: usize) -> Self {
        Self { sides, slots, replies: 0, events: 0 }
    }

    /// From here on zxids are counted.
    pub fn begin(&mut self, slot: usize) -> Result<(), Failure> {
        for side in &mut self.sides {
            match side.last_zxid(slot) {
                Ok(zxid) => side.names.zxid_base = zxid,
                Err(error) => return Err(Failure::Broken { server: side.name.clone(), error }),
            }
        }
        Ok(())
    }

    pub fn take(&mut self, step: &Step) -> Result<Outcome, Failure> {
        match step {
            Step::FourLetter { word, lines } => {
                self.settle(word, lines)?;
                return Ok(Outcome::default());
            }
            Step::Stranger { bytes, label } => {
                let answers = self.both(|side| side.stranger(bytes))?;
                let [left, right] = answers.map(|answer| vec![crate::normal::show(&answer)]);
                self.compare(label, &left, &right)?;
            }
            Step::Connect { slot, connect, hang_up_first } => {
                let answers = self.both(|side| {
                    if *hang_up_first {
                        side.hang_up(*slot);
                    }
                    side.connect(*slot, connect)
                })?;
                let [left, right] = answers.map(|answer| vec![answer]);
                self.compare(&format!("{connect:?} on slot {slot}"), &left, &right)?;
            }
            _ => return self.exchange(step),
        }
        let mut outcome = Outcome::default();
        if let Step::Connect { slot, .. } = step {
            outcome.connected = self.sides[0].is_connected(*slot);
        }
        self.drain(None, false, &mut outcome)?;
        Ok(outcome)
    }

    fn exchange(&mut self, step: &Step) -> Result<Outcome, Failure> {
        let (slot, title, closing) = match step {
            Step::Burst { slot, .. } => (*slot, format!("burst on slot {slot}"), false),
            Step::Close { slot, .. } => (*slot, format!("close of slot {slot}"), true),
            Step::Alone { slot, request } | Step::Unknown { slot, request } => {
                (*slot, request.label.clone(), false)
            }
            Step::Fatal { slot, label, .. } => (*slot, label.clone(), false),
            _ => unreachable!("the other steps are taken above"),
        };
        let frames = self.both(|side| match step {
            Step::Burst { requests, .. } => side.burst(slot, requests),
            Step::Close { requests, .. } => side.close(slot, requests),
            Step::Alone { request, .. } => side.alone(slot, request),
            Step::Unknown { request, .. } => side.unknown(slot, request),
            Step::Fatal { bytes, .. } => side.last_words(slot, bytes),
            _ => unreachable!("the other steps are taken above"),
        })?;
        let [mut left, mut right] = frames;
        if closing {
            sort_events(&mut left);
            sort_events(&mut right);
        }
        self.compare(&title, &texts(&left), &texts(&right))?;
        self.events += left.iter().filter(|frame| frame.is_event).count() as u64;
        let mut outcome = Outcome {
            replies: left.into_iter().filter(|frame| !frame.is_event).collect(),
            ..Outcome::default()
        };
        self.replies += outcome.replies.len() as u64;
        outcome.connected = self.sides[0].is_connected(slot);
        self.drain(Some(slot), closing, &mut outcome)?;
        Ok(outcome)
    }

    /// Takes in what the step made every other session see.
    fn drain(
        &mut self,
        active: Option<usize>,
        closing: bool,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        for slot in (0..self.slots).filter(|slot| Some(*slot) != active) {
            if !self.sides[0].is_connected(slot) {
                continue;
            }
            let [mut left, mut right] = self.both(|side| side.burst(slot, &[]))?;
            if closing {
                sort_events(&mut left);
                sort_events(&mut right);
            }
            self.compare(&format!("events of slot {slot}"), &texts(&left), &texts(&right))?;
            self.events += left.iter().filter(|frame| frame.is_event).count() as u64;
            outcome.last_zxid = left.last().map_or(0, |fence| fence.zxid);
        }
        outcome.last_zxid -= self.sides[0].names.zxid_base;
        Ok(())
    }

    fn settle(&self, word: &str, lines: &[&str]) -> Result<(), Failure> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let mut answers = Vec::new();
            for side in &self.sides {
                let answer = side.stranger(word.as_bytes());
                let answer =
                    answer.map_err(|error| Failure::Broken { server: side.name.clone(), error })?;
                let text = String::from_utf8_lossy(&answer).into_owned();
                let kept = text.lines().filter(|line| {
                    lines.is_empty() || lines.iter().any(|start| line.starts_with(start))
                });
                let mut kept: Vec<_> = kept.map(str::to_owned).collect();
                kept.sort();
                answers.push(kept);
            }
            let compared = self.compare(word, &answers[0], &answers[1]);
            if compared.is_ok() || Instant::now() > deadline {
                return compared;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn both<T>(
        &mut self,
        mut act: impl FnMut(&mut Side) -> io::Result<T>,
    ) -> Result<[T; 2], Failure> {
        let mut on = |side: &mut Side| {
            act(side).map_err(|error| Failure::Broken { server: side.name.clone(), error })
        };
        let [left, right] = &mut self.sides;
        Ok([on(left)?, on(right)?])
    }

    fn compare(&self, title: &str, left: &[String], right: &[String]) -> Result<(), Failure> {
        if left == right {
            return Ok(());
        }
        let first = left.iter().zip(right).take_while(|(one, other)| one == other).count();
        let mut text = format!("{title}: packet {first} differs\n");
        for before in &left[first.saturating_sub(3)..first] {
            writeln!(text, "  both: {before}").expect("a string takes everything");
        }
        for (side, packets) in self.sides.iter().zip([left, right]) {
            let packet = packets.get(first).map_or("nothing more", String::as_str);
            writeln!(text, "  {}: {packet}", side.name).expect("a string takes everything");
        }
        Err(Failure::Difference(text))
    }
}

fn texts(frames: &[Frame]) -> Vec<String> {
    frames.iter().map(|frame| frame.text.clone()).collect()
}

/// A session's end deletes its nodes in no particular order, and so come the events of that zxid.
fn sort_events(frames: &mut [Frame]) {
    for run in
        frames.chunk_by_mut(|one, next| one.is_event && next.is_event && one.zxid == next.zxid)
    {
        run.sort_by(|one, other| one.text.cmp(&other.text));
    }
}

/// How many requests a step sends.
pub fn weight(step: &Step) -> u64 {
    match step {
        Step::Burst { requests, .. } | Step::Close { requests, .. } => requests.len() as u64,
        _ => 1,
    }
}
