//! The part of the protobuf encoding that OTLP's messages take: bytes and texts, messages within
//! messages, and numbers of both kinds (protobuf.dev, "Encoding").

/// How a field's value is written.
#[derive(Debug, Clone, Copy)]
enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Length = 2,
}

/// A message that is being written.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// The bytes of all fields.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// A field of type `bytes`.
    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.tag(field, WireType::Length);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// A field of type `string`.
    pub(super) fn text(&mut self, field: u32, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    /// A field that is a message, written by `write`.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// A field of an enumeration, or of type `int64`, in which what is below zero has ten bytes.
    pub(super) fn number(&mut self, field: u32, value: i64) {
        self.tag(field, WireType::Varint);
        self.varint(value.cast_unsigned());
    }

    /// A field of type `fixed64`.
    pub(super) fn fixed64(&mut self, field: u32, value: u64) {
        self.tag(field, WireType::Fixed64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn tag(&mut self, field: u32, wire_type: WireType) {
        self.varint(u64::from(field) << 3 | wire_type as u64);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of "Encoding".
    #[test]
    fn fields_are_written_as_described() {
        let written = |write: fn(&mut Message)| {
            let mut message = Message::default();
            write(&mut message);
            message.into_bytes()
        };
        assert_eq!(written(|m| m.number(1, 150)), [0x08, 0x96, 0x01]);
        assert_eq!(written(|m| m.text(2, "testing")), *b"\x12\x07testing");
        let inner = |m: &mut Message| m.message(3, |m| m.number(1, 150));
        assert_eq!(written(inner), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let negative = [0x08, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(written(|m| m.number(1, -2)), negative);
        assert_eq!(written(|m| m.fixed64(7, 1)), [0x39, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(written(|m| m.number(16, 0))[..2], [0x80, 0x01]);
    }
}
