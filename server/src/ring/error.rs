//! Why a ring cannot be had, in sentences an operator can act on.

use std::io;

use rustix::io::Errno;

/// A ring could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The kernel does not know `io_uring_setup` (ENOSYS).
    #[error("this kernel has no io_uring (ENOSYS)")]
    Missing,
    /// The kernel or a filter refuses `io_uring_setup` (EPERM, EACCES).
    #[error(
        "io_uring is forbidden here: the sysctl kernel.io_uring_disabled or the seccomp profile \
         of a container refuses it"
    )]
    Forbidden,
    /// io_uring is there, but without something the ring needs.
    #[error("this kernel's io_uring is too old: {0} is missing, Linux 6.1 has it")]
    TooOld(&'static str),
    /// Memory for the queues was refused.
    #[error("no memory for the ring's queues: raise the limit of locked memory (ulimit -l)")]
    Memory,
    /// The process or the machine has no descriptor left.
    #[error("no file descriptor left: raise the limit of open files (ulimit -n)")]
    Descriptors,
    /// Anything else.
    #[error("the ring could not be set up")]
    Other(#[source] io::Error),
}

impl From<io::Error> for RingError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::NOSYS) => Self::Missing,
            Some(Errno::PERM | Errno::ACCESS) => Self::Forbidden,
            Some(Errno::NOMEM) => Self::Memory,
            Some(Errno::MFILE | Errno::NFILE) => Self::Descriptors,
            _ => Self::Other(error),
        }
    }
}

impl From<Errno> for RingError {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}

impl RingError {
    /// Whether the other implementation may work where this one did not.
    pub(super) fn has_alternative(&self) -> bool {
        !matches!(self, Self::Descriptors)
    }
}
