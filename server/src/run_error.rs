//! Why a server does not run, or no longer, and what the process tells whoever started it.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;

use crate::cores::{CoreError, CoreFailure};
use crate::ensemble::MemberError;
use crate::exit::ExitCode;
use crate::ring::RingError;
use crate::storage::OpenError;

/// Why the server does not run, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It cannot be the member of the ensemble that the configuration says.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The data cannot be used.
    #[error(transparent)]
    Storage(#[from] OpenError),
    /// The kernel does not give what a ring needs.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Nobody can be served at the address.
    #[error("{address}: {}", listen_reason(error))]
    Listen {
        /// Where clients were to connect.
        address: SocketAddr,
        /// Why they cannot.
        error: io::Error,
    },
    /// The operating system does not give a thread, or what else is needed.
    #[error("{}", system_reason(.0))]
    System(io::Error),
    /// A core has failed.
    #[error(transparent)]
    Core(#[from] CoreFailure),
}

fn listen_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "address in use: another server is listening there; stop it or set clientPort".into()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; set clientPortAddress to one of its own".into()
        }
        io::ErrorKind::PermissionDenied => {
            "not permitted: ports below 1024 need a privilege; set clientPort".into()
        }
        _ => error.to_string(),
    }
}

fn system_reason(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE) => RingError::Descriptors.to_string(),
        _ => error.to_string(),
    }
}

impl RunError {
    /// What the process tells whoever started it.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Storage(error) => error.exit_code(),
            Self::Ring(_) | Self::System(_) => ExitCode::System,
            Self::Listen { .. } => ExitCode::Address,
            Self::Member(MemberError::Bind(_) | MemberError::Address { .. }) => {
                ExitCode::PeerAddress
            }
            Self::Member(_) => ExitCode::BadInvocation,
            Self::Core(failure) => match failure.error {
                CoreError::Ring(_) | CoreError::System(_) => ExitCode::System,
                CoreError::Storage(ref error) if error.damage().is_some() => ExitCode::Damaged,
                CoreError::Storage(_) => ExitCode::Storage,
                CoreError::Silent(_) => ExitCode::Stuck,
                CoreError::Panicked | CoreError::Another => ExitCode::Unexpected,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use engine::disk::{Damage, StorageError};
    use engine::ids::CoreId;

    use super::*;
    use crate::ensemble::data::DataError;
    use crate::peers::BindError;

    #[test]
    fn what_the_system_refuses_is_said_so_that_it_can_be_mended() {
        let error = RunError::System(io::Error::from(Errno::MFILE));
        assert!(error.to_string().contains("ulimit -n"), "{error}");
        let address = SocketAddr::from(([192, 0, 2, 1], 2181));
        let error = io::Error::from(Errno::ADDRNOTAVAIL);
        let error = RunError::Listen { address, error }.to_string();
        assert!(error.starts_with("192.0.2.1:2181: this machine has no such address"), "{error}");
    }

    #[test]
    fn what_the_system_refuses_has_the_documented_code() {
        let page = include_str!("../../docs/operations.md");
        let rows = page.lines().filter(|line| line.contains("io_uring is forbidden"));
        let rows: Vec<_> = rows.filter(|line| line.starts_with("| 7 |")).collect();
        assert_eq!(rows.len(), 1, "{rows:?}");
        for error in [
            RingError::Missing,
            RingError::Forbidden,
            RingError::TooOld("a feature"),
            RingError::Memory,
            RingError::Descriptors,
            RingError::Other(io::Error::other("broken")),
        ] {
            let error = RunError::from(error);
            assert_eq!(error.exit_code().number(), 7, "{error}");
        }
        assert_eq!(RunError::System(Errno::AGAIN.into()).exit_code().number(), 7);
    }

    #[test]
    fn each_kind_of_failure_of_a_core_has_its_code() {
        let storage = StorageError::io("log.1".to_owned(), "append", &io::Error::other("broken"));
        let damage = StorageError::damaged("log.1".to_owned(), 4096, Damage::SegmentHeader);
        for (error, code) in [
            (CoreError::System(io::Error::other("no threads")), ExitCode::System),
            (CoreError::Storage(storage.clone()), ExitCode::Storage),
            (DataError::Storage(storage).into(), ExitCode::Storage),
            (DataError::Storage(damage).into(), ExitCode::Damaged),
            (DataError::Snapshot(io::Error::other("full")).into(), ExitCode::Storage),
            (CoreError::Silent(Duration::from_secs(10)), ExitCode::Stuck),
            (CoreError::Panicked, ExitCode::Unexpected),
        ] {
            let error = RunError::from(CoreFailure { core: CoreId(3), error });
            assert!(error.to_string().starts_with("core 3: "), "{error}");
            assert_eq!(error.exit_code(), code, "{error}");
        }
    }

    #[test]
    fn an_election_port_that_cannot_be_had_has_zookeepers_code() {
        let error = || io::Error::from(Errno::ADDRINUSE);
        let address = SocketAddr::from(([127, 0, 0, 1], 3888));
        let bind = MemberError::Bind(BindError { address, error: error() });
        let unknown = MemberError::Address { id: 1, host: "nowhere".to_owned(), error: error() };
        for error in [bind, unknown] {
            assert_eq!(RunError::Member(error).exit_code().number(), 14);
        }
    }
}
