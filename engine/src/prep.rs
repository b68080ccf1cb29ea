//! Prep: from a request that writes to a transaction, on the leader.
//!
//! A request is validated against the head, becomes a transaction, is applied to the head, and is
//! answered, in one go. A request that is refused becomes an error transaction: it has a zxid and
//! a place in the log too, and changes nothing.
//!
//! Invariants:
//!
//!   * every call but `decode` and `sync` takes exactly the zxid of its context, whatever the
//!     request holds
//!   * one encoded transaction is appended, and one whole reply frame where there is a client
//!   * what was appended before is never touched

mod change;
mod create;
mod multi;
#[cfg(test)]
pub(crate) mod script;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::acl::{AclBytes, Id};
use crate::error_code::ErrorCode;
use crate::ids::{SessionId, Xid};
use crate::jute::{DecodeError, Reader, Writer};
use crate::op::OpCode;
use crate::path;
use crate::permission::Verdicts;
use crate::records::multi::NULL_ACL;
use crate::records::{
    self, MultiOps, NewNodeRequest, Reconfig, SetAcl, SetData, VersionedPath, begin_reply,
};
use crate::rules::Rules;
use crate::time::WallTime;
use crate::tree::{self, AclId, Effects, Outcome, Owner, Tree};
use crate::txn::{Txn, TxnError, TxnHeader, codec};
use crate::zxid::Zxid;

/// Whose request it is, and what the leader gives it.
#[derive(Clone, Copy, Debug)]
pub struct WriteContext<'a> {
    /// The session.
    pub session: SessionId,
    /// The client's number for the request.
    pub xid: Xid,
    /// The transaction's place: the one after the last.
    pub zxid: Zxid,
    /// The time that it is stamped with.
    pub time: WallTime,
    /// Who the connection was when it sent the request.
    pub ids: &'a [Id],
    /// The server's settings.
    pub rules: &'a Rules,
    /// What the request has found out.
    pub verdicts: &'a Verdicts,
}

/// A body that cannot be decoded is told as a marshalling error.
impl From<DecodeError> for ErrorCode {
    fn from(_: DecodeError) -> Self {
        Self::MarshallingError
    }
}

impl WriteContext<'_> {
    fn header(&self) -> TxnHeader {
        TxnHeader { session: self.session, cxid: self.xid, zxid: self.zxid, time: self.time }
    }

    /// Fails unless the connection may do one of `perms` under this list.
    fn demand(&self, tree: &Tree, acl: AclId, perms: i32) -> Result<(), ErrorCode> {
        if self.verdicts.may(tree.view(), self.rules, acl, perms, self.ids) {
            Ok(())
        } else {
            Err(ErrorCode::NoAuth)
        }
    }
}

/// A request that writes, as it came.
#[derive(Debug)]
pub enum Request<'a> {
    /// One of the four kinds of creation.
    Create(OpCode, NewNodeRequest<'a>),
    /// Delete.
    Delete(VersionedPath<'a>),
    /// Set data.
    SetData(SetData<'a>),
    /// Set an ACL list.
    SetAcl(SetAcl<'a>),
    /// Several; none if they could not be decoded.
    Multi(Option<MultiOps<'a>>),
    /// Change the ensemble.
    Reconfig(Reconfig<'a>),
    /// The path is null.
    NullPath(OpCode),
    /// Nothing that clients may ask for.
    Unknown,
}

/// Decodes the body of a request of type `op`. What fails here is answered with a marshalling
/// error, and is no transaction.
///
// Compat: PrepRequestProcessor.pRequest - a request that cannot be decoded gets the zxid of the
// one before it. A multi gets its own, but not where an ACL list in it is null; a request with a
// null path does too, because it fails later.
pub fn decode(op: OpCode, body: &[u8]) -> Result<Request<'_>, DecodeError> {
    match decode_record(op, body) {
        Err(DecodeError::Null(NULL_ACL)) => Err(DecodeError::Null(NULL_ACL)),
        Err(_) if op == OpCode::Multi => Ok(Request::Multi(None)),
        Err(DecodeError::Null(_)) => decode_behind_null_path(op, body),
        result => result,
    }
}

/// What follows a null path must be there all the same.
fn decode_behind_null_path(op: OpCode, body: &[u8]) -> Result<Request<'_>, DecodeError> {
    let mut reader = Reader::new(body);
    reader.buf()?;
    match op {
        OpCode::SetData => drop(reader.buf()?),
        OpCode::SetAcl => drop(AclBytes::read(&mut reader)?),
        _ => {}
    }
    reader.i32()?;
    Ok(Request::NullPath(op))
}

fn decode_record(op: OpCode, body: &[u8]) -> Result<Request<'_>, DecodeError> {
    let reader = &mut Reader::new(body);
    Ok(match op {
        OpCode::Create | OpCode::Create2 | OpCode::CreateContainer => {
            Request::Create(op, NewNodeRequest::read(reader, false)?)
        }
        OpCode::CreateTtl => Request::Create(op, NewNodeRequest::read(reader, true)?),
        OpCode::Delete => Request::Delete(VersionedPath::read(reader)?),
        OpCode::SetData => Request::SetData(SetData::read(reader)?),
        OpCode::SetAcl => Request::SetAcl(SetAcl::read(reader)?),
        OpCode::Multi => Request::Multi(Some(MultiOps::read(body)?)),
        OpCode::Reconfig => Request::Reconfig(Reconfig::read(reader)?),
        _ => Request::Unknown,
    })
}

/// Prepares and applies a client's request, appending its transaction, triggers and reply.
pub fn execute(
    tree: &mut Tree,
    context: &WriteContext<'_>,
    request: Request<'_>,
    txns: &mut Vec<u8>,
    effects: &mut Effects,
    replies: &mut Vec<u8>,
) {
    let prepared = match request {
        Request::Multi(Some(ops)) => {
            return multi::execute(tree, context, &ops, txns, effects, replies);
        }
        Request::Create(op, request) => create::prepare(tree, context, op, request),
        Request::Delete(request) => change::delete(tree, context, request),
        Request::SetData(request) => change::set_data(tree, context, request),
        Request::SetAcl(request) => change::set_acl(tree, context, request),
        // Compat: a standalone server has no ensemble to change.
        Request::Reconfig(_) if context.rules.reconfig_enabled => Err(ErrorCode::Unimplemented),
        Request::Reconfig(_) => Err(ErrorCode::ReconfigDisabled),
        Request::NullPath(OpCode::SetData | OpCode::SetAcl) => Err(ErrorCode::BadArguments),
        Request::Multi(None) | Request::NullPath(_) => Err(ErrorCode::MarshallingError),
        Request::Unknown => Err(ErrorCode::Unimplemented),
    };
    match prepared {
        Ok(txn) => {
            let outcome = commit(tree, context, &txn, txns, effects);
            write_reply(context.xid, context.zxid, &txn, &outcome, replies);
        }
        Err(code) => refuse(tree, context, code, txns, effects, replies),
    }
}

/// Makes an error transaction and its reply.
pub fn refuse(
    tree: &mut Tree,
    context: &WriteContext<'_>,
    code: ErrorCode,
    txns: &mut Vec<u8>,
    effects: &mut Effects,
    replies: &mut Vec<u8>,
) {
    commit(tree, context, &Txn::Error(TxnError::from(code)), txns, effects);
    let zxid = context.zxid.to_wire();
    records::write_bare_reply(replies, context.xid, zxid, code.to_wire());
}

/// Opens the context's session.
pub fn create_session(
    tree: &mut Tree,
    context: &WriteContext<'_>,
    timeout_ms: i32,
    txns: &mut Vec<u8>,
    effects: &mut Effects,
) {
    commit(tree, context, &Txn::CreateSession { timeout_ms }, txns, effects);
}

/// Closes the context's session, deleting its ephemerals. The reply is for the client's own
/// request; a session that expires has nobody to read it.
pub fn close_session(
    tree: &mut Tree,
    context: &WriteContext<'_>,
    txns: &mut Vec<u8>,
    effects: &mut Effects,
    replies: &mut Vec<u8>,
) {
    let ephemerals = ephemerals_to_list(tree, context);
    commit(tree, context, &Txn::CloseSession { ephemerals }, txns, effects);
    records::write_bare_reply(replies, context.xid, context.zxid.to_wire(), 0);
}

/// The paths that go with the session; none if a peer would refuse so long a record. Then each
/// server finds them in its own state, which is the same.
fn ephemerals_to_list(tree: &Tree, context: &WriteContext<'_>) -> Option<Vec<Cow<'static, str>>> {
    let mut list = Vec::new();
    let mut bytes = 0;
    let mut paths = tree::ephemerals(tree.view(), context.session);
    while let Some(path) = paths.next_path() {
        bytes += 4 + path.len();
        if bytes > context.rules.packet_bytes_max {
            return None;
        }
        list.push(Cow::Owned(path.to_owned()));
    }
    Some(list)
}

/// Deletes a container or TTL znode that nobody needs any more. If that is not so after all, it
/// is an error transaction.
///
// Compat: PrepRequestProcessor.pRequest2Txn, deleteContainer. That would delete a persistent
// znode too.
pub fn delete_container(
    tree: &mut Tree,
    context: &WriteContext<'_>,
    path: &str,
    txns: &mut Vec<u8>,
    effects: &mut Effects,
) {
    let txn = match tree::znode(tree.view(), path) {
        None => Txn::Error(ErrorCode::NoNode.into()),
        Some(znode) if znode.children_count() > 0 => Txn::Error(ErrorCode::NotEmpty.into()),
        Some(znode) => match znode.owner() {
            Owner::Persistent | Owner::Ephemeral(_) => Txn::Error(ErrorCode::BadVersion.into()),
            Owner::Container | Owner::Ttl(_) => {
                Txn::Delete { path: Cow::Borrowed(path), container: true }
            }
        },
    };
    commit(tree, context, &txn, txns, effects);
}

/// Appends the reply to a `sync`, or to one that cannot be decoded. It takes no zxid.
pub fn sync(xid: Xid, applied: Zxid, body: &[u8], replies: &mut Vec<u8>) {
    match Reader::new(body).ustr() {
        Ok(path) => records::write_sync_reply(replies, xid, applied, path.as_deref()),
        Err(_) => {
            let code = ErrorCode::MarshallingError.to_wire();
            records::write_bare_reply(replies, xid, applied.to_wire(), code);
        }
    }
}

/// Applies the transaction and appends its encoding.
fn commit(
    tree: &mut Tree,
    context: &WriteContext<'_>,
    txn: &Txn<'_>,
    txns: &mut Vec<u8>,
    effects: &mut Effects,
) -> Outcome {
    let header = context.header();
    let outcome = tree.apply(&header, txn, effects);
    // Compat: SerializeUtils.serializeRequest - what has no record has no digest either.
    let without_digest = matches!(txn, Txn::Error(_) | Txn::CloseSession { ephemerals: None });
    let digest = if without_digest { None } else { Some(tree.digest()) };
    codec::encode(&header, txn, digest, txns);
    outcome
}

/// Appends the whole reply to a request that became `txn`, also where another server prepared it.
pub fn write_reply(xid: Xid, zxid: Zxid, txn: &Txn<'_>, outcome: &Outcome, replies: &mut Vec<u8>) {
    let err = if let Outcome::Error(code) = outcome { *code } else { 0 };
    let mut writer = Writer::new(replies);
    let frame = begin_reply(&mut writer, xid, zxid.to_wire(), err);
    match (txn, outcome) {
        (Txn::Multi(txns), Outcome::Multi(outcomes)) => {
            multi::write_results(txns, outcomes, &mut writer);
        }
        _ => write_result(txn, outcome, &mut writer),
    }
    writer.end_part(frame);
}

/// Appends the response record of what became of `txn`; errors have none.
fn write_result(txn: &Txn<'_>, outcome: &Outcome, writer: &mut Writer<'_>) {
    match (txn, outcome) {
        (Txn::Create { node, with_stat: false, .. }, Outcome::Created(_)) => {
            writer.string(&node.path);
        }
        (
            Txn::Create { node, .. } | Txn::CreateContainer { node } | Txn::CreateTtl { node, .. },
            Outcome::Created(stat),
        ) => {
            writer.string(&node.path);
            stat.encode(writer);
        }
        (_, Outcome::DataSet(stat) | Outcome::AclSet(stat)) => stat.encode(writer),
        _ => {}
    }
}

/// The parent of a path that has not been looked at closely yet.
///
// Compat: PrepRequestProcessor.validatePathForCreate, getParentPathAndValidate
fn parent(path: &str) -> Result<&str, ErrorCode> {
    path::parent(path).filter(|_| !path.contains('\0')).ok_or(ErrorCode::BadArguments)
}
