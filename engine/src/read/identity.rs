//! What a connection may ask about itself.

use super::ReadContext;
use crate::btree::View;
use crate::error_code::ErrorCode;
use crate::jute::Reader;
use crate::permission;
use crate::tree;

/// The ids of the connection, with the users' names alone.
pub(super) fn who_am_i(context: &ReadContext<'_>, out: &mut Vec<u8>) {
    context.reply(out, |writer| {
        writer.count(context.ids.len());
        for id in context.ids {
            writer.string(&id.scheme);
            writer.echo(permission::user_name(context.rules, id));
        }
    });
}

/// The paths of the session's ephemerals that begin with a prefix.
///
// Compat: FinalRequestProcessor, getEphemerals - a prefix is text, not a path: /a has /ab too. A
// blank one, or the root among blanks, has all.
pub(super) fn get_ephemerals(
    view: &impl View,
    context: &ReadContext<'_>,
    reader: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ErrorCode> {
    let prefix = reader.ustr()?.unwrap_or_default();
    let has_all = matches!(prefix.trim_matches(|c| c <= ' '), "" | "/");
    let mut paths = tree::ephemerals(view, context.session);
    context.try_reply(out, |writer, end| {
        let list = writer.begin_vector();
        let mut count = 0;
        while let Some(path) = paths.next_path() {
            if has_all || path.starts_with(&*prefix) {
                writer.string(path);
                count += 1;
            }
            if writer.position() > end {
                return Err(ErrorCode::MarshallingError);
            }
        }
        writer.end_vector(list, count);
        Ok(())
    })
}
