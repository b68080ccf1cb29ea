//! Exit codes, so that a script or a service manager can tell what happened. Where ZooKeeper has
//! a code for something, this is the same one.

use std::process;

/// Why the process ends.
// Compat: ExitCode
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// It was asked to stop, and has stopped in good order.
    Finished = 0,
    /// Something that has no code of its own; the log says what.
    Unexpected = 1,
    /// The command line or the configuration is wrong.
    BadInvocation = 2,
    /// A data directory cannot be used: no permission, no space, or another process has it.
    DataDir = 3,
    /// No client can be served at the address: it is in use, or is none of this machine's.
    Address = 5,
    /// What is on the disk is damaged, so that starting from it could lose or invent data.
    Damaged = 6,
    /// The operating system refuses something that is needed: descriptors, locked memory, rings.
    System = 7,
    /// Writing failed while serving; what is not durable was not acknowledged.
    Storage = 10,
    /// A core was caught in one turn for too long.
    Stuck = 11,
    /// The other members cannot reach it: its election port is in use, or the host of its own
    /// line is none of this machine's.
    PeerAddress = 14,
}

impl ExitCode {
    /// Every code.
    pub const ALL: [Self; 10] = [
        Self::Finished,
        Self::Unexpected,
        Self::BadInvocation,
        Self::DataDir,
        Self::Address,
        Self::Damaged,
        Self::System,
        Self::Storage,
        Self::Stuck,
        Self::PeerAddress,
    ];

    /// The number.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        code.number().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_every_code() {
        let page = include_str!("../../docs/operations.md");
        for code in ExitCode::ALL {
            let row = format!("\n| {} | ", code.number());
            assert!(page.contains(&row), "{code:?} is not described");
        }
    }
}
