//! Operation codes of the client protocol and of transactions.

/// Declares the codes once: the enum, its wire form and the way back.
macro_rules! op_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// What a request asks for, or what a transaction did, by ZooKeeper's number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i32)]
        pub enum OpCode {
            $($(#[$doc])* $name = $code,)*
        }

        impl OpCode {
            /// Every code, in the order of the declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code whose number is `value`.
            pub fn from_wire(value: i32) -> Option<Self> {
                match value {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

op_codes! {
    /// Sent by servers to clients only.
    Notification = 0,
    /// Create a znode; the reply is its path.
    Create = 1,
    /// Delete a znode.
    Delete = 2,
    /// The stat of a znode, if there is one.
    Exists = 3,
    /// Data and stat.
    GetData = 4,
    /// Replace the data.
    SetData = 5,
    /// ACL list and stat.
    GetAcl = 6,
    /// Replace the ACL list.
    SetAcl = 7,
    /// Names of the children.
    GetChildren = 8,
    /// Answered when everything before it is applied here.
    Sync = 9,
    /// Keeps the session alive.
    Ping = 11,
    /// Names of the children, and stat.
    GetChildren2 = 12,
    /// Compare the version; inside multi only.
    Check = 13,
    /// Several writes, all or none.
    Multi = 14,
    /// Create a znode; the reply has path and stat.
    Create2 = 15,
    /// Change the ensemble.
    Reconfig = 16,
    /// Is there such a watch?
    CheckWatches = 17,
    /// Remove watches.
    RemoveWatches = 18,
    /// Create a znode that goes when it is emptied.
    CreateContainer = 19,
    /// The server's own deletion of an empty container or expired TTL znode.
    DeleteContainer = 20,
    /// Create a znode that goes when it was not touched for a while.
    CreateTtl = 21,
    /// Several reads in one packet.
    MultiRead = 22,
    /// Add an identity to the connection.
    Auth = 100,
    /// Register watches again after a reconnect.
    SetWatches = 101,
    /// SASL exchange.
    Sasl = 102,
    /// Paths of this session's ephemerals.
    GetEphemerals = 103,
    /// Count of all znodes below a path.
    GetAllChildrenNumber = 104,
    /// SetWatches with persistent ones.
    SetWatches2 = 105,
    /// Add a persistent watch.
    AddWatch = 106,
    /// Identities of the connection.
    WhoAmI = 107,
    /// Opens a session; a transaction, never a request.
    CreateSession = -10,
    /// Closes the session.
    CloseSession = -11,
    /// A refused write; a transaction, never a request.
    Error = -1,
}

impl OpCode {
    /// The number on the wire.
    pub const fn to_wire(self) -> i32 {
        self as i32
    }
}
