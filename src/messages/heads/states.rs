//! Small enumerations in heads. They travel as one number; a number of a newer version is an error of the head
//! unless a meaning is given for it here.

use serde::{Deserialize, Serialize};

macro_rules! numbers {
    ($( $(#[$meta:meta])* pub enum $name:ident { $( $(#[$doc:meta])* $variant:ident = $number:literal $text:literal, )* } )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(into = "u8", try_from = "u8")]
        #[repr(u8)]
        pub enum $name { $( $(#[$doc])* $variant = $number, )* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            /// As it is printed.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $text, )* }
            }
        }

        impl From<$name> for u8 {
            fn from(value: $name) -> Self {
                value as Self
            }
        }

        impl TryFrom<u8> for $name {
            type Error = String;

            fn try_from(number: u8) -> Result<Self, Self::Error> {
                match number {
                    $( $number => Ok(Self::$variant), )*
                    other => Err(format!("{other} is no {}", stringify!($name))),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    )* };
}

numbers! {
    /// Who had a change on stable storage when it was acknowledged.
    pub enum Acks {
        /// This storage.
        Local = 0 "local",
        /// At least one mirror too.
        Mirror = 1 "mirror",
        /// Every configured member.
        All = 2 "all",
    }

    /// How an object is kept.
    pub enum ObjectKind {
        /// In a slot of a chunkfile.
        Chunk = 1 "chunk",
        /// In a file of its own.
        Single = 2 "single",
    }

    /// Whether an object is there.
    pub enum ObjectState {
        /// It is.
        Live = 1 "live",
        /// Deleted; undelete may still bring it back.
        Deleted = 2 "deleted",
    }
}

/// Room to grow that a put asks for. Travels as `[kind, value]`: `[1, percent]` or `[2, bytes]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "(u8, u64)", try_from = "(u8, u64)")]
pub enum Reserve {
    /// In percent of the length.
    Percent(u32),
    /// In bytes.
    Bytes(u64),
}

impl From<Reserve> for (u8, u64) {
    fn from(reserve: Reserve) -> Self {
        match reserve {
            Reserve::Percent(percent) => (1, percent.into()),
            Reserve::Bytes(bytes) => (2, bytes),
        }
    }
}

impl TryFrom<(u8, u64)> for Reserve {
    type Error = String;

    fn try_from((kind, value): (u8, u64)) -> Result<Self, Self::Error> {
        match (kind, u32::try_from(value)) {
            (1, Ok(percent)) => Ok(Self::Percent(percent)),
            (2, _) => Ok(Self::Bytes(value)),
            _ => Err(format!("[{kind}, {value}] is no reserve")),
        }
    }
}
