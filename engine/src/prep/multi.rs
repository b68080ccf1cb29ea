//! Multi: several writes as one transaction, all or none.

use super::{WriteContext, change, commit, create, refuse, write_reply, write_result};
use crate::error_code::ErrorCode;
use crate::jute::Writer;
use crate::op::OpCode;
use crate::records::multi::{Kind, MultiOp};
use crate::records::{MultiHeader, MultiOps, NewNodeRequest, begin_reply};
use crate::tree::{Effects, Outcome, Tree};
use crate::txn::codec::MultiEncoder;
use crate::txn::{Txn, TxnError};

/// Prepares and applies the operations one after the other, so that each sees what those before
/// it did. If one fails, none of them has happened.
///
// Compat: PrepRequestProcessor.pRequestHelper, multi. Reads are decoded there, but have no
// transaction that could be serialized: a marshalling error, which is no operation's own, but
// that of the whole.
pub(super) fn execute(
    tree: &mut Tree,
    context: &WriteContext<'_>,
    ops: &MultiOps<'_>,
    txns: &mut Vec<u8>,
    effects: &mut Effects,
    replies: &mut Vec<u8>,
) {
    if ops.kind() == Kind::Reads {
        let code = ErrorCode::MarshallingError;
        return refuse(tree, context, code, txns, effects, replies);
    }
    let (txns_start, replies_start) = (txns.len(), replies.len());
    let savepoint = tree.savepoint(effects);
    match apply_each(tree, context, ops, txns, effects, replies) {
        Ok(()) => tree.release(savepoint),
        Err(failure) => {
            tree.rollback_to(savepoint, effects);
            txns.truncate(txns_start);
            replies.truncate(replies_start);
            if failure.code == ErrorCode::MarshallingError {
                return refuse(tree, context, failure.code, txns, effects, replies);
            }
            let errors = (0..ops.count()).map(|index| failure.seen_at(index)).collect();
            fail(tree, context, errors, txns, effects, replies);
        }
    }
}

/// The operation that spoils a multi.
struct Failure {
    index: usize,
    code: ErrorCode,
}

impl Failure {
    /// What becomes of the operation `index`.
    fn seen_at(&self, index: usize) -> TxnError {
        match index.cmp(&self.index) {
            std::cmp::Ordering::Less => TxnError(0),
            std::cmp::Ordering::Equal => self.code.into(),
            std::cmp::Ordering::Greater => ErrorCode::RuntimeInconsistency.into(),
        }
    }
}

/// Applies each operation, and appends its transaction and its result behind those before.
fn apply_each(
    tree: &mut Tree,
    context: &WriteContext<'_>,
    ops: &MultiOps<'_>,
    txns: &mut Vec<u8>,
    effects: &mut Effects,
    replies: &mut Vec<u8>,
) -> Result<(), Failure> {
    let header = context.header();
    // Even with no operation the multi has been applied.
    tree.apply(&header, &Txn::Multi(Vec::new()), effects);
    let txns_start = txns.len();
    let mut encoder = MultiEncoder::begin(&header, txns);
    let mut writer = Writer::new(replies);
    let frame = begin_reply(&mut writer, context.xid, context.zxid.to_wire(), 0);
    for (index, op) in ops.iter().enumerate() {
        let fail = |code| Failure { index, code };
        let txn = prepare(tree, context, op).map_err(fail)?;
        encoder.push(&txn, txns);
        // An `auth` in the ACL lists can make a transaction out of proportion to its request.
        if txns.len() - txns_start > context.rules.txn_bytes_max() {
            return Err(fail(ErrorCode::MarshallingError));
        }
        let outcome = tree.apply(&header, &txn, effects);
        write_part(&txn, &outcome, &mut writer);
    }
    MultiHeader::END.write(&mut writer);
    writer.end_part(frame);
    encoder.end(tree.digest(), txns);
    Ok(())
}

/// Appends the results of a multi that was prepared before, perhaps by another server.
pub(super) fn write_results(txns: &[Txn<'_>], outcomes: &[Outcome], writer: &mut Writer<'_>) {
    for (txn, outcome) in txns.iter().zip(outcomes) {
        write_part(txn, outcome, writer);
    }
    MultiHeader::END.write(writer);
}

fn write_part(txn: &Txn<'_>, outcome: &Outcome, writer: &mut Writer<'_>) {
    if let Outcome::Error(code) = outcome {
        return MultiHeader::write_error(*code, writer);
    }
    MultiHeader::write_result(result_type(txn), writer);
    write_result(txn, outcome, writer);
}

/// Checks one operation.
///
// Compat: Op.create - the mode of containers makes one whatever the type says; createTTL with
// a mode that is not for TTL is a plain create.
fn prepare<'a>(
    tree: &Tree,
    context: &WriteContext<'_>,
    op: MultiOp<'a>,
) -> Result<Txn<'a>, ErrorCode> {
    match op {
        MultiOp::Create(op, request) => {
            let (op, ttl_ms) = match (op, request.flags) {
                (OpCode::CreateTtl, 5 | 6) => (op, request.ttl_ms),
                (_, 4) => (OpCode::CreateContainer, None),
                (OpCode::CreateTtl, _) => (OpCode::Create, None),
                _ => (op, None),
            };
            create::prepare(tree, context, op, NewNodeRequest { ttl_ms, ..request })
        }
        MultiOp::Delete(request) => change::delete(tree, context, request),
        MultiOp::SetData(request) => change::set_data(tree, context, request),
        MultiOp::Check(request) => change::check(tree, context, request),
        MultiOp::GetData(_) | MultiOp::GetChildren(_) => Err(ErrorCode::MarshallingError),
    }
}

/// The type of a result: that of the transaction, but all creations whose result has a stat are
/// told as create2.
///
// Compat: OpResult.CreateResult
fn result_type(txn: &Txn<'_>) -> OpCode {
    match txn {
        Txn::CreateContainer { .. } | Txn::CreateTtl { .. } => OpCode::Create2,
        _ => txn.op(),
    }
}

/// Makes the transaction of a multi that failed, and the reply that tells each operation's error.
fn fail(
    tree: &mut Tree,
    context: &WriteContext<'_>,
    errors: Vec<TxnError>,
    txns: &mut Vec<u8>,
    effects: &mut Effects,
    replies: &mut Vec<u8>,
) {
    let txn = Txn::Multi(errors.into_iter().map(Txn::Error).collect());
    let outcome = commit(tree, context, &txn, txns, effects);
    write_reply(context.xid, context.zxid, &txn, &outcome, replies);
}
