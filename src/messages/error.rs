//! Error codes of the wire: one number for each thing that a caller can act on.
//!
//! Invariant: what a caller may do ([`ErrorCode::retry`]) and what the command line exits with
//! ([`ErrorCode::exit_code`]) are pure functions of the code. A number is never given a second meaning; an unknown
//! number (from a newer minor version) is read as [`ErrorCode::Failed`].

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a caller may do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Asking again gives the same answer.
    Never,
    /// The same machine, after a pause. Mutations keep their token.
    Same,
    /// Another machine (or the same after a fresh look at the cluster view).
    Elsewhere,
    /// The same machine, with a token that carries a fresh issue time: the request was *not* executed.
    FreshToken,
}

macro_rules! codes {
    ($( $(#[$doc:meta])* $name:ident = $number:literal, $text:literal, exit $exit:literal, $retry:ident; )*) => {
        /// Why a request was not done. Travels as `status` of the answer frame.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum ErrorCode { $( $(#[$doc])* $name = $number, )* }

        impl ErrorCode {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )* ];

            /// The code of a number; `None` for 0 (no error) and for numbers of newer versions.
            #[must_use]
            pub const fn from_u16(number: u16) -> Option<Self> {
                match number { $( $number => Some(Self::$name), )* _ => None }
            }

            /// As it is printed in JSON and in documents.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => $text, )* }
            }

            /// Exit code of the command line for it.
            #[must_use]
            pub const fn exit_code(self) -> u8 {
                match self { $( Self::$name => $exit, )* }
            }

            /// What a caller may do about it.
            #[must_use]
            pub const fn retry(self) -> Retry {
                match self { $( Self::$name => Retry::$retry, )* }
            }
        }
    };
}

codes! {
    /// Something else went wrong; the message says what.
    Failed = 1, "failed", exit 1, Never;
    /// The request makes no sense as it is (a bad option, a bad combination).
    Usage = 2, "usage", exit 2, Never;
    /// There is no such object, or it is deleted.
    NotFound = 3, "not_found", exit 3, Never;
    /// `if_opver` names another version than the current one.
    Precondition = 4, "precondition", exit 4, Never;
    /// What would be needed is not reachable; nothing was changed.
    Unavailable = 5, "unavailable", exit 5, Elsewhere;
    /// The budget of requests or bytes in flight is exhausted; nothing was changed.
    Busy = 6, "busy", exit 5, Same;
    /// The daemon (or the actor) is stopping and has not begun the request.
    Stopped = 7, "stopped", exit 5, Elsewhere;
    /// This machine does not hold what the request is about: look at the cluster view again.
    WrongNode = 8, "wrong_node", exit 5, Elsewhere;
    /// No room on the mount, or the reserve would be eaten. The old version is intact.
    NoSpace = 9, "no_space", exit 1, Elsewhere;
    /// The token is unknown and too old to be sure that it was never executed: NOT executed now (R2).
    UnknownToken = 10, "unknown_token", exit 1, FreshToken;
    /// The version asked for by `min_opver` is not here yet.
    Behind = 11, "behind", exit 5, Elsewhere;
    /// No key, or the wrong one, or the handshake was skipped.
    Unauthorized = 12, "unauthorized", exit 1, Never;
    /// The version of the protocol is not spoken here.
    Version = 13, "version", exit 1, Never;
    /// Longer than a limit.
    TooLarge = 14, "too_large", exit 2, Never;
    /// The mount is out of service (an IO error, a foreign label, a lost disk).
    Fenced = 15, "fenced", exit 5, Elsewhere;
    /// The stored bytes fail their check and no good copy was found.
    Damaged = 16, "damaged", exit 1, Elsewhere;
    /// The mutation may or may not have been done; ask again with the same token.
    UnknownOutcome = 17, "unknown_outcome", exit 5, Same;
    /// The frame or its head cannot be understood.
    BadRequest = 18, "bad_request", exit 1, Never;
    /// The object id is malformed, mistyped or of another format version.
    BadId = 19, "bad_id", exit 2, Never;
    /// The range does not lie in the object.
    BadRange = 20, "bad_range", exit 2, Never;
    /// There is no such group.
    UnknownGroup = 21, "unknown_group", exit 5, Never;
    /// The role of this connection may not call this.
    Forbidden = 22, "forbidden", exit 1, Never;
    /// No daemon of this kind serves this opcode, or no version known here does.
    UnknownOpcode = 23, "unknown_opcode", exit 1, Never;
    /// The storage takes no writes now (read-only or draining).
    ReadOnly = 24, "read_only", exit 5, Elsewhere;
    /// Bytes were damaged on the way (payload CRC); nothing was changed.
    Corrupted = 25, "corrupted", exit 1, Same;
    /// The caller gave up its own request.
    Cancelled = 26, "cancelled", exit 1, Never;
    /// Two machines claim the same place in the cluster; this one is refused.
    Refused = 27, "refused", exit 1, Never;
    /// This machine was removed from its syncgroup for good, and comes back as it was: it returns blank only.
    Forgotten = 28, "forgotten", exit 1, Never;
}

impl ErrorCode {
    /// The number that travels.
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        self as u16
    }

    /// The code of an answer that is an error: unknown numbers read as [`ErrorCode::Failed`].
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        Self::from_u16(status).unwrap_or(Self::Failed)
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(self.name())
        } else {
            serializer.serialize_u16(self.as_u16())
        }
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::of_status(u16::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_codes_share_a_number_or_a_name() {
        let mut names = std::collections::BTreeSet::new();
        for (at, code) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(usize::from(code.as_u16()), at + 1, "numbers count from 1 without a hole");
            assert_eq!(ErrorCode::from_u16(code.as_u16()), Some(*code));
            assert!(names.insert(code.name()));
            assert!((1..=5).contains(&code.exit_code()));
        }
        assert_eq!(ErrorCode::from_u16(0), None);
    }

    #[test]
    fn an_unknown_code_is_an_error_and_never_success() {
        assert_eq!(ErrorCode::of_status(60_000), ErrorCode::Failed);
    }
}
