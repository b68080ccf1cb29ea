//! A transaction as a line.

use std::io::Write;

use engine::acl::{ADMIN, AclBytes, CREATE, DELETE, READ, WRITE};
use engine::txn::codec::{self, Decoded};
use engine::txn::{NewNode, Txn};
use engine::zxid::Zxid;
use serde_json::Value;

use super::line::{Line, Lines};
use super::{InspectError, Options};

/// Shows the transaction in these bytes, which should have this zxid if one is given.
pub(super) fn show(
    offset: u64,
    bytes: &[u8],
    expected: Option<Zxid>,
    options: Options,
    lines: &mut Lines<impl Write>,
) -> Result<(), InspectError> {
    let decoded = match codec::decode(bytes) {
        Ok(decoded) => decoded,
        Err(error) => {
            return Ok(lines.damage(offset, &format!("a transaction can't be decoded: {error}"))?);
        }
    };
    if let Some(expected) = expected.filter(|expected| *expected != decoded.header.zxid) {
        let found = decoded.header.zxid;
        lines.damage(offset, &format!("transaction {found} is where {expected} should be"))?;
    }
    if options.summary {
        return Ok(());
    }
    Ok(lines.write(&line(offset, &decoded, options))?)
}

fn line(offset: u64, decoded: &Decoded<'_>, options: Options) -> Line {
    let Decoded { header, txn, digest } = decoded;
    let mut line = Line::new("txn");
    line.number("offset", offset);
    line.hex("zxid", header.zxid.0);
    line.hex("session", header.session.0.cast_unsigned());
    line.number("cxid", header.cxid.0);
    line.number("time_ms", header.time.0);
    add(txn, options, &mut line);
    if let Some((version, digest)) = digest {
        line.number("digest_version", *version);
        line.hex("digest", *digest);
    }
    line
}

/// The type and the fields of a transaction, or of a part of one.
fn add(txn: &Txn<'_>, options: Options, line: &mut Line) {
    line.text("type", name(txn));
    match txn {
        Txn::Create { node, ephemeral, .. } => {
            add_node(node, options, line);
            line.number("ephemeral", *ephemeral);
        }
        Txn::CreateContainer { node } => add_node(node, options, line),
        Txn::CreateTtl { node, ttl_ms } => {
            add_node(node, options, line);
            line.number("ttl_ms", *ttl_ms);
        }
        Txn::Delete { path, .. } => line.text("path", path),
        Txn::SetData { path, data, version, .. } => {
            line.text("path", path);
            line.number("version", *version);
            line.data(data.as_deref(), options.data);
        }
        Txn::SetAcl { path, acl, aversion } => {
            line.text("path", path);
            line.number("aversion", *aversion);
            line.value("acl", acl_value(acl));
        }
        Txn::Check { path, version } => {
            line.text("path", path);
            line.number("version", *version);
        }
        Txn::CreateSession { timeout_ms } => line.number("timeout_ms", *timeout_ms),
        Txn::CloseSession { ephemerals } => {
            let paths = ephemerals.as_ref().map(|paths| {
                paths.iter().map(|path| Value::from(path.as_ref())).collect::<Vec<_>>()
            });
            line.value("ephemerals", paths.map_or(Value::Null, Value::from));
        }
        Txn::Error(error) => line.number("error", error.0),
        Txn::Multi(txns) => {
            let parts = txns.iter().map(|txn| {
                let mut part = Line::new("part");
                add(txn, options, &mut part);
                Value::Object(part.into_fields())
            });
            line.value("parts", parts.collect());
        }
    }
}

fn add_node(node: &NewNode<'_>, options: Options, line: &mut Line) {
    line.text("path", &node.path);
    line.data(node.data.as_deref(), options.data);
    line.value("acl", acl_value(&node.acl));
    line.number("parent_cversion", node.parent_cversion);
}

fn name(txn: &Txn<'_>) -> &'static str {
    match txn {
        Txn::Create { with_stat: false, .. } => "create",
        Txn::Create { with_stat: true, .. } => "create2",
        Txn::CreateContainer { .. } => "createContainer",
        Txn::CreateTtl { .. } => "createTTL",
        Txn::Delete { container: false, .. } => "delete",
        Txn::Delete { container: true, .. } => "deleteContainer",
        Txn::SetData { reconfig: false, .. } => "setData",
        Txn::SetData { reconfig: true, .. } => "reconfig",
        Txn::SetAcl { .. } => "setACL",
        Txn::Check { .. } => "check",
        Txn::CreateSession { .. } => "createSession",
        Txn::CloseSession { .. } => "closeSession",
        Txn::Error(_) => "error",
        Txn::Multi(_) => "multi",
    }
}

/// A list in the form of ZooKeeper's shell: `world:anyone:cdrwa`.
pub(super) fn acl_value(list: &AclBytes<'_>) -> Value {
    if list.is_null() {
        return Value::Null;
    }
    let letters = [(CREATE, 'c'), (DELETE, 'd'), (READ, 'r'), (WRITE, 'w'), (ADMIN, 'a')];
    let entries = list.decode().into_iter().map(|acl| {
        let perms =
            letters.iter().filter(|(bit, _)| acl.perms & bit != 0).map(|(_, letter)| letter);
        let perms: String = perms.collect();
        Value::from(format!("{}:{}:{perms}", acl.id.scheme, acl.id.id))
    });
    entries.collect()
}
