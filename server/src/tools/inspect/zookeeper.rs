//! ZooKeeper's own logs and snapshots, record by record.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};

use engine::acl::AclBytes;
use engine::ids::SessionId;
use engine::jute::Reader;
use engine::tree::ImportError;
use engine::zookeeper_files::{
    Compression, LogError, LogReader, SnapshotError, SnapshotRecords, Tail, TreeSink, ZnodeRecord,
};

use super::line::{Line, Lines};
use super::snapshot::{session_line, znode_line};
use super::txn::{self, acl_value};
use super::{InspectError, Options, Source};

/// Bytes of the header of both.
const HEADER_BYTES: usize = 16;

/// Shows the header. That it is not whole is damage that the readers notice.
fn show_header(source: &Source, lines: &mut Lines<impl Write>) -> Result<(), InspectError> {
    let bytes = source.bytes_at(0, HEADER_BYTES)?;
    let mut reader = Reader::new(&bytes);
    let header = (reader.i32(), reader.i32(), reader.i64());
    let (Ok(_), Ok(version), Ok(dbid)) = header else { return Ok(()) };
    let mut line = Line::new("header");
    line.number("version", version);
    line.number("dbid", dbid);
    Ok(lines.write(&line)?)
}

/// Shows the transactions of a log.
pub(super) fn show_log(
    source: &Source,
    options: Options,
    lines: &mut Lines<impl Write>,
) -> Result<(), InspectError> {
    show_header(source, lines)?;
    let mut reader = LogReader::new(&source.file);
    let mut txns = 0_u64;
    let end = loop {
        let txn = match reader.next_txn() {
            Ok(Some(txn)) => txn.to_vec(),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        txns += 1;
        txn::show(reader.txn_at(), &txn, None, options, lines)?;
    };
    match end {
        Ok(()) => {}
        Err(LogError::Io(error)) => {
            return Err(InspectError::Read {
                path: source.path.clone(),
                offset: reader.txn_at(),
                error,
            });
        }
        Err(error) => {
            let offset = match &error {
                LogError::Checksum { offset, .. } | LogError::Length { offset, .. } => *offset,
                _ => 0,
            };
            lines.damage(offset, &error.to_string())?;
        }
    }
    if let Some(offset) = reader.torn_at() {
        let mut line = Line::new("torn");
        line.number("offset", offset);
        lines.write(&line)?;
    }
    let mut line = Line::new("end");
    line.number("txns", txns);
    Ok(lines.write(&line)?)
}

/// Shows the records of a snapshot. Offsets are those of what was unpacked.
pub(super) fn show_snapshot(
    source: &Source,
    compression: Compression,
    options: Options,
    lines: &mut Lines<impl Write>,
) -> Result<(), InspectError> {
    if compression == Compression::None {
        show_header(source, lines)?;
    }
    let has_failed = Cell::new(false);
    let taken = Cell::new(0);
    let (result, counts, failed) = {
        let file = Watched { file: &source.file, taken: &taken, has_failed: &has_failed };
        let sink = Shown {
            lines: &mut *lines,
            options,
            has_failed: &has_failed,
            failed: None,
            counts: Counts::default(),
        };
        let mut records = SnapshotRecords::new(sink);
        let pushed = records.push_all(file, compression);
        let (counts, failed) = (records.sink().counts, records.sink().failed.take());
        (pushed.and_then(|()| records.finish()).map(|(_, tail)| tail), counts, failed)
    };
    if let Some(error) = failed {
        return Err(error.into());
    }
    match result {
        Ok(tail) => show_tail(&tail, lines)?,
        Err(SnapshotError::Io(error)) if error.raw_os_error().is_some() => {
            return Err(InspectError::Read {
                path: source.path.clone(),
                offset: taken.get(),
                error,
            });
        }
        Err(error) => {
            let offset = match &error {
                SnapshotError::Tree { offset, .. } | SnapshotError::Checksum { offset, .. } => {
                    *offset
                }
                // What was packed can't be unpacked, near here.
                SnapshotError::Io(_) => taken.get(),
                SnapshotError::Magic(_) => 0,
                SnapshotError::Tail { bytes } => source.length.saturating_sub(*bytes as u64),
            };
            lines.damage(offset, &error.to_string())?;
        }
    }
    let mut line = Line::new("end");
    line.number("sessions", counts.sessions);
    line.number("acls", counts.acls);
    line.number("znodes", counts.znodes);
    Ok(lines.write(&line)?)
}

fn show_tail(tail: &Tail, lines: &mut Lines<impl Write>) -> Result<(), InspectError> {
    let mut line = Line::new("tail");
    if let Some(digest) = tail.digest {
        line.hex("digest_zxid", digest.zxid.0);
        line.number("digest_version", digest.version);
        line.hex("digest", digest.digest);
    }
    if let Some(zxid) = tail.last_zxid {
        line.hex("last_zxid", zxid.0);
    }
    Ok(lines.write(&line)?)
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    sessions: u64,
    acls: u64,
    znodes: u64,
}

/// Writes records as they come.
struct Shown<'a, W> {
    lines: &'a mut Lines<W>,
    options: Options,
    has_failed: &'a Cell<bool>,
    /// Why a line could not be written.
    failed: Option<io::Error>,
    counts: Counts,
}

impl<W: Write> Shown<'_, W> {
    fn write(&mut self, line: impl FnOnce(Options) -> Line) {
        if self.options.summary || self.failed.is_some() {
            return;
        }
        self.failed = self.lines.write(&line(self.options)).err();
        self.has_failed.set(self.failed.is_some());
    }
}

impl<W: Write> TreeSink for Shown<'_, W> {
    fn session(&mut self, session: SessionId, timeout_ms: i32) {
        self.counts.sessions += 1;
        self.write(|_| session_line(session.0, timeout_ms));
    }

    fn acl(&mut self, index: i64, list: &AclBytes<'_>) {
        self.counts.acls += 1;
        self.write(|_| {
            let mut line = Line::new("acl");
            line.number("acl", index);
            line.value("list", acl_value(list));
            line
        });
    }

    fn znode(&mut self, znode: &ZnodeRecord<'_>) -> Result<(), ImportError> {
        self.counts.znodes += 1;
        let ZnodeRecord { path, data, acl_index, stat } = znode;
        self.write(|options| znode_line(path, *data, *acl_index, stat, options));
        Ok(())
    }
}

/// The file, which ends when nobody takes the lines any more.
struct Watched<'a> {
    file: &'a File,
    taken: &'a Cell<u64>,
    has_failed: &'a Cell<bool>,
}

impl Read for Watched<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.has_failed.get() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = self.file.read(into)?;
        self.taken.set(self.taken.get() + count as u64);
        Ok(count)
    }
}
