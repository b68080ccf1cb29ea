//! Deletions, new data, new ACL lists, and the comparison of versions.

use std::borrow::Cow;

use super::{WriteContext, parent};
use crate::acl::{ADMIN, DELETE, READ, WRITE};
use crate::error_code::ErrorCode;
use crate::path;
use crate::permission::fixup;
use crate::records::{SetAcl, SetData, VersionedPath};
use crate::tree::{self, Tree, Znode};
use crate::txn::Txn;

/// Checks a deletion.
///
// Compat: PrepRequestProcessor.pRequest2Txn, delete
pub(super) fn delete<'a>(
    tree: &Tree,
    context: &WriteContext<'_>,
    request: VersionedPath<'a>,
) -> Result<Txn<'a>, ErrorCode> {
    let VersionedPath { path, version } = request;
    if path::is_special(&path) {
        return Err(ErrorCode::BadArguments);
    }
    let parent = find(tree, parent(&path)?)?;
    context.demand(tree, parent.acl(), DELETE)?;
    let znode = find(tree, &path)?;
    next_version(znode.stat().version, version)?;
    if znode.children_count() > 0 {
        return Err(ErrorCode::NotEmpty);
    }
    Ok(Txn::Delete { path, container: false })
}

/// Checks new data.
///
// Compat: PrepRequestProcessor.pRequest2Txn, setData
pub(super) fn set_data<'a>(
    tree: &Tree,
    context: &WriteContext<'_>,
    request: SetData<'a>,
) -> Result<Txn<'a>, ErrorCode> {
    let SetData { path, data, version } = request;
    validate(&path)?;
    let znode = find(tree, &path)?;
    context.demand(tree, znode.acl(), WRITE)?;
    if context.rules.enforce_quota {
        let bytes_more = data.map_or(0, <[u8]>::len) as i64 - znode.data_bytes() as i64;
        tree.check_quota(&path, bytes_more, 0)?;
    }
    let version = next_version(znode.stat().version, version)?;
    Ok(Txn::SetData { path, data: data.map(Cow::Borrowed), version, reconfig: false })
}

/// Checks a new ACL list.
///
// Compat: PrepRequestProcessor.pRequest2Txn, setACL
pub(super) fn set_acl<'a>(
    tree: &Tree,
    context: &WriteContext<'_>,
    request: SetAcl<'a>,
) -> Result<Txn<'a>, ErrorCode> {
    let SetAcl { path, acl, aversion } = request;
    validate(&path)?;
    let acl = fixup(context.rules, context.ids, acl)?;
    let znode = find(tree, &path)?;
    context.demand(tree, znode.acl(), ADMIN)?;
    let aversion = next_version(znode.stat().aversion, aversion)?;
    Ok(Txn::SetAcl { path, acl, aversion })
}

/// Checks a version, inside a multi.
///
// Compat: PrepRequestProcessor.pRequest2Txn, check - the record holds the version after it.
pub(super) fn check<'a>(
    tree: &Tree,
    context: &WriteContext<'_>,
    request: VersionedPath<'a>,
) -> Result<Txn<'a>, ErrorCode> {
    let VersionedPath { path, version } = request;
    validate(&path)?;
    let znode = find(tree, &path)?;
    context.demand(tree, znode.acl(), READ)?;
    let version = next_version(znode.stat().version, version)?;
    Ok(Txn::Check { path, version })
}

fn validate(path: &str) -> Result<(), ErrorCode> {
    if path::is_valid(path) { Ok(()) } else { Err(ErrorCode::BadArguments) }
}

fn find<'a>(tree: &'a Tree, path: &str) -> Result<Znode<'a>, ErrorCode> {
    tree::znode(tree.view(), path).ok_or(ErrorCode::NoNode)
}

/// The version after this one, if it is the expected one.
///
// Compat: PrepRequestProcessor.checkAndIncVersion, as it is since ZOOKEEPER-4743: -1 expects any
// version, so no znode gets it.
fn next_version(version: i32, expected: i32) -> Result<i32, ErrorCode> {
    if expected != -1 && expected != version {
        return Err(ErrorCode::BadVersion);
    }
    Ok(match version.wrapping_add(1) {
        -1 => 0,
        next => next,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_count_up_and_around_without_minus_one() {
        assert_eq!(next_version(0, 0), Ok(1));
        assert_eq!(next_version(7, -1), Ok(8));
        assert_eq!(next_version(7, 6), Err(ErrorCode::BadVersion));
        assert_eq!(next_version(i32::MAX, -1), Ok(i32::MIN));
        assert_eq!(next_version(-2, -2), Ok(0));
        assert_eq!(next_version(-1, -1), Ok(0));
    }
}
