//! Our own log, and the small files of two slots.

use engine::disk::{Damage, SegmentId, SegmentPlan};
use engine::manifest::Manifest;
use engine::slots::Slots;
use engine::txn::codec;
use engine::txnlog::format::{
    FRAME_HEADER_BYTES, FRAMES_START, FrameHeader, FrameKind, SegmentHeader, segment_name,
};
use engine::txnlog::scan::{Sink, scan as scan_log};
use engine::zxid::Zxid;

use super::input::Input;
use crate::sim::disk::SimDisk;

/// Blocks of a segment.
const BLOCKS: usize = 24;
const BLOCK_BYTES: usize = FRAMES_START as usize;

/// Takes what is delivered as a server would: it must decode.
#[derive(Default)]
struct Collect {
    last: Option<Zxid>,
}

impl Sink for Collect {
    fn txn(&mut self, zxid: Zxid, txn: &[u8]) -> Result<(), Damage> {
        assert!(self.last.is_none_or(|last| last < zxid), "{zxid} comes late");
        self.last = Some(zxid);
        codec::decode(txn).map(drop).map_err(|_| Damage::FrameContent(0))
    }
}

/// Up to three segments whose checksums are right, and whose frames say whatever the input says.
pub(super) fn scan(input: &[u8]) {
    let mut input = Input(input);
    let mut disk = SimDisk::default();
    let from = Zxid(u64::from(input.u8()));
    for number in 1..=1 + u64::from(input.u8() % 3) {
        let incarnation = u64::from(input.u8() % 2);
        let plan = SegmentPlan {
            segment: SegmentId(number),
            incarnation,
            bytes: (BLOCKS * BLOCK_BYTES) as u64,
        };
        disk.insert(&segment_name(plan.segment), &segment(plan, &mut input));
    }
    let mut sink = Collect::default();
    if let Ok(report) = scan_log(&disk, from, &mut sink) {
        assert!(sink.last.is_none_or(|last| last <= report.end.zxid));
    }
}

fn segment(plan: SegmentPlan, input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = SegmentHeader {
        incarnation: plan.incarnation,
        segment: plan.segment,
        segment_bytes: plan.bytes,
    }
    .encode();
    bytes.resize(plan.bytes as usize, 0);
    let (mut block, mut previous, mut sequence) = (1, 0, u64::from(input.u8()));
    for _ in 0..input.u8() % 16 {
        let what = input.u8();
        let body = input.piece();
        let zxid = |input: &mut Input<'_>| Zxid(u64::from(input.u8()));
        let mut header = FrameHeader {
            checksum: 0,
            kind: [FrameKind::Txns, FrameKind::Mark, FrameKind::Cut][usize::from(what % 3)],
            body_bytes: body.len() as u32,
            incarnation: plan.incarnation,
            sequence,
            base_zxid: zxid(input),
            first_zxid: zxid(input),
            last_zxid: zxid(input),
            durable_to: u64::from(input.u8()),
            previous,
            opening: u32::from(what / 8),
        };
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        frame.extend_from_slice(body);
        let checksum = header.seal(&mut frame);
        let end = block * BLOCK_BYTES + frame.len();
        if end > bytes.len() {
            break;
        }
        bytes[end - frame.len()..end].copy_from_slice(&frame);
        block = end.div_ceil(BLOCK_BYTES) + usize::from(what & 64 != 0);
        if what & 128 == 0 {
            (previous, sequence) = (checksum, sequence + 1);
        }
    }
    for _ in 0..input.u8() % 4 {
        let at = usize::from(input.u16()) % bytes.len();
        bytes[at] ^= input.u8();
    }
    bytes
}

/// A manifest, and slots of another kind.
pub(super) fn slots(input: &[u8]) {
    const KIND: u32 = 7;
    let mut input = Input(input);
    let is_manifest = input.u8() & 1 == 0;
    let mut disk = SimDisk::default();
    if input.u8() & 1 == 0 {
        disk.insert("manifest", input.0);
    } else {
        // A good file, somewhat damaged.
        if is_manifest {
            Manifest::create(&mut disk).expect("the disk has room");
        } else {
            let made = Slots::create(&mut disk, "manifest", KIND, input.bytes(40));
            made.expect("the disk has room");
        }
        disk.damage("manifest", |bytes| {
            while !input.is_empty() {
                let at = usize::from(input.u16()) % bytes.len();
                bytes[at] ^= input.u8();
            }
        });
    }
    if is_manifest {
        drop(Manifest::open(&mut disk));
    } else if let Ok(Some(mut slots)) = Slots::open(&mut disk, "manifest", KIND) {
        let payload = slots.payload().to_vec();
        assert!(slots.write(&mut disk, &payload).is_ok());
        let again = Slots::open(&mut disk, "manifest", KIND);
        assert_eq!(again.expect("it was written").expect("it is there").payload(), payload);
    }
}
