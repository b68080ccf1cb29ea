//! Provides memory ahead of the tree's writer, and moves the pages of the snapshot that the server
//! started from into memory, so that no core waits for the kernel.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use engine::btree::Map;
use engine::pages::LoadError;
use rustix::process::{Resource, getrlimit};

use crate::exit::ExitCode;
use crate::threads;

/// How much is kept ready ahead of the writer, bytes.
const AHEAD_BYTES: usize = 16 << 20;

/// How long to wait when there was nothing to do.
const PAUSE: Duration = Duration::from_millis(20);

/// How long the thread leaves the processors, and the lock of the address space, to the start.
const START_PAUSE: Duration = Duration::from_millis(100);

/// Keeps the thread going; it ends when this is dropped.
#[derive(Debug)]
pub struct Memory {
    ends: Arc<AtomicBool>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

/// Whether there is room for a tree at all.
pub fn check() -> io::Result<()> {
    if let Some(bytes) = getrlimit(Resource::As).current {
        tracing::warn!(
            bytes,
            "the addresses of the process are limited (ulimit -v): the server ends where its data \
             needs more"
        );
    }
    Map::check_room().map_err(|error| {
        let reason = "the tree reserves addresses by the GiB, and the system gives none";
        let advice = "raise the limit (ulimit -v), or allow overcommitting memory";
        io::Error::new(error.kind(), format!("{reason}: {error}; {advice}"))
    })
}

/// Ends the process: pages of the snapshot cannot be moved into memory.
#[expect(clippy::exit, reason = "cores answer from these pages until the process ends")]
fn give_up(error: &LoadError) -> ! {
    tracing::error!("{error}; the server stops, restart it to recover");
    let code = match error {
        // The file was changed under a running server. What is in memory is good, what is not
        // cannot be trusted any more.
        LoadError::Changed { .. } => ExitCode::Damaged,
        LoadError::Memory(_) => ExitCode::System,
    };
    process::exit(code.number().into())
}

/// Starts the thread for this map.
pub fn start(map: &Map) -> io::Result<Memory> {
    let (growth, mut loader) = (map.growth(), map.loader());
    let ends = Arc::new(AtomicBool::new(false));
    let memory = Memory { ends: Arc::clone(&ends) };
    let work = move || {
        let mut is_told = false;
        // What is needed until the server serves is little, and the processors have other work.
        thread::sleep(START_PAUSE);
        while !ends.load(Ordering::Relaxed) {
            match growth.grow(AHEAD_BYTES) {
                Ok(true) => continue,
                Ok(false) => is_told = false,
                // Before Linux 5.14 it never does. Then the writer waits for the kernel itself.
                Err(error) if !is_told => {
                    tracing::warn!("the kernel gives no memory ahead: {error}");
                    is_told = true;
                }
                Err(_) => {}
            }
            if !loader.step().unwrap_or_else(|error| give_up(&error)) {
                thread::sleep(PAUSE);
            }
        }
    };
    threads::start("memory", work)?;
    Ok(memory)
}
