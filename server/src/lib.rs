//! The server: executes what the engine's machines ask for, with sockets, files and threads.

pub mod assembly;
pub mod cli;
pub mod clock;
pub mod config;
pub mod cores;
pub mod descriptors;
pub mod disk;
pub mod door;
pub mod ensemble;
pub mod exit;
pub mod four_letter;
pub mod logging;
pub mod memory;
pub mod peers;
pub mod process;
pub mod ring;
pub mod run_error;
pub mod signals;
pub mod snapshots;
pub mod storage;
pub mod threads;
pub mod tools;
pub mod version;
