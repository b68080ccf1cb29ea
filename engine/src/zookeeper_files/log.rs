//! Reads a transaction log file.

use std::io::{self, Read};

use crate::jute::DecodeError;

use super::LOG_MAGIC;
use super::stream::{PIECE_BYTES, Stream};

/// Why a log cannot be read on. Its server would not start with it either.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It could not be read.
    #[error("reading: {0}")]
    Io(#[from] io::Error),
    /// It begins with something else.
    #[error("the first word is {0:#010x}, not that of a transaction log")]
    Magic(i32),
    /// It ends within its header. An empty one, and only that, is fine as the last of all logs:
    /// its server died just after making it.
    #[error("the header is missing, the file has {bytes} bytes")]
    NoHeader {
        /// The length of the file.
        bytes: u64,
    },
    /// The checksum does not fit the transaction.
    #[error("at offset {offset}: checksum {expected:#x}, but the bytes have {got:#x}")]
    Checksum {
        /// Where the record begins.
        offset: u64,
        /// What the record says.
        expected: i64,
        /// What the transaction has.
        got: u32,
    },
    /// A length that none can have.
    #[error("at offset {offset}: {error}")]
    Length {
        /// Where the record begins.
        offset: u64,
        /// What is wrong.
        error: DecodeError,
    },
}

/// Reads the transactions of one file.
#[derive(Debug)]
pub struct LogReader<R> {
    file: R,
    stream: Stream,
    piece: Vec<u8>,
    txn: Vec<u8>,
    has_header: bool,
    is_at_end: bool,
    torn_at: Option<u64>,
    txn_at: u64,
}

/// Behind each transaction.
const RECORD_END: u8 = b'B';

/// What a record can be.
enum Record {
    /// A transaction, its checksum, and whether its end is there.
    Txn(i64, bool),
    /// The zeros that a file is extended by.
    End,
}

impl<R: Read> LogReader<R> {
    /// Reads `file` from its beginning.
    pub fn new(file: R) -> Self {
        Self {
            file,
            stream: Stream::new(),
            piece: vec![0; PIECE_BYTES],
            txn: Vec::new(),
            has_header: false,
            is_at_end: false,
            torn_at: None,
            txn_at: 0,
        }
    }

    /// The next transaction's bytes, for [`crate::txn::codec::decode`]; none at the end.
    pub fn next_txn(&mut self) -> Result<Option<&[u8]>, LogError> {
        // Compat: FileTxnLog.FileTxnIterator.next.
        if !self.has_header {
            self.read_header()?;
        }
        if self.is_at_end {
            return Ok(None);
        }
        let offset = self.stream.taken();
        let Some(record) = self.read_record(offset)? else {
            self.end(offset, !self.stream.rest().is_empty());
            return Ok(None);
        };
        let (expected, is_whole) = match record {
            Record::Txn(checksum, is_whole) => (checksum, is_whole),
            Record::End => {
                self.end(offset, false);
                return Ok(None);
            }
        };
        if !is_whole {
            self.end(offset, true);
            return Ok(None);
        }
        let got = simd_adler32::adler32(&self.txn.as_slice());
        if expected != i64::from(got) {
            return Err(LogError::Checksum { offset, expected, got });
        }
        self.txn_at = offset;
        Ok(Some(&self.txn))
    }

    /// Where the record of the last transaction begins.
    pub fn txn_at(&self) -> u64 {
        self.txn_at
    }

    /// Where an unfinished record begins, if the file ends with one. It was never acknowledged.
    pub fn torn_at(&self) -> Option<u64> {
        self.torn_at
    }

    fn end(&mut self, offset: u64, is_torn: bool) {
        self.is_at_end = true;
        self.torn_at = is_torn.then_some(offset);
    }

    fn read_header(&mut self) -> Result<(), LogError> {
        loop {
            let header = self.stream.take(|reader| {
                let magic = reader.i32()?;
                reader.i32()?;
                reader.i64()?;
                Ok::<_, DecodeError>(magic)
            });
            match header {
                Ok(Some(LOG_MAGIC)) => {
                    self.has_header = true;
                    return Ok(());
                }
                Ok(Some(magic)) => return Err(LogError::Magic(magic)),
                Ok(None) | Err(_) => {}
            }
            if !self.fill()? {
                return Err(LogError::NoHeader { bytes: self.stream.rest().len() as u64 });
            }
        }
    }

    /// Takes a record, if all of it is there; the transaction goes to `txn`.
    fn read_record(&mut self, offset: u64) -> Result<Option<Record>, LogError> {
        loop {
            let txn = &mut self.txn;
            let taken = self.stream.take(|reader| {
                let checksum = reader.i64()?;
                // Compat: Util.readTxnBytes.
                let Some(bytes @ [_, ..]) = reader.buf()? else { return Ok(Record::End) };
                let is_whole = reader.u8()? == RECORD_END;
                txn.clear();
                txn.extend_from_slice(bytes);
                Ok::<_, DecodeError>(Record::Txn(checksum, is_whole))
            });
            match taken {
                Ok(Some(record)) => return Ok(Some(record)),
                Ok(None) => {}
                Err(error) => return Err(LogError::Length { offset, error }),
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Reads on; false at the end of the file.
    fn fill(&mut self) -> Result<bool, LogError> {
        loop {
            match self.file.read(&mut self.piece) {
                Ok(bytes) => {
                    self.stream.push(&self.piece[..bytes]);
                    return Ok(bytes > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
