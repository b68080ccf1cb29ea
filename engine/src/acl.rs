//! ACL lists as wires and files carry them, and the ids of a connection.

use std::borrow::Cow;

use crate::jute::{DecodeError, Reader, Writer};

/// May read data and list children.
pub const READ: i32 = 1;
/// May set data.
pub const WRITE: i32 = 2;
/// May create children.
pub const CREATE: i32 = 4;
/// May delete children.
pub const DELETE: i32 = 8;
/// May set the ACL.
pub const ADMIN: i32 = 16;
/// All of these.
pub const ALL: i32 = 31;

/// Who: an id within an authentication scheme.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// The scheme: `world`, `ip`, `digest`, ...
    pub scheme: String,
    /// The id, in the scheme's own form.
    pub id: String,
}

/// One entry of a list: what an id may do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acl {
    /// Sum of the permission bits.
    pub perms: i32,
    /// Who has them.
    pub id: Id,
}

impl Id {
    /// An id from its two parts.
    pub fn new(scheme: impl Into<String>, id: impl Into<String>) -> Self {
        Self { scheme: scheme.into(), id: id.into() }
    }
}

/// An ACL list in its jute form, `vec<ACL>`: comparable, hashable and internable as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AclBytes<'a>(Cow<'a, [u8]>);

impl<'a> AclBytes<'a> {
    /// Takes the list that `reader` is at, checking its form.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let start = reader.rest();
        let count = reader.count(ACL_BYTES_MIN)?.unwrap_or(0);
        for _ in 0..count {
            reader.i32()?;
            reader.buf()?;
            reader.buf()?;
        }
        Ok(Self(Cow::Borrowed(&start[..start.len() - reader.rest().len()])))
    }

    /// Takes a list whose form was checked when it was read first.
    pub(crate) fn from_checked(bytes: Cow<'a, [u8]>) -> Self {
        Self(bytes)
    }

    /// The encoded form of `list`.
    pub fn encode(list: &[Acl]) -> AclBytes<'static> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.count(list.len());
        for acl in list {
            writer.i32(acl.perms);
            writer.string(&acl.id.scheme);
            writer.string(&acl.id.id);
        }
        AclBytes(Cow::Owned(out))
    }

    /// The list; a null one is empty, as are null strings in it.
    pub fn decode(&self) -> Vec<Acl> {
        let mut reader = Reader::new(&self.0);
        let count = reader.count(ACL_BYTES_MIN).ok().flatten().unwrap_or(0);
        let text = |reader: &mut Reader<'_>| {
            reader.ustr().ok().flatten().map(Cow::into_owned).unwrap_or_default()
        };
        (0..count)
            .map(|_| {
                let perms = reader.i32().unwrap_or(0);
                Acl { perms, id: Id { scheme: text(&mut reader), id: text(&mut reader) } }
            })
            .collect()
    }

    /// The entries as they are, without an allocation.
    pub fn entries(&self) -> Entries<'_> {
        let mut reader = Reader::new(&self.0);
        let left = reader.count(ACL_BYTES_MIN).ok().flatten().unwrap_or(0);
        Entries { left, reader }
    }

    /// Whether the list is `world:anyone` with all permissions, which most znodes have.
    pub fn is_open(&self) -> bool {
        *self.0 == *OPEN
    }

    /// Whether there is no list, which is something else than an empty one.
    pub fn is_null(&self) -> bool {
        *self.0 == [0xff; 4]
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Keeps the list beyond the packet it came in.
    pub fn into_owned(self) -> AclBytes<'static> {
        AclBytes(Cow::Owned(self.0.into_owned()))
    }
}

/// One entry of an encoded list. Strings that come from a packet can be null, or not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AclEntry<'a> {
    /// Sum of the permission bits, and of whatever else the client set.
    pub perms: i32,
    /// The scheme.
    pub scheme: Option<&'a [u8]>,
    /// The id.
    pub id: Option<&'a [u8]>,
}

/// Walks the entries of an encoded list.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    left: usize,
    reader: Reader<'a>,
}

impl<'a> Iterator for Entries<'a> {
    type Item = AclEntry<'a>;

    fn next(&mut self) -> Option<AclEntry<'a>> {
        self.left = self.left.checked_sub(1)?;
        let reader = &mut self.reader;
        let perms = reader.i32().ok()?;
        Some(AclEntry { perms, scheme: reader.buf().ok()?, id: reader.buf().ok()? })
    }
}

/// The encoded list that gives everything to everybody.
const OPEN: &[u8] = b"\0\0\0\x01\0\0\0\x1f\0\0\0\x05world\0\0\0\x06anyone";

/// The shortest encoded entry: permissions and two empty strings.
const ACL_BYTES_MIN: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_survives_its_encoding() {
        let list = [Acl { perms: ALL, id: Id::new("world", "anyone") }];
        let bytes = AclBytes::encode(&list);
        let mut reader = Reader::new(bytes.as_bytes());
        let read = AclBytes::read(&mut reader).unwrap();
        assert!(reader.is_empty());
        assert_eq!((read.decode(), read.as_bytes()), (list.to_vec(), bytes.as_bytes()));
    }

    #[test]
    fn entries_are_lent_as_they_are() {
        let list = [Acl { perms: 3, id: Id::new("ip", "::1") }];
        let bytes = AclBytes::encode(&list);
        let entry = AclEntry { perms: 3, scheme: Some(b"ip"), id: Some(b"::1") };
        assert_eq!(bytes.entries().collect::<Vec<_>>(), [entry]);
        assert!(!bytes.is_open());
        let open = AclBytes::encode(&[Acl { perms: ALL, id: Id::new("world", "anyone") }]);
        assert!(open.is_open());
    }

    #[test]
    fn a_null_list_is_empty() {
        let mut reader = Reader::new(&[0xff; 4]);
        assert_eq!(AclBytes::read(&mut reader).unwrap().decode(), []);
    }
}
