//! Puts the znodes there that a load works on, and takes them away.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use engine::error_code::ErrorCode;
use engine::op::OpCode;

use super::LoadOptions;
use super::keys::Keyspace;
use super::mix::Kind;
use crate::client::Client;
use crate::progress::Progress;
use crate::wire;

/// Creates the root, the directories, and what the mix reads and sets.
pub fn prepare(options: &LoadOptions, progress: &Progress) -> anyhow::Result<()> {
    let mut client = connect(options)?;
    let keys = options.keyspace();
    client.ensure_path(&options.root)?;
    if options.mix.has(Kind::Create) {
        let connections = options.connections as u64;
        create_all(&mut client, 0..connections, 0, |number, path| {
            keys.created_directory(number, path);
        })?;
    }
    if options.mix.needs_keys() {
        progress.say(&format!("creating {} znodes below {}", keys.count, options.root));
        create_keys(&mut client, &keys, 0..keys.count, options.value_bytes)?;
    }
    client.close()?;
    catch_up(&options.target.addresses()?, options.target.timeout())
}

/// Has every server of an ensemble show what was written at any of them before.
pub fn catch_up(hosts: &[SocketAddr], timeout: Duration) -> anyhow::Result<()> {
    for host in hosts.iter().filter(|_| hosts.len() > 1) {
        let mut client = Client::connect(*host, timeout)?;
        client.sync()?;
        client.close()?;
    }
    Ok(())
}

/// Creates keys and the directories that they need; those that are there keep their value.
pub fn create_keys(
    client: &mut Client,
    keys: &Keyspace,
    range: std::ops::Range<u64>,
    value_bytes: usize,
) -> anyhow::Result<()> {
    let first = range.start / keys.per_directory;
    let past = range.end.div_ceil(keys.per_directory);
    create_all(client, first..past, 0, |number, path| keys.directory(number, path))?;
    create_all(client, range.clone(), value_bytes, |number, path| keys.path(number, path))?;
    // Values of another size or another program would make the checks of replies fail.
    let mut path = Vec::new();
    let mut value = noise(value_bytes);
    client.pipeline(
        range.end - range.start,
        |number, xid, out| {
            path.clear();
            keys.path(range.start + number, &mut path);
            stamp(&mut value, range.start + number);
            wire::request(out, xid, OpCode::SetData, |w| wire::set_body(w, &path, &value));
        },
        |_, header, _| expect_ok(header.err),
    )
}

/// Creates the znodes of these numbers, whose paths `find` gives; they may be there already.
pub fn create_all(
    client: &mut Client,
    range: std::ops::Range<u64>,
    value_bytes: usize,
    find: impl Fn(u64, &mut Vec<u8>),
) -> anyhow::Result<()> {
    let (mut path, mut value) = (Vec::new(), noise(value_bytes));
    client.pipeline(
        range.end.saturating_sub(range.start),
        |offset, xid, out| {
            let number = range.start + offset;
            path.clear();
            find(number, &mut path);
            stamp(&mut value, number);
            wire::request(out, xid, OpCode::Create, |w| wire::create_body(w, &path, &value, 0));
        },
        |_, header, _| match header.err {
            err if err == ErrorCode::NodeExists.to_wire() => Ok(()),
            err => expect_ok(err),
        },
    )
}

/// Deletes the root and all below it.
pub fn remove(options: &LoadOptions, progress: &Progress) -> anyhow::Result<()> {
    progress.say(&format!("removing {}", options.root));
    let mut client = connect(options)?;
    client.delete_tree(&options.root)?;
    client.close()
}

/// Bytes that do not compress, the same each time.
pub fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(count);
    for _ in 0..count {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes.push((state >> 56) as u8);
    }
    bytes
}

/// Writes a key's number over the beginning of its value.
pub fn stamp(value: &mut [u8], key: u64) {
    let count = value.len().min(8);
    value[..count].copy_from_slice(&key.to_be_bytes()[..count]);
}

fn connect(options: &LoadOptions) -> anyhow::Result<Client> {
    let addresses: Vec<SocketAddr> = options.target.addresses()?;
    let first = *addresses.first().context("no host was given")?;
    Client::connect(first, options.target.timeout())
}

fn expect_ok(err: i32) -> anyhow::Result<()> {
    anyhow::ensure!(err == 0, "preparing failed: {}", wire::error_name(err));
    Ok(())
}
