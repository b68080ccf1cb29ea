//! multiRead: several reads in one packet, each with its own result.

use super::ReadContext;
use super::znodes::write_children;
use crate::btree::View;
use crate::error_code::ErrorCode;
use crate::jute::Writer;
use crate::op::OpCode;
use crate::records::multi::{Kind, MultiOp};
use crate::records::{MultiHeader, MultiOps, begin_reply};

/// Answers each read on its own; none leaves a watch.
///
// Compat: FinalRequestProcessor, multiRead. Where the packet holds writes, it has begun its
// response when it finds out, and sends the end of the list behind the error. An answer that is
// too long for us is a marshalling error; there, the server runs out of memory.
pub(super) fn multi_read(
    view: &impl View,
    context: &ReadContext<'_>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ErrorCode> {
    let ops = MultiOps::read(body)?;
    let has_writes = ops.kind() == Kind::Writes;
    let err = if has_writes { ErrorCode::MarshallingError.to_wire() } else { 0 };
    let start = out.len();
    let mut writer = Writer::new(out);
    let frame = begin_reply(&mut writer, context.xid, context.last_zxid.to_wire(), err);
    if !has_writes {
        let end = start + context.rules.answer_bytes_max();
        for op in ops.iter() {
            let written = write_result(view, context, &op, &mut writer, end);
            if written.is_err() || writer.position() > end {
                context.give_up(out, start);
                return Err(ErrorCode::MarshallingError);
            }
        }
    }
    MultiHeader::END.write(&mut writer);
    writer.end_part(frame);
    Ok(())
}

fn write_result(
    view: &impl View,
    context: &ReadContext<'_>,
    op: &MultiOp<'_>,
    writer: &mut Writer<'_>,
    end: usize,
) -> Result<(), ErrorCode> {
    let (MultiOp::GetData(path) | MultiOp::GetChildren(path)) = op else {
        unreachable!("reads and writes don't mix");
    };
    match (op, context.find(view, path)) {
        (_, Err(code)) => MultiHeader::write_error(code.to_wire(), writer),
        (MultiOp::GetData(_), Ok(znode)) => {
            MultiHeader::write_result(OpCode::GetData, writer);
            let stat = znode.wire_stat();
            writer.buf_or_null(znode.into_data(view).as_deref());
            stat.encode(writer);
        }
        (_, Ok(_)) => {
            MultiHeader::write_result(OpCode::GetChildren, writer);
            write_children(view, path, writer, end)?;
        }
    }
    Ok(())
}
