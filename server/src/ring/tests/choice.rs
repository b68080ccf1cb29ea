//! Which backend a process gets, what it is told, and what a connection costs.

use std::io;

use rustix::io::Errno;

use super::harness::on_both;
use crate::ring::{Backend, RingError, choice_after, choose, epoll, uring};

fn check(errno: Errno, sentence: &str) {
    let error = RingError::from(io::Error::from(errno));
    assert!(error.to_string().contains(sentence), "{errno:?}: {error}");
}

#[test]
fn errors_say_what_to_do() {
    check(Errno::NOSYS, "no io_uring");
    check(Errno::PERM, "seccomp");
    check(Errno::ACCESS, "seccomp");
    check(Errno::NOMEM, "ulimit -l");
    check(Errno::MFILE, "ulimit -n");
    check(Errno::NFILE, "ulimit -n");
    check(Errno::FAULT, "could not be set up");
}

#[test]
fn where_io_uring_is_refused_epoll_is_used_with_one_warning() {
    for refusal in [RingError::Missing, RingError::Forbidden, RingError::TooOld("it")] {
        let sentence = refusal.to_string();
        let choice = choice_after(Err(refusal)).unwrap();
        assert_eq!(choice.backend, Backend::Epoll);
        let warning = choice.warning.unwrap();
        assert!(warning.ends_with(&sentence), "{warning}");
        assert!(!warning.contains('\n') && !warning.contains("  "), "{warning}");
    }
    // The other one would lack descriptors too.
    assert!(matches!(choice_after(Err(RingError::Descriptors)), Err(RingError::Descriptors)));
    assert_eq!(choice_after(Ok(())).unwrap().warning, None);
}

#[test]
fn a_configured_backend_is_taken_without_a_warning() {
    on_both(|backend| {
        let choice = choose(Some(backend)).unwrap();
        assert_eq!((choice.backend, choice.warning), (backend, None));
    });
}

/// The whole price of an idle connection in the process, but for growth of the table.
const _: () = assert!(uring::CONNECTION_BYTES <= 64 && epoll::CONNECTION_BYTES <= 64);
