//! The server: executes what the engine's machines ask for, with sockets, files and threads.

pub mod cli;
pub mod config;
pub mod disk;
pub mod exit;
pub mod four_letter;
pub mod logging;
pub mod metrics;
pub mod process;
pub mod ring;
pub mod signals;
pub mod version;

/// Runs the server until it is told to stop.
pub fn run() -> anyhow::Result<()> {
    anyhow::bail!("the server is not assembled yet")
}
