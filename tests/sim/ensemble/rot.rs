//! Bits that change in files at rest: whoever starts from them refuses, or is none the worse.
//!
//! A frame of the log of which no later one says that it was durable may be taken for one that was
//! never finished (`docs/format.md`), and so may a slot that is not repeated: those are spared.
//! All else must be noticed, or not matter: what a server starts with is compared with what was
//! there before. Who refuses is wiped as the advice for operators says, when the others have what
//! was acknowledged.

use engine::disk::{BLOCK_BYTES, StorageError, Volume};
use engine::epochs::{EPOCHS_KIND, EPOCHS_NAME, Epochs};
use engine::manifest::{MANIFEST_KIND, MANIFEST_NAME};
use engine::recovery::parse_snapshot_name;
use engine::slots::Slots;
use engine::txnlog::format::{
    FRAMES_START, FrameHeader, FrameKind, SEGMENT_HEADER_BYTES, SegmentHeader, parse_segment_name,
};
use engine::zxid::Zxid;

use super::healing::Ailment;
use super::store::{Found, Store};
use super::{Event, MS, World};
use crate::sim::disk::SimDisk;
use crate::sim::random::Random;

/// An operator looks after a server that does not start this often.
const LOOKS_EVERY: u64 = 500 * MS;
/// Bytes that go together, at most.
const BYTES_MAX: usize = 64;

/// What a server starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sound {
    zxid: Zxid,
    digest: u64,
    epochs: Epochs,
    has_data: bool,
}

impl Sound {
    pub(super) fn of(found: &Found) -> Self {
        let Found { recovered, epochs, has_data } = found;
        let (zxid, digest) = (recovered.log.zxid, recovered.tree.digest());
        Self { zxid, digest, epochs: *epochs, has_data: *has_data }
    }
}

impl World {
    /// Bits change on the disk of a server that does not run; whether any do.
    pub(super) fn rot(&mut self, index: usize) -> bool {
        if !self.may_lose_disk(index) || !self.hosts[index].store.has_data() {
            return false;
        }
        let host = &mut self.hosts[index];
        let Ok(found) = host.store.look() else { return false };
        let Some(what) = host.store.rot(&mut self.random) else { return false };
        host.medium.sound.get_or_insert_with(|| Sound::of(&found));
        host.medium.is_rotten = true;
        self.tell(|| format!("server {}: {what} rots", index + 1));
        true
    }

    /// A server does not start: what is on its disk contradicts itself.
    pub(super) fn refuse(&mut self, index: usize, error: &StorageError) {
        self.tell(|| format!("server {} refuses: {error}", index + 1));
        *self.stats.faults.entry("refusal of damaged data").or_default() += 1;
        self.hosts[index].medium.is_refused = true;
        let life = self.hosts[index].life;
        self.at(LOOKS_EVERY, Event::Operator(index, life));
    }

    /// An operator moves its data away, if that is safe, and starts it.
    pub(super) fn repair(&mut self, index: usize) {
        let is_dead = self.hosts[index].ailment == Some(Ailment::Dead);
        if !is_dead && self.may_lose_disk(index) {
            self.hosts[index].lose_disk();
            return self.start(index);
        }
        let life = self.hosts[index].life;
        self.at(LOOKS_EVERY, Event::Operator(index, life));
    }
}

impl Store {
    /// Changes something that counts; says what, if there is anything.
    fn rot(&mut self, random: &mut Random) -> Option<String> {
        match random.below(10) {
            0..6 => rot_log(&mut self.generation().log, random),
            6..9 => rot_snapshot(&mut self.generation().snapshots, random),
            _ => {
                let files = [(EPOCHS_NAME, EPOCHS_KIND), (MANIFEST_NAME, MANIFEST_KIND)];
                let (name, kind) = files[random.below(2)];
                let spared = random.below(3);
                if !Slots::open(self.root_mut(), name, kind).ok()??.is_settled() {
                    return None;
                }
                for slot in (0..2).filter(|slot| *slot != spared) {
                    let at = slot * BLOCK_BYTES + random.below(24);
                    self.root_mut().damage_at(name, at, 1, random)?;
                }
                Some(format!("{name}, but for slot {spared}"))
            }
        }
    }
}

fn rot_log(disk: &mut SimDisk, random: &mut Random) -> Option<String> {
    let names = disk.list().expect("it can be listed");
    let segments: Vec<_> =
        names.into_iter().filter(|name| parse_segment_name(name).is_some()).collect();
    let name = segments.get(random.below(segments.len().max(1)))?;
    let begins_with = |sequence| {
        let first = |segment: &String| frames(&disk.file(segment)).first().map(|(_, frame)| *frame);
        segments.iter().filter_map(first).any(|frame| frame.sequence == sequence)
    };
    let frames = frames(&disk.file(name));
    let mut places = vec![(0, SEGMENT_HEADER_BYTES)];
    for (nth, (offset, frame)) in frames.iter().enumerate() {
        let is_witnessed =
            frames[nth + 1..].iter().any(|(_, later)| later.durable_to >= frame.sequence);
        // Nothing hangs on a mark that is the last, and not of its segment alone.
        let is_end = frame.kind == FrameKind::Mark
            && nth + 1 == frames.len()
            && !begins_with(frame.sequence + 1);
        if is_witnessed || is_end {
            places.push((*offset, frame.frame_bytes()));
        }
    }
    let (offset, bytes) = places[random.below(places.len())];
    rot_part(disk, name, (offset, bytes), random)
}

fn rot_snapshot(disk: &mut SimDisk, random: &mut Random) -> Option<String> {
    let names = disk.list().expect("it can be listed");
    let snapshots: Vec<_> =
        names.into_iter().filter(|name| parse_snapshot_name(name).is_some()).collect();
    let name = snapshots.get(random.below(snapshots.len().max(1)))?;
    let bytes = disk.len(name).expect("it is there") as usize;
    rot_part(disk, name, (0, bytes), random)
}

/// Changes something in a part of a file.
fn rot_part(
    disk: &mut SimDisk,
    name: &str,
    (offset, bytes): (usize, usize),
    random: &mut Random,
) -> Option<String> {
    let from = random.below(bytes);
    let count = if random.percent(50) { 1 } else { BYTES_MAX.min(bytes - from) };
    disk.damage_at(name, offset + from, count, random)?;
    Some(format!("{name} at {}, {count} bytes", offset + from))
}

/// The frames of a segment up to the first that was torn, each with its offset.
fn frames(bytes: &[u8]) -> Vec<(usize, FrameHeader)> {
    let Ok(header) = SegmentHeader::decode(bytes) else { return Vec::new() };
    let mut found = Vec::new();
    let mut offset = FRAMES_START as usize;
    while let Some(rest) = bytes.get(offset..)
        && let Some(frame) = FrameHeader::decode(rest, header.incarnation)
        && rest.get(..frame.frame_bytes()).is_some_and(|bytes| frame.is_whole(bytes))
    {
        found.push((offset, frame));
        offset += frame.stride() as usize;
    }
    found
}
