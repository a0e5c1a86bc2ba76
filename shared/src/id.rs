//! Identifiers: one newtype per noun, so that a session id can never stand where a machine id belongs.
//!
//! Ids are UUIDs, version 7 where we mint them (they sort by creation time). They are names, not
//! secrets: knowing one gives no right.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The 16 bytes as they travel in a frame header, in network order.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// Builds the id from the 16 bytes of a frame header.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The last 8 hexadecimal digits: enough to tell a person which one is meant.
            pub fn short(&self) -> String {
                let hex = self.0.simple().to_string();
                hex[24..].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

id!(
    /// A session: one supervised child process and its terminal, on one machine.
    SessionId
);
id!(
    /// A machine: one paired agent identity.
    MachineId
);
id!(
    /// A user account of a relay.
    UserId
);
id!(
    /// A question that waits for somebody's word.
    ApprovalId
);
id!(
    /// One grant of a file lock.
    LockId
);
id!(
    /// One attempt to pair a machine.
    PairingId
);

/// Who writes into a session: chosen at random by each viewer and kept over its reconnects.
///
/// Input is applied at most once per `(WriterId, sequence)`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
#[serde(transparent)]
pub struct WriterId(
    /// Serialised as text: JavaScript numbers hold only 53 bits.
    #[serde(with = "hex_u64")]
    pub u64,
);

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

mod hex_u64 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:016x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() || text.len() > 16 {
            return Err(D::Error::custom("a writer id is 1 to 16 hexadecimal digits"));
        }
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_through_bytes_text_and_json() {
        let id = SessionId(Uuid::from_u128(0x0191_e6a5_0000_7000_8000_0000_dead_beef));
        assert_eq!(SessionId::from_bytes(*id.as_bytes()), id);
        assert_eq!(id.to_string().parse::<SessionId>().unwrap(), id);
        assert_eq!(id.short(), "deadbeef");
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<SessionId>(&json).unwrap(), id);
    }

    #[test]
    fn writer_ids_travel_as_hexadecimal_text() {
        let json = serde_json::to_string(&WriterId(u64::MAX)).unwrap();
        assert_eq!(json, "\"ffffffffffffffff\"");
        assert_eq!(serde_json::from_str::<WriterId>("\"2a\"").unwrap(), WriterId(42));
        for bad in ["\"\"", "\"xyz\"", "\"10000000000000000\"", "42"] {
            assert!(serde_json::from_str::<WriterId>(bad).is_err(), "{bad}");
        }
    }
}
