//! Links between real sockets, on the loopback.

mod dialling;
mod harness;
mod ports;
mod streams;
