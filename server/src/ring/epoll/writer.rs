//! The thread that writes files for a ring on epoll, which cannot wait for them itself.

use std::io::{self, IoSlice};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use rustix::io::{Errno, ReadWriteFlags};

use crate::ring::{FileWrite, Waker};
use crate::threads;

type Done = (FileWrite, io::Result<()>);

#[derive(Debug)]
pub(super) struct Writer {
    /// Taken only by drop, to end the thread.
    requests: Option<Sender<FileWrite>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(waker: Waker) -> Self {
        let (requests, inbox) = mpsc::channel::<FileWrite>();
        let (outbox, done) = mpsc::channel();
        let run = move || {
            for write in inbox {
                let result = execute(&write);
                if outbox.send((write, result)).is_err() {
                    return;
                }
                waker.wake();
            }
        };
        let thread = threads::start("ring-files", run)
            .expect("a thread can be started while the server starts");
        Self { requests: Some(requests), done, thread: Some(thread) }
    }

    pub(super) fn submit(&self, write: FileWrite) {
        let requests = self.requests.as_ref().expect("taken by drop only");
        requests.send(write).expect("the thread ends after its requests only");
    }

    /// Writes that ended since the last call.
    pub(super) fn done(&mut self) -> impl Iterator<Item = Done> {
        self.done.try_iter()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("writing files does not panic");
        }
    }
}

fn execute(write: &FileWrite) -> io::Result<()> {
    let flags = ReadWriteFlags::DSYNC;
    let bytes = write.buffer.as_slice();
    let written = loop {
        let slices = [IoSlice::new(bytes)];
        match rustix::io::pwritev2(&write.file, &slices, write.offset, flags) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    // A short write to a file means that it is full or broken; the rest would fail too.
    if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
