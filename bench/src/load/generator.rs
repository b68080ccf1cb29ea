//! Makes requests and judges their replies.
//!
//! A value begins with the number of its key, so that another znode's content is noticed; the
//! rest is noise that does not compress.

use engine::ids::Xid;
use engine::op::OpCode;
use engine::stat::WIRE_STAT_BYTES;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt as _, SeedableRng as _};

use super::keys::{Keyspace, Picker};
use super::mix::{Kind, Mix};
use crate::recorder::Violation;
use crate::wire;

/// Bytes of a key's number at the beginning of a value.
const STAMP_BYTES: usize = 8;
/// Where `dataLength` stands in an encoded stat.
const DATA_LENGTH_AT: usize = 52;

/// One operation: what it does, and to which key (or to which number of its own connection).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What it does.
    pub kind: Kind,
    /// Which key, directory or number.
    pub key: u64,
}

/// Draws, encodes and checks operations of one thread.
#[derive(Debug)]
pub struct Generator {
    keys: Keyspace,
    mix: Mix,
    multi_ops: u32,
    value_bytes: usize,
    picker: Picker,
    random: Xoshiro256PlusPlus,
    noise: Vec<u8>,
    path: Vec<u8>,
}

impl Generator {
    /// A generator whose draws follow from `seed` alone.
    pub fn new(
        keys: Keyspace,
        mix: Mix,
        picker: Picker,
        multi_ops: u32,
        value_bytes: usize,
        seed: u64,
    ) -> Self {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut noise = vec![0; value_bytes];
        random.fill_bytes(&mut noise);
        Self { keys, mix, multi_ops, value_bytes, picker, random, noise, path: Vec::new() }
    }

    /// The next operation; `created` counts what the connection has created so far.
    pub fn draw(&mut self, last: Option<Operation>, created: &mut u64) -> Operation {
        if self.mix.deletes
            && let Some(Operation { kind: Kind::Create, key }) = last
        {
            return Operation { kind: Kind::Delete, key };
        }
        let number = if self.mix.is_single() { 0 } else { self.random.random() };
        let kind = self.mix.pick(number);
        let key = match kind {
            Kind::Create => {
                *created += 1;
                *created
            }
            Kind::Children => self.picker.pick(&mut self.random) / self.keys.per_directory,
            _ => self.picker.pick(&mut self.random),
        };
        Operation { kind, key }
    }

    /// Appends the request of an operation.
    pub fn encode(&mut self, operation: Operation, connection: u64, xid: Xid, out: &mut Vec<u8>) {
        let Operation { kind, key } = operation;
        self.find_path(operation, connection);
        let stamp = self.noise.len().min(STAMP_BYTES);
        self.noise[..stamp].copy_from_slice(&key.to_be_bytes()[..stamp]);
        let (path, data) = (&self.path, &self.noise);
        match kind {
            Kind::Create => {
                wire::request(out, xid, OpCode::Create, |w| wire::create_body(w, path, data, 0));
            }
            Kind::Delete => {
                wire::request(out, xid, OpCode::Delete, |w| wire::delete_body(w, path));
            }
            Kind::Set => {
                wire::request(out, xid, OpCode::SetData, |w| wire::set_body(w, path, data));
            }
            Kind::Get => {
                wire::request(out, xid, OpCode::GetData, |w| wire::read_body(w, path, false));
            }
            Kind::Exists => {
                wire::request(out, xid, OpCode::Exists, |w| wire::read_body(w, path, false));
            }
            Kind::Children => {
                let op = OpCode::GetChildren2;
                wire::request(out, xid, op, |w| wire::read_body(w, path, false));
            }
            Kind::Sync => wire::request(out, xid, OpCode::Sync, |w| w.buf(path)),
            Kind::Multi => self.encode_multi(key, xid, out),
        }
    }

    fn encode_multi(&mut self, first: u64, xid: Xid, out: &mut Vec<u8>) {
        wire::request(out, xid, OpCode::Multi, |writer| {
            for step in 0..u64::from(self.multi_ops) {
                let key = (first + step) % self.keys.count.max(1);
                self.path.clear();
                self.keys.path(key, &mut self.path);
                let stamp = self.noise.len().min(STAMP_BYTES);
                self.noise[..stamp].copy_from_slice(&key.to_be_bytes()[..stamp]);
                wire::multi_header(writer, OpCode::SetData);
                wire::set_body(writer, &self.path, &self.noise);
            }
            wire::multi_end(writer);
        });
    }

    fn find_path(&mut self, operation: Operation, connection: u64) {
        self.path.clear();
        match operation.kind {
            Kind::Create | Kind::Delete => {
                self.keys.created(connection, operation.key, &mut self.path);
            }
            Kind::Children => self.keys.directory(operation.key, &mut self.path),
            _ => self.keys.path(operation.key, &mut self.path),
        }
    }

    /// Whether the body of a reply without an error is what the operation must get.
    pub fn check(
        &mut self,
        operation: Operation,
        connection: u64,
        body: &[u8],
    ) -> Result<(), Violation> {
        match operation.kind {
            Kind::Get => self.check_get(operation.key, body),
            Kind::Set | Kind::Exists => self.check_stat(body),
            Kind::Delete if body.is_empty() => Ok(()),
            Kind::Delete => Err(Violation::WrongLength),
            Kind::Create | Kind::Sync => {
                self.find_path(operation, connection);
                check_path(&self.path, body)
            }
            Kind::Multi => match wire::multi_results(body) {
                Ok((count, 0)) if count == self.multi_ops => Ok(()),
                Ok(_) => Err(Violation::WrongContent),
                Err(_) => Err(Violation::WrongLength),
            },
            Kind::Children => self.check_children(operation.key, body),
        }
    }

    fn check_get(&self, key: u64, body: &[u8]) -> Result<(), Violation> {
        if body.len() != 4 + self.value_bytes + WIRE_STAT_BYTES {
            return Err(Violation::WrongLength);
        }
        let (length, value) = body.split_at(4);
        let stamp = self.value_bytes.min(STAMP_BYTES);
        if length != (self.value_bytes as u32).to_be_bytes()
            || value[..stamp] != key.to_be_bytes()[..stamp]
        {
            return Err(Violation::WrongContent);
        }
        Ok(())
    }

    fn check_stat(&self, body: &[u8]) -> Result<(), Violation> {
        if body.len() != WIRE_STAT_BYTES {
            return Err(Violation::WrongLength);
        }
        let length = &body[DATA_LENGTH_AT..DATA_LENGTH_AT + 4];
        if length != (self.value_bytes as u32).to_be_bytes() {
            return Err(Violation::WrongContent);
        }
        Ok(())
    }

    fn check_children(&self, directory: u64, body: &[u8]) -> Result<(), Violation> {
        let Some((count, mut rest)) = body.split_first_chunk::<4>() else {
            return Err(Violation::WrongLength);
        };
        let count = u64::from(u32::from_be_bytes(*count));
        if count != self.keys.keys_in(directory) {
            return Err(Violation::WrongContent);
        }
        for _ in 0..count {
            let Some((length, names)) = rest.split_first_chunk::<4>() else {
                return Err(Violation::WrongLength);
            };
            let length = u32::from_be_bytes(*length) as usize;
            rest = names.get(length..).ok_or(Violation::WrongLength)?;
        }
        if rest.len() == WIRE_STAT_BYTES { Ok(()) } else { Err(Violation::WrongLength) }
    }
}

fn check_path(path: &[u8], body: &[u8]) -> Result<(), Violation> {
    let Some((length, echoed)) = body.split_first_chunk::<4>() else {
        return Err(Violation::WrongLength);
    };
    if echoed.len() != path.len() || u32::from_be_bytes(*length) as usize != path.len() {
        return Err(Violation::WrongLength);
    }
    if echoed == path { Ok(()) } else { Err(Violation::WrongContent) }
}

#[cfg(test)]
mod tests {
    use engine::jute::Writer;
    use engine::stat::WireStat;

    use super::super::keys::Distribution;
    use super::*;

    fn generator(mix: &str) -> Generator {
        let keys = Keyspace::new("/bench", 10, 10, 30);
        let picker = Picker::new(Distribution::Uniform, 10, 0);
        Generator::new(keys, mix.parse().unwrap(), picker, 3, 16, 1)
    }

    fn get_reply(key: u64, value_bytes: usize) -> Vec<u8> {
        let mut body = Vec::new();
        let mut value = vec![0; value_bytes];
        value[..8].copy_from_slice(&key.to_be_bytes());
        let mut writer = Writer::new(&mut body);
        writer.buf(&value);
        WireStat::default().encode(&mut writer);
        body
    }

    #[test]
    fn a_get_of_another_key_or_length_is_noticed() {
        let mut generator = generator("get");
        let get = Operation { kind: Kind::Get, key: 4 };
        assert_eq!(generator.check(get, 0, &get_reply(4, 16)), Ok(()));
        assert_eq!(generator.check(get, 0, &get_reply(5, 16)), Err(Violation::WrongContent));
        assert_eq!(generator.check(get, 0, &get_reply(4, 15)), Err(Violation::WrongLength));
    }

    #[test]
    fn a_create_is_followed_by_its_delete() {
        let mut generator = generator("create-delete");
        let mut created = 0;
        let create = generator.draw(None, &mut created);
        assert_eq!(create, Operation { kind: Kind::Create, key: 1 });
        let delete = generator.draw(Some(create), &mut created);
        assert_eq!(delete, Operation { kind: Kind::Delete, key: 1 });
        assert_eq!(generator.draw(Some(delete), &mut created).key, 2);
    }

    #[test]
    fn an_echoed_path_must_be_the_same() {
        assert_eq!(check_path(b"/a", &[0, 0, 0, 2, b'/', b'a']), Ok(()));
        assert_eq!(check_path(b"/a", &[0, 0, 0, 2, b'/', b'b']), Err(Violation::WrongContent));
        assert_eq!(check_path(b"/a", &[0, 0, 0, 1, b'/']), Err(Violation::WrongLength));
    }
}
