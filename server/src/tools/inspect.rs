//! Shows what is in the files of a data directory, ours and ZooKeeper's.
//!
//! ```text
//!   path ──> files, by directory ──> format, by content ──> records, one a line ──> text or JSON
//! ```
//!
//! A file is known by its bytes and not by its name, so that one that was moved is read too. A
//! record is a line as soon as it is read: memory is bounded by the largest record, not by the
//! file. Nothing is changed, and nothing is locked: a server may be running, and what it is just
//! writing looks torn then.

mod line;
mod ours;
mod snapshot;
mod txn;
mod zookeeper;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use engine::slots::SLOT_MAGIC;
use engine::snapshot::format as snapshot_format;
use engine::txnlog::format::SEGMENT_MAGIC;
use engine::zookeeper_files::{Compression, LOG_MAGIC, SNAPSHOT_MAGIC};

use super::owners;
use crate::exit::ExitCode;
pub(super) use line::Form;
use line::{Line, Lines};

/// What to show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// For people, or for programs.
    pub form: Form,
    /// The data of znodes and transactions, too.
    pub data: bool,
    /// Headers, damage and totals only.
    pub summary: bool,
}

/// Why a file is not shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum InspectError {
    /// It cannot be read.
    #[error("{}, offset {offset}: {error}{}", path.display(), owners::remedy(path, error))]
    Read {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// Why.
        error: io::Error,
    },
    /// It is of no format that is known.
    #[error(
        "{}, offset 0: {found}: this is no file of a ringkeeper or a ZooKeeper",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// How it begins.
        found: String,
    },
    /// Reading it might wait for somebody, or never end.
    #[error("{}: this is no regular file", .0.display())]
    Irregular(PathBuf),
    /// There is nothing to show.
    #[error("{}: no file of a ringkeeper or a ZooKeeper is in it", .0.display())]
    Nothing(PathBuf),
    /// Something was shown, and some of it is damaged.
    #[error("damage was found in {0} places")]
    Damaged(u64),
    /// Something was shown, and some could not be read.
    #[error("{0} files or directories could not be read: the lines `unreadable` say why")]
    Unreadable(u64),
    /// The lines go nowhere.
    #[error("writing: {0}")]
    Write(io::Error),
}

impl InspectError {
    /// What the process tells whoever started it.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Read { .. } | Self::Nothing(_) | Self::Unreadable(_) => ExitCode::DataDir,
            Self::Foreign { .. } | Self::Irregular(_) => ExitCode::BadInvocation,
            Self::Damaged(_) => ExitCode::Damaged,
            Self::Write(_) => ExitCode::Unexpected,
        }
    }
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Segment,
    Snapshot,
    Slots,
    ZooKeeperLog,
    ZooKeeperSnapshot(Compression),
    /// A number as text: an epoch, an id, a pid.
    Number,
    /// Nothing is in it: a mark.
    Empty,
}

/// Shows a file, or all files of a directory.
pub(super) fn run(path: &Path, options: Options, out: &mut impl Write) -> Result<(), InspectError> {
    let mut lines = Lines::new(options.form, io::BufWriter::new(out));
    let shown = show_all(path, options, &mut lines);
    let shown = shown.and_then(|()| lines.flush().map_err(InspectError::Write));
    match shown {
        // Whoever read it has seen enough.
        Err(InspectError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Ok(()) if lines.damages() > 0 => Err(InspectError::Damaged(lines.damages())),
        Ok(()) if lines.unreadable() > 0 => Err(InspectError::Unreadable(lines.unreadable())),
        shown => shown,
    }
}

fn show_all(
    path: &Path,
    options: Options,
    lines: &mut Lines<impl Write>,
) -> Result<(), InspectError> {
    if !path.is_dir() {
        return show_file(&Source::open(path)?, options, lines);
    }
    let mut files = Vec::new();
    collect(path, &mut files)?;
    let mut shown = 0;
    for file in files {
        let source = file.and_then(|path| Source::open(&path));
        match source.and_then(|source| show_file(&source, options, lines)) {
            Ok(()) => shown += 1,
            // In a directory there may be others' files, too.
            Err(InspectError::Foreign { .. } | InspectError::Irregular(_)) => {}
            Err(InspectError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
            Err(InspectError::Read { path, offset, error }) => {
                let reason = format!("{error}{}", owners::remedy(&path, &error));
                lines.no_access(&path, offset, &reason)?;
            }
            Err(error) => return Err(error),
        }
    }
    match shown {
        0 if lines.unreadable() == 0 => Err(InspectError::Nothing(path.to_owned())),
        _ => Ok(()),
    }
}

/// The files below a directory, sorted by path; and what could not be listed.
fn collect(
    folder: &Path,
    files: &mut Vec<Result<PathBuf, InspectError>>,
) -> Result<(), InspectError> {
    let at = |error| InspectError::Read { path: folder.to_owned(), offset: 0, error };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(at)? {
        let entry = entry.map_err(at)?;
        paths.push((entry.path(), entry.file_type().map_err(at)?));
    }
    paths.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    for (path, kind) in paths {
        if kind.is_dir() {
            if let Err(error) = collect(&path, files) {
                files.push(Err(error));
            }
        } else if kind.is_file() {
            files.push(Ok(path));
        }
    }
    Ok(())
}

fn show_file(
    source: &Source,
    options: Options,
    lines: &mut Lines<impl Write>,
) -> Result<(), InspectError> {
    let format = source.format()?;
    let mut line = Line::new("file");
    line.text("path", &source.path.display().to_string());
    line.text("format", format.name());
    line.number("bytes", source.length);
    lines.write(&line)?;
    match format {
        Format::Segment => ours::show_segment(source, options, lines),
        Format::Snapshot => snapshot::show(source, options, lines),
        Format::Slots => ours::show_slots(source, lines),
        Format::ZooKeeperLog => zookeeper::show_log(source, options, lines),
        Format::ZooKeeperSnapshot(packed) => {
            zookeeper::show_snapshot(source, packed, options, lines)
        }
        Format::Number => ours::show_number(source, lines),
        Format::Empty => Ok(()),
    }
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Segment => "ringkeeper log",
            Self::Snapshot => "ringkeeper snapshot",
            Self::Slots => "ringkeeper slots",
            Self::ZooKeeperLog => "zookeeper log",
            Self::ZooKeeperSnapshot(Compression::None) => "zookeeper snapshot",
            Self::ZooKeeperSnapshot(Compression::Gzip) => "zookeeper snapshot, gzip",
            Self::ZooKeeperSnapshot(Compression::Snappy) => "zookeeper snapshot, snappy",
            Self::Number => "number",
            Self::Empty => "empty",
        }
    }
}

/// A file that is open.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    file: File,
    length: u64,
}

/// How many of the first bytes tell most formats.
const HEAD_BYTES: usize = 32;
/// The longest number, with a line end.
const NUMBER_BYTES_MAX: usize = 24;
/// A block of ours.
const BLOCK_BYTES: u64 = 4096;

impl Source {
    fn open(path: &Path) -> Result<Self, InspectError> {
        let at = |error| InspectError::Read { path: path.to_owned(), offset: 0, error };
        // Opening a pipe would wait for whoever writes to it.
        if !fs::metadata(path).map_err(at)?.is_file() {
            return Err(InspectError::Irregular(path.to_owned()));
        }
        let file = File::open(path).map_err(at)?;
        let length = file.metadata().map_err(at)?.len();
        Ok(Self { path: path.to_owned(), file, length })
    }

    /// Reads up to the end of `into` or of the file; how much there was.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, InspectError> {
        let mut count = 0;
        while count < into.len() {
            let at = offset + count as u64;
            match self.file.read_at(&mut into[count..], at) {
                Ok(0) => break,
                Ok(read) => count += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(InspectError::Read { path: self.path.clone(), offset: at, error });
                }
            }
        }
        Ok(count)
    }

    /// Up to so many bytes.
    fn bytes_at(&self, offset: u64, count: usize) -> Result<Vec<u8>, InspectError> {
        let mut bytes = vec![0; count];
        let count = self.read_at(offset, &mut bytes)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    fn format(&self) -> Result<Format, InspectError> {
        let head = self.bytes_at(0, HEAD_BYTES)?;
        let is_packed =
            |compression| engine::zookeeper_files::looks_whole(compression, &head, &head);
        let last = self.bytes_at(self.length.saturating_sub(BLOCK_BYTES), 8)?;
        let second = self.bytes_at(BLOCK_BYTES, SLOT_MAGIC.len())?;
        let is_number = head.len() <= NUMBER_BYTES_MAX
            && std::str::from_utf8(&head).is_ok_and(|text| text.trim().parse::<i64>().is_ok());
        Ok(match head.as_slice() {
            [] => Format::Empty,
            _ if head.starts_with(&SEGMENT_MAGIC) => Format::Segment,
            _ if head.starts_with(&SLOT_MAGIC) || second == SLOT_MAGIC => Format::Slots,
            _ if head.starts_with(&LOG_MAGIC.to_be_bytes()) => Format::ZooKeeperLog,
            _ if head.starts_with(&SNAPSHOT_MAGIC.to_be_bytes()) => {
                Format::ZooKeeperSnapshot(Compression::None)
            }
            _ if is_packed(Compression::Gzip) => Format::ZooKeeperSnapshot(Compression::Gzip),
            _ if is_packed(Compression::Snappy) => Format::ZooKeeperSnapshot(Compression::Snappy),
            _ if last == snapshot_format::MAGIC => Format::Snapshot,
            _ if is_number => Format::Number,
            _ => {
                let hex: Vec<_> = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
                let found = format!("it begins with {}", hex.join(" "));
                return Err(InspectError::Foreign { path: self.path.clone(), found });
            }
        })
    }
}

impl From<io::Error> for InspectError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}
