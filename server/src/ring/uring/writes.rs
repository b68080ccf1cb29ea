//! Writes to files through io_uring.

use io_uring::{opcode, types};
use rustix::io::Errno;
use std::io;
use std::os::fd::AsRawFd;

use super::Uring;
use crate::ring::slots::Slot;
use crate::ring::tag::{Kind, Tag};
use crate::ring::{FileWrite, Handler};

impl Uring {
    pub(in crate::ring) fn submit_write(&mut self, write: FileWrite) {
        let slot = self.writes.insert(write).expect("fewer writes are in flight than slots exist");
        self.queue_write(slot);
    }

    fn queue_write(&mut self, slot: Slot) {
        let write = self.writes.get(slot).expect("a write in flight is in the table");
        let bytes = write.buffer.as_slice();
        let entry = opcode::Write::new(
            types::Fd(write.file.as_raw_fd()),
            bytes.as_ptr(),
            u32::try_from(bytes.len()).expect("a buffer for a file is below 4 GiB"),
        )
        .offset(write.offset)
        .rw_flags(libc::RWF_DSYNC)
        .build();
        self.submit(entry, Tag::new(Kind::Write, slot));
    }

    pub(super) fn on_written(
        &mut self,
        slot: Slot,
        result: Result<u32, Errno>,
        handler: &mut impl Handler,
    ) {
        if result == Err(Errno::INTR) {
            return self.queue_write(slot);
        }
        let write = self.writes.remove(slot).expect("a write is removed by its completion only");
        // A short write to a file means that it is full or broken; the rest would fail too.
        let result = match result {
            Ok(count) if count as usize == write.buffer.len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(errno) => Err(errno.into()),
        };
        handler.on_written(write.token, write.buffer, result);
    }
}
