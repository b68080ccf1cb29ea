//! The server: executes what the engine's machines ask for, with sockets, files and threads.

pub mod cli;
pub mod clock;
pub mod config;
pub mod cores;
pub mod disk;
pub mod door;
pub mod exit;
pub mod four_letter;
pub mod logging;
pub mod memory;
pub mod peers;
pub mod process;
pub mod ring;
pub mod signals;
pub mod snapshots;
pub mod standalone;
pub mod storage;
pub mod tools;
pub mod version;
