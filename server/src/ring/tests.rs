//! The ring's promises, checked on both implementations with real sockets.

mod choice;
mod connections;
mod harness;
mod limits;
mod streams;
mod wakes;
