//! Starting threads, so that whoever has too few of them reads what to do.

use std::io;
use std::thread::{self, JoinHandle};

/// Starts a thread.
pub fn start<T: Send + 'static>(
    name: impl Into<String>,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let name = name.into();
    let started = thread::Builder::new().name(name.clone()).spawn(work);
    started.map_err(|error| refused(&name, &error))
}

fn refused(name: &str, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!(
            "the thread \"{name}\" cannot be started: {error}; raise the limits of threads \
             (ulimit -u, the pids of a container) and of addresses (ulimit -v), or use fewer \
             cores (ringkeeper.cores)"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_its_name_and_a_refusal_says_what_to_do() {
        let thread = start("worker", || thread::current().name().map(str::to_owned)).unwrap();
        assert_eq!(thread.join().unwrap().as_deref(), Some("worker"));
        let text = refused("core-3", &io::Error::from_raw_os_error(libc::EAGAIN)).to_string();
        assert!(text.contains("\"core-3\"") && text.contains("ulimit -u"), "{text}");
    }
}
