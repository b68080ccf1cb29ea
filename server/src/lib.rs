//! The server: executes what the engine's machines ask for, with sockets, files and threads.

pub mod ring;

/// Runs the server until it is told to stop.
pub fn run() -> anyhow::Result<()> {
    anyhow::bail!("the server is not assembled yet")
}
