//! What passes between the machines of an ensemble and the driver of their connections.
//!
//! ```text
//!   machine  -- LinkOp: dial, send, close, listen -->  driver
//!   machine  <-- LinkEvent: opened, bytes, closed ---  driver
//! ```
//!
//! Invariants:
//!
//!   * per link, events come in order: at first `Accepted` or `Connected` (or `Failed`, and then
//!     nothing more), then bytes, and at last `Closed` or `Reset`, unless the machine has closed
//!     it
//!   * after [`LinkOp::Close`] no event names the link, and what was sent before still goes out
//!   * bytes that are sent go out in order and whole, or the link closes

use crate::ids::{LinkId, ServerId};

/// Which of a member's two ports a link belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plane {
    /// The election port: always open.
    Election,
    /// The learner port: open while the server leads.
    Learner,
}

/// What a machine wants of its links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkOp {
    /// Connect to a member; the driver looks its addresses up anew each time and tries them in
    /// turn. Answered by `Connected` or `Failed`.
    Dial {
        /// What the connection is called from now on.
        link: LinkId,
        /// Whom to connect to.
        peer: ServerId,
        /// At which port.
        plane: Plane,
    },
    /// Send these bytes behind those sent before.
    Send {
        /// On this link.
        link: LinkId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Leave what comes in the socket, but for what has been read of it already.
    Pause(LinkId),
    /// Read it again.
    Resume(LinkId),
    /// Close the link once everything sent before has left, or after a few seconds.
    Close(LinkId),
    /// Accept connections at the learner port from now on.
    OpenLearnerPort,
    /// Accept no more connections at the learner port; those that are there stay.
    CloseLearnerPort,
}

/// What happened to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent<'a> {
    /// Another member has connected to a port of ours.
    Accepted {
        /// What the connection is called.
        link: LinkId,
        /// Which port.
        plane: Plane,
    },
    /// A dialled link is open.
    Connected(LinkId),
    /// A dialled link could not be opened.
    Failed {
        /// Which.
        link: LinkId,
        /// Whether every address of the member has answered, and said that nobody listens there.
        /// A time-out, an unknown name or an unreachable network is not a refusal.
        refused: bool,
    },
    /// Bytes have come.
    Received(LinkId, &'a [u8]),
    /// Everything that was sent has been handed to the kernel: there is room for more.
    Drained(LinkId),
    /// The link is gone: closed by the other side or broken.
    Closed(LinkId),
    /// The link is gone, and what was sent last was not read: so it is with one that a dying server
    /// had not accepted yet.
    Reset(LinkId),
}
