//! The numbers a lock table hands out, each in a type of its own.
//!
//! Sessions, tickets and tokens are *stamps*: the epoch of the reign in the high bits, a counter in
//! the low 32. A stamp therefore never repeats across crashes, as long as every take-over of a
//! project raises the epoch, and it stays below 2^53, so that JSON and JavaScript keep it whole.

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, Unexpected},
};
use std::fmt;

/// Which take-over of a project issued something. Goes up by one with each claim.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Epoch(u32);

impl Epoch {
    /// The largest epoch a stamp can carry below 2^53.
    pub const MAX: Epoch = Epoch((1 << 21) - 1);

    /// An epoch; values above [`Epoch::MAX`] are cut to it.
    pub fn new(number: u32) -> Epoch {
        Epoch(number.min(Epoch::MAX.0))
    }

    /// The epoch as a number.
    pub fn get(self) -> u32 {
        self.0
    }
}

macro_rules! stamp {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The largest one there can be.
            pub const MAX: $name = $name((1 << 53) - 1);

            /// Packs `epoch << 32 | n`.
            pub fn new(epoch: Epoch, n: u32) -> $name {
                $name((u64::from(epoch.0) << 32) | u64::from(n))
            }

            /// The number as it travels.
            pub fn get(self) -> u64 {
                self.0
            }

            /// Takes back a number that travelled.
            pub fn from_u64(raw: u64) -> $name {
                $name(raw)
            }

            /// The epoch that issued it.
            pub fn epoch(self) -> Epoch {
                Epoch::new((self.0 >> 32) as u32)
            }

            /// The counter within its epoch.
            pub fn counter(self) -> u32 {
                self.0 as u32
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        /// A number that no reign could have given is not read: nothing further in need be ready
        /// for it, and a database need not hold it.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let read = $name(u64::deserialize(deserializer)?);
                if read > $name::MAX {
                    let unexpected = Unexpected::Unsigned(read.0);
                    return Err(D::Error::invalid_value(unexpected, &"a number below 2^53"));
                }
                Ok(read)
            }
        }
    };
}

stamp! {
    /// One incarnation of an agent: the unit of ownership and of liveness.
    SessionId
}
stamp! {
    /// A place in the order of arrival. Every request for a lock gets one, also when it is granted
    /// at once; the first one of an agent's run of work is its *birth*.
    TicketId
}
stamp! {
    /// A fencing token: larger than the token of any earlier conflicting grant.
    Token
}

/// The identity of a hold: a UUIDv7, so that it sorts by time in a database.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LockId {
    // Two halves rather than one u128, whose alignment would pad everything that holds an id.
    high: u64,
    low: u64,
}

impl LockId {
    /// Builds a UUIDv7 from the time, a serial number that is unique within one reign, and 42 bits
    /// that the owner of the reign drew at random.
    pub(crate) fn mint(millis: u64, serial: u32, seed: u64) -> LockId {
        let time = u128::from(millis & 0xffff_ffff_ffff) << 80;
        let high = u128::from(serial >> 20) << 64;
        let low = u128::from(serial & 0xf_ffff) << 42;
        let version = 0x7u128 << 76;
        let variant = 0b10u128 << 62;
        LockId::from_u128(
            time | version | high | variant | low | u128::from(seed & 0x3ff_ffff_ffff),
        )
    }

    /// The serial number, if this seed minted it.
    pub(crate) fn serial(self, seed: u64) -> Option<u32> {
        let ours = self.low & 0x3ff_ffff_ffff == seed & 0x3ff_ffff_ffff;
        let high = (self.high & 0xfff) as u32;
        let low = ((self.low >> 42) & 0xf_ffff) as u32;
        ours.then_some(high << 20 | low)
    }

    /// The id as a number.
    pub fn as_u128(self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }

    /// As it is written. Every grant and every release says one, so it is written by hand.
    fn text(self) -> [u8; 36] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'-'; 36];
        let mut at = 0;
        for (nth, byte) in self.as_u128().to_be_bytes().into_iter().enumerate() {
            at += usize::from(matches!(nth, 4 | 6 | 8 | 10));
            text[at] = DIGITS[usize::from(byte >> 4)];
            text[at + 1] = DIGITS[usize::from(byte & 15)];
            at += 2;
        }
        text
    }

    /// Takes back an id that travelled as a number.
    pub fn from_u128(raw: u128) -> LockId {
        LockId { high: (raw >> 64) as u64, low: raw as u64 }
    }
}

impl fmt::Display for LockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.text()).map_err(|_| fmt::Error)?)
    }
}

impl std::str::FromStr for LockId {
    type Err = NotALockId;

    fn from_str(text: &str) -> Result<LockId, NotALockId> {
        if text.len() != 36 {
            return Err(NotALockId);
        }
        let (mut high, mut low) = (0, 0);
        for (at, byte) in text.bytes().enumerate() {
            if let 8 | 13 | 18 | 23 = at {
                if byte != b'-' {
                    return Err(NotALockId);
                }
                continue;
            }
            let digit = char::from(byte).to_digit(16).ok_or(NotALockId)?;
            high = high << 4 | low >> 60;
            low = low << 4 | u64::from(digit);
        }
        Ok(LockId { high, low })
    }
}

/// The text is not a lock id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotALockId;

impl fmt::Display for NotALockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not a lock id: expected 36 characters like 0190b5a2-7c1e-7d3a-8f00-1234567890ab",
        )
    }
}

impl std::error::Error for NotALockId {}

impl Serialize for LockId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.text();
        serializer.serialize_str(str::from_utf8(&text).map_err(serde::ser::Error::custom)?)
    }
}

/// Text that is borrowed where it can be; a `Cow` by itself never is.
#[derive(Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) std::borrow::Cow<'a, str>);

impl<'de> Deserialize<'de> for LockId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<LockId, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A number the client chose for a request; asking again with it changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId {
    high: u64,
    low: u64,
}

impl RequestId {
    /// From a number, best a random one.
    pub fn new(number: u128) -> RequestId {
        RequestId { high: (number >> 64) as u64, low: number as u64 }
    }

    /// The number.
    pub fn get(self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.get())
    }
}

/// As hexadecimal text: few formats carry a number of 128 bits whole.
impl Serialize for RequestId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<RequestId, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(RequestId::new).map_err(serde::de::Error::custom)
    }
}

/// The serial number of a command in the life of one table: where its reply belongs.
///
/// It is routing, not a fact: it is in no record and means nothing after a restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_stays_below_two_to_the_fifty_third() {
        let last = Token::new(Epoch::MAX, u32::MAX);
        assert_eq!(last.get(), (1 << 53) - 1);
        assert_eq!(last.epoch(), Epoch::MAX);
        assert_eq!(last.counter(), u32::MAX);
    }

    #[test]
    fn a_number_that_is_no_stamp_is_not_read() {
        use serde::de::{IntoDeserializer, value};
        let read = |number: u64| {
            let number: value::U64Deserializer<value::Error> = number.into_deserializer();
            TicketId::deserialize(number)
        };
        assert_eq!(read((1 << 53) - 1), Ok(TicketId::MAX));
        for number in [1 << 53, 1 << 63, u64::MAX] {
            let refused = read(number).unwrap_err().to_string();
            assert!(refused.contains("below 2^53"), "{refused}");
        }
    }

    #[test]
    fn a_newer_epoch_outranks_every_older_counter() {
        assert!(Token::new(Epoch::new(2), 1) > Token::new(Epoch::new(1), u32::MAX));
    }

    #[test]
    fn a_lock_id_is_a_uuid_of_version_seven_and_survives_text() {
        let id = LockId::mint(0x0190_b5a2_7c1e, 0xffff_ffff, u64::MAX);
        let text = id.to_string();
        assert_eq!(&text[..15], "0190b5a2-7c1e-7");
        assert!(matches!(text.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        assert_eq!(text.parse(), Ok(id));
        assert_eq!("not-a-lock-id".parse::<LockId>(), Err(NotALockId));
    }

    #[test]
    fn a_lock_id_is_written_and_read_digit_by_digit() {
        let id = LockId::from_u128(0x0190_b5a2_7c1e_7d3a_8f00_1234_5678_90ab);
        let text = "0190b5a2-7c1e-7d3a-8f00-1234567890ab";
        assert_eq!(id.to_string(), text);
        assert_eq!((text.parse(), text.to_uppercase().parse()), (Ok(id), Ok(id)));
        for at in 0..text.len() {
            let mut wrong = text.to_owned();
            wrong.replace_range(at..=at, "x");
            assert_eq!(wrong.parse::<LockId>(), Err(NotALockId), "{wrong}");
            wrong.replace_range(at..=at, "");
            assert_eq!(wrong.parse::<LockId>(), Err(NotALockId), "{wrong}");
        }
        assert_eq!(text.replace('-', "0").parse::<LockId>(), Err(NotALockId));
        assert_eq!(
            LockId::from_u128(u128::MAX).to_string().parse(),
            Ok(LockId::from_u128(u128::MAX))
        );
    }

    #[test]
    fn lock_ids_of_one_reign_differ_and_sort_by_serial() {
        let mut last = LockId::mint(7, 0, 42);
        for serial in (1..5_000).chain([1 << 20, (1 << 20) + 1, u32::MAX]) {
            let id = LockId::mint(7, serial, 42);
            assert!(id > last);
            assert_eq!((id.serial(42), id.serial(41)), (Some(serial), None));
            last = id;
        }
    }
}
