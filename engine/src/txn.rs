//! Transactions: idempotent changes with a zxid, as the log holds them and PROPOSAL carries them.
//!
//! Strings, data and ACL lists are borrowed from the bytes they were decoded from.

pub mod codec;

use std::borrow::Cow;

use crate::acl::AclBytes;
use crate::error_code::ErrorCode;
use crate::ids::{SessionId, Xid};
use crate::op::OpCode;
use crate::time::WallTime;
use crate::zxid::Zxid;

/// What every transaction has (`TxnHeader`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnHeader {
    /// Whose request it was.
    pub session: SessionId,
    /// The request's number within its connection.
    pub cxid: Xid,
    /// The transaction's place in the order.
    pub zxid: Zxid,
    /// When the leader made it.
    pub time: WallTime,
}

/// A change, or the record that a change was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Txn<'a> {
    /// A new persistent or ephemeral znode (`CreateTxn`, types create and create2).
    Create {
        /// The reply differs, so the log does: whether the request was create2.
        with_stat: bool,
        /// The znode.
        node: NewNode<'a>,
        /// Whether the header's session owns it.
        ephemeral: bool,
    },
    /// A new container (`CreateContainerTxn`).
    CreateContainer {
        /// The znode.
        node: NewNode<'a>,
    },
    /// A new TTL znode (`CreateTTLTxn`).
    CreateTtl {
        /// The znode.
        node: NewNode<'a>,
        /// Milliseconds without change after which it goes.
        ttl_ms: i64,
    },
    /// A deletion (`DeleteTxn`): a client's, or the server's own of a container or TTL znode.
    Delete {
        /// What is deleted.
        path: Cow<'a, str>,
        /// Whether it is the server's own (type deleteContainer).
        container: bool,
    },
    /// New data (`SetDataTxn`, types setData and reconfig).
    SetData {
        /// The znode.
        path: Cow<'a, str>,
        /// Its data from now on.
        data: Option<Cow<'a, [u8]>>,
        /// Its version from now on.
        version: i32,
        /// Whether it is a new ensemble (type reconfig).
        reconfig: bool,
    },
    /// A new ACL list (`SetACLTxn`).
    SetAcl {
        /// The znode.
        path: Cow<'a, str>,
        /// Its list from now on.
        acl: AclBytes<'a>,
        /// Its aversion from now on.
        aversion: i32,
    },
    /// A version was as expected (`CheckVersionTxn`); only inside a multi.
    Check {
        /// The znode.
        path: Cow<'a, str>,
        /// Its version.
        version: i32,
    },
    /// A new session.
    CreateSession {
        /// Its negotiated timeout.
        timeout_ms: i32,
    },
    /// The end of a session.
    CloseSession {
        /// Its ephemerals, which go with it; none if the record has no body.
        ephemerals: Option<Vec<Cow<'a, str>>>,
    },
    /// A refused write (`ErrorTxn`), or what is left of an operation of a refused multi.
    Error(TxnError),
    /// All of these (`MultiTxn`). A refused multi is all errors.
    Multi(Vec<Txn<'a>>),
}

/// What the four kinds of creation share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNode<'a> {
    /// Its path, sequence suffix included.
    pub path: Cow<'a, str>,
    /// Its data; null and empty are different.
    pub data: Option<Cow<'a, [u8]>>,
    /// Its ACL list.
    pub acl: AclBytes<'a>,
    /// The parent's stored cversion from now on; -1 in records of old servers: one more than it is.
    pub parent_cversion: i32,
}

/// The code in an error record; 0 and codes of other servers included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnError(pub i32);

impl From<ErrorCode> for TxnError {
    fn from(code: ErrorCode) -> Self {
        Self(code.to_wire())
    }
}

impl Txn<'_> {
    /// The type in the header of this transaction.
    pub fn op(&self) -> OpCode {
        match self {
            Txn::Create { with_stat: false, .. } => OpCode::Create,
            Txn::Create { with_stat: true, .. } => OpCode::Create2,
            Txn::CreateContainer { .. } => OpCode::CreateContainer,
            Txn::CreateTtl { .. } => OpCode::CreateTtl,
            Txn::Delete { container: false, .. } => OpCode::Delete,
            Txn::Delete { container: true, .. } => OpCode::DeleteContainer,
            Txn::SetData { reconfig: false, .. } => OpCode::SetData,
            Txn::SetData { reconfig: true, .. } => OpCode::Reconfig,
            Txn::SetAcl { .. } => OpCode::SetAcl,
            Txn::Check { .. } => OpCode::Check,
            Txn::CreateSession { .. } => OpCode::CreateSession,
            Txn::CloseSession { .. } => OpCode::CloseSession,
            Txn::Error(_) => OpCode::Error,
            Txn::Multi(_) => OpCode::Multi,
        }
    }
}
