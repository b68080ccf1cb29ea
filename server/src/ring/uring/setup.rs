//! Making an io_uring with the best flags the kernel takes, and trying it once.

use std::io;
use std::time::Duration;

use io_uring::{IoUring, opcode, types};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use super::buffers::{self, Buffers};
use super::tolerate;
use crate::ring::RingError;

/// Queue of completions, as a multiple of the queue of submissions: one submission may complete
/// many times, and what does not fit waits in slower memory of the kernel.
const COMPLETIONS_PER_SUBMISSION: u32 = 4;

pub(super) fn build(submissions: u32) -> Result<IoUring, RingError> {
    let completions = submissions.saturating_mul(COMPLETIONS_PER_SUBMISSION);
    // Work that the kernel defers runs when this thread enters it, not whenever it can interrupt
    // the thread: fewer switches, and completions appear in batches.
    let best = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_cqsize(completions)
        .setup_clamp()
        .build(submissions);
    // Older: the work runs at the next system call, whichever it is.
    let next = best.or_else(|error| match Errno::from_io_error(&error) {
        Some(Errno::INVAL) => IoUring::builder()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(completions)
            .setup_clamp()
            .build(submissions),
        _ => Err(error),
    });
    match next {
        Ok(ring) => Ok(ring),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
            Err(RingError::TooOld("cooperative task running"))
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) fn buffers_error(error: io::Error) -> RingError {
    match Errno::from_io_error(&error) {
        Some(Errno::INVAL) => RingError::TooOld("a ring of provided buffers"),
        _ => error.into(),
    }
}

/// Finds out whether io_uring works here, by receiving one byte the way the ring does it: kernels
/// and sandboxes that know the calls but not all of the operations exist.
pub(in crate::ring) fn probe() -> Result<(), RingError> {
    let ring = build(8)?;
    let params = ring.params();
    if !params.is_feature_ext_arg() || !params.is_feature_nodrop() {
        return Err(RingError::TooOld("waiting with a timeout"));
    }
    if !params.is_feature_skip_cqe_on_success() {
        return Err(RingError::TooOld("skipping of completions"));
    }
    let _buffers = Buffers::new(&ring, 2, 64).map_err(buffers_error)?;
    // Moved behind the buffers to be dropped before them.
    let mut ring = ring;
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::send(&theirs, b"x", SendFlags::NOSIGNAL)?;
    // The end of the stream ends the receive, so that nothing is in flight when the buffers go.
    drop(theirs);

    let descriptor = types::Fd(std::os::fd::AsRawFd::as_raw_fd(&ours));
    let entry = opcode::RecvMulti::new(descriptor, buffers::GROUP).build();
    // SAFETY: the socket and the buffers outlive the loop below, which leaves nothing in flight.
    unsafe { ring.submission().push(&entry) }.expect("a new queue has room");
    let mut received = 0;
    for _round in 0..10 {
        let limit = types::Timespec::from(Duration::from_secs(1));
        let args = types::SubmitArgs::new().timespec(&limit);
        tolerate(ring.submitter().submit_with_args(1, &args).map(drop))?;
        for completion in ring.completion() {
            received += i32::from(completion.result() == 1);
            if !io_uring::cqueue::more(completion.flags()) {
                let whole = received == 1 && completion.result() == 0;
                return whole.then_some(()).ok_or(RingError::TooOld("multishot receive"));
            }
        }
    }
    Err(RingError::TooOld("multishot receive"))
}
