//! Bodies of the requests that write, and of those that concern the connection.

use std::borrow::Cow;

use crate::acl::AclBytes;
use crate::jute::{DecodeError, Reader, Writer};

/// A znode to create (`CreateRequest`, `CreateTTLRequest`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNodeRequest<'a> {
    /// Where; a sequential one gets a number behind it. Null is judged behind the flags.
    pub path: Option<Cow<'a, str>>,
    /// Its data; null and empty are different.
    pub data: Option<&'a [u8]>,
    /// Its ACL list as the client wrote it.
    pub acl: AclBytes<'a>,
    /// The mode's number; whatever the client wrote.
    pub flags: i32,
    /// Only in `CreateTTLRequest`.
    pub ttl_ms: Option<i64>,
}

impl<'a> NewNodeRequest<'a> {
    /// Takes a `CreateRequest`, or a `CreateTTLRequest`.
    pub fn read(reader: &mut Reader<'a>, with_ttl: bool) -> Result<Self, DecodeError> {
        Ok(Self {
            path: reader.ustr()?,
            data: reader.buf()?,
            acl: AclBytes::read(reader)?,
            flags: reader.i32()?,
            ttl_ms: if with_ttl { Some(reader.i64()?) } else { None },
        })
    }

    /// Appends the record.
    pub fn write(&self, writer: &mut Writer<'_>) {
        writer.buf_or_null(self.path.as_ref().map(|path| path.as_bytes()));
        writer.buf_or_null(self.data);
        writer.bytes(self.acl.as_bytes());
        writer.i32(self.flags);
        if let Some(ttl_ms) = self.ttl_ms {
            writer.i64(ttl_ms);
        }
    }
}

/// A path and the version that its znode must have (`DeleteRequest`, `CheckVersionRequest`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionedPath<'a> {
    /// The path.
    pub path: Cow<'a, str>,
    /// The version, or -1 for any.
    pub version: i32,
}

impl<'a> VersionedPath<'a> {
    /// Takes the record that `reader` is at.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { path: reader.string("path")?, version: reader.i32()? })
    }

    /// Appends the record.
    pub fn write(&self, writer: &mut Writer<'_>) {
        writer.string(&self.path);
        writer.i32(self.version);
    }
}

/// New data for a znode (`SetDataRequest`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetData<'a> {
    /// The path.
    pub path: Cow<'a, str>,
    /// The data; null and empty are different.
    pub data: Option<&'a [u8]>,
    /// The version that the znode must have, or -1 for any.
    pub version: i32,
}

impl<'a> SetData<'a> {
    /// Takes the record that `reader` is at.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { path: reader.string("path")?, data: reader.buf()?, version: reader.i32()? })
    }

    /// Appends the record.
    pub fn write(&self, writer: &mut Writer<'_>) {
        writer.string(&self.path);
        writer.buf_or_null(self.data);
        writer.i32(self.version);
    }
}

/// A new ACL list for a znode (`SetACLRequest`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAcl<'a> {
    /// The path.
    pub path: Cow<'a, str>,
    /// The list as the client wrote it.
    pub acl: AclBytes<'a>,
    /// The aversion that the znode must have, or -1 for any.
    pub aversion: i32,
}

impl<'a> SetAcl<'a> {
    /// Takes the record that `reader` is at.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let path = reader.string("path")?;
        Ok(Self { path, acl: AclBytes::read(reader)?, aversion: reader.i32()? })
    }

    /// Appends the record.
    pub fn write(&self, writer: &mut Writer<'_>) {
        writer.string(&self.path);
        writer.bytes(self.acl.as_bytes());
        writer.i32(self.aversion);
    }
}

/// A change of the ensemble (`ReconfigRequest`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconfig<'a> {
    /// Servers to add, `server.N=...` separated by commas.
    pub joining: Option<Cow<'a, str>>,
    /// Ids of servers to remove, separated by commas.
    pub leaving: Option<Cow<'a, str>>,
    /// All servers, instead of these two.
    pub members: Option<Cow<'a, str>>,
    /// The version that the present configuration must have, or -1 for any.
    pub config_version: i64,
}

impl<'a> Reconfig<'a> {
    /// Takes the record that `reader` is at.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            joining: reader.ustr()?,
            leaving: reader.ustr()?,
            members: reader.ustr()?,
            config_version: reader.i64()?,
        })
    }

    /// Appends the record.
    pub fn write(&self, writer: &mut Writer<'_>) {
        for text in [&self.joining, &self.leaving, &self.members] {
            writer.buf_or_null(text.as_ref().map(|text| text.as_bytes()));
        }
        writer.i64(self.config_version);
    }
}

/// An identity for the connection (`AuthPacket`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthPacket<'a> {
    /// The scheme that judges it; null is a scheme that nobody has.
    pub scheme: Option<Cow<'a, str>>,
    /// What the scheme needs to see.
    pub auth: Option<&'a [u8]>,
}

impl<'a> AuthPacket<'a> {
    /// Takes the record that `reader` is at; its first field is always 0 and means nothing.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.i32()?;
        Ok(Self { scheme: reader.ustr()?, auth: reader.buf()? })
    }

    /// Appends the record.
    pub fn write(&self, writer: &mut Writer<'_>) {
        writer.i32(0);
        writer.buf_or_null(self.scheme.as_ref().map(|text| text.as_bytes()));
        writer.buf_or_null(self.auth);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::{ALL, Acl, Id};
    use crate::ids::Xid;
    use crate::op::OpCode;
    use crate::records::{RequestHeader, write_request};

    #[test]
    fn a_create_is_as_on_a_real_wire() {
        let create = NewNodeRequest {
            path: Some("/p".into()),
            data: Some(b"x"),
            acl: AclBytes::encode(&[Acl { perms: ALL, id: Id::new("world", "anyone") }]),
            flags: 0,
            ttl_ms: None,
        };
        let mut out = Vec::new();
        let header = RequestHeader { xid: Xid(1), op: OpCode::Create.to_wire() };
        write_request(&mut out, header, |writer| create.write(writer));
        let mut wire = vec![0, 0, 0, 0x32, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, b'/', b'p'];
        wire.extend([0, 0, 0, 1, b'x', 0, 0, 0, 1, 0, 0, 0, 0x1f]);
        wire.extend(b"\0\0\0\x05world\0\0\0\x06anyone\0\0\0\0");
        assert_eq!(out, wire);
        let mut reader = Reader::new(&wire[12..]);
        assert_eq!(NewNodeRequest::read(&mut reader, false), Ok(create));
    }

    #[test]
    fn each_record_survives_its_encoding() {
        let acl = AclBytes::encode(&[]);
        let create = NewNodeRequest {
            path: Some("/t".into()),
            data: None,
            acl: acl.clone(),
            flags: 5,
            ttl_ms: Some(9),
        };
        let set_acl = SetAcl { path: "/a".into(), acl, aversion: 3 };
        let set = SetData { path: "/a".into(), data: Some(&[]), version: -1 };
        let path = VersionedPath { path: "/a".into(), version: 2 };
        let reconfig = Reconfig {
            joining: None,
            leaving: Some("3".into()),
            members: Some("".into()),
            config_version: -1,
        };
        let auth = AuthPacket { scheme: Some("digest".into()), auth: Some(b"u:p") };
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        create.write(&mut writer);
        set_acl.write(&mut writer);
        set.write(&mut writer);
        path.write(&mut writer);
        reconfig.write(&mut writer);
        auth.write(&mut writer);
        let mut reader = Reader::new(&out);
        assert_eq!(NewNodeRequest::read(&mut reader, true), Ok(create));
        assert_eq!(SetAcl::read(&mut reader), Ok(set_acl));
        assert_eq!(SetData::read(&mut reader), Ok(set));
        assert_eq!(VersionedPath::read(&mut reader), Ok(path));
        assert_eq!(Reconfig::read(&mut reader), Ok(reconfig));
        assert_eq!(AuthPacket::read(&mut reader), Ok(auth));
        assert!(reader.is_empty());
    }

    #[test]
    fn a_null_path_is_refused() {
        let null = DecodeError::Null("path");
        assert_eq!(VersionedPath::read(&mut Reader::new(&[0xff; 8])), Err(null));
    }
}
