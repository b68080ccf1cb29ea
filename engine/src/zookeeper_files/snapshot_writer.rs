//! Writes a snapshot file that a ZooKeeper server starts from.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use simd_adler32::Adler32;

use crate::btree::Version;
use crate::jute::Writer;
use crate::tree;

use super::names::Compression;
use super::snappy::SnappyWriter;
use super::snapshot_reader::seal;
use super::stream::PIECE_BYTES;
use super::tree_writer::TreeWriter;
use super::{FILE_VERSION, SNAPSHOT_MAGIC};

/// What a file has behind its tree. It must fit the settings of the server that is to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// The digest: `zookeeper.digest.enabled`, on by default.
    pub digest: bool,
    /// The zxid: `zookeeper.serializeLastProcessedZxid.enabled`, on by default since 3.9.
    pub last_zxid: bool,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { digest: true, last_zxid: true }
    }
}

/// The field `dbid` of a snapshot.
const DATABASE_ID: i64 = -1;

/// Writes `version` as a file that is packed, or not. Its name is that of
/// [`super::FileName::snapshot`], with the suffix that says how.
pub fn write_packed_snapshot(
    version: &Version,
    options: WriteOptions,
    compression: Compression,
    mut file: impl Write,
) -> io::Result<()> {
    match compression {
        Compression::None => write_snapshot(version, options, &mut file),
        Compression::Gzip => {
            let mut packer = GzEncoder::new(file, flate2::Compression::default());
            write_snapshot(version, options, &mut packer)?;
            packer.finish()?.flush()
        }
        Compression::Snappy => {
            let mut packer = SnappyWriter::new(file)?;
            write_snapshot(version, options, &mut packer)?;
            packer.finish()
        }
    }
}

/// Writes `version` as a file, to be named by [`super::FileName::snapshot`] of its zxid.
pub fn write_snapshot(
    version: &Version,
    options: WriteOptions,
    file: &mut impl Write,
) -> io::Result<()> {
    // Compat: FileSnap.serialize. The checksums go on over everything in front of them.
    let mut adler = Adler32::new();
    let mut piece = Vec::with_capacity(2 * PIECE_BYTES);
    let mut writer = Writer::new(&mut piece);
    writer.i32(SNAPSHOT_MAGIC);
    writer.i32(FILE_VERSION);
    writer.i64(DATABASE_ID);
    let mut flush = |piece: &mut Vec<u8>| {
        adler.write(piece);
        file.write_all(piece)?;
        piece.clear();
        Ok::<u32, io::Error>(adler.finish())
    };
    let mut tree_writer = TreeWriter::new();
    while !tree_writer.write(version, PIECE_BYTES, &mut piece) {
        flush(&mut piece)?;
    }
    seal(flush(&mut piece)?, &mut piece);
    if options.digest {
        let mut writer = Writer::new(&mut piece);
        writer.i64(version.zxid().to_wire());
        writer.i32(FILE_VERSION);
        writer.i64(tree::digest(version).cast_signed());
        seal(flush(&mut piece)?, &mut piece);
    }
    if options.last_zxid {
        Writer::new(&mut piece).i64(version.zxid().to_wire());
        seal(flush(&mut piece)?, &mut piece);
    }
    flush(&mut piece)?;
    file.flush()
}
