//! A fact as the JSON of its row in the audit log.

use lockkeeper_core::Fact;

/// Writes it over what is in the buffer.
pub(super) fn write(fact: &Fact, buffer: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    buffer.clear();
    serde_json::to_writer(buffer, fact)
}
