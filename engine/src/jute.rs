//! Jute, the record encoding of every wire and file of ZooKeeper's: big-endian integers,
//! length-prefixed buffers and strings, counted vectors, no tags.

pub mod reader;
pub mod writer;

pub use reader::Reader;
pub use writer::Writer;

/// Why foreign bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("{needed} bytes needed, {left} left")]
    UnexpectedEnd {
        /// What the field needs.
        needed: usize,
        /// What there is.
        left: usize,
    },
    /// A length or count below -1.
    #[error("length {0} is negative")]
    NegativeLength(i32),
    /// A buffer or string that must be there is null.
    #[error("{0} is null")]
    Null(&'static str),
    /// A field holds a value that it cannot have.
    #[error("{what} is {value}")]
    BadValue {
        /// The field.
        what: &'static str,
        /// What it holds.
        value: i64,
    },
}
