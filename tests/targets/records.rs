//! Records alone: fields, the operations of a multi, transactions.

use engine::jute::Reader;
use engine::jute::Writer;
use engine::jute::reader::text;
use engine::records::{MultiHeader, MultiOps};
use engine::tree::{Effects, OwnerMode, Tree};
use engine::txn::codec;

use super::input::Input;

/// Fields of any types in any order.
pub(super) fn jute(input: &[u8]) {
    let mut input = Input(input);
    let kinds = input.piece();
    let mut reader = Reader::new(input.0);
    for kind in kinds {
        let before = reader.rest().len();
        let taken = match kind % 8 {
            0 => reader.u8().map(drop),
            1 => reader.bool().map(drop),
            2 => reader.i32().map(drop),
            3 => reader.i64().map(drop),
            4 => reader.buf().map(drop),
            5 => reader.ustr().map(drop),
            6 => reader.count(usize::from(*kind)).map(|count| {
                let count = count.unwrap_or_default();
                assert!(count * usize::from(*kind).max(1) <= reader.rest().len());
            }),
            _ => reader.take(usize::from(*kind)).map(drop),
        };
        assert!(reader.rest().len() <= before);
        if taken.is_err() {
            break;
        }
    }
    let lossy = text(input.0);
    assert_eq!(text(lossy.as_bytes()), lossy);
    let mut echo = Vec::new();
    Writer::new(&mut echo).echo(&lossy);
    assert_eq!(Reader::new(&echo).buf().map(|buf| buf.map(<[u8]>::len)), Ok(Some(echo.len() - 4)));
}

/// The body of a multi: what is accepted means the same when it is written again.
pub(super) fn multi(input: &[u8]) {
    let Ok(ops) = MultiOps::read(input) else { return };
    let found: Vec<_> = ops.iter().collect();
    assert_eq!(found.len(), ops.count());
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes);
    found.iter().for_each(|op| op.write(&mut writer));
    MultiHeader::END.write(&mut writer);
    let again = MultiOps::read(&bytes).expect("it was accepted before");
    assert!(again.iter().eq(found));
}

/// Transactions, one after the other: all that decode can be applied.
pub(super) fn txns(input: &[u8]) {
    let mut input = Input(input);
    let mode = if input.u8() & 1 == 0 { OwnerMode::Plain } else { OwnerMode::Extended };
    let mut tree = Tree::new(mode);
    let mut effects = Effects::new();
    while !input.is_empty() {
        let Ok(decoded) = codec::decode(input.piece()) else { continue };
        let mut bytes = Vec::new();
        let digest = decoded.digest.map(|(_, digest)| digest);
        codec::encode(&decoded.header, &decoded.txn, digest, &mut bytes);
        let again = codec::decode(&bytes).expect("what was encoded can be decoded");
        assert_eq!((again.header, again.txn), (decoded.header, decoded.txn.clone()));
        tree.apply(&decoded.header, &decoded.txn, &mut effects);
    }
    tree.freeze().check().expect("a sound tree");
}
