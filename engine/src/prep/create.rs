//! The four kinds of creation.

use std::borrow::Cow;

use super::{WriteContext, parent};
use crate::acl::CREATE;
use crate::error_code::ErrorCode;
use crate::limits::TTL_MS_MAX;
use crate::op::OpCode;
use crate::path;
use crate::permission::fixup;
use crate::records::NewNodeRequest;
use crate::tree::{self, Owner, Tree};
use crate::txn::{NewNode, Txn};

/// What the flags of a creation say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mode {
    ephemeral: bool,
    sequential: bool,
    ttl: bool,
}

impl Mode {
    /// The mode with this number. The one of containers says nothing here: what makes a container
    /// is the type of the request.
    fn from_flags(flags: i32) -> Option<Self> {
        let (ephemeral, sequential, ttl) = match flags {
            0 | 4 => (false, false, false),
            1 => (true, false, false),
            2 => (false, true, false),
            3 => (true, true, false),
            5 => (false, false, true),
            6 => (false, true, true),
            _ => return None,
        };
        Some(Self { ephemeral, sequential, ttl })
    }
}

/// Checks a creation, in the order that decides which error a client gets.
///
// Compat: PrepRequestProcessor.pRequest2TxnCreate
pub(super) fn prepare<'a>(
    tree: &Tree,
    context: &WriteContext<'_>,
    op: OpCode,
    request: NewNodeRequest<'a>,
) -> Result<Txn<'a>, ErrorCode> {
    let NewNodeRequest { path, data, acl, flags, ttl_ms } = request;
    let mode = Mode::from_flags(flags).ok_or(ErrorCode::BadArguments)?;
    let ttl_ms = check_ttl(context, mode, ttl_ms)?;
    let may_be_local = context.rules.local_sessions;
    if mode.ephemeral && may_be_local && tree::session(tree.view(), context.session).is_none() {
        return Err(ErrorCode::SessionExpired);
    }
    let mut path = path.ok_or(ErrorCode::MarshallingError)?;
    let parent_path = parent(&path)?;
    let acl = fixup(context.rules, context.ids, acl)?;
    let parent = tree::znode(tree.view(), parent_path).ok_or(ErrorCode::NoNode)?;
    context.demand(tree, parent.acl(), CREATE)?;
    let cversion = parent.stat().cversion;
    if mode.sequential {
        path::push_sequence(path.to_mut(), cversion);
    }
    if !path::is_valid(&path) {
        return Err(ErrorCode::BadArguments);
    }
    if tree::znode(tree.view(), &path).is_some() {
        return Err(ErrorCode::NodeExists);
    }
    if matches!(parent.owner(), Owner::Ephemeral(_)) {
        return Err(ErrorCode::NoChildrenForEphemerals);
    }
    if context.rules.enforce_quota {
        let data_bytes = data.map_or(0, <[u8]>::len) as i64;
        tree.check_quota(&path, data_bytes, 1)?;
    }
    let parent_cversion = cversion.wrapping_add(1);
    let node = NewNode { path, data: data.map(Cow::Borrowed), acl, parent_cversion };
    Ok(match (op, ttl_ms) {
        (_, Some(ttl_ms)) => Txn::CreateTtl { node, ttl_ms },
        (OpCode::CreateContainer, None) => Txn::CreateContainer { node },
        _ => Txn::Create { with_stat: op == OpCode::Create2, node, ephemeral: mode.ephemeral },
    })
}

/// The TTL of the znode, if it is to have one.
///
// Compat: PrepRequestProcessor.validateCreateRequest, EphemeralType.validateTTL. They let a
// createTTL with another mode and a negative TTL pass, to a transaction that no server survives:
// refused here.
fn check_ttl(
    context: &WriteContext<'_>,
    mode: Mode,
    ttl_ms: Option<i64>,
) -> Result<Option<i64>, ErrorCode> {
    match (mode.ttl, ttl_ms) {
        (true, _) if !context.rules.extended_types => Err(ErrorCode::Unimplemented),
        (true, Some(ttl_ms)) if (1..=TTL_MS_MAX).contains(&ttl_ms) => Ok(Some(ttl_ms)),
        (false, None) => Ok(None),
        _ => Err(ErrorCode::BadArguments),
    }
}
