//! Encoding and decoding: what each write pays for its record in the log, and each request and
//! reply for its form on the wire.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::acl::{ALL, Acl, AclBytes, Id};
use engine::ids::{SessionId, Xid};
use engine::jute::{Reader, Writer};
use engine::op::OpCode;
use engine::records::{ReplyHeader, RequestHeader, SetData};
use engine::time::WallTime;
use engine::txn::codec::{decode, encode};
use engine::txn::{NewNode, Txn, TxnHeader};
use engine::zxid::Zxid;

const PATH: &str = "/services-0042/node-0000001234";
const DATA: [u8; 100] = [7; 100];
const HEADER: TxnHeader = TxnHeader {
    session: SessionId(0x0100_0000_0000_0001),
    cxid: Xid(77),
    zxid: Zxid(0x1_0000_0077),
    time: WallTime(1_795_000_000_000),
};

fn create() -> Txn<'static> {
    let acl = AclBytes::encode(&[Acl { perms: ALL, id: Id::new("world", "anyone") }]);
    let data = Some(DATA[..].into());
    let node = NewNode { path: PATH.into(), data, acl, parent_cversion: 3 };
    Txn::Create { with_stat: false, node, ephemeral: false }
}

fn set_data() -> Txn<'static> {
    Txn::SetData { path: PATH.into(), data: Some(DATA[..].into()), version: 5, reconfig: false }
}

fn txns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec/txn");
    let multi = Txn::Multi((0..10).map(|_| set_data()).collect());
    for (name, txn) in [("create", create()), ("setData", set_data()), ("multi of 10", multi)] {
        let mut bytes = Vec::new();
        encode(&HEADER, &txn, Some(1), &mut bytes);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let mut out = Vec::with_capacity(2 * bytes.len());
        group.bench_function(format!("encode {name}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                encode(&HEADER, black_box(&txn), Some(1), &mut out);
                out.len()
            });
        });
        group.bench_function(format!("decode {name}"), |bencher| {
            bencher.iter(|| decode(black_box(&bytes)).is_ok());
        });
    }
    group.finish();
}

fn wire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec/wire");
    let mut request = Vec::new();
    let mut writer = Writer::new(&mut request);
    RequestHeader { xid: Xid(7), op: OpCode::SetData.to_wire() }.write(&mut writer);
    SetData { path: PATH.into(), data: Some(&DATA), version: -1 }.write(&mut writer);
    group.bench_function("decode a setData request", |bencher| {
        bencher.iter(|| {
            let mut reader = Reader::new(black_box(&request));
            let header = RequestHeader::read(&mut reader);
            let body = SetData::read(&mut reader);
            (header.is_ok(), body.is_ok())
        });
    });
    let mut out = Vec::with_capacity(256);
    group.bench_function("encode a getData reply", |bencher| {
        bencher.iter(|| {
            out.clear();
            let mut writer = Writer::new(&mut out);
            let frame = writer.begin_part();
            ReplyHeader { xid: Xid(7), zxid: 9, err: 0 }.write(&mut writer);
            writer.buf(black_box(&DATA));
            writer.bytes(&[0; 68]);
            writer.end_part(frame);
            out.len()
        });
    });
    group.finish();
}

criterion_group!(codec, txns, wire);
criterion_main!(codec);
