//! ZooKeeper's reply codes.

use std::fmt;

/// Why a request was refused, by the number that the client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum ErrorCode {
    /// The server failed in a way it has no better word for.
    SystemError = -1,
    /// An operation of a failed multi that came after the failing one.
    RuntimeInconsistency = -2,
    /// The connection was lost; used by clients only.
    ConnectionLoss = -4,
    /// The request could not be decoded, or lacks what it must have.
    MarshallingError = -5,
    /// The server does not know or does not offer the operation.
    Unimplemented = -6,
    /// The request did not finish in time.
    OperationTimeout = -7,
    /// A path, flag or number that is not allowed.
    BadArguments = -8,
    /// A server of the new configuration has no quorum.
    NewConfigNoQuorum = -13,
    /// Another reconfiguration is under way.
    ReconfigInProgress = -14,
    /// The znode does not exist.
    NoNode = -101,
    /// The connection's ids lack the permission.
    NoAuth = -102,
    /// The expected version is not the znode's.
    BadVersion = -103,
    /// The parent is ephemeral.
    NoChildrenForEphemerals = -108,
    /// The znode exists already.
    NodeExists = -110,
    /// The znode has children.
    NotEmpty = -111,
    /// The session is over.
    SessionExpired = -112,
    /// The ACL list is empty or holds an id that its scheme refuses.
    InvalidAcl = -114,
    /// Authentication failed.
    AuthFailed = -115,
    /// The session is served by another server or connection now.
    SessionMoved = -118,
    /// The server is read-only.
    NotReadOnly = -119,
    /// A local session cannot own ephemerals.
    EphemeralOnLocalSession = -120,
    /// There is no such watch.
    NoWatcher = -121,
    /// Reconfiguration is switched off.
    ReconfigDisabled = -123,
    /// The session must authenticate first.
    SessionClosedRequireAuth = -124,
    /// A hard quota would be exceeded.
    QuotaExceeded = -125,
    /// The operation waited too long in a queue.
    ThrottledOp = -127,
}

impl ErrorCode {
    /// Every code, in descending order of number.
    pub const ALL: [Self; 26] = [
        Self::SystemError,
        Self::RuntimeInconsistency,
        Self::ConnectionLoss,
        Self::MarshallingError,
        Self::Unimplemented,
        Self::OperationTimeout,
        Self::BadArguments,
        Self::NewConfigNoQuorum,
        Self::ReconfigInProgress,
        Self::NoNode,
        Self::NoAuth,
        Self::BadVersion,
        Self::NoChildrenForEphemerals,
        Self::NodeExists,
        Self::NotEmpty,
        Self::SessionExpired,
        Self::InvalidAcl,
        Self::AuthFailed,
        Self::SessionMoved,
        Self::NotReadOnly,
        Self::EphemeralOnLocalSession,
        Self::NoWatcher,
        Self::ReconfigDisabled,
        Self::SessionClosedRequireAuth,
        Self::QuotaExceeded,
        Self::ThrottledOp,
    ];

    /// The code whose wire form is `value`, if it is one of ours.
    pub fn from_wire(value: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.to_wire() == value)
    }

    /// The number on the wire.
    pub const fn to_wire(self) -> i32 {
        self as i32
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?} ({})", self.to_wire())
    }
}
